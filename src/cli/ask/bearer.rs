//! Asks the files what somebody may do whose token was handed over: the issuers that they name verify it.
//!
//! Decides how long that may take. Invariant: it is verified as the gateway would, with what a running one has taken back;
//! where that cannot be had, it is said.

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cli::doctor::running::{self, Standing};
use crate::cli::doctor::token::revocations;
use crate::cli::files::Understood;
use crate::cli::output::{QUIET, complain};
use crate::gateway::ask::Question;
use crate::identity::Identity;
use crate::limit;
use crate::policy::Explanation;

/// The answer of the files.
///
/// # Errors
/// A lower-case sentence: why there is none.
pub async fn explain(question: &Question, understood: &Understood) -> Result<Explanation, String> {
    let config = understood.config();
    let standing = running::ask(&config.gateway.state).await;
    let untold = match &standing {
        Standing::Runs(running) => running.revocations.as_ref().err().cloned(),
        Standing::Not => Some("no gateway runs with these files".to_owned()),
        Standing::Unasked(problem) => Some(problem.clone()),
    };
    if let Some(problem) = untold {
        complain(format_args!("{QUIET}what was taken back is not looked at: {problem}{QUIET:#}\n"));
    }
    let stop = CancellationToken::new();
    let identity = Identity::new(config, revocations(standing.running()), TaskTracker::new(), stop.clone());
    let looked = tokio::time::timeout(limit::DOCTOR_CHECK_TIMEOUT, question.bearer(&identity, config)).await;
    stop.cancel();
    let looked = looked.map_err(|_| "the issuer of the token did not answer in time".to_owned())?;
    let bearer = looked.map_err(|stop| format!("whose token it is cannot be said: {stop}"))?;
    question.answer((config, &understood.policy), bearer.as_ref(), jiff::Timestamp::now())
}

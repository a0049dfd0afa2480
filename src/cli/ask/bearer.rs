//! Asks the files what somebody may do whose token was handed over: the issuers that they name verify it.
//!
//! Decides how long that may take. Invariant: it is verified as the gateway would, with what a running one has taken back
//! and stopped; where that cannot be had, or is not all that counts there, it is said.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cli::doctor::running::{self, Standing};
use crate::cli::doctor::token::revocations;
use crate::cli::files::Understood;
use crate::cli::output::{QUIET, complain};
use crate::gateway::ask::Question;
use crate::gateway::barred;
use crate::identity::{Bearer, Identity};
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
        Standing::Runs(running) => running.untold(),
        Standing::Not => Some("no gateway runs with these files".to_owned()),
        Standing::Unasked(problem) => Some(problem.clone()),
    };
    if let Some(problem) = untold {
        complain(format_args!("{QUIET}what was taken back or stopped is not looked at: {problem}{QUIET:#}\n"));
    }
    let running = standing.running();
    if running.is_some_and(|running| running.reviews) {
        complain(format_args!(
            "{QUIET}grants that a review has ended are not looked at; with --admin they are{QUIET:#}\n"
        ));
    }
    let stop = CancellationToken::new();
    let taken_back = revocations(running);
    let left = barred::without(&Arc::new(config.clone()), &taken_back.barred());
    let identity = Identity::new(&left, taken_back, TaskTracker::new(), stop.clone());
    let looked = tokio::time::timeout(limit::DOCTOR_CHECK_TIMEOUT, question.bearer(&identity, &left)).await;
    stop.cancel();
    let looked = looked.map_err(|_| "the issuer of the token did not answer in time".to_owned())?;
    let bearer = looked.map_err(|stop| format!("whose token it is cannot be said: {stop}"))?;
    let usable = |bearer: Bearer| running.map_or(Ok(()), |running| running.lets(&bearer.persona)).map(|()| bearer);
    let bearer = bearer.map(|looked| looked.and_then(usable));
    question.answer((&left, &understood.policy), bearer.as_ref(), jiff::Timestamp::now())
}

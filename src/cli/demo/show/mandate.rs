//! An agent on its own: it opens a mandate, works under it, and stops in the middle of a call when somebody ends it.
//!
//! Decides nothing: whoever is at the machine ends it, as `bailiwick revoke` does. Invariant: it is ended while the call
//! is under way, which the journal says.

use std::path::Path;
use std::time::{Duration, Instant};

use http::Method;
use serde_json::Value;

use super::{Answer, Show, asked, because, does, row};
use crate::cli::demo::stage::SOFTWARE;
use crate::cli::demo::tail::{Told, says};
use crate::cli::output::{BAD, GOOD};
use crate::cli::stdio::client::{Client, text};
use crate::control::routes::API;
use crate::control::{RevocationOrder, Revoked, client};
use crate::demo::upstreams::Backstage;
use crate::limit;

const OPEN: (&str, &str) = ("bailiwick__mandate_open", r#"{"template":"release","purpose":"release 302 of website"}"#);
const LOOK: (&str, &str) = ("deploy__status", r#"{"service":"website"}"#);
const ROLL_OUT: (&str, &str) = ("deploy__rollout", r#"{"service":"website","replicas":4,"region":"us-east"}"#);
/// The sample takes so much longer for each step, so that there is something to stop.
const LONGER: Duration = Duration::from_millis(500);

/// Shows it.
pub(super) async fn act(show: &mut Show<'_>) -> Result<(), String> {
    show.heading("an agent on its own: a task that somebody ends while it runs");
    let bot = show.stage.software(SOFTWARE)?;
    let answer = show.call("bot", &bot, LOOK, None).await?;
    let needs =
        because(answer.reason() == Some("mandate_required"), "software that acts on its own needs a task for it");
    show.call_line(LOOK.0).await;
    if !needs {
        return Ok(());
    }
    show.tail.skip();
    does("bot", &format!("{} {}", OPEN.0, OPEN.1));
    let opened = asked(&bot, OPEN.0, OPEN.1, None).await?;
    row("answer", if opened.refusal.is_none() { GOOD } else { BAD }, &told(&opened));
    let names = opened.fact("id").zip(opened.fact("handle")).map(|(id, handle)| (id.to_owned(), handle.to_owned()));
    because(names.is_some(), "policy.csv lets the bot open this task; it narrows what the rules allow, and ends");
    let Some((id, handle)) = names else {
        show.call_line(OPEN.0).await;
        return Ok(());
    };
    show.proof(|record| says(record, "/mandate/event", "opened")).await;
    let looked = show.call("bot", &bot, LOOK, Some(&handle)).await?;
    because(looked.refusal.is_none(), "the task has this tool, and so do the bot's rules");
    show.call_line(LOOK.0).await;
    ended(show, &bot, &id, &handle).await
}

/// Ends the mandate while a call is under way.
async fn ended(show: &mut Show<'_>, bot: &Client, id: &str, handle: &str) -> Result<(), String> {
    let given_up = show.stage.backstage().map_or(0, Backstage::given_up);
    if let Some(backstage) = show.stage.backstage() {
        backstage.take_longer(LONGER);
    }
    show.tail.skip();
    does("bot", &format!("{} {}", ROLL_OUT.0, ROLL_OUT.1));
    let rolling = asked(bot, ROLL_OUT.0, ROLL_OUT.1, Some(handle));
    let revoking = async {
        let runs = |told: &Told| says(&told.record, "/type", "intent") && says(&told.record, "/mcp/name", "rollout");
        let runs = show.tail.find(runs).await.is_some();
        if runs {
            does("you", &format!("bailiwick revoke mandate {id}   (while it runs)"));
        }
        (runs, revoke(show.stage.state(), id).await)
    };
    let (answer, (ran, revoked)) = tokio::join!(rolling, revoking);
    if let Some(backstage) = show.stage.backstage() {
        backstage.take_longer(Duration::ZERO);
    }
    let (answer, revoked) = (answer?, revoked?);
    row("answer", GOOD, &format!("revoked; it holds from epoch {} on", revoked.epoch.0));
    show.proof(|record| record["type"] == "revocation").await;
    does("bot", "is answered at last");
    row("answer", if answer.refusal.is_some() { BAD } else { GOOD }, &told(&answer));
    let cut = ran && answer.reason() == Some("mandate_ended");
    let stopped = cut && gave_up(show, given_up).await;
    let why = if stopped {
        "the call was cut off, and the server was told: it gave the rollout up half way"
    } else {
        "the call was cut off; what the server does about that is the server's affair"
    };
    because(cut, why);
    show.call_line(ROLL_OUT.0).await;
    let next = show.call("bot", bot, LOOK, Some(handle)).await?;
    because(next.reason() == Some("mandate_ended"), "the handle is good for nothing any more");
    show.call_line(LOOK.0).await;
    Ok(())
}

/// Whether the server gives a rollout up soon: it is told so while the answer is on its way.
async fn gave_up(show: &Show<'_>, before: usize) -> bool {
    let Some(backstage) = show.stage.backstage() else { return false };
    let deadline = Instant::now() + limit::DEMO_LINE_TIMEOUT;
    while backstage.given_up() == before && Instant::now() < deadline {
        tokio::time::sleep(limit::DEMO_LINE_POLL).await;
    }
    backstage.given_up() > before
}

/// Takes it back at the control socket, as the command line does.
async fn revoke(state: &Path, id: &str) -> Result<Revoked, String> {
    let order = RevocationOrder {
        target: "mandate".to_owned(),
        issuer: String::new(),
        value: id.to_owned(),
        sign_out: false,
        note: "the demo ends it".to_owned(),
    };
    let answer = client::request(state, Method::POST, &format!("{API}/revoke"), Some(&order)).await;
    answer.and_then(|answer| answer.read()).map_err(|error| error.to_string())
}

/// What was answered; a handle is for whoever opened it, and not for a screen.
fn told(answer: &Answer) -> String {
    match (&answer.refusal, answer.fact("id"), answer.fact("expires_at")) {
        (Some(refusal), ..) => refusal.clone(),
        (None, Some(id), Some(until)) => {
            let until = until.parse().map(|until| jiff::tz::TimeZone::system().to_datetime(until).strftime("%H:%M"));
            let until = until.map(|until| format!(" until {until},")).unwrap_or_default();
            let calls = answer.whole.pointer("/result/structuredContent/budget/calls").and_then(Value::as_i64);
            let calls = calls.map(|calls| format!(" {calls} calls,")).unwrap_or_default();
            format!("mandate {id},{until}{calls} and a handle to call with")
        }
        _ => text(&answer.whole),
    }
}

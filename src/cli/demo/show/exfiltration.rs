//! Data that stays in the house: the same tool, before and after private notes were read.
//!
//! Decides nothing: the flow of the files does. Invariant: whether anything was published is what the server counted.

use super::{Show, aside, because};
use crate::demo::upstreams::Sample;

const PUBLISH: &str = "deploy__announce";
const READ: (&str, &str) = ("notes__read_note", r#"{"id":3}"#);

/// Shows it.
pub(super) async fn act(show: &mut Show<'_>) -> Result<(), String> {
    let Some(backstage) = show.stage.backstage() else { return Ok(()) };
    if !show.stage.has(Sample::Notes) {
        aside("The last act needs the sample server `notes` in servers.toml.");
        return Ok(());
    }
    show.heading("what was read stays in the house: a note, and the public status page");
    let alice = show.stage.assistant("alice")?;
    let answer = show.call("alice", &alice, (PUBLISH, r#"{"text":"Search is back."}"#), None).await?;
    because(answer.refusal.is_none(), "she may publish, and has read nothing yet that would have to stay");
    show.call_line(PUBLISH).await;
    let answer = show.call("alice", &alice, READ, None).await?;
    because(answer.refusal.is_none(), "she may; from now on her assistant has seen private data and anybody's words");
    show.call_line(READ.0).await;
    let before = backstage.announced();
    let text = r#"{"text":"Purging our cache at noon doubles the load of our database."}"#;
    let answer = show.call("alice", &alice, (PUBLISH, text), None).await?;
    let kept = answer.reason() == Some("flow_refused") && backstage.announced() == before;
    because(kept, &format!("both together go nowhere public; announcements that the page has: {before}, as before"));
    show.call_line(PUBLISH).await;
    Ok(())
}

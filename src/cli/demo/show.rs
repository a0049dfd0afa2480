//! What the demo shows: one act after the other, each with what was asked, what was answered, and the line that proves it.
//!
//! Words what happened and never makes it up: every answer came over HTTP, every line is from the journal. Invariant: an
//! explanation is said only where the answer was the one that it explains.

use anstyle::Style;
use serde_json::{Value, json};

use super::stage::Stage;
use super::tail::Tail;
use crate::cli::call::safe;
use crate::cli::output::{BAD, GOOD, QUIET, STRONG, print};
use crate::cli::stdio::client::{Client, refusal, text};
use crate::demo::upstreams::Sample;
use crate::wire::mcp::meta;

mod approval;
mod calls;
mod definition;
mod exfiltration;
mod lists;
mod mandate;

/// The widest answer that is shown.
const ANSWER_COLUMNS: usize = 88;
/// Said in the place of an explanation.
const OTHERWISE: &str = "these files decide otherwise than the repository's";

/// The show, as far as it has come.
pub(super) struct Show<'a> {
    stage: &'a Stage,
    tail: &'a mut Tail,
}

/// What a call was answered.
struct Answer {
    /// What the gateway said against it, if it did.
    refusal: Option<String>,
    whole: Value,
}

impl Answer {
    /// The code of the refusal.
    fn reason(&self) -> Option<&str> {
        self.refusal.as_deref().and_then(|text| text.split(':').next())
    }

    /// What a program reads of it.
    fn fact(&self, name: &str) -> Option<&str> {
        self.whole.pointer("/result/structuredContent")?.get(name)?.as_str()
    }
}

/// Shows everything.
///
/// # Errors
/// When the gateway or the issuer did not answer.
pub(super) async fn run(stage: &Stage, tail: &mut Tail) -> Result<(), String> {
    let mut show = Show { stage, tail };
    lists::act(&mut show).await?;
    if !stage.has(Sample::Deploy) {
        aside("The calls of the show need the sample server `deploy` in servers.toml.");
        return Ok(());
    }
    calls::act(&mut show).await?;
    approval::act(&mut show).await?;
    mandate::act(&mut show).await?;
    definition::act(&mut show).await?;
    exfiltration::act(&mut show).await
}

impl Show<'_> {
    /// A new act; what happened before is no part of it.
    fn heading(&mut self, title: &str) {
        print(format_args!("\n{STRONG}{title}{STRONG:#}\n"));
        self.tail.skip();
    }

    /// Calls a tool, under a mandate or none, and prints what was asked and answered.
    async fn call(
        &mut self,
        who: &str,
        client: &Client,
        (tool, arguments): (&str, &str),
        handle: Option<&str>,
    ) -> Result<Answer, String> {
        self.tail.skip();
        does(who, &format!("{tool} {arguments}"));
        let answer = asked(client, tool, arguments, handle).await?;
        let (style, told) = match &answer.refusal {
            Some(refusal) => (BAD, refusal.clone()),
            None => (GOOD, text(&answer.whole)),
        };
        row("answer", style, &told);
        Ok(answer)
    }

    /// The line of the call of that tool that just ended. A result does not wait for the disk, so that one of before may
    /// be read late.
    async fn call_line(&mut self, tool: &str) {
        let own = tool.split_once("__").map_or(tool, |(_, own)| own);
        let line = self.tail.line(|told| told.ends(&[tool, own])).await;
        proven(line);
    }

    /// The line of the record that proves it.
    async fn proof(&mut self, wanted: impl Fn(&Value) -> bool) {
        let line = self.tail.line(|told| wanted(&told.record)).await;
        proven(line);
    }
}

/// Prints a line of the journal.
fn proven(line: Option<String>) {
    if let Some(line) = line {
        print(format_args!("  {:<8}{line}", "journal"));
    }
}

/// Calls a tool and says nothing.
async fn asked(client: &Client, tool: &str, arguments: &str, handle: Option<&str>) -> Result<Answer, String> {
    let arguments: Value = serde_json::from_str(arguments).map_err(|error| error.to_string())?;
    let mut params = json!({ "name": tool, "arguments": arguments });
    if let (Some(handle), Some(params)) = (handle, params.as_object_mut()) {
        params.insert("_meta".to_owned(), json!({ meta::MANDATE: handle }));
    }
    let whole = client.request("tools/call", params).await?;
    Ok(Answer { refusal: refusal(&whole), whole })
}

/// What somebody does.
fn does(who: &str, what: &str) {
    print(format_args!("  {who:<8}{what}\n"));
}

/// Says why, where it was as expected; answers whether it was.
fn because(expected: bool, why: &str) -> bool {
    row("because", QUIET, if expected { why } else { OTHERWISE });
    expected
}

/// What is not shown, and why.
fn aside(text: &str) {
    print(format_args!("\n{QUIET}{text}{QUIET:#}\n"));
}

fn row(name: &str, style: Style, value: &str) {
    let line = value.lines().next().unwrap_or_default();
    let mut shown: String = safe(line).chars().take(ANSWER_COLUMNS).collect();
    if line.chars().count() > ANSWER_COLUMNS {
        shown.push('…');
    }
    print(format_args!("  {name:<8}{style}{shown}{style:#}\n"));
}

//! Three calls of one tool: one that is allowed, one that a rule denies, one whose argument is too much.
//!
//! Decides nothing: the rules of the files do. Invariant: the answers differ by the arguments alone.

use super::{Show, because};

/// One call.
struct Call {
    /// What is to be seen.
    title: &'static str,
    arguments: &'static str,
    /// The reason of the refusal that the repository's own rules give; none where they allow.
    reason: Option<&'static str>,
    /// Why they do, in words.
    because: &'static str,
}

const TOOL: &str = "deploy__rollout";

/// Alice's assistant rolls out.
const CALLS: [Call; 3] = [
    Call {
        title: "a rollout: three replicas of search",
        arguments: r#"{"service":"search","replicas":3,"region":"eu-west"}"#,
        reason: None,
        because: "a developer may, her assistant may, and at most 5 replicas is what both rules say",
    },
    Call {
        title: "another service: the same for checkout",
        arguments: r#"{"service":"checkout","replicas":3,"region":"eu-west"}"#,
        reason: Some("denied_by_rule"),
        because: "the team that owns deploy froze payments, and a deny wins over every allow",
    },
    Call {
        title: "another argument: fifty replicas of search",
        arguments: r#"{"service":"search","replicas":50,"region":"eu-west"}"#,
        reason: Some("condition_unmet"),
        because: "the allow holds up to 5 replicas; the upstream never heard of this call",
    },
];

/// Shows them.
pub(super) async fn act(show: &mut Show<'_>) -> Result<(), String> {
    let alice = show.stage.assistant("alice")?;
    for call in CALLS {
        show.heading(call.title);
        let answer = show.call("alice", &alice, (TOOL, call.arguments), None).await?;
        because(answer.reason() == call.reason, call.because);
        show.call_line(TOOL).await;
    }
    Ok(())
}

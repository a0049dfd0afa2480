//! What an approval is good for: one digest over everything that somebody looked at.
//!
//! Decides what that is. Invariant: two calls have the same binding only where caller, chain, mandate, primitive,
//! definition, arguments, environment and gates are the same.

use super::canonical::{Canonical, canonical};
use crate::catalog::Target;
use crate::ids::Digest;
use crate::outcome::{Reason, Refusal};
use crate::policy::Permit;
use crate::wire::Json;

const DOMAIN: &str = "bailiwick/approval/v1";
const SHOWN: &str = "bailiwick/approval-shown/v1";

/// The binding of a permitted call.
///
/// # Errors
/// `arguments_unfit`: not everybody reads its numbers alike.
pub fn binding(permit: &Permit, mandate: Option<&str>, arguments: Option<&Json>) -> Result<Digest, Refusal> {
    let canonical = match arguments {
        None => Canonical::default(),
        Some(arguments) => canonical(arguments.value()).map_err(|number| {
            let hint = format!("the number {number} is not exact everywhere: send it as a text, or with fewer digits");
            Refusal::new(Reason::ArgumentsUnfit).hint(hint)
        })?,
    };
    let (caller, target) = (permit.caller(), permit.target());
    let persona = caller.persona();
    let chain: Vec<&str> = persona.chain.iter().map(|agent| agent.id.as_str()).collect();
    let gates: Vec<&str> = permit.gates().iter().map(|gate| gate.name.as_str()).collect();
    let (chain, gates) = (Json::of(&chain), Json::of(&gates));
    let action = target.action().to_string();
    let definition = target.definition().map(|definition| definition.digest.to_string()).unwrap_or_default();
    let mut parts = vec![
        caller.principal().0.to_string(),
        persona.issuer.as_str().to_owned(),
        persona.user.as_ref().map(ToString::to_string).unwrap_or_default(),
        persona.agent.as_ref().map(|agent| agent.id.to_string()).unwrap_or_default(),
        chain.as_str().to_owned(),
        mandate.unwrap_or_default().to_owned(),
        target.server_id().to_string(),
        action,
        target.name().to_owned(),
        definition,
        target.environment().to_string(),
        gates.as_str().to_owned(),
        if arguments.is_some() { "arguments" } else { "" }.to_owned(),
        canonical.text,
        canonical.spelled,
    ];
    // Whoever approves was told after what it goes out.
    if permit.flows_from().is_any() {
        parts.push(permit.flows_from().to_string());
    }
    let parts: Vec<&[u8]> = parts.iter().map(String::as_bytes).collect();
    Ok(Digest::of(DOMAIN, &parts))
}

/// The digest of what an approver is shown of a call, which goes back with their yes.
pub fn of_shown(target: &Target, action: &str, preview: &str) -> Digest {
    let (server, environment) = (target.server_id().as_str(), target.environment().as_str());
    let parts = [server, action, target.name(), environment, preview];
    Digest::of(SHOWN, &parts.map(str::as_bytes))
}

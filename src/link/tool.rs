//! The one tool of a server that a caller has not linked their account at: it links it.
//!
//! A server that lists nothing without an account would otherwise have nothing to call, and so nobody would ever be
//! asked. Decides what that tool looks like. Invariant: it is the gateway's own and never reaches an upstream, whatever
//! an upstream calls its own tools.

use serde_json::json;

use crate::catalog::Target;
use crate::ids::Action;
use crate::wire::Json;

/// Its name.
pub const NAME: &str = "link_account";

/// Its definition.
#[must_use]
pub fn definition() -> Json {
    Json::of(&json!({
        "name": NAME,
        "title": "Link your account",
        "description": "Links the user's own account at this service, so that its other tools can be used. The user \
                        opens a page of the gateway in a browser for that; list the tools again afterwards.",
        "inputSchema": { "type": "object" },
        "annotations": { "readOnlyHint": false, "destructiveHint": false, "openWorldHint": true },
    }))
}

/// What it answers once the account is there.
#[must_use]
pub fn done() -> Json {
    let text = "Your account is linked. List the tools of this server again: they can be used now.";
    Json::of(&json!({ "resultType": "complete", "content": [{ "type": "text", "text": text }] }))
}

/// Whether a call means it.
#[must_use]
pub fn is(target: &Target) -> bool {
    let own = || target.definition().is_some_and(|listed| listed.raw.as_str() == definition().as_str());
    *target.action() == Action::Call && target.name() == NAME && target.server().has_accounts() && own()
}

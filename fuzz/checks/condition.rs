//! No condition and no arguments make deciding panic, and what an allow takes for true no deny takes for false.
//!
//! The text before the first NUL is `conditions.toml`, what follows are the arguments.

use bailiwick::identity::{Behind, ClientProof, Groups, Persona};
use bailiwick::ids::{IssuerAlias, Subject};
use bailiwick::policy::{Arguments, condition};

/// Panics where something that must hold does not.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (file, arguments) = text.split_once('\0').unwrap_or((text, "{}"));
    let Ok(conditions) = condition::read(file) else { return };
    let Ok(issuer) = IssuerAlias::new("corp") else { return };
    let persona = Persona {
        user: Some(Subject::user(&issuer, "ann")),
        groups: Groups::Known(Vec::new()),
        agent: None,
        chain: Vec::new(),
        default_roles: Vec::new(),
        scopes: Vec::new(),
        client: None,
        client_proof: ClientProof::Secret,
        authenticated_at: Some(1_700_000_000),
        acr: Some("mfa".to_owned()),
        behind: Behind::Person,
        issuer,
    };
    for condition in &conditions {
        assert!(!condition.to_string().is_empty(), "every condition reads as a sentence");
        for arguments in [Arguments::Json(arguments), Arguments::None, Arguments::Unknown] {
            for now in [jiff::Timestamp::UNIX_EPOCH, jiff::Timestamp::MAX, jiff::Timestamp::MIN] {
                let (as_allow, as_deny) = condition.values(&persona, arguments, now);
                assert!(as_allow <= as_deny, "{condition}: {as_allow} as an allow, {as_deny} as a deny");
            }
        }
    }
}

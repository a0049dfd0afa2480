//! Whether software got a token for itself (client credentials), so that no person stands behind it.
//!
//! Decides by the signs that the issuer's entry says this issuer uses. Refuses to know what follows. Invariant: what a
//! person may have chosen, such as a user name, never makes software of them, and a sign that is not this issuer's makes
//! nobody a person either.

use super::token::Claims;
use crate::config::{IssuerConfig, OwnSign};

/// Whether software got a token for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Own {
    /// It did: its issuer says so.
    Yes,
    /// Something says so that this issuer is not known to mean: it is neither a person's nor software's own.
    Perhaps,
    /// It is somebody's.
    No,
}

impl Own {
    /// What the token's issuer says.
    pub fn told(issuer: &IssuerConfig, subject: &str, client: Option<&str>, claims: &Claims<'_>) -> Self {
        if issuer.own_tokens.iter().any(|sign| shows(*sign, subject, client, claims)) {
            Self::Yes
        } else if OwnSign::ALL.iter().any(|sign| hints(*sign, subject, client, claims)) {
            Self::Perhaps
        } else {
            Self::No
        }
    }

    /// Whether it is certain.
    pub fn is_certain(self) -> bool {
        self == Self::Yes
    }
}

/// Whether the token has that sign of the issuers that use it.
fn shows(sign: OwnSign, subject: &str, client: Option<&str>, claims: &Claims<'_>) -> bool {
    match sign {
        // People choose their names there; these two are written for nobody but software (client scope `service_account`).
        OwnSign::Keycloak => {
            hints(sign, subject, client, claims) && (claims.has("clientHost") || claims.has("clientAddress"))
        }
        _ => hints(sign, subject, client, claims),
    }
}

/// Whether it looks like that sign.
fn hints(sign: OwnSign, subject: &str, client: Option<&str>, claims: &Claims<'_>) -> bool {
    let text = |name: &str| claims.text(name).ok().flatten();
    match sign {
        // RFC 9068, section 2.2.
        OwnSign::Subject => client == Some(subject),
        OwnSign::Auth0 => {
            let named = client.is_some() && subject.strip_suffix("@clients") == client;
            named || matches!(text("gty").as_deref(), Some("client-credentials" | "client_credentials"))
        }
        OwnSign::Entra => text("idtyp").as_deref() == Some("app"),
        OwnSign::Keycloak => client.is_some_and(|client| {
            let name = text("preferred_username");
            let own = name.as_deref().and_then(|name| name.strip_prefix("service-account-"));
            own.is_some_and(|name| name.eq_ignore_ascii_case(client))
        }),
        // A workload, registered or not, is nobody's assistant.
        OwnSign::Kubernetes => claims.has("kubernetes.io"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::fixture::issuer_config;

    fn told(signs: &[OwnSign], subject: &str, claims: &str) -> Own {
        let issuer = IssuerConfig { own_tokens: signs.to_vec(), ..issuer_config() };
        Own::told(&issuer, subject, Some("bot"), &serde_json::from_str(claims).unwrap())
    }

    #[test]
    fn a_sign_counts_where_the_entry_names_it_and_is_doubt_elsewhere() {
        for (sign, subject, claims) in [
            (OwnSign::Subject, "bot", "{}"),
            (OwnSign::Auth0, "bot@clients", "{}"),
            (OwnSign::Auth0, "x", r#"{"gty":"client-credentials"}"#),
            (OwnSign::Entra, "x", r#"{"idtyp":"app"}"#),
            (OwnSign::Keycloak, "x", r#"{"preferred_username":"service-account-Bot","clientHost":"10.0.0.1"}"#),
            (OwnSign::Kubernetes, "x", r#"{"kubernetes.io":{}}"#),
        ] {
            assert_eq!(told(&[sign], subject, claims), Own::Yes, "{sign:?}");
            let others: Vec<OwnSign> = OwnSign::ALL.iter().copied().filter(|other| *other != sign).collect();
            assert_eq!(told(&others, subject, claims), Own::Perhaps, "{sign:?}");
        }
        for claims in ["{}", r#"{"preferred_username":"alice","clientHost":"10.0.0.1"}"#, r#"{"idtyp":"user"}"#] {
            assert_eq!(told(OwnSign::ALL, "alice", claims), Own::No, "{claims}");
        }
    }

    #[test]
    fn a_user_name_alone_makes_software_of_nobody() {
        let named = r#"{"preferred_username":"service-account-bot"}"#;
        assert_eq!(told(OwnSign::ALL, "alice", named), Own::Perhaps);
        assert_eq!(told(&[OwnSign::Keycloak], "alice", named), Own::Perhaps);
    }
}

//! One linked account as it is kept: whose it is and where, in the open; its tokens, sealed.
//!
//! Decides what a row says. Invariant: the seal is bound to issuer, subject and server, so that a row that somebody
//! moved to another user, or to another server, does not open.

use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::identity::Caller;
use crate::ids::{Digest, IssuerAlias, PrincipalKey, ServerId, Subject};
use crate::limit;
use crate::oauth::Registered;
use crate::oauth::dpop::ProofKey;
use crate::oauth::register::{close, close_optional, open, open_optional};
use crate::wire::handle::Sealer;

const PURPOSE: &str = "vault";

/// Whose account it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The issuer that vouches for them.
    pub issuer: IssuerAlias,
    /// `sub`.
    pub subject: String,
}

/// What is kept of a linked account.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// What is presented upstream.
    #[serde(serialize_with = "open", deserialize_with = "close")]
    pub access: SecretString,
    /// What it is renewed with.
    #[serde(serialize_with = "open_optional", deserialize_with = "close_optional")]
    pub refresh: Option<SecretString>,
    /// When the access token was given, seconds since 1970.
    pub given_at: i64,
    /// When the access token ends, seconds since 1970, where that was said.
    pub expires_at: Option<i64>,
    /// What was granted.
    pub scope: Option<String>,
    /// What was asked for, where less was granted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<String>,
    /// The authorization server.
    pub authority: String,
    /// Where tokens are renewed.
    pub token_endpoint: Url,
    /// Where they are given back.
    pub revocation_endpoint: Option<Url>,
    /// Who we are there.
    pub client: Registered,
    /// An administrator wrote that client, so that its secret is read where it is written.
    pub client_is_written: bool,
    /// What the tokens are for.
    pub resource: String,
    /// The key that they are bound to, where they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<ProofKey>,
    /// What the account is called there, as far as that was said; display only.
    pub account: Option<String>,
    /// When it was linked, seconds since 1970.
    pub linked_at: i64,
}

/// A row of the vault.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Kept {
    pub owner: Owner,
    pub server: ServerId,
    pub linked_at: i64,
    /// It is worth nothing any more: somebody has to link it again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dead: bool,
    /// Until then somebody renews it, microseconds since 1970 by the store's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renewed_until_us: Option<i64>,
    pub sealed: String,
}

impl Owner {
    /// Whoever stands behind a call; nobody, where nobody does.
    #[must_use]
    pub fn of(caller: &Caller) -> Option<Self> {
        caller.persona().user.as_ref()?;
        let token = caller.token();
        token.subject.clone().map(|subject| Self { issuer: token.issuer.clone(), subject })
    }

    /// As rules spell it.
    #[must_use]
    pub fn spelled(&self) -> String {
        Subject::user(&self.issuer, &self.subject).as_str().to_owned()
    }

    /// What finds their account at a server.
    #[must_use]
    pub fn place(&self, server: &ServerId) -> Digest {
        let parts = [self.issuer.as_str(), self.subject.as_str(), server.as_str()];
        Digest::of("bailiwick/vault/v1", &parts.map(str::as_bytes))
    }
}

impl Entry {
    /// Who we are where the tokens are from, if an administrator wrote that.
    pub(super) fn written_client(&self) -> Option<&str> {
        self.client_is_written.then_some(self.client.id.as_str())
    }
}

impl Kept {
    pub fn seal(sealer: &Sealer, owner: &Owner, server: &ServerId, entry: &Entry) -> Result<Self, String> {
        let content = serde_json::to_vec(entry).map_err(|error| error.to_string())?;
        let sealed =
            sealer.seal(PURPOSE, PrincipalKey(owner.place(server)), &content).map_err(|error| error.to_string())?;
        if sealed.len() > limit::VAULT_ENTRY_BYTES_MAX {
            return Err("the tokens are too long to be kept".to_owned());
        }
        Ok(Self {
            owner: owner.clone(),
            server: server.clone(),
            linked_at: entry.linked_at,
            dead: false,
            renewed_until_us: None,
            sealed,
        })
    }

    /// What was sealed, if it is this owner's at this server and one of our keys opens it.
    pub fn open(&self, sealer: &Sealer, owner: &Owner, server: &ServerId) -> Option<Entry> {
        let principal = PrincipalKey(owner.place(server));
        let content = sealer.open_within(PURPOSE, principal, &self.sealed, limit::VAULT_ENTRY_BYTES_MAX)?;
        serde_json::from_slice(&content).ok()
    }

    /// The same account once nothing of it is worth anything.
    pub fn buried(&self) -> Self {
        Self { dead: true, renewed_until_us: None, sealed: String::new(), ..self.clone() }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    pub fn entry(refresh: Option<&str>, expires_at: Option<i64>) -> Entry {
        Entry {
            access: "at-canary".to_owned().into(),
            refresh: refresh.map(|refresh| refresh.to_owned().into()),
            given_at: 7,
            expires_at,
            scope: Some("read".to_owned()),
            asked: None,
            authority: "https://as.example".to_owned(),
            token_endpoint: Url::parse("https://as.example/token").unwrap(),
            revocation_endpoint: None,
            client: Registered::public("us".to_owned()),
            client_is_written: false,
            resource: "https://up.example/mcp".to_owned(),
            key: None,
            account: Some("ann@up".to_owned()),
            linked_at: 7,
        }
    }

    fn owner(subject: &str) -> Owner {
        Owner { issuer: IssuerAlias::new("corp").unwrap(), subject: subject.to_owned() }
    }

    #[test]
    fn a_row_opens_for_its_owner_at_its_server_and_nowhere_else() {
        let sealer = Sealer::new([&[1_u8; 32][..]]).unwrap();
        let (ann, bob) = (owner("ann"), owner("bob"));
        let (notes, git) = (ServerId::new("notes").unwrap(), ServerId::new("git").unwrap());
        let kept = Kept::seal(&sealer, &ann, &notes, &entry(Some("rt-canary"), None)).unwrap();
        let text = serde_json::to_string(&kept).unwrap();
        assert!(!text.contains("canary") && text.contains("\"ann\""), "{text}");
        let read: Kept = serde_json::from_str(&text).unwrap();
        let opened = read.open(&sealer, &ann, &notes).unwrap();
        assert_eq!(opened.refresh.unwrap().expose_secret(), "rt-canary");
        assert!(read.open(&sealer, &bob, &notes).is_none() && read.open(&sealer, &ann, &git).is_none());
        let moved = Kept { owner: bob.clone(), ..read.clone() };
        assert!(moved.open(&sealer, &bob, &notes).is_none(), "whoever it says it belongs to");
        assert!(read.open(&Sealer::new([&[2_u8; 32][..]]).unwrap(), &ann, &notes).is_none());
        assert!(read.buried().open(&sealer, &ann, &notes).is_none());
        // `a` at `bc` is not `ab` at `c`.
        assert_ne!(owner("a").place(&ServerId::new("bc").unwrap()), owner("ab").place(&ServerId::new("c").unwrap()));
    }

    #[test]
    fn what_is_too_long_is_not_kept() {
        let sealer = Sealer::new([&[1_u8; 32][..]]).unwrap();
        let long = "x".repeat(limit::VAULT_ENTRY_BYTES_MAX);
        let server = ServerId::new("notes").unwrap();
        assert!(Kept::seal(&sealer, &owner("ann"), &server, &entry(Some(&long), None)).is_err());
        let longest = "x".repeat(limit::TOKEN_BYTES_MAX);
        let mut most = entry(Some(&longest), None);
        most.access = longest.clone().into();
        assert!(Kept::seal(&sealer, &owner("ann"), &server, &most).is_ok());
    }
}

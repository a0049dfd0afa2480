//! `[admin]`: the administrators' listener, and who may give something back there.
//!
//! Invariant: a client that is listed here is no agent's, so that no token of an agent loosens anything.

use std::net::SocketAddr;
use std::time::Duration;

use url::Url;

use super::{SecretReference, TlsConfig};
use crate::ids::IssuerAlias;

/// The administrators' listener.
#[derive(Debug, Clone)]
pub struct AdminConfig {
    /// Its address.
    pub listen: SocketAddr,
    /// What administrators call it: its own name, or the gateway's. Without a trailing slash.
    pub public_url: Url,
    /// Host names that requests may carry, beside `public_url`'s and the listener's own.
    pub allowed_hosts: Vec<String>,
    /// TLS certificate and key, reloaded when the files change.
    pub tls: Option<TlsConfig>,
    /// With which clients people give something back.
    pub clients: Vec<AdminClient>,
    /// Authentication contexts of which one is needed for that; any will do where none is named.
    pub acr: Vec<String>,
    /// How long ago the person may have logged in for that.
    pub auth_age_max: Duration,
    /// How people sign in to the console; without it there is none.
    pub console: Option<ConsoleConfig>,
}

/// `[admin.console]`: how people sign in to the console.
#[derive(Debug, Clone)]
pub struct ConsoleConfig {
    /// Where.
    pub issuer: IssuerAlias,
    /// The console's client there, which is an administrators' client as well.
    pub client_id: String,
    /// Its secret, where the client has one.
    pub client_secret: Option<SecretReference>,
    /// Scopes that are asked for beside `openid`.
    pub scopes: Vec<String>,
}

/// A client with which people administer the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminClient {
    /// Who issues its tokens.
    pub issuer: IssuerAlias,
    /// Its id there.
    pub client_id: String,
    /// Whether people say yes to something with its tokens: whoever has one says it for them.
    pub approves: bool,
}

impl AdminConfig {
    /// The resource that tokens are for, below which everything is.
    #[must_use]
    pub fn resource(&self) -> String {
        format!("{}/admin", self.public_url.as_str().trim_end_matches('/'))
    }

    /// Whether people administer the gateway with this client.
    #[must_use]
    pub fn has_client(&self, issuer: &IssuerAlias, client: Option<&str>) -> bool {
        self.clients.iter().any(|known| known.is(issuer, client))
    }

    /// Whether people say yes to something with this client: the console's, and those of which the files say so.
    #[must_use]
    pub fn approves_with(&self, issuer: &IssuerAlias, client: Option<&str>) -> bool {
        self.clients.iter().any(|known| known.approves && known.is(issuer, client))
    }
}

impl AdminClient {
    /// Whether it is this one.
    #[must_use]
    pub fn is(&self, issuer: &IssuerAlias, client: Option<&str>) -> bool {
        self.issuer == *issuer && client == Some(self.client_id.as_str())
    }
}

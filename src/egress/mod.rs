//! Decides which addresses the gateway may connect to, and builds the only HTTP clients that exist.
//!
//! Refuses to know what is said over a connection. Invariant: the address that was checked is the
//! address that is connected. Names are checked as they are resolved, literal addresses as they are
//! dialled, and no client follows a redirect, reads a proxy from the environment, or asks twice.

pub mod address;
pub mod oauth;
pub mod peer;
pub mod resolver;
pub mod tls;
pub mod upstream;
pub mod workload;

pub use address::{AddressClass, is_loopback};
pub use oauth::{OauthClient, oauth_client, oauth_client_trusting};
pub use resolver::GuardedResolver;
pub use upstream::{UpstreamClient, upstream_client};

/// Where a client may connect to. The narrowest one is the default.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EgressPolicy {
    private_everywhere: bool,
    private_hosts: Vec<String>,
    /// This machine, and no other private place.
    loopback: bool,
}

/// Why nothing was sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EgressError {
    /// The address or the scheme is not allowed.
    #[error("`{host}` is refused: {problem}")]
    Refused {
        /// The host that was asked for.
        host: String,
        /// Why, and what to write where.
        problem: &'static str,
    },
    /// The URL cannot be used.
    #[error("the URL cannot be used: {0}")]
    Url(String),
    /// The client could not be built.
    #[error("the HTTP client cannot be built: {0}")]
    Build(String),
    /// No answer came.
    #[error("no answer from `{host}`: {problem}")]
    Unreachable {
        /// The host that was asked.
        host: String,
        /// What happened.
        problem: String,
    },
    /// The answer is larger than the limit.
    #[error("the answer of `{host}` is larger than {bytes_max} bytes")]
    TooLarge {
        /// The host that was asked.
        host: String,
        /// The limit.
        bytes_max: usize,
    },
}

impl EgressPolicy {
    /// Public addresses over TLS only.
    #[must_use]
    pub fn public() -> Self {
        Self::default()
    }

    /// For an upstream server, as `allow_private` of its entry says.
    #[must_use]
    pub fn server(allow_private: bool) -> Self {
        Self { private_everywhere: allow_private, ..Self::default() }
    }

    /// For an issuer, and for what its metadata names.
    ///
    /// The host that an administrator wrote may have a private address, because an identity provider on
    /// the company's own network is ordinary. Loopback, plain HTTP, and private addresses of other hosts
    /// (which the issuer's metadata chooses) need `allow_loopback`.
    #[must_use]
    pub fn issuer(host: Option<&str>, allow_loopback: bool) -> Self {
        Self {
            private_everywhere: allow_loopback,
            private_hosts: host.map(str::to_ascii_lowercase).into_iter().collect(),
            loopback: false,
        }
    }

    /// For what a server names that is none of ours, such as its authorization server: public addresses, and the
    /// private one of the server's own host where that is allowed; this machine only where the server is on it, or an
    /// administrator wrote the place. No other private address: the server could name any.
    #[must_use]
    pub fn named_by_another(own_host: Option<&str>, loopback: bool) -> Self {
        let private_hosts = own_host.map(str::to_ascii_lowercase).into_iter().collect();
        Self { private_everywhere: false, private_hosts, loopback }
    }

    /// The same, with another host that an administrator wrote.
    #[must_use]
    pub fn with_private_host(mut self, host: Option<&str>) -> Self {
        self.private_hosts.extend(host.map(str::to_ascii_lowercase));
        self
    }

    /// Whether a connection to an address of this class may be made for that host.
    ///
    /// # Errors
    /// [`EgressError::Refused`].
    pub fn check(&self, host: &str, class: AddressClass) -> Result<(), EgressError> {
        let problem = match class {
            AddressClass::Public => return Ok(()),
            AddressClass::Private | AddressClass::Loopback if self.private_everywhere => return Ok(()),
            AddressClass::Loopback if self.loopback => return Ok(()),
            AddressClass::Private if self.private_hosts.iter().any(|own| own.eq_ignore_ascii_case(host)) => {
                return Ok(());
            }
            AddressClass::Private => "it has a private address; set allow_private on the server if that is meant",
            AddressClass::Loopback => {
                "it has a loopback address; set allow_private on the server, or allow_loopback_issuers, if that is meant"
            }
            AddressClass::Never => {
                "it has a link-local, metadata, multicast or reserved address, which is never allowed"
            }
        };
        Err(EgressError::Refused { host: bounded(host), problem })
    }

    /// Whether a request may go there, as far as the URL alone can tell.
    ///
    /// # Errors
    /// When the scheme is not allowed, there is no host, it has userinfo, or it is a refused literal address.
    pub fn check_uri(&self, uri: &http::Uri) -> Result<(), EgressError> {
        let userinfo = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
        let host = uri.host().unwrap_or_default();
        self.check_parts(uri.scheme_str().unwrap_or_default(), userinfo, host, address::literal(host))
    }

    /// The same for a URL, whose parser knows more spellings of an address (`0x7f.1`).
    ///
    /// # Errors
    /// As [`Self::check_uri`].
    pub fn check_url(&self, url: &url::Url) -> Result<(), EgressError> {
        let userinfo = !url.username().is_empty() || url.password().is_some();
        let literal = match url.host() {
            Some(url::Host::Ipv4(address)) => Some(address.into()),
            Some(url::Host::Ipv6(address)) => Some(address.into()),
            _ => None,
        };
        self.check_parts(url.scheme(), userinfo, url.host_str().unwrap_or_default(), literal)
    }

    fn check_parts(
        &self,
        scheme: &str,
        userinfo: bool,
        host: &str,
        literal: Option<std::net::IpAddr>,
    ) -> Result<(), EgressError> {
        if host.is_empty() {
            return Err(EgressError::Url("it has no host".into()));
        }
        if userinfo {
            return Err(EgressError::Url("it has a user name".into()));
        }
        match scheme {
            "https" => {}
            "http" if self.private_everywhere => {}
            "http" if self.loopback && is_loopback_host(host, literal) => {}
            "http" => {
                let problem = "plain HTTP; use https:, or allow private addresses for it if it is on this machine";
                return Err(EgressError::Refused { host: bounded(host), problem });
            }
            _ => return Err(EgressError::Url("its scheme is neither https: nor http:".into())),
        }
        literal.map_or(Ok(()), |address| self.check(host, AddressClass::of(address)))
    }
}

/// Whether a host is this machine, as far as its name says.
fn is_loopback_host(host: &str, literal: Option<std::net::IpAddr>) -> bool {
    literal.map_or_else(
        || host.eq_ignore_ascii_case("localhost"),
        |address| AddressClass::of(address) == AddressClass::Loopback,
    )
}

/// Hosts come from outside and land in logs.
fn bounded(host: &str) -> String {
    host.chars().take(crate::limit::HOST_SHOWN_CHARACTERS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(text: &str) -> http::Uri {
        text.parse().unwrap()
    }

    #[test]
    fn literal_addresses_are_refused_before_anything_is_resolved() {
        let public = EgressPolicy::public();
        for bad in [
            "https://127.0.0.1/",
            "https://[::1]/",
            "https://10.0.0.1/",
            "https://[::ffff:10.0.0.1]/",
            "https://169.254.169.254/latest/",
            "https://100.64.0.1/",
            "https://0.0.0.0/",
            "https://[fd00:ec2::254]/",
            "https://[64:ff9b::a9fe:a9fe]/",
            "http://192.0.2.1/",
            "ftp://example.com/",
        ] {
            assert!(public.check_uri(&uri(bad)).is_err(), "{bad}");
            assert!(public.check_url(&bad.parse().unwrap()).is_err(), "{bad}");
        }
        for spelled in ["https://0x7f.1/", "https://2130706433/", "https://127.1/", "https://0251.0376.0251.0376/"] {
            assert!(public.check_url(&spelled.parse().unwrap()).is_err(), "{spelled}");
        }
        assert!(public.check_uri(&uri("https://93.184.216.34/")).is_ok());
        assert!(public.check_uri(&uri("https://user@example.com/")).is_err());
    }

    #[test]
    fn allow_private_never_opens_the_metadata_service() {
        let private = EgressPolicy::server(true);
        assert!(private.check_uri(&uri("http://127.0.0.1:8080/mcp")).is_ok());
        assert!(private.check_uri(&uri("http://[::1]:8080/mcp")).is_ok());
        assert!(private.check_uri(&uri("https://10.1.2.3/")).is_ok());
        for bad in ["http://169.254.169.254/", "http://[fd00:ec2::254]/", "http://224.0.0.1/", "http://0.0.0.0/"] {
            assert!(private.check_uri(&uri(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_the_issuers_own_host_may_be_on_the_private_network() {
        let policy = EgressPolicy::issuer(Some("idp.corp.example"), false);
        assert!(policy.check("IDP.corp.example", AddressClass::Private).is_ok());
        assert!(policy.check("elsewhere.example", AddressClass::Private).is_err());
        assert!(policy.check("idp.corp.example", AddressClass::Loopback).is_err());
        assert!(policy.check_uri(&uri("http://idp.corp.example/")).is_err());
    }

    #[test]
    fn what_a_server_on_this_machine_names_may_be_here_and_in_no_other_private_place() {
        let here = EgressPolicy::named_by_another(Some("127.0.0.1"), true);
        for good in ["http://127.0.0.1:7000/", "http://localhost:7000/", "https://[::1]/", "https://as.example/"] {
            assert!(here.check_url(&good.parse().unwrap()).is_ok(), "{good}");
        }
        for bad in ["http://10.0.0.1/", "https://10.0.0.1/", "https://169.254.169.254/", "http://as.example/"] {
            assert!(here.check_url(&bad.parse().unwrap()).is_err(), "{bad}");
        }
        let inside = EgressPolicy::named_by_another(Some("wiki.corp.example"), false);
        assert!(inside.check("wiki.corp.example", AddressClass::Private).is_ok());
        assert!(inside.check("db.corp.example", AddressClass::Private).is_err());
        assert!(inside.check_url(&"https://127.0.0.1/".parse().unwrap()).is_err());
    }

    #[test]
    fn a_host_is_shown_up_to_a_length() {
        let longest = "h".repeat(crate::limit::HOST_SHOWN_CHARACTERS_MAX);
        assert_eq!(bounded(&longest), longest);
        assert_eq!(bounded(&format!("{longest}h")), longest);
    }
}

//! What `[issuers.ALIAS]` of kind `spiffe` says: a trust domain, and where its bundle of keys is.
//!
//! Decides how both are spelled. Invariant: a [`TrustDomain`] that exists is spelled as SPIFFE wants it.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use url::Url;

/// The name of a trust domain, such as `prod.example.org`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrustDomain(String);

impl TrustDomain {
    /// SPIFFE-ID, section 2.1.
    const LENGTH_MAX: usize = 255;

    /// Reads a name as it stands in a SPIFFE ID.
    ///
    /// # Errors
    /// A lower-case sentence that says how it is spelled.
    pub fn new(text: &str) -> Result<Self, String> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
        if !(1..=Self::LENGTH_MAX).contains(&text.len()) || !text.bytes().all(plain) {
            return Err(format!(
                "`{text:.100}` is not a trust domain: write its name, such as \"prod.example.org\", lower case and \
                 without spiffe://"
            ));
        }
        Ok(Self(text.to_owned()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// What stands behind an alias.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IssuerKind {
    /// An OIDC issuer whose access tokens are accepted.
    Oidc,
    /// A SPIFFE trust domain whose workloads are known by their SVIDs.
    Spiffe(SpiffeConfig),
}

/// A SPIFFE trust domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpiffeConfig {
    /// Its name.
    pub trust_domain: TrustDomain,
    /// Where its keys are.
    pub bundle: BundlePlace,
    /// A certificate that is valid for longer than this is refused.
    pub svid_life_max: Duration,
}

/// Where the bundle of a trust domain is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BundlePlace {
    /// A file that something else replaces.
    File(PathBuf),
    /// A bundle endpoint of the profile `https_web`.
    Web(Url),
    /// A bundle endpoint of the profile `https_spiffe`.
    Spiffe(BundleEndpoint),
    /// The Workload API, on this Unix socket.
    Workload(PathBuf),
}

/// A bundle endpoint that is known by its X.509-SVID, and not by the name of its host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleEndpoint {
    /// Where it is.
    pub url: Url,
    /// Its SPIFFE ID.
    pub id: String,
    /// Whose bundle vouches for it.
    pub known_by: KnownBy,
}

/// Whose bundle vouches for a bundle endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KnownBy {
    /// That of the trust domain itself, as it was fetched last; a file has the one that is known before anything is
    /// fetched.
    ItsOwn(PathBuf),
    /// That of another trust domain, which is declared as well and whose workload it is.
    Another(TrustDomain),
}

impl SpiffeConfig {
    /// The other trust domain whose bundle vouches for the endpoint of this one.
    #[must_use]
    pub const fn voucher(&self) -> Option<&TrustDomain> {
        match &self.bundle {
            BundlePlace::Spiffe(BundleEndpoint { known_by: KnownBy::Another(domain), .. }) => Some(domain),
            _ => None,
        }
    }
}

impl fmt::Display for BundlePlace {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(formatter, "file:{}", path.display()),
            Self::Web(url) | Self::Spiffe(BundleEndpoint { url, .. }) => url.fmt(formatter),
            Self::Workload(path) => write!(formatter, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trust_domain_is_spelled_as_spiffe_wants_it() {
        for good in ["prod.example.org", "a", "under_score-1", &"a".repeat(255)] {
            assert_eq!(TrustDomain::new(good).unwrap().as_str(), good);
        }
        for bad in ["", "Prod", "spiffe://a", "a/b", "a:8443", "a b", "ä", "a%41", &"a".repeat(256)] {
            assert!(TrustDomain::new(bad).is_err(), "{bad}");
        }
    }
}

//! The name of a workload: `spiffe://TRUST-DOMAIN/PATH`.
//!
//! Decides how it is spelled (SPIFFE-ID, section 2). Invariant: two names that differ in a byte are two workloads, and
//! nothing of a name is normalised.

use crate::config::spiffe::TrustDomain;

/// The name of a workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::identity) struct SpiffeId {
    pub domain: TrustDomain,
    /// The whole.
    pub text: String,
}

impl SpiffeId {
    const LENGTH_MAX: usize = 2_048;

    /// Reads a name with a path: one without names the trust domain itself, which is no workload.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > Self::LENGTH_MAX {
            return None;
        }
        let (domain, path) = text.strip_prefix("spiffe://")?.split_once('/')?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        let is_segment = |segment: &str| !matches!(segment, "" | "." | "..") && segment.bytes().all(plain);
        let domain = TrustDomain::new(domain).ok()?;
        path.split('/').all(is_segment).then(|| Self { domain, text: text.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_spelled_in_exactly_one_way() {
        let id = SpiffeId::parse("spiffe://prod.example.org/ns/default/sa/Bot_1").unwrap();
        assert_eq!(id.domain.as_str(), "prod.example.org");
        let long = format!("spiffe://a/{}", "x".repeat(2_048));
        for bad in [
            "",
            "spiffe://a",
            "spiffe://a/",
            "spiffe:///x",
            "spiffe://a//x",
            "spiffe://a/x/",
            "spiffe://a/./x",
            "spiffe://a/../x",
            "spiffe://A/x",
            "SPIFFE://a/x",
            "spiffe://a:1/x",
            "spiffe://u@a/x",
            "spiffe://a/x?y",
            "spiffe://a/x#y",
            "spiffe://a/%78",
            "spiffe://a/x y",
            "https://a/x",
            &long,
        ] {
            assert_eq!(SpiffeId::parse(bad), None, "{bad:.100}");
        }
    }
}

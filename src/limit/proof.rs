//! Bounds on how callers prove that a token or a certificate is theirs.

use std::time::Duration;

/// A DPoP proof; one with an RSA key of 8192 bits and a long URL is about 4 KiB.
pub const DPOP_PROOF_BYTES_MAX: usize = 8 * 1024;
/// How far `iat` of a proof may lie back or ahead.
pub const DPOP_AGE_MAX: Duration = Duration::from_secs(60);
/// How long a proof's id is remembered at least: as long as the proof could be shown again.
pub const DPOP_MEMORY: Duration = Duration::from_secs(121);
/// Proofs of one subject of one issuer that are remembered at once; above the rate that most are allowed.
pub const DPOP_PROOFS_PER_BEARER_MAX: usize = 16_384;
/// Proofs of everybody that are remembered at once, which takes about 20 MiB.
pub const DPOP_PROOFS_MAX: usize = 262_144;
/// The id that a proof gives itself.
pub const DPOP_ID_BYTES_MAX: usize = 512;
/// How long a nonce of ours is good.
pub const DPOP_NONCE_LIFE: Duration = Duration::from_secs(300);
/// A nonce as clients give it back.
pub const DPOP_NONCE_BYTES_MAX: usize = 256;
/// A header of a proxy that holds a client's certificate and its chain.
pub const CERTIFICATE_HEADER_BYTES_MAX: usize = 32 * 1024;
/// Certificates of one chain.
pub const CERTIFICATE_CHAIN_MAX: usize = 8;
/// The bundle of a trust domain is read this often where it does not say how often itself (SPIFFE).
pub const BUNDLE_REFRESH_USUAL: Duration = Duration::from_secs(300);
/// However often it says, not more often.
pub const BUNDLE_REFRESH_MIN: Duration = Duration::from_secs(1);
/// And not less often, so that a key that was withdrawn leaves within the hour.
pub const BUNDLE_REFRESH_MAX: Duration = Duration::from_secs(3600);
/// Keys of a bundle that are tried for a token that names none.
pub const BUNDLE_KEYS_TRIED_MAX: usize = 8;
/// What the SPIFFE Workload API says at once: the bundles of every trust domain that it knows.
pub const WORKLOAD_API_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The SPIFFE Workload API answers in this time, and says the first bundles in as much.
pub const WORKLOAD_API_TIMEOUT: Duration = Duration::from_secs(5);

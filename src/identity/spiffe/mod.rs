//! SPIFFE: workloads that are known by their SVIDs, each trust domain with keys of its own.
//!
//! Decides which workload a JWT-SVID or a client certificate names. Refuses to know OIDC. Invariant: the trust domain is
//! chosen by the name that is claimed, before anything is verified, and only that domain's keys are tried.

mod bundle;
mod domain;
mod endpoint;
mod id;
mod jwt;
mod roots;
mod x509;

pub(super) use domain::Domain;
pub use domain::{BundleFacts, look_at_bundle};
pub(super) use endpoint::Neighbours;
pub(super) use id::SpiffeId;
pub(super) use jwt::svid;
pub(super) use x509::named;

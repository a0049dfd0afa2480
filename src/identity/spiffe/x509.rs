//! X.509-SVIDs: whom a client certificate names.
//!
//! Decides by the one URI in it (X509-SVID, sections 2 to 5). Refuses to know tokens. Invariant: a name is believed only
//! of a leaf that the trust domain in that name has issued, for signing and not for issuing.

use rustls::pki_types::{CertificateDer, UnixTime};
use x509_cert::Certificate;
use x509_cert::der::oid::{AssociatedOid, ObjectIdentifier};
use x509_cert::der::{Decode, DecodeOwned};
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage, SubjectAltName};

use super::domain::Domain;
use super::id::SpiffeId;
use crate::outcome::{Reason, Refusal};

/// Whom a certificate names, and from when until when: seconds since 1970.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::identity) struct Named {
    pub id: SpiffeId,
    pub not_before: i64,
    pub not_after: i64,
}

/// Reads the name in a certificate, which nobody has verified yet; none where it is no SVID.
///
/// # Errors
/// [`Reason::CertificateRefused`] where it names a workload and is not shaped as an SVID.
pub(in crate::identity) fn named(leaf: &CertificateDer<'_>) -> Result<Option<Named>, Refusal> {
    let certificate =
        Certificate::from_der(leaf).map_err(|_| refused("the client certificate is not an X.509 certificate"))?;
    let names = extension::<SubjectAltName>(&certificate)?.map(|names| names.0).unwrap_or_default();
    let mut uris = names.iter().filter_map(|name| match name {
        GeneralName::UniformResourceIdentifier(uri) => Some(uri.as_str()),
        _ => None,
    });
    let (first, further) = (uris.next(), uris.next());
    let is_spiffe = |uri: &str| uri.get(..9).is_some_and(|scheme| scheme.eq_ignore_ascii_case("spiffe://"));
    if !names.iter().any(|name| matches!(name, GeneralName::UniformResourceIdentifier(uri) if is_spiffe(uri.as_str())))
    {
        return Ok(None);
    }
    if further.is_some() {
        return Err(refused("the client certificate has more than one URI: an X.509-SVID has exactly one"));
    }
    let id = first
        .and_then(SpiffeId::parse)
        .ok_or_else(|| refused("the URI in the client certificate is not a SPIFFE ID"))?;
    if extension::<BasicConstraints>(&certificate)?.is_some_and(|constraints| constraints.ca) {
        return Err(refused("the client certificate is an authority's, and names no workload"));
    }
    let usage =
        extension::<KeyUsage>(&certificate)?.ok_or_else(|| refused("the client certificate has no key usage"))?;
    if !usage.digital_signature() || usage.key_cert_sign() || usage.crl_sign() {
        return Err(refused("the client certificate is not for signing alone: see its key usage"));
    }
    let validity = certificate.tbs_certificate().validity();
    let seconds = |time: &x509_cert::time::Time| i64::try_from(time.to_unix_duration().as_secs()).unwrap_or(i64::MAX);
    Ok(Some(Named { id, not_before: seconds(&validity.not_before), not_after: seconds(&validity.not_after) }))
}

impl Domain {
    /// Whether this domain issued the certificate; the others lead from it to a root.
    ///
    /// # Errors
    /// [`Reason::CertificateRefused`], or [`Reason::IssuerUnavailable`] without a bundle.
    pub fn issued(
        &self,
        leaf: &CertificateDer<'_>,
        further: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Reason> {
        let roots = self.roots().ok_or(Reason::IssuerUnavailable)?;
        let roots = roots.ok_or(Reason::CertificateRefused)?;
        let verified = roots.verify_client_cert(leaf, further, now);
        verified.map(|_| ()).map_err(|_| Reason::CertificateRefused)
    }
}

/// An extension that may come once.
fn extension<T: DecodeOwned + AssociatedOid>(certificate: &Certificate) -> Result<Option<T>, Refusal> {
    let all = certificate.tbs_certificate().extensions().map(Vec::as_slice).unwrap_or_default();
    let oid: ObjectIdentifier = T::OID;
    let mut found = all.iter().filter(|extension| extension.extn_id == oid);
    let unreadable = || refused("an extension of the client certificate cannot be read");
    let (first, further) = (found.next(), found.next());
    if further.is_some() {
        return Err(unreadable());
    }
    first.map(|extension| T::from_der(extension.extn_value.as_bytes()).map_err(|_| unreadable())).transpose()
}

fn refused(hint: &'static str) -> Refusal {
    Refusal::new(Reason::CertificateRefused).hint(hint)
}

//! What a request shows beside its token: a DPoP proof, and the certificate of the client's connection.
//!
//! Decides where both are taken from, and what a client is told that needs another proof. Refuses to know whether they
//! hold. Invariant: a certificate comes from our own TLS, or from a header of a trusted proxy where the configuration
//! names that header; never from both.

use std::net::IpAddr;
use std::sync::Arc;

use axum::body::Body;
use http::Response;
use http::header::{HeaderMap, HeaderName, HeaderValue, WWW_AUTHENTICATE};
use http::request::Parts;

use super::{client_certificate, headers, proxy};
use crate::config::GatewayConfig;
use crate::identity::{ClientCertificate, PROOF_ALGORITHMS, Presented, Shown};
use crate::outcome::{Reason, Refusal};

/// The header of a proof (RFC 9449).
pub(super) const DPOP: &str = "dpop";
const DPOP_NONCE: HeaderName = HeaderName::from_static("dpop-nonce");

/// The certificate of a connection, as the listener notes it on each of its requests.
#[derive(Debug, Clone)]
pub(super) struct OfConnection(pub Arc<ClientCertificate>);

/// The certificate of the client, whether its connection ends here or at a proxy of ours; `peer` is who connected.
///
/// # Errors
/// [`Reason::CertificateRefused`] where a trusted proxy's header cannot be read.
pub(super) fn certificate<B>(
    request: &http::Request<B>,
    peer: IpAddr,
    config: &GatewayConfig,
) -> Result<Option<Arc<ClientCertificate>>, Refusal> {
    if let Some(header) = config.client_certificate_header
        && proxy::is_trusted(peer.to_canonical(), &config.trusted_proxies)
    {
        // Its own certificate is not the client's.
        return client_certificate::read(request.headers(), header).map(|found| found.map(Arc::new));
    }
    Ok(request.extensions().get::<OfConnection>().map(|noted| Arc::clone(&noted.0)))
}

/// What the request shows.
pub(super) fn shown<'a>(parts: &'a Parts, certificate: Option<&'a ClientCertificate>) -> Shown<'a> {
    let credential = credential(&parts.headers);
    Shown {
        credential,
        proof: headers::single(&parts.headers, DPOP).unwrap_or(Some("")),
        method: parts.method.as_str(),
        certificate,
        // Of interest where nothing else says who it is.
        forwarded: matches!(credential, Presented::Nothing) && proxy::says_forwarded(&parts.headers),
    }
}

/// The token of an `Authorization` header, and how it came.
fn credential(request_headers: &HeaderMap) -> Presented<'_> {
    let value = headers::single(request_headers, http::header::AUTHORIZATION.as_str()).ok().flatten();
    let dpop = value.and_then(|value| value.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("dpop"));
    match dpop {
        Some((_, token)) => Presented::Dpop(token.trim_start_matches(' ')),
        None => headers::bearer(request_headers).map_or(Presented::Nothing, Presented::Bearer),
    }
}

/// Adds the challenge of RFC 9449 to an answer that is about a proof, or about a token that should have come with one.
pub(super) fn challenge(response: &mut Response<Body>, reason: Reason, nonce: Option<String>) {
    let error = match reason {
        Reason::TokenBound | Reason::TokenUnbound => "invalid_token",
        Reason::DpopProofInvalid | Reason::DpopProofReplayed => "invalid_dpop_proof",
        Reason::DpopNonceRequired => "use_dpop_nonce",
        _ => return,
    };
    let value = format!("DPoP error=\"{error}\", algs=\"{}\"", PROOF_ALGORITHMS.join(" "));
    if let Ok(value) = HeaderValue::from_str(&value) {
        response.headers_mut().append(WWW_AUTHENTICATE, value);
    }
    if let Some(Ok(nonce)) = nonce.map(|nonce| HeaderValue::from_str(&nonce)) {
        response.headers_mut().insert(DPOP_NONCE, nonce);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scheme_says_how_a_token_came() {
        let read = |values: &[&str]| {
            let mut map = HeaderMap::new();
            for value in values {
                map.append(http::header::AUTHORIZATION, value.parse().unwrap());
            }
            match credential(&map) {
                Presented::Nothing => "nothing".to_owned(),
                Presented::Bearer(token) => format!("bearer {token}"),
                Presented::Dpop(token) => format!("dpop {token}"),
            }
        };
        assert_eq!(read(&[]), "nothing");
        assert_eq!(read(&["Bearer a"]), "bearer a");
        assert_eq!(read(&["DPoP  a"]), "dpop a");
        assert_eq!(read(&["dpop a"]), "dpop a");
        for unreadable in [&["DPoP"][..], &["DPoP a", "DPoP a"], &["DPoP a", "Bearer a"], &["Basic a"]] {
            assert_eq!(read(unreadable), "bearer ", "{unreadable:?}");
        }
    }

    #[test]
    fn only_what_is_about_proofs_is_challenged_for_one() {
        let challenged = |reason: Reason| {
            let mut response = Response::new(Body::empty());
            challenge(&mut response, reason, None);
            response.headers().get(WWW_AUTHENTICATE).map(|value| value.to_str().unwrap().to_owned())
        };
        assert_eq!(challenged(Reason::TokenExpired), None);
        let told = challenged(Reason::DpopNonceRequired).unwrap();
        assert_eq!(told, "DPoP error=\"use_dpop_nonce\", algs=\"ES256 ES384 EdDSA PS256 RS256\"");
    }
}

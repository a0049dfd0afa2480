//! Reads the client's certificate from a header of a proxy that ends TLS: `Client-Cert` (RFC 9440) or Envoy's
//! `X-Forwarded-Client-Cert`.
//!
//! Decides what such a header says. Refuses to know who may send one. Invariant: where several proxies wrote into the
//! header only the last word counts, and what cannot be read is refused, never taken for no certificate.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use percent_encoding::percent_decode_str;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::headers;
use crate::config::CertificateHeader;
use crate::identity::ClientCertificate;
use crate::ids::Digest;
use crate::limit;
use crate::outcome::{Reason, Refusal};

/// The headers of all proxies: what belongs to this connection, and goes no further.
pub(super) const HEADERS: [&str; 3] = [CLIENT_CERT, CLIENT_CERT_CHAIN, XFCC];

const CLIENT_CERT: &str = "client-cert";
const CLIENT_CERT_CHAIN: &str = "client-cert-chain";
const XFCC: &str = "x-forwarded-client-cert";

/// The certificate that the header tells of; none where there is no such header.
///
/// # Errors
/// [`Reason::CertificateRefused`] where it cannot be read.
pub(super) fn read(
    request_headers: &HeaderMap,
    header: CertificateHeader,
) -> Result<Option<ClientCertificate>, Refusal> {
    match header {
        CertificateHeader::ClientCert => client_cert(request_headers),
        CertificateHeader::Xfcc => forwarded(request_headers),
    }
}

fn client_cert(request_headers: &HeaderMap) -> Result<Option<ClientCertificate>, Refusal> {
    let unreadable = || refused("the Client-Cert header of the proxy is not one certificate (RFC 9440)");
    let Some(leaf) = headers::single(request_headers, CLIENT_CERT).map_err(|_| unreadable())? else { return Ok(None) };
    let lines = request_headers.get_all(CLIENT_CERT_CHAIN).iter();
    let lines: Vec<&str> = lines.map(|line| line.to_str().map_err(|_| unreadable())).collect::<Result<_, _>>()?;
    if lines.iter().map(|line| line.len()).sum::<usize>() + leaf.len() > limit::CERTIFICATE_HEADER_BYTES_MAX {
        return Err(unreadable());
    }
    let further = lines.into_iter().flat_map(|line| line.split(','));
    let mut chain = Vec::new();
    for item in std::iter::once(leaf).chain(further) {
        let inner = item.trim().strip_prefix(':').and_then(|rest| rest.strip_suffix(':')).ok_or_else(unreadable)?;
        let bytes = STANDARD.decode(inner).map_err(|_| unreadable())?;
        chain.push(CertificateDer::from(bytes));
    }
    of_chain(chain).map(Some).ok_or_else(unreadable)
}

fn forwarded(request_headers: &HeaderMap) -> Result<Option<ClientCertificate>, Refusal> {
    let unreadable =
        || refused("the X-Forwarded-Client-Cert header of the proxy names no certificate: have it send Hash or Cert");
    let Some(line) = request_headers.get_all(XFCC).iter().next_back() else { return Ok(None) };
    let line = line.to_str().map_err(|_| unreadable())?;
    if line.len() > limit::CERTIFICATE_HEADER_BYTES_MAX {
        return Err(unreadable());
    }
    // What stands further left was written by proxies further out, or by the client.
    let element = split(line, ',').and_then(|elements| elements.last().copied()).ok_or_else(unreadable)?;
    let (mut hash, mut leaf, mut chain) = (None, None, None);
    for pair in split(element, ';').ok_or_else(unreadable)? {
        let (name, value) = pair.trim().split_once('=').ok_or_else(unreadable)?;
        let slot = match name.to_ascii_lowercase().as_str() {
            "hash" => &mut hash,
            "cert" => &mut leaf,
            "chain" => &mut chain,
            _ => continue,
        };
        let value = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value);
        if slot.replace(value).is_some() {
            return Err(unreadable());
        }
    }
    let hash = match hash {
        None => None,
        Some(text) => Some(Digest::from_hex(&text.to_ascii_lowercase()).ok_or_else(unreadable)?),
    };
    // `Chain` begins with the client's own certificate.
    let certificates = match chain.or(leaf) {
        None => Vec::new(),
        Some(encoded) => pem(encoded).ok_or_else(unreadable)?,
    };
    let found = match (of_chain(certificates), hash) {
        (Some(known), Some(hash)) if *known.thumbprint() != hash => return Err(unreadable()),
        (Some(known), _) => known,
        (None, Some(hash)) => ClientCertificate::of_thumbprint(hash),
        (None, None) => return Err(unreadable()),
    };
    if let (Some(leaf), true) = (leaf, chain.is_some()) {
        let own = of_chain(pem(leaf).ok_or_else(unreadable)?).ok_or_else(unreadable)?;
        if own.thumbprint() != found.thumbprint() {
            return Err(unreadable());
        }
    }
    Ok(Some(found))
}

/// A certificate as one replica tells another of it.
pub(super) fn spelled(certificate: &ClientCertificate) -> String {
    if certificate.chain().is_empty() {
        return certificate.thumbprint().to_string();
    }
    let items: Vec<String> = certificate.chain().iter().map(|one| format!(":{}:", STANDARD.encode(one))).collect();
    items.join(",")
}

/// The certificate that another replica tells of.
pub(super) fn from_spelled(text: &str) -> Option<ClientCertificate> {
    if let Some(thumbprint) = Digest::from_hex(text) {
        return Some(ClientCertificate::of_thumbprint(thumbprint));
    }
    let bytes = |item: &str| STANDARD.decode(item.trim().strip_prefix(':')?.strip_suffix(':')?).ok();
    of_chain(text.split(',').map(|item| bytes(item).map(CertificateDer::from)).collect::<Option<_>>()?)
}

/// The parts between separators that stand outside of quotation marks; `None` where a quotation does not end.
fn split(text: &str, separator: char) -> Option<Vec<&str>> {
    let (mut parts, mut begin, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (position, character) in text.char_indices() {
        if escaped {
            escaped = false;
        } else if quoted && character == '\\' {
            escaped = true;
        } else if character == '"' {
            quoted = !quoted;
        } else if character == separator && !quoted {
            parts.push(text.get(begin..position)?);
            begin = position + separator.len_utf8();
        }
    }
    parts.push(text.get(begin..)?);
    (!quoted).then_some(parts)
}

fn pem(encoded: &str) -> Option<Vec<CertificateDer<'static>>> {
    let text = percent_decode_str(encoded).decode_utf8().ok()?;
    CertificateDer::pem_slice_iter(text.as_bytes()).collect::<Result<_, _>>().ok()
}

fn of_chain(chain: Vec<CertificateDer<'static>>) -> Option<ClientCertificate> {
    (chain.len() <= limit::CERTIFICATE_CHAIN_MAX).then(|| ClientCertificate::of_chain(chain)).flatten()
}

fn refused(hint: &'static str) -> Refusal {
    Refusal::new(Reason::CertificateRefused).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEM: &str = include_str!("fixture/localhost.crt");

    fn certificate() -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(PEM.as_bytes()).unwrap()
    }

    fn encoded() -> String {
        percent_encoding::utf8_percent_encode(PEM, percent_encoding::NON_ALPHANUMERIC).to_string()
    }

    fn found(lines: &[(&'static str, String)], header: CertificateHeader) -> Result<Option<(Digest, usize)>, Reason> {
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            map.append(*name, value.parse().unwrap());
        }
        let found = read(&map, header).map_err(|refusal| refusal.reason)?;
        Ok(found.map(|certificate| (*certificate.thumbprint(), certificate.chain().len())))
    }

    #[test]
    fn rfc_9440_is_one_certificate_and_those_that_lead_to_a_root() {
        let read = |lines: &[(&'static str, String)]| found(lines, CertificateHeader::ClientCert);
        let item = format!(":{}:", STANDARD.encode(certificate()));
        let own = Digest::sha256(&certificate());
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&[("client-cert-chain", item.clone())]), Ok(None));
        assert_eq!(read(&[("client-cert", item.clone())]), Ok(Some((own, 1))));
        let chain = format!("{item}, {item}");
        assert_eq!(read(&[("client-cert", item.clone()), ("client-cert-chain", chain)]), Ok(Some((own, 3))));
        let many = vec![item.clone(); limit::CERTIFICATE_CHAIN_MAX].join(",");
        let large = format!(":{}:", "A".repeat(limit::CERTIFICATE_HEADER_BYTES_MAX));
        for bad in [
            vec![("client-cert", item.clone()), ("client-cert", item.clone())],
            vec![("client-cert", "MIIB".to_owned())],
            vec![("client-cert", ":%%:".to_owned())],
            vec![("client-cert", String::new())],
            vec![("client-cert", item.clone()), ("client-cert-chain", "x".to_owned())],
            vec![("client-cert", item.clone()), ("client-cert-chain", many)],
            vec![("client-cert", large)],
        ] {
            assert_eq!(read(&bad), Err(Reason::CertificateRefused), "{:.200}", format!("{bad:?}"));
        }
    }

    #[test]
    fn replicas_tell_each_other_of_certificates() {
        for certificate in [
            ClientCertificate::of_thumbprint(Digest::sha256(b"a")),
            ClientCertificate::of_chain(vec![certificate(), certificate()]).unwrap(),
        ] {
            assert_eq!(from_spelled(&spelled(&certificate)), Some(certificate));
        }
        for bad in ["", "x", ":x", "::,x", "abc"] {
            assert_eq!(from_spelled(bad), None, "{bad}");
        }
    }

    #[test]
    fn envoys_header_counts_as_far_as_the_last_proxy_wrote_it() {
        let read = |line: &str| found(&[("x-forwarded-client-cert", line.to_owned())], CertificateHeader::Xfcc);
        let own = Digest::sha256(&certificate());
        let (hash, pem) = (own.to_string(), encoded());
        let other = Digest::sha256(b"another").to_string();
        assert_eq!(found(&[], CertificateHeader::Xfcc), Ok(None));
        assert_eq!(read(&format!("Hash={hash}")), Ok(Some((own, 0))));
        assert_eq!(read(&format!("By=spiffe://a/b;Hash={hash};Subject=\"CN=a,O=\\\"b;c\\\"\"")), Ok(Some((own, 0))));
        assert_eq!(read(&format!("Hash={hash};Cert=\"{pem}\";URI=spiffe://a/b")), Ok(Some((own, 1))));
        assert_eq!(read(&format!("Cert=\"{pem}\";Chain=\"{pem}{pem}\"")), Ok(Some((own, 2))));
        assert_eq!(read(&format!("Hash={other},Hash={hash}")), Ok(Some((own, 0))), "the last word counts");
        assert_eq!(read(&format!("Subject=\",Hash={other}\";Hash={hash}")), Ok(Some((own, 0))));
        for bad in [
            "",
            "URI=spiffe://a/b",
            "Hash=abc",
            &format!("Hash={hash};Hash={other}"),
            &format!("Hash={other};Cert=\"{pem}\""),
            &format!("Hash={hash},"),
            &format!("Hash={hash};Subject=\"open"),
            "Cert=\"nonsense\"",
            "Cert=\"%FF\"",
        ] {
            assert_eq!(read(bad), Err(Reason::CertificateRefused), "{bad:.100}");
        }
    }
}

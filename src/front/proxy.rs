//! Decides which address a request came from when it came through a proxy.
//!
//! Invariant: a forwarding header is believed only from a trusted proxy, only as far as trusted proxies
//! wrote it, and only where the two kinds of header do not contradict each other.

use std::net::{IpAddr, SocketAddr};

use http::header::{FORWARDED, HeaderMap, VIA};

use crate::config::Network;
use crate::limit;

const X_FORWARDED_FOR: &str = "x-forwarded-for";

/// The address of the nearest party that is not one of our proxies.
#[must_use]
pub fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &[Network]) -> IpAddr {
    let peer = peer.to_canonical();
    if !is_trusted(peer, trusted) {
        return peer;
    }
    let plain = values(headers, X_FORWARDED_FOR).next().is_some();
    let standard = headers.contains_key(FORWARDED);
    let by_plain = || nearest(peer, values(headers, X_FORWARDED_FOR).map(address), trusted);
    let by_standard = || nearest(peer, values(headers, FORWARDED.as_str()).map(forwarded_for), trusted);
    match (plain, standard) {
        (true, false) => by_plain(),
        (false, true) => by_standard(),
        (true, true) => Some(by_plain()).filter(|address| *address == by_standard()).unwrap_or(peer),
        (false, false) => peer,
    }
}

/// Whether that is one of our proxies.
pub(super) fn is_trusted(address: IpAddr, trusted: &[Network]) -> bool {
    trusted.iter().any(|network| network.contains(address))
}

/// Whether some proxy, ours or not, says that it passed the request on. Who connects directly may write it, too, and
/// gains nothing by that.
pub(super) fn says_forwarded(headers: &HeaderMap) -> bool {
    let told =
        [FORWARDED.as_str(), VIA.as_str(), X_FORWARDED_FOR, "x-forwarded-host", "x-forwarded-proto", "x-real-ip"];
    told.iter().any(|name| headers.contains_key(*name))
}

/// Walks from the nearest hop outwards; stops at the first that is not ours, or that cannot be read.
fn nearest(peer: IpAddr, hops: impl Iterator<Item = Option<IpAddr>>, trusted: &[Network]) -> IpAddr {
    let mut nearest = peer;
    for hop in hops.take(limit::FORWARDED_HOPS_MAX) {
        let Some(hop) = hop else { break };
        nearest = hop.to_canonical();
        if !is_trusted(nearest, trusted) {
            break;
        }
    }
    nearest
}

/// The elements of a list header, last first.
fn values<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = &'a str> {
    let lines: Vec<&str> = headers.get_all(name).iter().map(|line| line.to_str().unwrap_or("?")).collect();
    lines.into_iter().rev().flat_map(|line| line.rsplit(',')).map(str::trim)
}

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1` or `[2001:db8::1]:80`.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))
}

/// The `for` parameter of one `Forwarded` element (RFC 7239); obfuscated names are not addresses.
fn forwarded_for(element: &str) -> Option<IpAddr> {
    let mut found = element.split(';').filter_map(|parameter| {
        let (name, value) = parameter.trim().split_once('=')?;
        name.eq_ignore_ascii_case("for").then_some(value)
    });
    let value = found.next()?;
    if found.next().is_some() {
        return None;
    }
    address(value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(peer: &str, lines: &[(&'static str, &str)]) -> String {
        let trusted: Vec<Network> = vec!["10.0.0.0/8".parse().unwrap(), "::1".parse().unwrap()];
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        client_address(peer.parse().unwrap(), &headers, &trusted).to_string()
    }

    #[test]
    fn only_a_trusted_proxy_may_say_who_is_behind_it() {
        type Row = (&'static str, &'static [(&'static str, &'static str)], &'static str);
        let table: &[Row] = &[
            ("192.0.2.9", &[("x-forwarded-for", "198.51.100.1")], "192.0.2.9"),
            ("192.0.2.9", &[("forwarded", "for=198.51.100.1")], "192.0.2.9"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &[("x-forwarded-for", "198.51.100.1")], "198.51.100.1"),
            ("::ffff:10.0.0.1", &[("x-forwarded-for", "198.51.100.1")], "198.51.100.1"),
            // What the client wrote itself stands further left and is never reached.
            ("10.0.0.1", &[("x-forwarded-for", "1.1.1.1, 198.51.100.1, 10.0.0.2")], "198.51.100.1"),
            ("10.0.0.1", &[("x-forwarded-for", "1.1.1.1"), ("x-forwarded-for", "198.51.100.1")], "198.51.100.1"),
            ("10.0.0.1", &[("x-forwarded-for", "10.0.0.3, 10.0.0.2")], "10.0.0.3"),
            ("10.0.0.1", &[("x-forwarded-for", "1.1.1.1, garbage, 10.0.0.2")], "10.0.0.2"),
            ("10.0.0.1", &[("x-forwarded-for", "[2001:db8::1]:4711")], "2001:db8::1"),
            ("::1", &[("forwarded", "for=1.1.1.1, for=\"[2001:db8::2]:80\";proto=https")], "2001:db8::2"),
            ("10.0.0.1", &[("forwarded", "for=_hidden")], "10.0.0.1"),
            ("10.0.0.1", &[("forwarded", "for=1.1.1.1;for=2.2.2.2")], "10.0.0.1"),
            // Two headers that contradict each other: one of them was written by the client.
            ("10.0.0.1", &[("x-forwarded-for", "1.1.1.1"), ("forwarded", "for=198.51.100.1")], "10.0.0.1"),
            ("10.0.0.1", &[("x-forwarded-for", "198.51.100.1"), ("forwarded", "for=198.51.100.1")], "198.51.100.1"),
        ];
        for (peer, lines, expected) in table {
            assert_eq!(seen(peer, lines), *expected, "{peer} {lines:?}");
        }
    }

    #[test]
    fn any_trace_of_a_proxy_says_that_there_was_one() {
        for name in ["forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip"] {
            let headers = HeaderMap::from_iter([(name.parse().unwrap(), "x".parse().unwrap())]);
            assert!(says_forwarded(&headers), "{name}");
        }
        assert!(!says_forwarded(&HeaderMap::from_iter([(http::header::HOST, "x".parse().unwrap())])));
    }

    #[test]
    fn only_so_many_hops_are_walked() {
        let behind = |trusted: usize| {
            let hops = vec!["10.0.0.2"; trusted].join(",");
            seen("10.0.0.1", &[("x-forwarded-for", &format!("198.51.100.1,{hops}"))])
        };
        assert_eq!(behind(limit::FORWARDED_HOPS_MAX - 1), "198.51.100.1");
        assert_eq!(behind(limit::FORWARDED_HOPS_MAX), "10.0.0.2");
    }
}

//! Which kind of address an address is, however it is spelled.
//!
//! Decides what counts as private. Knows nothing of names. Invariant: an IPv4 address that hides in an
//! IPv6 one (mapped, compatible, NAT64, 6to4) is classified as the IPv4 address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Which kind of address an address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressClass {
    /// On the Internet.
    Public,
    /// On somebody's own network: RFC 1918, unique local, carrier-grade NAT.
    Private,
    /// This machine.
    Loopback,
    /// Link-local, a cloud's metadata service, multicast, unspecified, reserved: nobody's upstream.
    Never,
}

/// Metadata services of clouds that are outside of the link-local range.
const METADATA_V4: [Ipv4Addr; 3] =
    [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(168, 63, 129, 16), Ipv4Addr::new(192, 0, 0, 192)];

/// Metadata services that are reached by IPv6.
const METADATA_V6: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)];

impl AddressClass {
    /// Classifies an address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::of_v4(address),
            IpAddr::V6(address) => Self::of_v6(address),
        }
    }

    fn of_v4(address: Ipv4Addr) -> Self {
        if METADATA_V4.contains(&address) {
            return Self::Never;
        }
        match address.octets() {
            [127, ..] => Self::Loopback,
            [10, ..] | [172, 16..=31, ..] | [192, 168, ..] | [100, 64..=127, ..] => Self::Private,
            // This network, link-local, protocol assignments, documentation, benchmarks, multicast, reserved.
            [0, ..]
            | [169, 254, ..]
            | [192, 0, 0, _]
            | [192, 0, 2, _]
            | [198, 18..=19, ..]
            | [198, 51, 100, _]
            | [203, 0, 113, _]
            | [224..=255, ..] => Self::Never,
            _ => Self::Public,
        }
    }

    fn of_v6(address: Ipv6Addr) -> Self {
        if METADATA_V6.contains(&address) {
            return Self::Never;
        }
        if address == Ipv6Addr::LOCALHOST {
            return Self::Loopback;
        }
        let embedded = |high: u16, low: u16| {
            let [[a, b], [c, d]] = [high.to_be_bytes(), low.to_be_bytes()];
            Self::of_v4(Ipv4Addr::new(a, b, c, d))
        };
        match address.segments() {
            // Mapped, compatible, NAT64, 6to4: what counts is the IPv4 address inside.
            [0, 0, 0, 0, 0, 0xffff | 0, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => embedded(high, low),
            [0x2002, high, low, ..] => embedded(high, low),
            [0xfc00..=0xfdff, ..] => Self::Private,
            // Everything that is not global unicast, and in there: Teredo, documentation, local NAT64.
            [0x2001, 0 | 0xdb8, ..] | [0x3fff, ..] => Self::Never,
            [0x2000..=0x3fff, ..] => Self::Public,
            _ => Self::Never,
        }
    }
}

/// Whether the URL's host is this machine, as far as the URL alone can tell.
#[must_use]
pub fn is_loopback(url: &url::Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => AddressClass::of_v4(address) == AddressClass::Loopback,
        Some(url::Host::Ipv6(address)) => AddressClass::of_v6(address) == AddressClass::Loopback,
        None => false,
    }
}

/// The address, where a URL's host is one and not a name.
pub(super) fn literal(host: &str) -> Option<IpAddr> {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    bare.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_classified_however_it_is_spelled() {
        use AddressClass::{Loopback, Never, Private, Public};
        for (text, class) in [
            ("8.8.8.8", Public),
            ("172.15.0.1", Public),
            ("172.16.0.1", Private),
            ("172.32.0.1", Public),
            ("192.168.255.255", Private),
            ("100.63.0.1", Public),
            ("100.64.0.1", Private),
            ("100.128.0.1", Public),
            ("100.100.100.200", Never),
            ("127.255.255.254", Loopback),
            ("0.0.0.0", Never),
            ("0.1.2.3", Never),
            ("169.254.169.254", Never),
            ("168.63.129.16", Never),
            ("224.0.0.1", Never),
            ("255.255.255.255", Never),
            ("::", Never),
            ("::1", Loopback),
            ("::ffff:127.0.0.1", Loopback),
            ("::ffff:10.0.0.1", Private),
            ("::127.0.0.1", Loopback),
            ("64:ff9b::7f00:1", Loopback),
            ("64:ff9b::808:808", Public),
            ("64:ff9b:1::1", Never),
            ("2002:a00:1::", Private),
            ("2002:7f00:1::", Loopback),
            ("2001:0:1::1", Never),
            ("2001:db8::1", Never),
            ("fe80::1", Never),
            ("fec0::1", Never),
            ("fd12::1", Private),
            ("fd00:ec2::254", Never),
            ("ff02::1", Never),
            ("2606:4700::1111", Public),
        ] {
            assert_eq!(AddressClass::of(text.parse().unwrap()), class, "{text}");
        }
    }

    #[test]
    fn only_addresses_are_literals() {
        assert!(literal("[::1]").is_some() && literal("127.0.0.1").is_some());
        // These are names to us; the resolver turns them into addresses, which are checked then.
        assert!(literal("2130706433").is_none() && literal("0x7f.1").is_none() && literal("localhost").is_none());
    }
}

//! Decides which `Host` and `Origin` a request may carry, so that no web page reaches the gateway by
//! rebinding a name or by posting from somewhere else.
//!
//! Refuses to know who calls. Invariant: what is present and not on the list is refused.

use std::net::{IpAddr, SocketAddr};

use http::header::{HOST, HeaderMap, ORIGIN};
use http::uri::Uri;
use url::Url;

use super::headers::single;
use crate::config::GatewayConfig;
use crate::outcome::Reason;

/// The hosts and origins of one configuration.
#[derive(Debug)]
pub struct Guard {
    hosts: Vec<Host>,
    /// ASCII serialisations, lower case.
    origins: Vec<String>,
    loopback: LoopbackIs,
}

/// What names of this machine are, whatever the port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LoopbackIs {
    /// Nothing special: the listener can be reached from elsewhere.
    Foreign,
    /// As good as our own `Host`, which no page elsewhere can be.
    OurHost,
    /// The same, and pages from there may call.
    Trusted,
}

impl LoopbackIs {
    fn of(listen: IpAddr, on_loopback: Self) -> Self {
        if listen.is_loopback() { on_loopback } else { Self::Foreign }
    }
}

/// A host name, and a port where only that one is meant.
#[derive(Debug, PartialEq, Eq)]
struct Host {
    name: String,
    port: Option<u16>,
}

const LOOPBACK_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

impl Guard {
    pub(super) fn new(config: &GatewayConfig) -> Self {
        let hosts = hosts(config.listen.ip(), &config.public_url, &config.allowed_hosts);
        let mut origins: Vec<String> = config.allowed_origins.iter().map(|origin| canonical(origin)).collect();
        origins.push(config.public_url.origin().ascii_serialization());
        Self { hosts, origins, loopback: LoopbackIs::of(config.listen.ip(), LoopbackIs::Trusted) }
    }

    /// Where no other page may do anything, not even one on this machine: what is served here is its only origin.
    #[must_use]
    pub fn for_own_pages(listen: SocketAddr, public_url: &Url, allowed_hosts: &[String]) -> Self {
        let mut origins = vec![public_url.origin().ascii_serialization()];
        let loopback = LoopbackIs::of(listen.ip(), LoopbackIs::OurHost);
        if loopback == LoopbackIs::OurHost {
            let own = [listen.to_string(), format!("localhost:{}", listen.port())];
            origins.extend(own.iter().flat_map(|own| [format!("http://{own}"), format!("https://{own}")]));
        }
        Self { hosts: hosts(listen.ip(), public_url, allowed_hosts), origins, loopback }
    }

    /// Checks both.
    ///
    /// # Errors
    /// [`Reason::HostRefused`] or [`Reason::OriginRefused`].
    pub fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Reason> {
        // HTTP/2 and absolute-form requests name the host in the URI, and that is what counts then.
        let host = match uri.authority() {
            Some(authority) => Some(authority.as_str()),
            None => single(headers, HOST.as_str()).map_err(|_| Reason::HostRefused)?,
        };
        let host = host.and_then(Host::parse).ok_or(Reason::HostRefused)?;
        if !self.knows(&host) {
            return Err(Reason::HostRefused);
        }
        match single(headers, ORIGIN.as_str()).map_err(|_| Reason::OriginRefused)? {
            Some(origin) if !self.allows(origin) => Err(Reason::OriginRefused),
            _ => Ok(()),
        }
    }

    fn knows(&self, host: &Host) -> bool {
        self.hosts.iter().any(|own| own.name == host.name && (own.port.is_none() || own.port == host.port))
            || (self.loopback != LoopbackIs::Foreign && LOOPBACK_NAMES.contains(&host.name.as_str()))
    }

    fn allows(&self, origin: &str) -> bool {
        let origin = origin.to_ascii_lowercase();
        self.origins.contains(&origin)
            || (self.loopback == LoopbackIs::Trusted
                && origin
                    .strip_prefix("http://")
                    .or_else(|| origin.strip_prefix("https://"))
                    .and_then(Host::parse)
                    .is_some_and(|host| LOOPBACK_NAMES.contains(&host.name.as_str())))
    }
}

impl Host {
    /// Reads `name`, `name:port`, `[v6]` or `[v6]:port`; nothing else.
    fn parse(text: &str) -> Option<Self> {
        let name_end = match text.strip_prefix('[') {
            Some(rest) => rest.find(']')? + 2,
            None => text.find(':').unwrap_or(text.len()),
        };
        let (name, rest) = text.split_at_checked(name_end)?;
        let port = match rest.strip_prefix(':') {
            Some(digits) if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                Some(digits.parse().ok()?)
            }
            Some(_) => return None,
            None if rest.is_empty() => None,
            None => return None,
        };
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._[]:".contains(&byte);
        (!name.is_empty() && name.bytes().all(plain)).then(|| Self { name: name.to_ascii_lowercase(), port })
    }
}

/// The hosts that are ours: those that the files name, the public URL's, and the listener's own address.
fn hosts(listen: IpAddr, public_url: &Url, allowed: &[String]) -> Vec<Host> {
    let mut hosts: Vec<Host> = allowed.iter().filter_map(|host| Host::parse(host)).collect();
    hosts.extend(public_url.host_str().and_then(Host::parse));
    if !listen.is_unspecified() {
        hosts.extend(Host::parse(&if listen.is_ipv6() { format!("[{listen}]") } else { listen.to_string() }));
    }
    hosts
}

/// An origin as browsers write it, whatever the file says.
fn canonical(origin: &str) -> String {
    match Url::parse(origin).map(|url| url.origin()) {
        Ok(origin) if origin.is_tuple() => origin.ascii_serialization(),
        _ => origin.to_ascii_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::front::fixture;

    fn check(listen: &str, host: &str, origin: Option<&str>) -> Result<(), Reason> {
        let mut config = fixture::config();
        config.gateway.listen = listen.parse().unwrap();
        config.gateway.public_url = Url::parse("https://gw.example").unwrap();
        config.gateway.allowed_hosts = vec!["internal:8080".into()];
        config.gateway.allowed_origins = vec!["https://App.example/".into()];
        let mut headers = HeaderMap::new();
        headers.insert(HOST, host.parse().unwrap());
        if let Some(origin) = origin {
            headers.insert(ORIGIN, origin.parse().unwrap());
        }
        Guard::new(&config.gateway).check(&Uri::from_static("/mcp"), &headers)
    }

    #[test]
    fn only_our_own_names_are_hosts() {
        let public = "10.0.0.5:8080";
        for good in ["gw.example", "GW.example:443", "10.0.0.5:8080", "internal:8080"] {
            assert_eq!(check(public, good, None), Ok(()), "{good}");
        }
        for bad in [
            "evil.example",
            "gw.example.evil.example",
            "gw.example@evil.example",
            "internal:8081",
            "internal",
            "localhost:8080",
            "127.0.0.1",
            "gw.example:",
            "gw.example:80x",
            "",
            "[::1]x",
        ] {
            assert_eq!(check(public, bad, None), Err(Reason::HostRefused), "{bad}");
        }
        for good in ["localhost:1", "127.0.0.1:9999", "[::1]:3000", "gw.example"] {
            assert_eq!(check("127.0.0.1:8080", good, None), Ok(()), "{good}");
        }
        assert_eq!(check("127.0.0.1:8080", "localhost.evil.example", None), Err(Reason::HostRefused));
    }

    #[test]
    fn an_origin_that_is_present_must_be_on_the_list() {
        let public = "10.0.0.5:8080";
        for good in ["https://gw.example", "https://app.example"] {
            assert_eq!(check(public, "gw.example", Some(good)), Ok(()), "{good}");
        }
        for bad in
            ["null", "http://gw.example", "https://gw.example:444", "http://localhost:3000", "https://evil.example"]
        {
            assert_eq!(check(public, "gw.example", Some(bad)), Err(Reason::OriginRefused), "{bad}");
        }
        for good in ["http://localhost:3000", "https://127.0.0.1", "http://[::1]:5173"] {
            assert_eq!(check("127.0.0.1:8080", "localhost", Some(good)), Ok(()), "{good}");
        }
        for bad in ["http://localhost.evil.example", "http://localhost@evil.example", "file://localhost", "null"] {
            assert_eq!(check("127.0.0.1:8080", "localhost", Some(bad)), Err(Reason::OriginRefused), "{bad}");
        }
    }

    #[test]
    fn where_only_own_pages_may_call_no_other_page_of_this_machine_may() {
        let url = Url::parse("http://127.0.0.1:9443").unwrap();
        let guard = Guard::for_own_pages("127.0.0.1:9443".parse().unwrap(), &url, &[]);
        let check = |host: &str, origin: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, host.parse().unwrap());
            if let Some(origin) = origin {
                headers.insert(ORIGIN, origin.parse().unwrap());
            }
            guard.check(&Uri::from_static("/"), &headers)
        };
        assert_eq!(check("localhost:9443", None), Ok(()));
        assert_eq!(check("127.0.0.1:9443", Some("http://127.0.0.1:9443")), Ok(()));
        assert_eq!(check("127.0.0.1:9443", Some("http://localhost:3000")), Err(Reason::OriginRefused));
        assert_eq!(check("127.0.0.1:9443", Some("null")), Err(Reason::OriginRefused));
        assert_eq!(check("rebound.example:9443", None), Err(Reason::HostRefused));
    }

    #[test]
    fn two_hosts_or_none_are_refused() {
        let config = fixture::config();
        let guard = Guard::new(&config.gateway);
        let mut headers = HeaderMap::new();
        assert_eq!(guard.check(&Uri::from_static("/mcp"), &headers), Err(Reason::HostRefused));
        headers.append(HOST, "localhost".parse().unwrap());
        assert_eq!(guard.check(&Uri::from_static("/mcp"), &headers), Ok(()));
        headers.append(HOST, "localhost".parse().unwrap());
        assert_eq!(guard.check(&Uri::from_static("/mcp"), &headers), Err(Reason::HostRefused));
        let absolute = Uri::from_static("http://evil.example/mcp");
        assert_eq!(guard.check(&absolute, &headers), Err(Reason::HostRefused));
    }
}

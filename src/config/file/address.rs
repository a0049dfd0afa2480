//! Which addresses a URL in a file may name: what is loopback, what is private, what is in the clear.
//!
//! Looks at what is written; what a name resolves to is for `egress` to judge at every connection.

use std::net::IpAddr;

use url::{Host, Url};

/// Whether the URL names this machine.
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => IpAddr::V6(address).to_canonical().is_loopback(),
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        None => false,
    }
}

/// Whether the URL names an address that is not reachable from outside: loopback, private, link-local.
pub fn is_private(url: &Url) -> bool {
    let address = match url.host() {
        Some(Host::Ipv4(address)) => IpAddr::V4(address),
        Some(Host::Ipv6(address)) => IpAddr::V6(address).to_canonical(),
        Some(Host::Domain(_)) | None => return is_loopback(url),
    };
    match address {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_private() || v4.is_link_local() || v4.is_unspecified(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local() || v6.is_unspecified(),
    }
}

/// Reads an absolute `http:` or `https:` URL without userinfo or fragment.
pub fn http_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("`{text}` is not a URL ({error}): write https://host/path"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("`{text}` is not an http URL: write https://host/path"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("a URL with a user name or password in it ends up in logs: use a credential instead".to_owned());
    }
    if url.fragment().is_some() {
        return Err(format!("`{text}` has a fragment: remove everything from `#` on"));
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_recognised_in_every_spelling_that_a_url_has() {
        for text in
            ["http://127.0.0.1/", "http://[::1]:1/", "http://localhost/", "http://[::ffff:127.0.0.1]/", "http://127.1/"]
        {
            assert!(is_loopback(&Url::parse(text).unwrap()), "{text}");
        }
        for text in ["http://10.0.0.1/", "http://localhost.example.com/", "http://0.0.0.0/"] {
            assert!(!is_loopback(&Url::parse(text).unwrap()), "{text}");
        }
        for text in ["http://10.0.0.1/", "http://169.254.169.254/", "http://[fd00::1]/", "http://0.0.0.0/"] {
            assert!(is_private(&Url::parse(text).unwrap()), "{text}");
        }
        assert!(!is_private(&Url::parse("https://mcp.example.com/").unwrap()));
    }

    #[test]
    fn a_url_that_carries_a_password_or_a_fragment_is_refused() {
        for text in ["https://me:secret@host/", "https://host/#x", "ftp://host/", "host/path", ""] {
            assert!(http_url(text).is_err(), "{text}");
        }
    }
}

//! Whether a path lies under a directory, and whether a URL leads to a host.
//!
//! Nothing is normalised, because upstreams normalise differently: a spelling that two readers could
//! understand differently is *unknown*, which an allow refuses and a deny applies to.

use super::Truth;

/// Whether an absolute path is one of these directories or lies below.
pub(super) fn path_under(path: &str, directories: &[String]) -> Truth {
    if !path.starts_with('/') || is_ambiguous(path) {
        return Truth::Unknown;
    }
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        if matches!(segment, "." | "..") || (segment.is_empty() && segments.peek().is_some()) {
            return Truth::Unknown;
        }
    }
    let path = path.strip_suffix('/').unwrap_or(path);
    Truth::of(directories.iter().any(|directory| {
        let directory = directory.strip_suffix('/').unwrap_or(directory);
        path.strip_prefix(directory).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }))
}

/// Whether an `http:` or `https:` URL has one of these hosts; `*.example.org` means every name below it.
pub(super) fn url_host_in(text: &str, hosts: &[String]) -> Truth {
    let Some(host) = plain_host(text) else { return Truth::Unknown };
    // The parser that upstreams resemble most must understand the same host.
    if !url::Url::parse(text).is_ok_and(|url| url.host_str() == Some(host.as_str())) {
        return Truth::Unknown;
    }
    Truth::of(hosts.iter().any(|allowed| match allowed.strip_prefix("*.") {
        Some(parent) => host.strip_suffix(parent).is_some_and(|below| below.len() > 1 && below.ends_with('.')),
        None => host == *allowed,
    }))
}

/// The host, if the whole URL is spelled so that it can only be read in one way.
fn plain_host(text: &str) -> Option<String> {
    if is_ambiguous(text) || text.contains(char::is_whitespace) {
        return None;
    }
    let (scheme, rest) = text.split_once("://")?;
    if !scheme.eq_ignore_ascii_case("https") && !scheme.eq_ignore_ascii_case("http") {
        return None;
    }
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at_checked(end)?;
    let path = path.split(['?', '#']).next().unwrap_or("");
    if path.split('/').any(|segment| matches!(segment, "." | "..")) {
        return None;
    }
    let host = match authority.split_once(':') {
        Some((host, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        Some(_) => return None,
        None => authority,
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
    let sound = !host.is_empty() && host.bytes().all(plain) && !host.ends_with('.') && !host.contains("..");
    sound.then(|| host.to_ascii_lowercase())
}

/// Control characters, backslashes, and encoded dots, separators, percents and control characters.
fn is_ambiguous(text: &str) -> bool {
    text.contains(|character: char| character.is_control() || character == '\\')
        || text.match_indices('%').any(|(at, _)| {
            let digits = text.get(at + 1..at + 3).map(str::to_ascii_lowercase);
            match digits.as_deref() {
                Some("2e" | "2f" | "5c" | "25" | "7f") | None => true,
                Some(digits) => !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) || digits.starts_with(['0', '1']),
            }
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_under_a_directory_or_not_or_nobody_knows() {
        let under = |path: &str| path_under(path, &["/srv/data".to_owned()]);
        for inside in ["/srv/data", "/srv/data/", "/srv/data/a", "/srv/data/a/b.txt", "/srv/data/%20", "/srv/data/é"] {
            assert_eq!(under(inside), Truth::True, "{inside}");
        }
        for outside in ["/srv/database", "/srv", "/", "/etc/passwd", "/SRV/data/a"] {
            assert_eq!(under(outside), Truth::False, "{outside}");
        }
        for unknown in [
            "",
            "srv/data/a",
            "/srv/data/../etc",
            "/srv/data/./a",
            "/srv/data//a",
            "//srv/data",
            "/srv/data/..",
            "/srv/data/%2e%2e/a",
            "/srv/data/%2Fetc",
            "/srv/data/%252e",
            "/srv/data\\..\\a",
            "/srv/data/a\0",
            "/srv/data/a\nb",
            "/srv/data/%",
            "/srv/data/%zz",
            "/srv/data/%00",
            "~/a",
            "file:///srv/data/a",
        ] {
            assert_eq!(under(unknown), Truth::Unknown, "{unknown:?}");
        }
    }

    #[test]
    fn a_url_leads_to_a_host_or_not_or_nobody_knows() {
        let hosts = ["api.example.com".to_owned(), "*.example.org".to_owned()];
        let leads = |url: &str| url_host_in(url, &hosts);
        for inside in [
            "https://api.example.com",
            "https://API.example.com/a?b#c",
            "http://api.example.com:8080/",
            "https://a.example.org/",
            "https://a.b.example.org",
            "HTTPS://a.example.org/x/@y",
        ] {
            assert_eq!(leads(inside), Truth::True, "{inside}");
        }
        for outside in ["https://example.org/", "https://evilexample.org/", "https://example.com", "http://127.0.0.1/"]
        {
            assert_eq!(leads(outside), Truth::False, "{outside}");
        }
        for unknown in [
            "api.example.com",
            "//api.example.com",
            "ftp://api.example.com",
            "https:api.example.com",
            "https://api.example.com@evil.com/",
            "https://evil.com\\@api.example.com",
            "https://api.example.com%2eevil.com",
            "https://api.example.com\t.evil.com",
            "https://api.example.com./",
            "https://api.example.com/../x",
            "https://api.example.com/%2e%2e/x",
            "https://api.example.com:/",
            "https://[::1]/",
            "https://2130706433/",
            "https://0x7f.1/",
            "https:///api.example.com",
            "https://ex\u{e4}mple.org",
            " https://api.example.com",
        ] {
            assert_eq!(leads(unknown), Truth::Unknown, "{unknown:?}");
        }
    }
}

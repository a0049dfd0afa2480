//! Clients that registered here (RFC 7591): what they may be called, and where they may be sent back to.
//!
//! Invariant: a client id is what was registered, sealed: it cannot be made, changed or used up, and it ends by itself,
//! or for good when it is taken back.

use bytes::Bytes;
use http::{Response, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use url::{Host, Url};

use super::{Desk, Facade, Moment, Purpose, answer};
use crate::ids::Digest;
use crate::limit;

/// A client, as it registered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Client {
    /// What it calls itself: nobody has looked whether that is true.
    pub(super) name: String,
    pub(super) redirects: Vec<String>,
    pub(super) until: Moment,
}

impl Client {
    /// Whether that is where it may be sent back to, to the character; on this machine at whichever port a program got
    /// this time (RFC 8252 section 7.3).
    pub(super) fn may_backto(&self, uri: &str) -> bool {
        let portless = on_this_machine(uri);
        let alike = |own: &String| own == uri || (portless.is_some() && on_this_machine(own) == portless);
        self.redirects.iter().any(alike)
    }
}

impl Facade {
    pub(super) fn register(&self, desk: &Desk<'_>, body: &[u8]) -> Response<Bytes> {
        let refuse = |code, text: &str| answer::error(StatusCode::BAD_REQUEST, code, text);
        let Ok(asked) = serde_json::from_slice::<Value>(body) else {
            return refuse("invalid_client_metadata", "the body is not JSON");
        };
        let redirects: Option<Vec<String>> = asked
            .get("redirect_uris")
            .and_then(Value::as_array)
            .and_then(|uris| uris.iter().map(|uri| uri.as_str().map(str::to_owned)).collect());
        let redirects = redirects.unwrap_or_default();
        if redirects.is_empty() || redirects.len() > limit::FACADE_REDIRECTS_MAX {
            return refuse("invalid_redirect_uri", "register one to five redirect_uris");
        }
        if let Some(bad) = redirects.iter().find(|uri| !is_redirect(uri, &desk.registration.schemes)) {
            let text = format!(
                "{:.200} is not taken: use https:, http: on loopback, or a scheme that was allowed",
                printable(bad)
            );
            return refuse("invalid_redirect_uri", &text);
        }
        let name = asked.get("client_name").and_then(Value::as_str).map(printable).unwrap_or_default();
        let name: String = name.trim().chars().take(limit::FACADE_NAME_CHARACTERS_MAX).collect();
        let client = Client { name, redirects, until: Moment::now().after(limit::FACADE_CLIENT_LIFE) };
        let Some(id) = self.seal(Purpose::Client, (desk, ""), desk.nobody(desk.epoch), &client) else {
            return answer::error(StatusCode::INTERNAL_SERVER_ERROR, "server_error", "try again");
        };
        let registered = json!({
            "client_id": id,
            "client_id_issued_at": Moment::now().0,
            "client_name": client.name,
            "redirect_uris": client.redirects,
            "token_endpoint_auth_method": "none",
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
        });
        answer::json(StatusCode::CREATED, &registered)
    }

    /// The client of that id, where it registered here, not too long ago, and was not taken back since.
    pub(super) fn client(&self, desk: &Desk<'_>, id: &str) -> Option<Client> {
        let (client, since): (Client, _) = self.open(Purpose::Client, (desk, ""), id)?;
        (client.until > Moment::now() && self.holds(desk, &short(id), since)).then_some(client)
    }
}

/// A client id as it is recorded and bound: it is long, and says what the client says.
pub(super) fn short(id: &str) -> String {
    Digest::sha256(id.as_bytes()).short()
}

/// Where a client may be sent back to: to a server over TLS, to this machine, or to a program by a scheme of its own.
fn is_redirect(text: &str, schemes: &[String]) -> bool {
    if text.len() > limit::FACADE_REDIRECT_BYTES_MAX || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return false;
    }
    let Ok(url) = Url::parse(text) else { return false };
    // What a browser reads must be what was looked at here.
    if url.fragment().is_some() || text.contains('\\') || !url.username().is_empty() || url.password().is_some() {
        return false;
    }
    match url.scheme() {
        "https" => url.host_str().is_some_and(|host| !host.is_empty()),
        "http" => match url.host() {
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            Some(Host::Domain(name)) => name == "localhost",
            None => false,
        },
        scheme => schemes.iter().any(|allowed| allowed == scheme),
    }
}

/// A place on this machine by its address, without the port.
fn on_this_machine(uri: &str) -> Option<Url> {
    let mut url = Url::parse(uri).ok().filter(|_| is_redirect(uri, &[]))?;
    let is_address = matches!(url.host(), Some(Host::Ipv4(_) | Host::Ipv6(_)));
    if url.scheme() != "http" || !is_address {
        return None;
    }
    url.set_port(None).ok()?;
    Some(url)
}

/// Without what cannot be seen, or could make a line say something else.
fn printable(text: &str) -> String {
    text.chars().filter(|c| c.is_alphanumeric() || c.is_ascii_graphic() || *c == ' ').collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_sent_back_to_tls_this_machine_or_a_scheme_that_was_allowed() {
        let schemes = ["cursor".to_owned()];
        for good in [
            "https://app.example/cb",
            "https://app.example/cb?x=1",
            "http://127.0.0.1:4711/cb",
            "http://[::1]:1/cb",
            "http://localhost:3000/",
            "cursor://anysphere.cursor-mcp/oauth/callback",
        ] {
            assert!(is_redirect(good, &schemes), "{good}");
        }
        let long = format!("https://app.example/{}", "x".repeat(limit::FACADE_REDIRECT_BYTES_MAX));
        for bad in [
            "",
            "/cb",
            "http://app.example/cb",
            "http://localhost.example/cb",
            "http://127.0.0.1.example/",
            "https://app.example/cb#x",
            "https://user@app.example/",
            "https://user:x@app.example/",
            "https://app.example\\@evil.example/",
            "https://app.example/ cb",
            "https://app.example/\n",
            "https://",
            "javascript:alert(1)",
            "data:text/html,x",
            "vscode://x/cb",
            "CURSOR2://x",
            &long,
        ] {
            assert!(!is_redirect(bad, &schemes), "{bad}");
        }
        assert!(is_redirect(&long[..limit::FACADE_REDIRECT_BYTES_MAX], &[]));
        let client = |own: &str| Client { name: String::new(), redirects: vec![own.to_owned()], until: Moment(0) };
        let ours = client("http://127.0.0.1:4711/cb");
        assert!(ours.may_backto("http://127.0.0.1:4712/cb") && ours.may_backto("http://127.0.0.1/cb"));
        for other in ["http://127.0.0.1:4712/other", "http://[::1]:4711/cb", "http://localhost:4711/cb"] {
            assert!(!ours.may_backto(other), "{other}");
        }
        assert!(!client("http://localhost:1/").may_backto("http://localhost:2/"), "a name may lead elsewhere");
        assert!(!client("https://127.0.0.1:1/").may_backto("https://127.0.0.1:2/"));
        assert_eq!(printable("Claude\u{202e} <Code>\n\u{200b}é"), "Claude <Code>é");
    }
}

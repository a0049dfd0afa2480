//! Where a gateway's tokens come from, for the person in front of the bridge.
//!
//! Decides which authorization server is asked, and for which scopes. Refuses to know how metadata is read. Invariant:
//! the gateway names itself as it was called.

use url::Url;

use super::LoginOptions;
use crate::egress::{EgressPolicy, OauthClient, is_loopback, oauth_client};
use crate::limit;
pub(crate) use crate::oauth::Challenge;
use crate::oauth::discover::{NoDocument, protected, server};
use crate::oauth::dpop::{self, ProofKey, Prover, Proving};
use crate::oauth::{Protected, Server};

/// Everything that a login needs to know.
pub(super) struct Found {
    /// What the token is for: the gateway's own name.
    pub resource: String,
    /// Scopes to ask for.
    pub scopes: Vec<String>,
    /// Who issues tokens.
    pub server: Server,
    /// A client that may go there.
    pub client: OauthClient,
    /// Whether both know tokens that are bound to a key (RFC 9449), and sign as we do.
    pub proves: bool,
}

impl Found {
    /// What tokens are asked for with, and the key that they are going to be bound to where they can be: a fresh one.
    ///
    /// # Errors
    /// When no key can be made.
    pub(super) fn asker(&self) -> Result<(Proving, Option<ProofKey>), String> {
        let key = self.proves.then(ProofKey::generate).transpose()?;
        let prover = key.clone().map(Prover::new);
        Ok((Proving { client: self.client.clone(), prover }, key))
    }
}

/// Finds out where tokens for the gateway at `url` come from.
///
/// # Errors
/// A lower-case sentence that says what is missing and what to do.
pub(super) async fn discover(url: &Url, options: &LoginOptions, challenge: &Challenge) -> Result<Found, String> {
    // Whoever typed the gateway's address meant it, wherever it is.
    let asker = oauth_client(EgressPolicy::server(true)).map_err(|error| error.to_string())?;
    let protected = protected(&asker, url, challenge, |_, resource| same(resource, url)).await;
    let protected = protected.map_err(|problem| match problem {
        NoDocument::OfAnother(resource) => {
            format!("the gateway at {url} calls itself {}; use that name with --url", shown(&resource))
        }
        NoDocument::None(problem) => format!("the gateway at {url} does not say where to log in: {problem}"),
    })?;
    let local = is_loopback(url);
    let mut problem = format!("the gateway at {url} names no authorization server; use --token-env or --token-file");
    let mut matched = false;
    for issuer in protected.authorization_servers.iter().take(limit::LOGIN_ISSUERS_MAX) {
        if options.issuer.as_deref().is_some_and(|wanted| wanted.trim_end_matches('/') != issuer.trim_end_matches('/'))
        {
            continue;
        }
        matched = true;
        let host = Url::parse(issuer).ok().and_then(|url| url.host_str().map(str::to_owned));
        match server(issuer, &EgressPolicy::issuer(host.as_deref(), local)).await {
            Ok((server, client)) => {
                let scopes = scopes(options, challenge, &protected, &server);
                let proves = proves(challenge, &protected, &server);
                return Ok(Found { resource: protected.resource, scopes, server, client, proves });
            }
            Err(found) => problem = found,
        }
    }
    if let (Some(wanted), false) = (&options.issuer, matched) {
        let known = protected.authorization_servers.join(", ");
        return Err(format!("the gateway does not accept tokens of {wanted}; it names: {known}"));
    }
    Err(problem)
}

fn same(resource: &str, url: &Url) -> bool {
    let Ok(resource) = Url::parse(resource) else { return false };
    resource.as_str().trim_end_matches('/') == url.as_str().trim_end_matches('/')
}

/// Whether tokens can be bound to a key: whoever steals one has nothing then.
fn proves(challenge: &Challenge, protected: &Protected, server: &Server) -> bool {
    let signs = |all: &[String]| all.iter().any(|known| known == dpop::ALGORITHM);
    let takes_bound = challenge.dpop
        || protected.dpop_bound_access_tokens_required
        || signs(&protected.dpop_signing_alg_values_supported);
    takes_bound && signs(&server.dpop_signing_alg_values_supported)
}

/// What was asked for on the command line, else what the 401 asks for, else what the gateway knows; and always what
/// gets a refresh token.
fn scopes(options: &LoginOptions, challenge: &Challenge, protected: &Protected, server: &Server) -> Vec<String> {
    let mut scopes: Vec<String> = match (&options.scope, &challenge.scope) {
        (Some(scope), _) | (None, Some(scope)) => scope.split_whitespace().map(str::to_owned).collect(),
        (None, None) => protected.scopes_supported.clone(),
    };
    let offline = "offline_access".to_owned();
    if server.scopes_supported.contains(&offline) && !scopes.contains(&offline) {
        scopes.push(offline);
    }
    scopes
}

/// Text of somebody else's, for a terminal.
pub(super) fn shown(text: &str) -> String {
    crate::cli::call::safe(text).chars().take(limit::ERROR_SHOWN_CHARACTERS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_is_called_by_its_own_name_only() {
        let url = Url::parse("https://gw.example/mcp").unwrap();
        assert!(same("https://gw.example/mcp", &url) && same("https://gw.example/mcp/", &url));
        for other in ["https://gw.example/mcp/git", "https://gw.example", "https://evil.example/mcp", "", "mcp"] {
            assert!(!same(other, &url), "{other}");
        }
    }

    /// A gateway that names so many issuers on its own address, none of which is one; what was asked for there.
    async fn asked_of(issuers: usize) -> Vec<String> {
        use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let place = format!("http://{}", listener.local_addr().unwrap());
        let named: Vec<_> = (0..issuers).map(|number| format!("{place}/issuer-{number}")).collect();
        let resource = format!("{place}/mcp");
        let document = serde_json::json!({ "resource": resource, "authorization_servers": named }).to_string();
        let asked = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let heard = std::sync::Arc::clone(&asked);
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let mut stream = BufReader::new(stream);
                let mut line = String::new();
                stream.read_line(&mut line).await.unwrap();
                let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
                while stream.read_line(&mut line).await.unwrap() > 2 {}
                let (status, body) = match path.contains("oauth-protected-resource") {
                    true => ("200 OK", document.as_str()),
                    false => ("404 Not Found", "{}"),
                };
                heard.lock().unwrap().push(path);
                let head = format!("content-type: application/json\r\ncontent-length: {}", body.len());
                let answer = format!("HTTP/1.1 {status}\r\nconnection: close\r\n{head}\r\n\r\n{body}");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        let url = Url::parse(&resource).unwrap();
        let problem = discover(&url, &LoginOptions::default(), &Challenge::default()).await.err().unwrap();
        assert!(problem.contains("cannot be used"), "{problem}");
        serving.abort();
        std::mem::take(&mut *asked.lock().unwrap())
    }

    #[tokio::test]
    async fn so_many_issuers_of_a_gateway_are_asked_and_no_more() {
        let asked = asked_of(limit::LOGIN_ISSUERS_MAX + 2).await;
        for number in 0..limit::LOGIN_ISSUERS_MAX + 2 {
            let was_asked = asked.iter().any(|path| path.contains(&format!("/issuer-{number}")));
            assert_eq!(was_asked, number < limit::LOGIN_ISSUERS_MAX, "{number}: {asked:?}");
        }
    }
}

//! What an authorization server says of itself (RFC 8414).
//!
//! Decides where it is asked and how long that holds. Invariants: the metadata names exactly the issuer that was asked
//! for, or it is nobody's; while an issuer is away its last word holds.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use http::header::ACCEPT;
use http::{Request, StatusCode};
use serde::Deserialize;
use url::Url;

use crate::egress::{OauthClient, is_loopback};
use crate::limit;

/// What is used of an authorization server's metadata.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Metadata {
    /// Its own name.
    pub issuer: String,
    pub token_endpoint: Url,
    pub revocation_endpoint: Option<Url>,
}

/// The metadata of issuers, by issuer.
#[derive(Debug)]
pub(super) struct MetadataCache {
    known: moka::future::Cache<String, Known>,
}

#[derive(Debug, Clone)]
struct Known {
    metadata: Arc<Metadata>,
    /// Asked again from then on.
    due_at: Instant,
    /// Somebody does so.
    asking: Arc<AtomicBool>,
}

/// It is being asked for as long as this lives.
struct Asking(Arc<AtomicBool>);

impl Drop for Asking {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl MetadataCache {
    pub fn new() -> Self {
        Self { known: moka::future::Cache::new(limit::TOKEN_ENDPOINTS_MAX) }
    }

    /// What that issuer says of itself; `url` is its name, read.
    pub async fn get(&self, issuer: &str, url: &Url, client: &OauthClient) -> Result<Arc<Metadata>, String> {
        if let Some(known) = self.known.get(issuer).await.filter(|known| Instant::now() < known.due_at) {
            return Ok(known.metadata);
        }
        // Boxed, because most questions find it known.
        let fetched = Box::pin(async {
            let metadata = Arc::new(fetch(issuer, url, client).await?);
            Ok::<Known, String>(Known {
                metadata,
                due_at: Instant::now() + limit::JWKS_REFRESH,
                asking: Arc::default(),
            })
        });
        let Some(before) = self.known.get(issuer).await else {
            // However many want it for the first time, it is asked once.
            let known = self.known.try_get_with_by_ref(issuer, fetched).await;
            return known.map(|known| known.metadata).map_err(|problem| String::clone(&problem));
        };
        // Its last word holds while it is asked again, which one of those does who want it.
        if Instant::now() < before.due_at || before.asking.swap(true, Ordering::AcqRel) {
            return Ok(before.metadata);
        }
        // Whoever asks may be gone before the answer: then it is another's turn.
        let asking = Asking(Arc::clone(&before.asking));
        let known = match fetched.await {
            Ok(known) => known,
            Err(problem) => {
                tracing::warn!(issuer, problem, "an authorization server's metadata could not be fetched again");
                let due_at = Instant::now() + limit::METADATA_RETRY;
                Known { metadata: before.metadata, due_at, asking: Arc::default() }
            }
        };
        self.known.insert(issuer.to_owned(), known.clone()).await;
        drop(asking);
        Ok(known.metadata)
    }
}

async fn fetch(issuer: &str, url: &Url, client: &OauthClient) -> Result<Metadata, String> {
    let mut problem = String::new();
    for place in places(url) {
        let request = Request::get(place.as_str())
            .header(ACCEPT, "application/json")
            .body(Vec::new())
            .map_err(|error| error.to_string())?;
        let answer = client.send(request).await.map_err(|error| format!("no metadata of `{issuer}`: {error}"))?;
        if answer.status() != StatusCode::OK {
            problem = format!("no metadata of `{issuer}`: {place} answered {}", answer.status());
            continue;
        }
        // Some servers answer every path with a page for people.
        let Ok(metadata) = serde_json::from_slice::<Metadata>(answer.body()) else {
            problem = format!("the metadata of `{issuer}` at {place} is not that of an authorization server");
            continue;
        };
        return checked(metadata, issuer, url);
    }
    Err(problem)
}

fn checked(metadata: Metadata, issuer: &str, url: &Url) -> Result<Metadata, String> {
    if metadata.issuer != issuer {
        let named: String = metadata.issuer.chars().take(limit::ERROR_SHOWN_CHARACTERS_MAX).collect();
        return Err(format!(
            "the metadata of `{issuer}` is that of `{named}`: write issuer exactly as the authorization server does"
        ));
    }
    let endpoints = [Some(&metadata.token_endpoint), metadata.revocation_endpoint.as_ref()];
    for endpoint in endpoints.into_iter().flatten() {
        if endpoint.scheme() != "https" && !(is_loopback(endpoint) && is_loopback(url)) {
            return Err(format!("the metadata of `{issuer}` names an endpoint without TLS"));
        }
    }
    Ok(metadata)
}

/// Where the metadata may be: as RFC 8414 says, and as OpenID Connect does, with the path of the issuer behind the
/// well-known one or before it.
fn places(issuer: &Url) -> Vec<Url> {
    let path = issuer.path().trim_end_matches('/');
    let mut paths = vec![
        format!("/.well-known/oauth-authorization-server{path}"),
        format!("/.well-known/openid-configuration{path}"),
    ];
    if !path.is_empty() {
        paths.push(format!("{path}/.well-known/openid-configuration"));
    }
    let place = |path: String| {
        let mut url = issuer.clone();
        url.set_path(&path);
        url.set_query(None);
        url.set_fragment(None);
        url
    };
    paths.into_iter().map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_looked_for_behind_the_well_known_path_and_before_it() {
        let at = |issuer: &str| {
            places(&Url::parse(issuer).unwrap()).iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            at("https://as.example"),
            "https://as.example/.well-known/oauth-authorization-server \
             https://as.example/.well-known/openid-configuration"
        );
        assert_eq!(
            at("https://as.example/tenant/"),
            "https://as.example/.well-known/oauth-authorization-server/tenant \
             https://as.example/.well-known/openid-configuration/tenant \
             https://as.example/tenant/.well-known/openid-configuration"
        );
    }

    #[test]
    fn metadata_of_another_issuer_counts_for_nobody() {
        let url = Url::parse("https://as.example").unwrap();
        let metadata = |issuer: &str, endpoint: &str| Metadata {
            issuer: issuer.to_owned(),
            token_endpoint: Url::parse(endpoint).unwrap(),
            revocation_endpoint: None,
        };
        assert!(checked(metadata("https://as.example", "https://as.example/t"), "https://as.example", &url).is_ok());
        for (issuer, endpoint, said) in [
            ("https://as.example/", "https://as.example/t", "write issuer exactly"),
            ("https://evil.example", "https://as.example/t", "write issuer exactly"),
            ("https://as.example", "http://as.example/t", "without TLS"),
            ("https://as.example", "http://127.0.0.1/t", "without TLS"),
        ] {
            let problem = checked(metadata(issuer, endpoint), "https://as.example", &url).unwrap_err();
            assert!(problem.contains(said), "{issuer} {endpoint}: {problem}");
        }
    }
}

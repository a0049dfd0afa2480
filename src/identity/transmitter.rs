//! The keys of a transmitter that is no issuer: where they are, and what its metadata must say.
//!
//! Decides nothing about tokens; [`super::issuer`] keeps what is fetched here. Invariant: the metadata is that of the
//! transmitter to the character.

use http::{Request, StatusCode};
use serde::Deserialize;
use url::Url;

use super::keys::{Jwks, KeySet};
use crate::egress::OauthClient;

/// What of `/.well-known/ssf-configuration` is needed.
#[derive(Debug, Deserialize)]
struct Metadata {
    issuer: String,
    jwks_uri: String,
}

/// Fetches the keys: where the files say that they are, or where its metadata does.
///
/// # Errors
/// A lower-case sentence.
pub(super) async fn keys(client: &OauthClient, issuer: &str, place: Option<&Url>) -> Result<KeySet, String> {
    let place = match place {
        Some(place) => place.clone(),
        None => {
            let metadata: Metadata = get(client, &metadata_url(issuer)?).await?;
            if metadata.issuer != issuer {
                return Err(format!(
                    "its metadata says issuer `{:.200}`, the configuration says `{issuer}`; they must be equal to the \
                     character",
                    metadata.issuer
                ));
            }
            Url::parse(&metadata.jwks_uri).map_err(|error| format!("its jwks_uri is not a URL: {error}"))?
        }
    };
    let keys: Jwks = get(client, &place).await?;
    Ok(KeySet::new(&keys))
}

/// Between host and path (RFC 8615), as Shared Signals 1.0 has it.
fn metadata_url(issuer: &str) -> Result<Url, String> {
    let mut url = Url::parse(issuer).map_err(|error| format!("the transmitter is not a URL: {error}"))?;
    let path = format!("/.well-known/ssf-configuration{}", url.path().trim_end_matches('/'));
    url.set_path(&path);
    Ok(url)
}

async fn get<T: serde::de::DeserializeOwned>(client: &OauthClient, url: &Url) -> Result<T, String> {
    let request = Request::get(url.as_str()).header(http::header::ACCEPT, "application/json").body(Vec::new());
    let answer = client.send(request.map_err(|error| error.to_string())?).await.map_err(|error| error.to_string())?;
    if answer.status() != StatusCode::OK {
        return Err(format!("{} answered {}", url.path(), answer.status()));
    }
    serde_json::from_slice(answer.body()).map_err(|error| format!("its answer cannot be read: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_stands_between_host_and_path() {
        for (issuer, place) in [
            ("https://tr.example", "https://tr.example/.well-known/ssf-configuration"),
            ("https://tr.example/", "https://tr.example/.well-known/ssf-configuration"),
            ("https://tr.example/tenant/a", "https://tr.example/.well-known/ssf-configuration/tenant/a"),
        ] {
            assert_eq!(metadata_url(issuer).unwrap().as_str(), place);
        }
    }
}

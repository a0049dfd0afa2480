//! What clients find of the gateway from outside: the metadata of RFC 9728 at both places, and the challenge that
//! leads them there.
//!
//! Asks `public_url` as a client would, through whatever stands in front. Invariant: it presents nothing.

use http::{Request, StatusCode, header};
use serde_json::Value;

use super::finding::Finding;
use crate::config::Config;
use crate::egress::{EgressPolicy, OauthClient, oauth_client};
use crate::front::{Advertised, advertised};

/// Asks; `runs` says whether a gateway is known to run here.
pub async fn findings(config: &Config, runs: bool) -> Vec<Finding> {
    // The administrator wrote this address, and it is ours: it may be on this machine or network.
    let built = tokio::task::spawn_blocking(|| oauth_client(EgressPolicy::server(true))).await;
    let client = match built {
        Ok(Ok(client)) => client,
        Ok(Err(error)) => return vec![Finding::bad("client", error.to_string(), "install ca-certificates")],
        Err(error) => return vec![Finding::bad("client", error.to_string(), "run this again")],
    };
    let expected = advertised(config);
    let (at_path, at_root, challenge) = tokio::join!(
        document(&client, &expected.place, &expected.document),
        document(&client, &expected.root, &expected.document),
        challenge(&client, config, &expected)
    );
    let unreachable = [&at_path, &at_root].into_iter().all(|found| matches!(found, Document::Unreachable(_)));
    if let (true, Document::Unreachable(problem)) = (unreachable, &at_path) {
        return vec![unreached(config, problem, runs)];
    }
    vec![at_path.finding("path", &expected.place), at_root.finding("root", &expected.root), challenge]
}

fn unreached(config: &Config, problem: &str, runs: bool) -> Finding {
    let url = &config.gateway.public_url;
    if runs {
        return Finding::bad(
            "public_url",
            format!("a gateway runs here, and {url} does not lead to it: {problem}"),
            format!(
                "look at the name, the proxy and the certificate in front of {}: curl -v {url}healthz",
                config.gateway.listen
            ),
        );
    }
    Finding::warn("public_url", format!("nothing answers at {url}: {problem}"), "bailiwick serve")
}

/// What was found at one place.
enum Document {
    /// What was expected.
    Same,
    /// Something else: which members differ.
    Differs(String),
    /// An answer that is no document.
    Not(String),
    /// No answer.
    Unreachable(String),
}

async fn document(client: &OauthClient, place: &str, expected: &Value) -> Document {
    let request = match Request::get(place).header(header::ACCEPT, "application/json").body(Vec::new()) {
        Ok(request) => request,
        Err(error) => return Document::Not(error.to_string()),
    };
    match client.send(request).await {
        Err(error) => Document::Unreachable(error.to_string()),
        Ok(answer) if answer.status() != StatusCode::OK => Document::Not(format!("it answered {}", answer.status())),
        Ok(answer) => match serde_json::from_slice::<Value>(answer.body()) {
            Err(_) => Document::Not("it answered something that is not JSON".to_owned()),
            Ok(found) if found == *expected => Document::Same,
            Ok(found) => Document::Differs(difference(expected, &found)),
        },
    }
}

fn difference(expected: &Value, found: &Value) -> String {
    let members = ["resource", "authorization_servers", "scopes_supported", "bearer_methods_supported"];
    let differing = members.iter().find(|name| expected.get(**name) != found.get(**name));
    differing.map_or_else(
        || "it has other members".to_owned(),
        |name| {
            let shown = |value: &Value| value.get(*name).map_or_else(|| "nothing".to_owned(), Value::to_string);
            format!("{name} is {:.200}, the files say {:.200}", shown(found), shown(expected))
        },
    )
}

impl Document {
    fn finding(self, name: &str, place: &str) -> Finding {
        match self {
            Self::Same => Finding::ok(name, format!("{place} says what the files say")),
            Self::Differs(difference) => Finding::bad(
                name,
                format!("{place}: {difference}"),
                "bailiwick reload, if the files are newer; otherwise another gateway answers there",
            ),
            Self::Not(problem) | Self::Unreachable(problem) => Finding::bad(
                name,
                format!("{place}: {problem}: clients do not find out where to log in"),
                "have the proxy in front pass on /.well-known/oauth-protected-resource and everything below it",
            ),
        }
    }
}

/// Whoever comes without a token has to be led to the metadata; proxies like to take this header away.
async fn challenge(client: &OauthClient, config: &Config, expected: &Advertised) -> Finding {
    let name = "challenge";
    if config.anonymous {
        return Finding::warn(name, "nobody is asked for a token: [anonymous] is enabled", "remove [anonymous]");
    }
    let request = match Request::get(&expected.resource).header(header::ACCEPT, "text/event-stream").body(Vec::new()) {
        Ok(request) => request,
        Err(error) => return Finding::bad(name, error.to_string(), "bailiwick check"),
    };
    let answer = match client.send(request).await {
        Ok(answer) => answer,
        Err(error) => return Finding::bad(name, error.to_string(), format!("curl -v {}", expected.resource)),
    };
    let told = answer.headers().get(header::WWW_AUTHENTICATE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let fix = "have the proxy in front pass on status and WWW-Authenticate as they are, and answer nothing itself";
    if answer.status() != StatusCode::UNAUTHORIZED {
        let found = format!("{} answered {} without a token, not 401", expected.resource, answer.status());
        return Finding::bad(name, found, fix);
    }
    if !told.contains(&format!("resource_metadata=\"{}\"", expected.place)) {
        return Finding::bad(name, format!("{} answered 401 and named no metadata", expected.resource), fix);
    }
    Finding::ok(name, format!("{} answers 401 and names the metadata", expected.resource))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::doctor::finding::Mark;

    #[test]
    fn a_difference_names_the_member_and_both_values() {
        let expected = json!({"resource": "https://a/mcp", "authorization_servers": ["https://i"]});
        let found = difference(&expected, &json!({"resource": "https://b/mcp"}));
        assert_eq!(found, "resource is \"https://b/mcp\", the files say \"https://a/mcp\"");
        assert!(difference(&expected, &json!({"resource": "https://a/mcp"})).contains("is nothing"));
        assert_eq!(Document::Same.finding("path", "x").mark, Mark::Ok);
        assert!(Document::Not("it answered 404".to_owned()).finding("path", "x").fix.unwrap().contains("proxy"));
    }
}

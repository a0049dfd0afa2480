//! The gateway as an OAuth client, of the suite's servers and authorization servers.
//!
//! A person calls a tool of the suite's server through the gateway, opens the link that they are given in a browser,
//! and comes back with an account that is linked; where the gateway has a strategy without a person, that one is
//! configured. Decides who calls and what the files say; the suite judges what arrived. Invariant: whoever calls does
//! what they are asked as often as they are asked.

use axum::routing::post;
use axum::{Form, Json};
use serde_json::{Value, json};

use crate::client::handed_over;
use crate::support::browser::{Browser, Page};
use crate::support::client::{Answer, Client};
use crate::support::door::Person;
use crate::support::gateway::{Gateway, Setup};
use crate::support::issuer::Issuer;

const MODERN: &str = "2026-07-28";
const LEGACY: &str = "2025-11-25";
/// So often a person links an account before they have enough of it.
const PATIENCE: usize = 6;

/// A person, and a gateway in front of the suite's server.
struct Running {
    issuer: Issuer,
    gateway: Gateway,
    client: Client,
}

impl Running {
    /// With these lines of the server's credential.
    async fn start(url: &str, credential: &str) -> Self {
        let issuer = Issuer::start().await;
        let server = format!("prefix = \"none\"\npins = \"off\"\n[servers.fixture.credential]\n{credential}");
        let setup = Setup::new(&issuer).issuer_lines("link_client_id = \"test-link\"\n");
        let gateway = setup.http_server("fixture", url, &server).start().await;
        let client = gateway.client(&issuer.token("ann", &["developers"], &gateway.resource()));
        Self { issuer, gateway, client }
    }

    /// Opens the link that an answer has, and goes on to wherever that leads.
    async fn link(&self, link: &str) -> Page {
        self.issuer.seat(vec![Person::new("ann", &["developers"])]);
        let mut browser = Browser::default();
        let page = browser.follow(&format!("{link}/sign-in")).await;
        match page.button() {
            Some(go) => browser.follow(&go).await,
            None => page,
        }
    }

    /// Calls a tool until nothing is asked any more; returns the last answer and how often an account was asked for.
    async fn call(&self, tool: &str) -> (Answer, usize) {
        let mut asked = 0;
        loop {
            let answer = self.client.call_tool(tool, json!({})).await;
            let Some(link) = link_of(&answer).filter(|_| asked < PATIENCE) else { return (answer, asked) };
            asked += 1;
            self.link(&link).await;
        }
    }

    /// Lists and calls, with whatever has to be linked for it.
    async fn use_everything(&self) -> Answer {
        self.call("link_account").await;
        self.client.tool_names().await;
        self.call("test-tool").await.0
    }
}

/// The link in an answer that asks for an account.
fn link_of(answer: &Answer) -> Option<String> {
    if answer.result()["_meta"]["dev.bailiwick/reason"] != "account_link_required" {
        return None;
    }
    answer.tool_text().split_whitespace().find(|word| word.contains("/link/")).map(str::to_owned)
}

/// A scenario in which somebody links an account, and the tool answers them in the end.
async fn links(name: &str, version: &str) {
    with(name, version, |_| "kind = \"oauth\"\n".to_owned()).await;
}

/// The same with what the suite tells written into the files.
async fn with(name: &str, version: &str, credential: impl FnOnce(&Value) -> String) {
    handed_over(name, version, async |url: String, context: Value| {
        let running = Running::start(&url, &credential(&context)).await;
        let answer = running.use_everything().await;
        assert_eq!(answer.tool_text(), "test", "{}\n{}", answer.text, running.gateway.log());
    })
    .await;
}

/// A scenario in which no account may come of it.
async fn refuses(name: &str) {
    handed_over(name, MODERN, async |url: String, _| {
        let running = Running::start(&url, "kind = \"oauth\"\n").await;
        let answer = running.client.call_tool("link_account", json!({})).await;
        let page = running.link(&link_of(&answer).unwrap()).await;
        assert!(page.status >= 400, "{}", page.text);
    })
    .await;
}

#[tokio::test]
async fn metadata_is_found_where_the_challenge_or_the_standards_say() {
    for name in ["auth/metadata-default", "auth/metadata-var1", "auth/metadata-var2", "auth/metadata-var3"] {
        links(name, MODERN).await;
    }
}

#[tokio::test]
async fn metadata_that_names_another_issuer_or_another_resource_is_nobodys() {
    for name in ["auth/resource-mismatch", "auth/metadata-issuer-mismatch"] {
        refuses(name).await;
    }
}

#[tokio::test]
async fn an_answer_that_another_authorization_server_could_have_given_is_refused() {
    for name in ["auth/iss-supported-missing", "auth/iss-wrong-issuer", "auth/iss-unexpected", "auth/iss-normalized"] {
        refuses(name).await;
    }
    for name in ["auth/iss-supported", "auth/iss-not-advertised"] {
        links(name, MODERN).await;
    }
}

#[tokio::test]
async fn a_client_proves_itself_as_its_registration_says() {
    for name in ["auth/token-endpoint-auth-basic", "auth/token-endpoint-auth-post", "auth/token-endpoint-auth-none"] {
        links(name, MODERN).await;
    }
    links("auth/token-endpoint-auth-basic", LEGACY).await;
    with("auth/pre-registration", MODERN, |context| {
        let of = |name: &str| context[name].as_str().unwrap().to_owned();
        format!(
            "kind = \"oauth\"\nissuer = \"{}\"\nclient_id = \"{}\"\nclient_secret = \"{}\"\n",
            of("issuer"),
            of("client_id"),
            printed(&of("client_secret"))
        )
    })
    .await;
}

#[tokio::test]
async fn the_gateways_own_document_is_its_name_where_that_is_read() {
    links("auth/basic-cimd", MODERN).await;
}

#[tokio::test]
async fn scopes_are_those_of_the_challenge_or_else_of_the_metadata_and_no_others() {
    for name in [
        "auth/scope-from-www-authenticate",
        "auth/scope-from-scopes-supported",
        "auth/scope-omitted-when-undefined",
        "auth/offline-access-scope",
        "auth/offline-access-not-supported",
    ] {
        links(name, MODERN).await;
    }
}

#[tokio::test]
async fn a_tool_that_needs_more_is_linked_for_more() {
    for version in [LEGACY, MODERN] {
        links("auth/scope-step-up", version).await;
    }
}

#[tokio::test]
async fn nobody_is_asked_for_ever_by_a_server_that_never_has_enough() {
    handed_over("auth/scope-retry-limit", MODERN, async |url: String, _| {
        let running = Running::start(&url, "kind = \"oauth\"\n").await;
        let (_, first) = running.call("link_account").await;
        // Its list is refused like everything else.
        running.client.modern("tools/list", json!({})).await;
        let (answer, further) = running.call("test-tool").await;
        assert!(link_of(&answer).is_none() && (first, further) == (1, 0), "{first} {further}: {}", answer.text);
    })
    .await;
}

#[tokio::test]
async fn what_we_are_at_one_authorization_server_is_never_shown_to_the_next() {
    links("auth/authorization-server-migration", MODERN).await;
}

/// A secret that a file of the configuration may name, printed by a command.
fn printed(secret: &str) -> String {
    format!("exec:[\\\"/bin/echo\\\", \\\"{secret}\\\"]")
}

/// A scenario without a person: the gateway has a token of its own.
async fn by_itself(name: &str, credential: impl FnOnce(&Value) -> String) {
    handed_over(name, MODERN, async |url: String, context: Value| {
        let server = format!("issuer = \"{}\"\nresource = \"{url}\"\n", authority(&url).await);
        let lines = format!("kind = \"client_credentials\"\n{server}{}", credential(&context));
        let running = Running::start(&url, &lines).await;
        running.client.tool_names().await;
        let answer = running.client.call_tool("test-tool", json!({})).await;
        assert_eq!(answer.tool_text(), "test", "{}\n{}", answer.text, running.gateway.log());
    })
    .await;
}

/// The authorization server that a server names: what an administrator reads before they write it.
async fn authority(url: &str) -> String {
    let place = url.replace("/mcp", "/.well-known/oauth-protected-resource/mcp");
    let said = Client::new(&place, None).bare(reqwest::Method::GET, &[]).await;
    said.messages[0]["authorization_servers"][0].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn the_gateway_gets_a_token_of_its_own_with_a_secret_or_a_key() {
    by_itself("auth/client-credentials-basic", |context| {
        let secret = printed(context["client_secret"].as_str().unwrap());
        let client = context["client_id"].as_str().unwrap();
        format!("client_id = \"{client}\"\nclient_secret = \"{secret}\"\n")
    })
    .await;
    let directory = tempfile::tempdir().unwrap();
    let key = directory.path().join("key.pem");
    by_itself("auth/client-credentials-jwt", |context| {
        std::fs::write(&key, context["private_key_pem"].as_str().unwrap()).unwrap();
        let client = context["client_id"].as_str().unwrap();
        format!("client_id = \"{client}\"\nprivate_key = \"file:{}\"\n", key.display())
    })
    .await;
}

/// Stands where the identity provider is and has every caller's login at hand: the caller's own token comes in and the
/// ID token of that login goes on. The suite's provider knows logins alone, and publishes no key to verify them with.
async fn provider(context: &Value) -> String {
    let of = |name: &str| context[name].as_str().unwrap().to_owned();
    let (login, onward) = (of("idp_id_token"), of("idp_token_endpoint"));
    let token = move |Form(mut form): Form<Vec<(String, String)>>| async move {
        for (name, value) in &mut form {
            if name == "subject_token" {
                value.clone_from(&login);
            }
        }
        #[expect(clippy::disallowed_methods, reason = "a test's client needs no SSRF guard")]
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let answer = http.post(&onward).form(&form).send().await.unwrap();
        (answer.status(), Json(answer.json::<Value>().await.unwrap()))
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let place = format!("http://{}/token", listener.local_addr().unwrap());
    let router = axum::Router::new().route("/token", post(token));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    place
}

#[tokio::test]
async fn what_the_identity_provider_says_of_a_person_becomes_a_token_of_the_upstreams_own() {
    handed_over("auth/enterprise-managed-authorization", MODERN, async |url: String, context: Value| {
        let of = |name: &str| context[name].as_str().unwrap();
        let credential = format!(
            "kind = \"id_jag\"\nissuer = \"{}\"\nclient_id = \"{}\"\nclient_secret = \"{}\"\nresource = \"{url}\"\n\
             [servers.fixture.credential.identity_provider]\ntoken_endpoint = \"{}\"\nclient_id = \"{}\"\n\
             client_auth = \"none\"\nsubject_token_type = \"urn:ietf:params:oauth:token-type:id_token\"\n",
            authority(&url).await,
            of("client_id"),
            printed(of("client_secret")),
            provider(&context).await,
            of("idp_client_id"),
        );
        let running = Running::start(&url, &credential).await;
        running.client.tool_names().await;
        let answer = running.client.call_tool("test-tool", json!({})).await;
        assert_eq!(answer.tool_text(), "test", "{}\n{}", answer.text, running.gateway.log());
    })
    .await;
}

#[tokio::test]
async fn a_server_of_before_the_metadata_needs_its_issuer_written_down() {
    handed_over("auth/2025-03-26-oauth-metadata-backcompat", "2025-03-26", async |url: String, _| {
        let issuer = url.strip_suffix("/mcp").unwrap();
        let running = Running::start(&url, &format!("kind = \"oauth\"\nissuer = \"{issuer}\"\n")).await;
        let answer = running.use_everything().await;
        assert_eq!(answer.tool_text(), "test", "{}\n{}", answer.text, running.gateway.log());
    })
    .await;
}

#[tokio::test]
async fn a_workload_that_its_platform_vouches_for_gets_a_token_for_that() {
    let directory = tempfile::tempdir().unwrap();
    let vouched = directory.path().join("token");
    by_itself("auth/wif-jwt-bearer", |context| {
        std::fs::write(&vouched, context["valid_jwt"].as_str().unwrap()).unwrap();
        let client = context["client_id"].as_str().unwrap();
        format!("client_id = \"{client}\"\nclient_auth = \"none\"\nassertion = \"file:{}\"\n", vouched.display())
    })
    .await;
}

/// What the gateway does not do: whoever calls tries all the same, so that an entry of a list that passes is noticed.
async fn tries(name: &str, version: &str) {
    handed_over(name, version, async |url: String, _| {
        let running = Running::start(&url, "kind = \"oauth\"\n").await;
        running.call("link_account").await;
    })
    .await;
}

#[tokio::test]
async fn nobody_is_sent_to_an_authorization_server_that_says_nothing_of_itself() {
    tries("auth/2025-03-26-oauth-endpoint-fallback", "2025-03-26").await;
}

#[tokio::test]
async fn a_token_that_is_bound_to_a_key_goes_with_a_proof_for_each_request() {
    for name in ["auth/dpop", "auth/dpop-nonce"] {
        links(name, MODERN).await;
    }
    links("auth/dpop-nonce", LEGACY).await;
}

//! A second issuer, which is not JavaScript: Canaille. Its tokens of people are JWTs that look much like its ID tokens,
//! its tokens of software say nothing and have to be asked about.

use std::process::{Child, ChildStdin, Command, Stdio};

use serde_json::{Value, json};

use crate::parts::Parts;
use crate::provider::claims;
use crate::support::browser::Browser;
use crate::support::client::Answer;
use crate::support::gateway::{DEVELOPERS_MAY, Gateway, Setup};
use crate::support::scripted::Scripted;

const CALLBACK: &str = "http://127.0.0.1:4711/callback";
/// What a browser comes back with.
const BACK: &str = "http://127.0.0.1:4711/callback?code=";
/// Of every confidential client, behind its name.
const SECRET: &str = "secret-of-the-tests-0123456789";

/// A running Canaille; it ends with the test.
struct Canaille {
    url: String,
    process: Child,
    _open_until_dropped: ChildStdin,
}

impl Drop for Canaille {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Canaille {
    async fn start(parts: &Parts) -> Self {
        let mut process = Command::new(parts.python_command("python"))
            .arg(Parts::script("second_issuer.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let stdin = process.stdin.take().unwrap();
        let lines = std::io::BufRead::lines(std::io::BufReader::new(process.stdout.take().unwrap()));
        let url = tokio::task::spawn_blocking(move || {
            lines.map_while(Result::ok).find_map(|line| line.strip_prefix("listening ").map(str::to_owned))
        });
        let url = url.await.unwrap().unwrap_or_else(|| panic!("canaille did not start"));
        Self { url, process, _open_until_dropped: stdin }
    }

    /// What a person gets who logs in on its pages with that client.
    async fn person(&self, name: &str, client: &str) -> Value {
        let mut browser = Browser::default();
        let verifier = ulid::Ulid::generate().to_string().repeat(2);
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, verifier.as_bytes());
        let challenge = base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, digest.as_ref());
        let asked = [
            ("client_id", client),
            ("response_type", "code"),
            ("redirect_uri", CALLBACK),
            ("scope", "openid profile groups"),
            ("state", "s"),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
        ];
        let page = url::Url::parse_with_params(&format!("{}/oauth/authorize", self.url), asked).unwrap();
        let mut page = browser.follow_until(page.as_str(), BACK).await;
        // Its name first, then the password; whoever is trusted is not asked for consent.
        for _ in 0..2 {
            let token = page.text.split("name=\"csrf_token\"").nth(1).and_then(|rest| rest.split("value=\"").nth(1));
            let token =
                token.and_then(|rest| rest.split('"').next()).unwrap_or_else(|| panic!("no form in {}", page.text));
            let form = [("csrf_token", token), ("login", name), ("password", "correct horse battery")];
            let next = browser.send(&page.url, Browser::http().post(&page.url).form(&form)).await;
            page = browser.go_on_until(next, BACK).await;
        }
        let back = url::Url::parse(&page.url).unwrap();
        let of =
            |wanted: &str| back.query_pairs().find(|(name, _)| name == wanted).map(|(_, value)| value.into_owned());
        assert_eq!(of("iss").as_ref(), Some(&self.url), "{back}");
        let form = [
            ("grant_type", "authorization_code"),
            ("client_id", client),
            ("code", &of("code").unwrap()),
            ("code_verifier", &verifier),
            ("redirect_uri", CALLBACK),
        ];
        self.post("token", client, &form).await
    }

    /// What software gets for itself.
    async fn machine(&self, client: &str) -> String {
        let answer = self.post("token", client, &[("grant_type", "client_credentials")]).await;
        answer["access_token"].as_str().unwrap_or_else(|| panic!("no token: {answer}")).to_owned()
    }

    async fn post(&self, place: &str, client: &str, form: &[(&str, &str)]) -> Value {
        #[expect(clippy::disallowed_methods, reason = "a test's client needs no SSRF guard")]
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let mut request = http.post(format!("{}/oauth/{place}", self.url)).form(form);
        if form.iter().all(|(name, _)| *name != "client_id") {
            request = request.basic_auth(client, Some(format!("{client}-{SECRET}")));
        }
        let answer = request.send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert!(status.is_success(), "{place}: {status} {text}");
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// A gateway that believes it, as `docs/configuration.md` says how; `life` is how long its tokens may live.
    async fn gateway(&self, upstream: &Scripted, life: &str) -> Gateway {
        let issuer = format!(
            "[issuers.test]\nissuer = \"{}\"\nalgorithms = [\"RS256\"]\ntoken_types = [\"JWT\"]\n\
             audiences = [\"gateway\"]\noptional_claims = [\"jti\", \"client_id\"]\n{life}\
             interactive_default = \"assistant\"\n[issuers.test.claims]\ngroups = \"groups\"\n\
             [issuers.test.introspection]\nclient_id = \"gateway\"\nclient_secret = \"file:introspection-secret\"\n\
             without_sub = \"client\"\n",
            self.url
        );
        let agents = "[agents.assistant]\nowner = \"user:test/owner\"\npurpose = \"tests\"\nkind = \"interactive\"\n\
             environments = [\"development\"]\n[agents.nightly]\nowner = \"user:test/owner\"\npurpose = \"tests\"\n\
             kind = \"autonomous\"\nmandates = \"optional\"\nenvironments = [\"development\"]\n\
             clients = [{ issuer = \"test\", client_id = \"nightly\" }, { issuer = \"test\", client_id = \"stray-nightly\" }]\n";
        let mut setup = Setup::with_issuer(&self.url);
        setup.issuer = issuer;
        setup
            .http_server("tools", &upstream.url, "")
            .policy(&format!(
                "{DEVELOPERS_MAY}p, agent:nightly, *, tools/echo, call, -, allow\n\
                 p, user:test/nightly, *, tools/echo, call, -, allow\n"
            ))
            .policy_file("agents.toml", agents)
            .policy_file("../introspection-secret", &format!("gateway-{SECRET}"))
            .start()
            .await
    }
}

/// A call with a token, whatever becomes of it.
async fn call(gateway: &Gateway, token: &str) -> Answer {
    gateway.client(token).call_tool("tools__echo", json!({ "a": 1 })).await
}

fn assert_refused(answer: &Answer, reason: &str) {
    assert_eq!(answer.status, 401, "{}", answer.text);
    assert!(answer.text.contains(reason), "{reason}: {}", answer.text);
}

#[tokio::test]
async fn people_of_another_implementation_call_with_their_access_token_and_with_nothing_else_of_theirs() {
    let Some(parts) = Parts::installed() else { return };
    let (canaille, upstream) = (Canaille::start(&parts).await, Scripted::echo().await);
    let gateway = canaille.gateway(&upstream, "token_life_max = \"11d\"\n").await;
    let alices = canaille.person("alice", "assistant").await;
    let token = alices["access_token"].as_str().unwrap();
    assert_eq!(call(&gateway, token).await.tool_text(), r#"{"a":1}"#);
    let intent = &gateway.records("intent")[0];
    assert_eq!((&intent["subject"]["id"], &intent["agent"]["id"]), (&json!("user:test/alice"), &json!("assistant")));

    // Whoever is in no group of the rules sees nothing.
    let bobs = canaille.person("bob", "assistant").await;
    let bob = gateway.client(bobs["access_token"].as_str().unwrap());
    assert!(bob.tool_names().await.is_empty());

    // Signed by the same key, for the same audience, under the same `typ`: it is for the client that logged her in.
    let id_token = alices["id_token"].as_str().unwrap();
    assert_eq!(claims(id_token)["aud"], claims(token)["aud"]);
    assert_refused(&call(&gateway, id_token).await, "token_type_refused");
    let stray = canaille.person("alice", "stray").await;
    assert_refused(&call(&gateway, stray["access_token"].as_str().unwrap()).await, "audience_mismatch");
    let (head, signature) = token.rsplit_once('.').unwrap();
    let other = bobs["access_token"].as_str().unwrap().rsplit_once('.').unwrap().1;
    assert_ne!(signature, other);
    assert_refused(&call(&gateway, &format!("{head}.{other}")).await, "signature_invalid");
    assert_eq!(upstream.calls().len(), 1);
}

#[tokio::test]
async fn software_of_another_implementation_is_asked_about_and_its_token_can_be_taken_back() {
    let Some(parts) = Parts::installed() else { return };
    let (canaille, upstream) = (Canaille::start(&parts).await, Scripted::echo().await);
    let gateway = canaille.gateway(&upstream, "token_life_max = \"11d\"\n").await;
    let token = canaille.machine("nightly").await;
    assert!(!token.contains('.'), "it says nothing by itself");
    assert_eq!(call(&gateway, &token).await.tool_text(), r#"{"a":1}"#);
    let intent = &gateway.records("intent")[0];
    assert_eq!(
        (&intent["agent"]["id"], &intent["agent"]["client"]),
        (&json!("nightly"), &json!("nightly")),
        "{intent}"
    );
    // What is not for us is none where we ask.
    assert_refused(&call(&gateway, &canaille.machine("stray-nightly").await).await, "token_inactive");
    let revoked = canaille.machine("nightly").await;
    canaille.post("revoke", "nightly", &[("token", &revoked), ("token_type_hint", "access_token")]).await;
    assert_refused(&call(&gateway, &revoked).await, "token_inactive");
    assert_eq!(upstream.calls().len(), 1);
    assert!(upstream.everything().iter().all(|request| !request.text.contains(&token)));
}

#[tokio::test]
async fn a_token_that_is_good_for_ten_days_needs_an_entry_that_says_so() {
    let Some(parts) = Parts::installed() else { return };
    let (canaille, upstream) = (Canaille::start(&parts).await, Scripted::echo().await);
    let gateway = canaille.gateway(&upstream, "").await;
    let alices = canaille.person("alice", "assistant").await;
    for token in [alices["access_token"].as_str().unwrap(), &canaille.machine("nightly").await] {
        assert_refused(&call(&gateway, token).await, "token_lifetime_exceeded");
    }
    assert!(upstream.calls().is_empty());
}

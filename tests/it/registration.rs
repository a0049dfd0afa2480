//! Assistants register here where their provider does not let them: nobody is sent anywhere without a consent for
//! exactly that client, and what one client got is of no use to another.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::gateway::{DEVELOPERS_MAY, Gateway, Setup};
use crate::support::issuer::Issuer;
use crate::support::scripted::Scripted;

mod taken_back;

const CALLBACK: &str = "http://127.0.0.1:4711/callback";
const VERIFIER: &str = "a-verifier-that-is-long-enough-for-the-specification-0123456789";

struct Registered {
    issuer: Issuer,
    _upstream: Scripted,
    gateway: Gateway,
    http: reqwest::Client,
}

/// An answer, with the cookie that it set.
#[derive(Debug)]
struct Answered {
    status: u16,
    location: String,
    cookie: Option<String>,
    headers: reqwest::header::HeaderMap,
    text: String,
}

impl Answered {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    fn parameter(&self, name: &str) -> Option<String> {
        let url = url::Url::parse(&self.location).ok()?;
        url.query_pairs().find(|(own, _)| own == name).map(|(_, value)| value.into_owned())
    }

    fn nonce(&self) -> String {
        let (_, rest) =
            self.text.split_once("name=\"nonce\" value=\"").unwrap_or_else(|| panic!("no form: {}", self.text));
        rest.split_once('"').unwrap().0.to_owned()
    }
}

impl Registered {
    async fn start(more: &str) -> Self {
        Self::start_with(more, |setup| setup).await
    }

    #[expect(clippy::disallowed_methods, reason = "a test's client needs no SSRF guard")]
    async fn start_with(more: &str, changed: impl FnOnce(Setup) -> Setup) -> Self {
        let issuer = Issuer::start().await;
        issuer.logs_in(issuer.claims("alice", &["developers"], ""));
        let upstream = Scripted::echo().await;
        let lines = format!("[issuers.test.registration]\nclient_id = \"shared\"\n{more}");
        let setup = Setup::new(&issuer).http_server("tools", &upstream.url, "").sections(&lines);
        std::fs::write(setup.directory().join("client-secret"), "the secret of the shared client").unwrap();
        let gateway = changed(setup).start().await;
        let http = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        Self { issuer, _upstream: upstream, gateway, http }
    }

    async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: String) -> Answered {
        let mut request = self.http.request(method, format!("{}{path}", self.gateway.url)).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.send().await.unwrap();
        let text = |name: &str| answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        Answered {
            status: answer.status().as_u16(),
            location: text("location").unwrap_or_default(),
            cookie: text("set-cookie").map(|cookie| cookie.split(';').next().unwrap().to_owned()),
            headers: answer.headers().clone(),
            text: answer.text().await.unwrap(),
        }
    }

    async fn register(&self, client: &Value) -> Answered {
        self.send(Method::POST, "/oauth/test/register", &[("content-type", "application/json")], client.to_string())
            .await
    }

    /// A client that may be sent back to the usual place.
    async fn client(&self, name: &str) -> String {
        let registered = self.register(&json!({ "client_name": name, "redirect_uris": [CALLBACK] })).await;
        assert_eq!(registered.status, 201, "{}", registered.text);
        registered.json()["client_id"].as_str().unwrap().to_owned()
    }

    fn asked(&self, client: &str) -> Vec<(&'static str, String)> {
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, VERIFIER.as_bytes());
        vec![
            ("response_type", "code".into()),
            ("client_id", client.into()),
            ("redirect_uri", CALLBACK.into()),
            ("state", "the client's own".into()),
            ("scope", "mcp".into()),
            ("resource", self.gateway.resource()),
            ("code_challenge", URL_SAFE_NO_PAD.encode(hash)),
            ("code_challenge_method", "S256".into()),
        ]
    }

    async fn authorize(&self, asked: &[(&'static str, String)]) -> Answered {
        let url = url::Url::parse_with_params("http://x/oauth/test/authorize", asked).unwrap();
        self.send(Method::GET, &format!("{}?{}", url.path(), url.query().unwrap()), &[], String::new()).await
    }

    async fn answer(&self, cookie: &str, nonce: &str, answer: &str, origin: &str) -> Answered {
        let form = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("nonce", nonce)
            .append_pair("answer", answer)
            .finish();
        let headers = [("cookie", cookie), ("origin", origin), ("content-type", "application/x-www-form-urlencoded")];
        self.send(Method::POST, "/oauth/test/consent", &headers, form).await
    }

    /// Consents in a browser of its own, and comes back from the provider; the answer is the redirect to the client.
    async fn log_in(&self, client: &str) -> Answered {
        self.log_in_as(&self.asked(client)).await
    }

    async fn log_in_as(&self, asked: &[(&'static str, String)]) -> Answered {
        let page = self.authorize(asked).await;
        assert_eq!(page.status, 200, "{}", page.text);
        let agreed = self.answer(page.cookie.as_ref().unwrap(), &page.nonce(), "allow", &self.gateway.url).await;
        assert_eq!(agreed.status, 303, "{}", agreed.text);
        let provider = self.http.get(&agreed.location).send().await.unwrap();
        let back = provider.headers()["location"].to_str().unwrap().to_owned();
        let back = back.strip_prefix(&self.gateway.url).unwrap_or_else(|| panic!("not back to us: {back}"));
        self.send(Method::GET, back, &[("cookie", agreed.cookie.as_ref().unwrap())], String::new()).await
    }

    async fn token(&self, form: &[(&str, &str)]) -> Answered {
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let headers = [("content-type", "application/x-www-form-urlencoded")];
        self.send(Method::POST, "/oauth/test/token", &headers, body).await
    }

    async fn redeem(&self, client: &str, code: &str) -> Answered {
        self.redeem_for(client, code, Some(&self.gateway.resource())).await
    }

    async fn redeem_for(&self, client: &str, code: &str, resource: Option<&str>) -> Answered {
        let mut form = vec![
            ("grant_type", "authorization_code"),
            ("client_id", client),
            ("code", code),
            ("redirect_uri", CALLBACK),
            ("code_verifier", VERIFIER),
        ];
        form.extend(resource.map(|resource| ("resource", resource)));
        self.token(&form).await
    }
}

#[tokio::test]
async fn an_assistant_finds_registers_asks_and_calls_and_the_record_says_which_one_it_was() {
    let here = Registered::start("").await;
    let protected = here.send(Method::GET, "/.well-known/oauth-protected-resource/mcp", &[], String::new()).await;
    let server = protected.json()["authorization_servers"][0].as_str().unwrap().to_owned();
    assert_eq!(server, format!("{}/oauth/test", here.gateway.url));
    let found = here.send(Method::GET, "/.well-known/oauth-authorization-server/oauth/test", &[], String::new()).await;
    let metadata = found.json();
    assert_eq!(metadata["issuer"], server);
    assert_eq!(metadata["code_challenge_methods_supported"], json!(["S256"]));
    assert_eq!(metadata["registration_endpoint"], format!("{server}/register"));
    for name in ["Claude Code", "Another Assistant"] {
        let client = here.client(name).await;
        let back = here.log_in(&client).await;
        assert!(back.location.starts_with(CALLBACK), "{}", back.location);
        assert_eq!(back.parameter("state").as_deref(), Some("the client's own"));
        assert_eq!(back.parameter("iss"), Some(server.clone()));
        let granted = here.redeem(&client, &back.parameter("code").unwrap()).await;
        assert_eq!(granted.status, 200, "{}", granted.text);
        assert_eq!(granted.headers["cache-control"], "no-store");
        let token = granted.json()["access_token"].as_str().unwrap().to_owned();
        let call = here.gateway.client(&token).call_tool("tools__echo", json!({})).await;
        assert_eq!(call.status, 200, "{}", call.text);
        let digest = here.gateway.records("intent").last().unwrap()["token"]["digest"].as_str().unwrap().to_owned();
        let told = here.gateway.records("admin");
        let told = told.iter().find(|record| record.to_string().contains(&digest)).expect("the token on the record");
        assert!(told.to_string().contains(name) && told.to_string().contains(CALLBACK), "{told}");
    }
    let asked = here.issuer.asked();
    assert_eq!(asked.len(), 2);
    assert_eq!(
        (asked[0]["client_id"].as_str(), asked[0]["redirect_uri"].as_str()),
        ("shared", &*format!("{server}/callback"))
    );
    assert_eq!(asked[0]["code_challenge"], here.asked("")[6].1, "PKCE is the client's own, to the end");
}

#[tokio::test]
async fn the_page_names_place_and_scopes_and_nobody_may_frame_it() {
    let here = Registered::start("").await;
    let client = here.client("<script>alert(1)</script>\u{202e}").await;
    let page = here.authorize(&here.asked(&client)).await;
    assert!(page.text.contains("&lt;script&gt;") && !page.text.contains("<script"), "{}", page.text);
    assert!(!page.text.contains('\u{202e}') && page.text.contains(CALLBACK), "{}", page.text);
    let policy = page.headers["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{policy}");
    assert_eq!(page.headers["x-frame-options"], "DENY");
    let cookie = page.headers["set-cookie"].to_str().unwrap();
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Lax"), "{cookie}");
    let denied = here.answer(page.cookie.as_ref().unwrap(), &page.nonce(), "deny", &here.gateway.url).await;
    assert_eq!(denied.parameter("error").as_deref(), Some("access_denied"));
    assert!(here.issuer.asked().is_empty(), "the provider was never asked");
}

#[tokio::test]
async fn what_is_wrong_before_consent_is_a_page_and_sends_nobody_anywhere() {
    let here = Registered::start("").await;
    let client = here.client("Assistant").await;
    let with = |name: &'static str, value: &str| {
        let mut asked = here.asked(&client);
        asked.retain(|(own, _)| *own != name);
        if !value.is_empty() {
            asked.push((name, value.to_owned()));
        }
        asked
    };
    let long = "x".repeat(bailiwick::limit::FACADE_PARAMETER_BYTES_MAX + 1);
    let mut twice = here.asked(&client);
    twice.push(("redirect_uri", "https://evil.example/".into()));
    for asked in [
        with("client_id", ""),
        with("client_id", "shared"),
        with("client_id", &format!("{client}A")),
        with("redirect_uri", ""),
        with("redirect_uri", "https://evil.example/"),
        with("redirect_uri", &format!("{CALLBACK}/")),
        with("redirect_uri", &format!("{CALLBACK}?x")),
        with("redirect_uri", "http://127.0.0.1:4712/other"),
        with("redirect_uri", "http://localhost:4711/callback"),
        with("response_type", "token"),
        with("code_challenge", ""),
        with("code_challenge", "short"),
        with("code_challenge_method", "plain"),
        with("code_challenge_method", ""),
        with("resource", "https://elsewhere.example/mcp"),
        with("resource", &format!("{}.evil.example/mcp", here.gateway.url)),
        with("state", &long),
        with("scope", &long),
        twice,
    ] {
        let answered = here.authorize(&asked).await;
        assert_eq!((answered.status, answered.location.as_str()), (400, ""), "{asked:?}");
        assert!(answered.cookie.is_none() && answered.text.contains("This does not go on"), "{asked:?}");
    }
    assert_eq!(here.authorize(&with("resource", "")).await.status, 200, "then it is for all of the gateway");
    // A program listens at another port each time (RFC 8252).
    assert_eq!(here.authorize(&with("redirect_uri", "http://127.0.0.1:4712/callback")).await.status, 200);
}

#[tokio::test]
async fn consent_is_of_one_browser_for_one_login_once() {
    let here = Registered::start("").await;
    let client = here.client("Assistant").await;
    let (page, other) = (here.authorize(&here.asked(&client)).await, here.authorize(&here.asked(&client)).await);
    let (cookie, nonce) = (page.cookie.clone().unwrap(), page.nonce());
    let own = here.gateway.url.clone();
    for (cookie, nonce) in [
        ("a=b", nonce.as_str()),
        (other.cookie.as_ref().unwrap(), &nonce),
        (&cookie, ""),
        (&cookie, "guessed"),
        (&format!("{cookie}; {cookie}"), &nonce),
    ] {
        assert_eq!(here.answer(cookie, nonce, "allow", &own).await.status, 400, "{cookie} {nonce}");
    }
    for foreign in ["https://evil.example", "http://127.0.0.1:1", "null"] {
        assert_eq!(here.answer(&cookie, &nonce, "allow", foreign).await.status, 403, "{foreign}");
    }
    // The way back before consent, and from another browser after it.
    let early = format!("/oauth/test/callback?code=x&state={nonce}");
    assert_eq!(here.send(Method::GET, &early, &[("cookie", &cookie)], String::new()).await.status, 400);
    let agreed = here.answer(&cookie, &nonce, "allow", &own).await;
    let (state, agreed_cookie) = (agreed.parameter("state").unwrap(), agreed.cookie.clone().unwrap());
    let back = |query: String| format!("/oauth/test/callback?{query}");
    for (query, cookie) in [
        (format!("code=x&state={state}"), "a=b"),
        (format!("code=x&state={state}"), &cookie),
        (format!("code=x&state={state}"), other.cookie.as_ref().unwrap()),
        ("code=x&state=guessed".to_owned(), &agreed_cookie),
        ("code=x".to_owned(), &agreed_cookie),
        (format!("code=x&state={state}&iss=https%3A%2F%2Fevil.example"), &agreed_cookie),
        (format!("code=x&code=y&state={state}"), &agreed_cookie),
    ] {
        let answered = here.send(Method::GET, &back(query.clone()), &[("cookie", cookie)], String::new()).await;
        assert_eq!((answered.status, answered.location.as_str()), (400, ""), "{query}");
    }
    // A page that was agreed to cannot be agreed to again.
    assert_eq!(here.answer(&agreed_cookie, &state, "allow", &own).await.status, 400);
    let refused = back(format!("error=access_denied&state={state}"));
    let refused = here.send(Method::GET, &refused, &[("cookie", &agreed_cookie)], String::new()).await;
    assert_eq!(refused.parameter("error").as_deref(), Some("access_denied"));
    assert!(refused.headers["set-cookie"].to_str().unwrap().contains("Max-Age=0"));
}

#[tokio::test]
async fn what_one_client_got_is_of_no_use_to_another() {
    let here = Registered::start("").await;
    let (client, thief) = (here.client("Assistant").await, here.client("Thief").await);
    let code = here.log_in(&client).await.parameter("code").unwrap();
    let form = |client: &str, code: &str, redirect: &str, verifier: &str| {
        [
            ("grant_type", "authorization_code"),
            ("client_id", client),
            ("code", code),
            ("redirect_uri", redirect),
            ("code_verifier", verifier),
        ]
        .map(|(name, value)| (name, value.to_owned()))
        .to_vec()
    };
    let other_verifier = "b".repeat(64);
    for (form, error) in [
        (form(&thief, &code, CALLBACK, VERIFIER), "invalid_grant"),
        (form("shared", &code, CALLBACK, VERIFIER), "invalid_client"),
        (form("", &code, CALLBACK, VERIFIER), "invalid_client"),
        (form(&client, "0", CALLBACK, VERIFIER), "invalid_grant"),
        (form(&client, &code, "http://127.0.0.1:4712/callback", VERIFIER), "invalid_grant"),
        (form(&client, &code, CALLBACK, &other_verifier), "invalid_grant"),
        (form(&client, &code, CALLBACK, ""), "invalid_grant"),
        (vec![("grant_type", "client_credentials".into()), ("client_id", client.clone())], "unsupported_grant_type"),
        (
            vec![
                ("grant_type", "refresh_token".into()),
                ("client_id", client.clone()),
                ("refresh_token", code.clone()),
            ],
            "invalid_grant",
        ),
    ] {
        let form: Vec<(&str, &str)> = form.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let answered = here.token(&form).await;
        assert_eq!(answered.json()["error"], error, "{form:?}");
        assert!(matches!(answered.status, 400 | 401), "{form:?}");
    }
    let redeemed = here.redeem(&client, &code).await;
    assert_eq!(redeemed.status, 200, "{}", redeemed.text);
    let granted = redeemed.json();
    assert!(granted.get("id_token").is_none() && !granted.to_string().contains("refresh-"), "{granted}");
    let refresh = granted["refresh_token"].as_str().unwrap();
    let again = |client: String| async {
        let client = client;
        here.token(&[("grant_type", "refresh_token"), ("client_id", &client), ("refresh_token", refresh)]).await
    };
    assert_eq!(again(thief).await.json()["error"], "invalid_grant");
    let again = again(client).await;
    assert_eq!(again.status, 200, "{}", again.text);
    let token = again.json()["access_token"].as_str().unwrap().to_owned();
    assert_eq!(here.gateway.client(&token).call_tool("tools__echo", json!({})).await.status, 200);
    let issued = here.gateway.records("admin");
    assert_eq!(issued.iter().filter(|record| record.to_string().contains("issued to Assistant")).count(), 2);
}

#[tokio::test]
async fn a_client_gets_no_scope_that_is_not_written_and_later_none_that_nobody_consented_to() {
    let here = Registered::start("scopes = [\"mcp\", \"api://mcp/tools\"]\n").await;
    let client = here.client("Assistant").await;
    let mut asked = here.asked(&client);
    asked.retain(|(name, _)| *name != "scope");
    asked.push(("scope", "mcp offline_access https://graph.microsoft.com/.default".into()));
    let page = here.authorize(&asked).await;
    assert!(!page.text.contains("graph") && page.text.contains("mcp offline_access api://mcp/tools"), "{}", page.text);
    let back = here.log_in(&client).await;
    assert_eq!(here.issuer.asked()[0]["scope"], "mcp api://mcp/tools");
    let granted = here.redeem(&client, &back.parameter("code").unwrap()).await.json();
    let refresh = granted["refresh_token"].as_str().unwrap();
    let again = |scope: &'static str| {
        let form = [
            ("grant_type", "refresh_token"),
            ("client_id", client.as_str()),
            ("refresh_token", refresh),
            ("scope", scope),
        ];
        let here = &here;
        async move { here.token(&form).await }
    };
    for scope in ["https://graph.microsoft.com/.default", "mcp https://graph.microsoft.com/.default", "offline_access"]
    {
        let refused = again(scope).await;
        assert_eq!((refused.status, &refused.json()["error"]), (400, &json!("invalid_scope")), "{scope}");
    }
    let again = again("mcp").await;
    assert_eq!(again.status, 200, "{}", again.text);
}

#[tokio::test]
async fn a_client_gets_a_token_for_the_resource_that_a_person_agreed_to_and_later_for_no_other() {
    let here = Registered::start("").await;
    let client = here.client("Assistant").await;
    let (whole, one) = (here.gateway.resource(), format!("{}/tools", here.gateway.resource()));
    let mut asked = here.asked(&client);
    asked.iter_mut().filter(|(name, _)| *name == "resource").for_each(|(_, value)| value.clone_from(&one));
    let page = here.authorize(&asked).await;
    assert!(page.text.contains(&format!("<bdi>{one}</bdi>")), "{}", page.text);
    let code = here.log_in_as(&asked).await.parameter("code").unwrap();
    let elsewhere = format!("{whole}/other");
    for resource in [whole.as_str(), &elsewhere, "https://elsewhere.example/mcp"] {
        let refused = here.redeem_for(&client, &code, Some(resource)).await;
        assert_eq!((refused.status, &refused.json()["error"]), (400, &json!("invalid_target")), "{resource}");
    }
    // Who names none gets what was agreed to.
    let granted = here.redeem_for(&client, &code, None).await;
    assert_eq!(granted.status, 200, "{}", granted.text);
    let works = async |answer: &Answered, place: &str| {
        let token = answer.json()["access_token"].as_str().unwrap().to_owned();
        let name = if place == whole { "tools__echo" } else { "echo" };
        crate::support::client::Client::new(place, Some(&token)).call_tool(name, json!({})).await.status == 200
    };
    assert!(works(&granted, &one).await && !works(&granted, &whole).await);
    let refresh = granted.json()["refresh_token"].as_str().unwrap().to_owned();
    let again = async |resource: Option<&str>| {
        let mut form =
            vec![("grant_type", "refresh_token"), ("client_id", client.as_str()), ("refresh_token", refresh.as_str())];
        form.extend(resource.map(|resource| ("resource", resource)));
        here.token(&form).await
    };
    for resource in [&whole, &elsewhere] {
        assert_eq!(again(Some(resource)).await.json()["error"], "invalid_target", "{resource}");
    }
    for resource in [None, Some(one.as_str())] {
        let renewed = again(resource).await;
        assert_eq!(renewed.status, 200, "{}", renewed.text);
        assert!(works(&renewed, &one).await && !works(&renewed, &whole).await);
    }
}

#[tokio::test]
async fn a_registration_that_could_lead_elsewhere_is_refused() {
    let here = Registered::start("redirect_schemes = [\"cursor\"]\n").await;
    let many: Vec<String> =
        (0..=bailiwick::limit::FACADE_REDIRECTS_MAX).map(|n| format!("https://a.example/{n}")).collect();
    for redirects in [
        json!(null),
        json!([]),
        json!("https://a.example/"),
        json!([7]),
        json!(["http://a.example/"]),
        json!(["javascript:alert(1)"]),
        json!(["vscode://x"]),
        json!(["https://a.example/#x"]),
        json!(["https://good.example/", "http://bad.example/"]),
        json!(many),
    ] {
        let answered = here.register(&json!({ "redirect_uris": redirects })).await;
        assert_eq!((answered.status, &answered.json()["error"]), (400, &json!("invalid_redirect_uri")), "{redirects}");
    }
    assert_eq!(here.register(&json!({ "redirect_uris": ["cursor://x/cb"] })).await.status, 201);
    let registered = here
        .register(&json!({ "redirect_uris": [CALLBACK], "token_endpoint_auth_method": "client_secret_basic",
        "client_name": "x".repeat(bailiwick::limit::FACADE_NAME_CHARACTERS_MAX + 1) }))
        .await
        .json();
    assert_eq!(registered["token_endpoint_auth_method"], "none");
    assert_eq!(registered["client_name"].as_str().unwrap().len(), bailiwick::limit::FACADE_NAME_CHARACTERS_MAX);
    let large =
        json!({ "redirect_uris": [CALLBACK], "client_uri": "x".repeat(bailiwick::limit::FACADE_BODY_BYTES_MAX) });
    assert_eq!(here.register(&large).await.status, 413);
}

#[tokio::test]
async fn a_provider_that_registers_assistants_itself_is_named_and_nothing_is_registered_here() {
    let issuer = Issuer::start().await;
    let upstream = Scripted::echo().await;
    let gateway = Setup::new(&issuer).http_server("tools", &upstream.url, "").start().await;
    let client =
        crate::support::client::Client::new(&format!("{}/.well-known/oauth-protected-resource", gateway.url), None);
    let protected = client.bare(Method::GET, &[]).await;
    assert!(protected.text.contains(&issuer.url), "{}", protected.text);
    for path in
        ["/.well-known/oauth-authorization-server/oauth/test", "/oauth/test/authorize", "/oauth/other/authorize"]
    {
        let client = crate::support::client::Client::new(&format!("{}{path}", gateway.url), None);
        assert_eq!(client.bare(Method::GET, &[]).await.status, 404, "{path}");
    }
}

#[tokio::test]
async fn one_source_may_ask_so_often_in_a_minute() {
    let here = Registered::start("").await;
    let mut slowed = false;
    for _ in 0..=bailiwick::limit::FACADE_REQUESTS_PER_MINUTE_MAX {
        slowed = here.register(&json!({})).await.status == 429;
    }
    assert!(slowed);
}

#[tokio::test]
async fn a_confidential_client_proves_itself_and_its_secret_is_seen_nowhere() {
    let here = Registered::start("client_secret = \"file:client-secret\"\nsend_resource = false\n").await;
    let client = here.client("Assistant").await;
    let back = here.log_in(&client).await;
    // The provider of the tests wants to be told the resource, and is not.
    assert!(!here.issuer.asked()[0].contains_key("resource"));
    let refused = here.redeem(&client, &back.parameter("code").unwrap()).await;
    assert!(!refused.text.contains("the secret of") && !here.gateway.log().contains("the secret of"));
}

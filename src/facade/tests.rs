//! What ends by itself, and what is bounded, without a provider.

use http::header::{COOKIE, HeaderMap, HeaderValue};

use super::authorize::Login;
use super::client::Client;
use super::*;
use crate::outcome::Reason;

struct Nowhere(Arc<Config>);

impl Grounds for Nowhere {
    fn config(&self) -> Arc<Config> {
        Arc::clone(&self.0)
    }

    fn places(&self, _: &IssuerAlias) -> Option<Places> {
        None
    }

    fn epoch(&self) -> RevocationEpoch {
        RevocationEpoch(0)
    }

    fn marks(&self, _: &IssuerAlias, client: &str) -> Vec<Mark> {
        vec![Mark::of("client", "corp", client)]
    }

    fn holder<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Holder, Stop>> {
        Box::pin(std::future::ready(Err(Failure::before(Reason::IssuerUnavailable, "there is no provider").into())))
    }

    fn noted<'a>(&'a self, _: &'a AdminNote<'a>) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

fn config() -> Arc<Config> {
    let mut config = crate::identity::fixture::config();
    let registration = RegistrationConfig {
        client_id: "shared".into(),
        client_secret: None,
        scopes: Vec::new(),
        sends_resource: true,
        schemes: Vec::new(),
    };
    let (registration, audiences) = (Some(registration), Vec::new());
    let first = IssuerConfig { registration, audiences, ..crate::identity::fixture::issuer_config() };
    config.issuers = vec![Arc::new(first)];
    Arc::new(config)
}

fn facade(config: &Arc<Config>) -> Arc<Facade> {
    let sealer = Sealer::new([&[7_u8; 32][..]]).unwrap();
    Facade::new(Arc::new(Nowhere(Arc::clone(config))), Arc::new(sealer))
}

/// As it would be once so much time has passed.
fn sealed_before(facade: &Facade, desk: &Desk<'_>, life: Duration, left: i64) -> String {
    let registered = facade.register(desk, br#"{"client_name":"x","redirect_uris":["https://a.example/"]}"#);
    let registered: serde_json::Value = serde_json::from_slice(registered.body()).unwrap();
    let id = registered["client_id"].as_str().unwrap();
    let (client, _): (Client, _) = facade.open(Purpose::Client, (desk, ""), id).unwrap();
    assert!(client.until <= Moment::now().after(life), "it lives longer than it may");
    let aged = Client { until: Moment(Moment::now().0 + left), ..client };
    facade.seal(Purpose::Client, (desk, ""), desk.nobody(RevocationEpoch(0)), &aged).unwrap()
}

#[test]
fn a_registration_ends_by_itself_and_is_of_no_use_elsewhere() {
    let config = config();
    let (facade, desk) = (facade(&config), Desk::of(&config, "corp").unwrap());
    let life = limit::FACADE_CLIENT_LIFE;
    assert!(facade.client(&desk, &sealed_before(&facade, &desk, life, 60)).is_some());
    assert!(facade.client(&desk, &sealed_before(&facade, &desk, life, 0)).is_none());
    let mut other = Config::clone(&config);
    let mut issuer = IssuerConfig::clone(&other.issuers[0]);
    issuer.registration.as_mut().unwrap().client_id = "another".into();
    other.issuers = vec![Arc::new(issuer)];
    let elsewhere = Desk::of(&other, "corp").unwrap();
    assert!(facade.client(&elsewhere, &sealed_before(&facade, &desk, life, 60)).is_none());
    assert!(Desk::of(&config, "nobody").is_none());
}

#[test]
fn a_registration_of_before_there_were_epochs_is_good_until_something_it_rests_on_is_taken_back() {
    let config = config();
    let (facade, desk) = (facade(&config), Desk::of(&config, "corp").unwrap());
    let client = Client { name: String::new(), redirects: Vec::new(), until: Moment(i64::MAX) };
    let content = serde_json::to_vec(&client).unwrap();
    let earlier = || facade.sealer.seal(Purpose::Client.word(), desk.principal(""), &content).unwrap();
    let (one, other) = (earlier(), earlier());
    let is_known = |id: &str| facade.client(&desk, id).is_some();
    facade.sealer.void(&[(Mark::of("client", "corp", "else"), RevocationEpoch(3))], RevocationEpoch(0));
    assert!(is_known(&one) && is_known(&other));
    facade.sealer.void(&[(Mark::of("client", "corp", &client::short(&one)), RevocationEpoch(4))], RevocationEpoch(0));
    assert!(!is_known(&one) && is_known(&other), "one of them was taken back");
    facade.sealer.void(&[(Mark::of("client", "corp", "shared"), RevocationEpoch(5))], RevocationEpoch(0));
    assert!(!is_known(&other), "so was the client that all of them share");
    let later = facade.seal(Purpose::Client, (&desk, ""), desk.nobody(RevocationEpoch(5)), &client).unwrap();
    assert!(is_known(&later));
}

#[test]
fn a_login_and_a_code_end_by_themselves() {
    let config = config();
    let (facade, desk) = (facade(&config), Desk::of(&config, "corp").unwrap());
    let client = sealed_before(&facade, &desk, limit::FACADE_CLIENT_LIFE, 60);
    let challenge = "c".repeat(limit::PKCE_S256_CHARACTERS);
    let query = format!(
        "response_type=code&client_id={client}&redirect_uri=https%3A%2F%2Fa.example%2F&code_challenge={challenge}\
         &code_challenge_method=S256"
    );
    let page = facade.authorize(&desk, &query);
    let cookie = page.headers()[http::header::SET_COOKIE].to_str().unwrap();
    assert!(cookie.starts_with("__Host-bailiwick_oauth=") && cookie.contains("; Secure"), "{cookie}");
    assert!(cookie.ends_with(&format!("Max-Age={}", limit::FACADE_LOGIN_LIFE.as_secs())), "{cookie}");
    let headers = |cookie: &str| {
        let pair = HeaderValue::from_str(cookie.split(';').next().unwrap()).unwrap();
        HeaderMap::from_iter([(COOKIE, pair)])
    };
    let login = facade.login_of(&desk, &headers(cookie)).unwrap();
    assert!(login.until <= Moment::now().after(limit::FACADE_LOGIN_LIFE));
    let aged = |left: i64| {
        let aged = Login { until: Moment(Moment::now().0 + left), is_agreed: true, ..login.clone() };
        let sealed = facade.seal(Purpose::Login, (&desk, ""), desk.nobody(RevocationEpoch(0)), &aged);
        format!("__Host-bailiwick_oauth={}", sealed.unwrap())
    };
    assert!(facade.login_of(&desk, &headers(&aged(0))).is_none(), "it is over");
    let back = facade.come_back(&desk, &format!("code=x&state={}", login.nonce), &headers(&aged(60)));
    let to = Url::parse(back.headers()[http::header::LOCATION].to_str().unwrap()).unwrap();
    let sealed = to.query_pairs().find(|(name, _)| name == "code").unwrap().1.into_owned();
    let (code, _): (back::Code, _) = facade.open(Purpose::Code, (&desk, &login.client), &sealed).unwrap();
    assert!(code.until <= Moment::now().after(limit::FACADE_CODE_LIFE));
    assert!(facade.open::<back::Code>(Purpose::Refresh, (&desk, &login.client), &sealed).is_none());
    assert!(facade.open::<back::Code>(Purpose::Code, (&desk, "another client"), &sealed).is_none());
}

#[tokio::test]
async fn a_refresh_token_that_does_not_say_for_which_resource_it_is_is_of_no_use() {
    let config = config();
    let (facade, desk) = (facade(&config), Desk::of(&config, "corp").unwrap());
    let id = sealed_before(&facade, &desk, limit::FACADE_CLIENT_LIFE, 60);
    let mut earlier = serde_json::json!({ "token": "t", "name": "x", "redirect": "https://a.example/", "scope": "" });
    let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
    let headers = HeaderMap::from_iter([(http::header::CONTENT_TYPE, kind)]);
    for (resource, expected) in [(None, "invalid_grant"), (Some("https://gw.example/mcp"), "temporarily_unavailable")] {
        earlier["resource"] = serde_json::json!(resource.unwrap_or_default());
        let nobody = desk.nobody(RevocationEpoch(0));
        let sealed = facade.seal(Purpose::Refresh, (&desk, &client::short(&id)), nobody, &earlier).unwrap();
        let form = format!("grant_type=refresh_token&client_id={id}&refresh_token={sealed}");
        let answer = facade.token(&desk, form.as_bytes(), &headers).await;
        let told: serde_json::Value = serde_json::from_slice(answer.body()).unwrap();
        assert_eq!(told["error"], expected, "{resource:?}");
    }
}

#[test]
fn what_is_sealed_and_what_is_asked_is_bounded() {
    let config = config();
    let (facade, desk) = (facade(&config), Desk::of(&config, "corp").unwrap());
    let (nobody, text) = (desk.nobody(RevocationEpoch(0)), "x".repeat(limit::FACADE_SEALED_BYTES_MAX));
    let long = facade.seal(Purpose::Refresh, (&desk, ""), nobody, &text).unwrap();
    assert!(facade.open::<String>(Purpose::Refresh, (&desk, ""), &long).is_none());
    for (resource, ours) in [
        ("https://gw.example/mcp", true),
        ("https://gw.example/mcp/git", true),
        ("https://gw.example/mcpx", false),
        ("https://gw.example.evil/mcp", false),
        ("https://gw.example/mcp/../x", false),
        ("", false),
    ] {
        assert_eq!(desk.serves(resource), ours, "{resource}");
    }
    assert!(Parameters::read(b"a=1&b=2").is_some() && Parameters::read(b"a=1&a=1").is_none());
}

#[test]
fn a_token_for_somebody_else_is_handed_to_nobody() {
    let config = config();
    let desk = Desk::of(&config, "corp").unwrap();
    let token = |claims: &str| format!("x.{}.x", URL_SAFE_NO_PAD.encode(claims));
    for (claims, ours) in [
        (r#"{"aud":"https://gw.example/mcp"}"#, true),
        (r#"{"aud":["https://else.example","https://gw.example/mcp/git"]}"#, true),
        (r#"{"aud":"https://graph.microsoft.com"}"#, false),
        (r#"{"aud":[]}"#, false),
        (r#"{"aud":7}"#, false),
        (r#"{"sub":"ann"}"#, true),
    ] {
        assert_eq!(desk.is_for_us(&token(claims), "https://gw.example/mcp"), ours, "{claims}");
    }
    let git = "https://gw.example/mcp/git";
    assert!(desk.is_for_us("opaque", git), "the provider is asked about it when it comes");
    // Who agreed to one server gives nobody a token for the others.
    for (claims, agreed) in [
        (r#"{"aud":"https://gw.example/mcp/git"}"#, true),
        (r#"{"aud":["https://gw.example/mcp/git","https://else.example"]}"#, true),
        (r#"{"aud":"https://gw.example/mcp"}"#, false),
        (r#"{"aud":"https://gw.example/mcp/notes"}"#, false),
        (r#"{"aud":["https://gw.example/mcp/git","https://gw.example/mcp"]}"#, false),
        (r#"{"aud":"https://else.example"}"#, false),
    ] {
        assert_eq!(desk.is_for_us(&token(claims), git), agreed, "{claims}");
    }
}

#[test]
fn the_page_says_all_of_the_gateway_where_a_token_may_reach_all_of_it() {
    let git = "https://gw.example/mcp/git";
    let shown = |change: &dyn Fn(&mut IssuerConfig), resource: &str| {
        let mut config = Config::clone(&config());
        change(Arc::make_mut(&mut config.issuers[0]));
        let config = Arc::new(config);
        let (facade, desk) = (facade(&config), Desk::of(&config, "corp").unwrap());
        let client = sealed_before(&facade, &desk, limit::FACADE_CLIENT_LIFE, 60);
        let query = format!(
            "response_type=code&client_id={client}&redirect_uri=https%3A%2F%2Fa.example%2F&code_challenge={}\
             &code_challenge_method=S256&resource={resource}",
            "c".repeat(limit::PKCE_S256_CHARACTERS)
        );
        String::from_utf8(facade.authorize(&desk, &query).body().to_vec()).unwrap()
    };
    let told = shown(&|_| {}, git);
    assert!(told.contains(git) && !told.contains("All of this gateway"), "{told}");
    let silent = |issuer: &mut IssuerConfig| issuer.registration.as_mut().unwrap().sends_resource = false;
    let named = |issuer: &mut IssuerConfig| issuer.audiences = vec!["api://mcp".to_owned()];
    for page in [shown(&silent, git), shown(&named, git), shown(&|_| {}, "https://gw.example/mcp")] {
        assert!(page.contains("All of this gateway: <bdi>https://gw.example/mcp</bdi>"), "{page}");
    }
}

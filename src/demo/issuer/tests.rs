//! The issuer over its own sockets, as an assistant meets it.

use std::os::unix::fs::PermissionsExt;

use http::{Request, Response};
use serde_json::{Value, json};
use tokio_util::task::TaskTracker;

use super::*;
use crate::egress::OauthClient;
use crate::identity::fixture::config;
use crate::identity::{Identity, Presented, Resource, Revocations};
use crate::ids::Digest;

const VERIFIER: &str = "a-verifier-that-is-long-enough-for-pkce-to-accept-it";

struct World {
    issuer: DemoIssuer,
    client: OauthClient,
    tasks: TaskTracker,
    stop: CancellationToken,
    _directory: tempfile::TempDir,
    door: PathBuf,
}

async fn world() -> World {
    let directory = tempfile::tempdir().unwrap();
    let door = directory.path().join("issuer.json");
    let user =
        |name: &str, group: &str| DemoUser { name: name.into(), title: "a <b>".into(), groups: vec![group.into()] };
    let options = DemoOptions {
        listen: "127.0.0.1:0".parse().unwrap(),
        users: vec![user("alice", "developers"), user("bob", "auditors")],
        clients: vec![
            DemoClient { id: "bot-client".into(), secret: "s3cret/+".to_owned().into(), may_exchange: false },
            DemoClient { id: "gateway".into(), secret: "gw".to_owned().into(), may_exchange: true },
            DemoClient { id: "second".into(), secret: "gw2".to_owned().into(), may_exchange: true },
        ],
        pages: vec![DemoPages {
            id: "console".into(),
            name: "Console".into(),
            redirect_uri: "http://127.0.0.1/admin/login/callback".into(),
        }],
        resource: "https://gw.example/mcp".into(),
        scopes: vec!["tools".into()],
        interactive_default: Some(AgentId::new("assistant").unwrap()),
        default_roles: Vec::new(),
        door_file: Some(door.clone()),
    };
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let issuer = DemoIssuer::start(options, &tasks, stop.clone()).await.unwrap();
    let client = oauth_client(EgressPolicy::server(true)).unwrap();
    World { issuer, client, tasks, stop, _directory: directory, door }
}

impl World {
    async fn get(&self, path: &str) -> Response<Vec<u8>> {
        let request = Request::get(format!("{}{path}", self.issuer.url())).body(Vec::new()).unwrap();
        self.client.send(request).await.unwrap()
    }

    async fn post(&self, path: &str, kind: &str, headers: &[(&str, &str)], body: String) -> Response<Vec<u8>> {
        let mut request = Request::post(format!("{}{path}", self.issuer.url())).header("content-type", kind);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.client.send(request.body(body.into_bytes()).unwrap()).await.unwrap()
    }

    async fn form(&self, path: &str, fields: &[(&str, &str)]) -> Response<Vec<u8>> {
        let origin = self.issuer.url().to_owned();
        self.post(path, "application/x-www-form-urlencoded", &[("origin", &origin)], encode(fields)).await
    }

    async fn token(&self, fields: &[(&str, &str)]) -> Value {
        body(&self.form("/token", fields).await)
    }

    /// Registers, signs in as that user, and answers client id and code.
    async fn sign_in(&self, user: &str) -> (String, String) {
        let registration =
            json!({"redirect_uris": ["http://127.0.0.1/cb"], "client_name": "<i>Claude</i>"}).to_string();
        let client = body(&self.post("/register", "application/json", &[], registration).await);
        let id = client["client_id"].as_str().unwrap().to_owned();
        let page = self.get(&authorize_path(&id, &[])).await;
        assert_eq!(page.status(), 200);
        assert_eq!(page.headers()["referrer-policy"], "same-origin", "or a browser sends the form as nobody's");
        let page = String::from_utf8(page.into_body()).unwrap();
        assert!(page.contains("&lt;i&gt;Claude") && page.contains("a &lt;b&gt;") && !page.contains("<i>"), "{page}");
        let request = page.split("name=\"request\" value=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
        let answer = self.form("/authorize", &[("request", &request), ("user", user)]).await;
        assert_eq!(answer.status(), 303);
        let again = self.form("/authorize", &[("request", &request), ("user", user)]).await;
        assert_eq!(again.status(), 400, "a page is good for one click");
        let location = url::Url::parse(answer.headers()["location"].to_str().unwrap()).unwrap();
        assert!(location.as_str().starts_with("http://127.0.0.1:7777/cb?"), "{location}");
        let find =
            |name: &str| location.query_pairs().find(|(own, _)| own == name).map(|(_, value)| value.into_owned());
        assert_eq!(find("state").as_deref(), Some("st&te"));
        assert_eq!(find("iss").as_deref(), Some(self.issuer.url()));
        (id, find("code").unwrap_or_default())
    }
}

fn body(response: &Response<Vec<u8>>) -> Value {
    serde_json::from_slice(response.body()).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(response.body())))
}

fn encode(fields: &[(&str, &str)]) -> String {
    url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish()
}

fn authorize_path(client: &str, changes: &[(&str, &str)]) -> String {
    let challenge = base64::Engine::encode(
        &base64::engine::general_purpose::URL_SAFE_NO_PAD,
        Digest::sha256(VERIFIER.as_bytes()).as_bytes(),
    );
    let mut fields = vec![
        ("response_type", "code"),
        ("client_id", client),
        ("redirect_uri", "http://127.0.0.1:7777/cb"),
        ("code_challenge", &challenge),
        ("code_challenge_method", "S256"),
        ("state", "st&te"),
        ("scope", "tools"),
        ("resource", "https://gw.example/mcp/git"),
    ];
    for (name, value) in changes {
        fields.retain(|(own, _)| own != name);
        fields.push((name, value));
    }
    format!("/authorize?{}", encode(&fields))
}

fn redeem<'a>(client: &'a str, code: &'a str) -> [(&'a str, &'a str); 5] {
    [
        ("grant_type", "authorization_code"),
        ("client_id", client),
        ("code", code),
        ("redirect_uri", "http://127.0.0.1:7777/cb"),
        ("code_verifier", VERIFIER),
    ]
}

fn claims(token: &Value) -> Value {
    let payload = token.as_str().unwrap().split('.').nth(1).unwrap();
    let engine = base64::engine::general_purpose::URL_SAFE_NO_PAD;
    serde_json::from_slice(&base64::Engine::decode(&engine, payload).unwrap()).unwrap()
}

#[tokio::test]
async fn an_assistant_registers_signs_a_person_in_and_the_gateway_believes_the_token() {
    let world = world().await;
    let (client, code) = world.sign_in("alice").await;
    let answer = world.token(&redeem(&client, &code)).await;
    let read = claims(&answer["access_token"]);
    assert_eq!((read["sub"].as_str(), read["aud"].as_str()), (Some("alice"), Some("https://gw.example/mcp/git")));
    assert_eq!(world.token(&redeem(&client, &code)).await["error"], "invalid_grant", "a code works once");

    let mut config = config();
    config.issuers = vec![Arc::new(world.issuer.issuer_config().unwrap())];
    let identity = Identity::new(&config, Arc::new(Revocations::default()), world.tasks.clone(), world.stop.clone());
    let token = answer["access_token"].as_str().unwrap();
    let git = Resource::Server(crate::ids::ServerId::new("git").unwrap());
    let caller = identity.authenticate(Presented::Bearer(token), &git).await.unwrap();
    assert_eq!(caller.persona().user.as_ref().unwrap().as_str(), "user:demo/alice");
    assert_eq!(caller.persona().agent.as_ref().unwrap().id.as_str(), "assistant");

    let minted = mint_token(&world.door, &MintRequest { user: "bob".into(), ..MintRequest::default() }).await.unwrap();
    let caller = identity.authenticate(Presented::Bearer(minted.expose_secret()), &Resource::Gateway).await.unwrap();
    assert_eq!(caller.persona().user.as_ref().unwrap().as_str(), "user:demo/bob");
    assert_eq!(caller.persona().client.as_deref(), Some(CLI_CLIENT));

    world.stop.cancel();
    world.tasks.close();
    tokio::time::timeout(Duration::from_secs(5), world.tasks.wait()).await.unwrap();
    assert!(!world.door.exists(), "the door file goes with the issuer");
}

#[tokio::test]
async fn people_sign_in_to_the_console_and_their_tokens_say_how() {
    let world = world().await;
    let callback = "http://127.0.0.1:7820/admin/login/callback";
    let changes = [("redirect_uri", callback), ("scope", "openid"), ("resource", "https://gw.example/admin")];
    let page = world.get(&authorize_path("console", &changes)).await;
    let page = String::from_utf8(page.into_body()).unwrap();
    let request = page.split("name=\"request\" value=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let clicked = world.form("/authorize", &[("request", &request), ("user", "bob")]).await;
    let location = url::Url::parse(clicked.headers()["location"].to_str().unwrap()).unwrap();
    let code = location.query_pairs().find(|(name, _)| name == "code").unwrap().1.into_owned();
    let mut fields = redeem("console", &code);
    fields[3] = ("redirect_uri", callback);
    let answer = world.token(&fields).await;
    let (access, identity) = (claims(&answer["access_token"]), claims(&answer["id_token"]));
    assert_eq!((&access["acr"], &access["client_id"]), (&json!("click"), &json!("console")), "{access}");
    assert_eq!((&identity["acr"], &identity["sub"]), (&json!("click"), &json!("bob")), "{identity}");
    assert!(access["auth_time"].is_i64(), "{access}");
    // Where nobody clicked, no token says so.
    let minted = world.issuer.mint(&MintRequest { user: "bob".into(), ..MintRequest::default() }).unwrap();
    assert!(claims(&json!(minted.expose_secret())).get("acr").is_none());
    let elsewhere = [("redirect_uri", "http://127.0.0.1:7820/admin/other")];
    assert_eq!(world.get(&authorize_path("console", &elsewhere)).await.status(), 400);
}

#[tokio::test]
async fn software_of_the_demo_has_tokens_of_its_own_and_nobody_elses() {
    let world = world().await;
    let read = claims(&json!(world.issuer.mint_for_client("bot-client").unwrap().expose_secret()));
    assert_eq!((&read["sub"], &read["client_id"]), (&json!("bot-client"), &json!("bot-client")));
    assert_eq!(read["aud"], "https://gw.example/mcp");
    assert!(world.issuer.mint_for_client("alice").is_err() && world.issuer.mint_for_client("console").is_err());
}

#[tokio::test]
async fn a_refresh_token_works_once_and_dies_with_its_session() {
    let world = world().await;
    let (client, code) = world.sign_in("alice").await;
    let first = world.token(&redeem(&client, &code)).await;
    let renew = |token: &Value| {
        let token = token["refresh_token"].as_str().unwrap().to_owned();
        [("grant_type", "refresh_token".to_owned()), ("client_id", client.clone()), ("refresh_token", token)]
    };
    let ask = async |fields: [(&'static str, String); 3]| {
        let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        world.token(&fields).await
    };
    let second = ask(renew(&first)).await;
    assert_eq!(claims(&second["access_token"])["sid"], claims(&first["access_token"])["sid"]);
    assert_eq!(ask(renew(&first)).await["error"], "invalid_grant");
    let access = second["access_token"].as_str().unwrap();
    assert_eq!(world.form("/revoke", &[("client_id", &client), ("token", access)]).await.status(), 200);
    assert_eq!(ask(renew(&second)).await["error"], "invalid_grant");
}

#[tokio::test]
async fn a_wrong_request_is_shown_or_sent_back_and_never_gets_a_code() {
    let world = world().await;
    let (client, code) = world.sign_in("alice").await;
    for (changes, status) in [
        (("client_id", "stranger"), 400),
        (("redirect_uri", "https://evil.example/cb"), 400),
        (("redirect_uri", "http://127.0.0.1:7777/other"), 400),
        (("response_type", "token"), 303),
        (("code_challenge_method", "plain"), 303),
        (("code_challenge", "short"), 303),
        (("resource", "not a uri"), 303),
        (("resource", "https://gw.example/#x"), 303),
    ] {
        let answer = world.get(&authorize_path(&client, &[changes])).await;
        assert_eq!(answer.status(), status, "{changes:?}");
        if status == 303 {
            let location = answer.headers()["location"].to_str().unwrap();
            assert!(
                location.starts_with("http://127.0.0.1:7777/cb?error=") && !location.contains("code="),
                "{location}"
            );
        }
    }
    let twice = format!("{}&client_id=x", authorize_path(&client, &[]));
    assert_eq!(world.get(&twice).await.status(), 400);
    let mut wrong = redeem(&client, &code);
    wrong[4].1 = "another-verifier-that-is-long-enough-for-pkce-to-see";
    assert_eq!(world.token(&wrong).await["error"], "invalid_grant");
    assert_eq!(world.token(&redeem(&client, &code)).await["error"], "invalid_grant", "a wrong try spends the code");
    let (_, refused) = world.sign_in("nobody").await;
    assert!(refused.is_empty());
}

#[tokio::test]
async fn software_gets_tokens_for_itself_and_exchanges_those_of_others() {
    let world = world().await;
    let basic = |id: &str, secret: &str| {
        let secret: String = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
        let pair = format!("{id}:{secret}");
        format!("Basic {}", base64::Engine::encode(&base64::engine::general_purpose::STANDARD, pair))
    };
    let ask = async |authorization: String, fields: Vec<(&str, &str)>| {
        let kind = "application/x-www-form-urlencoded";
        body(&world.post("/token", kind, &[("authorization", &authorization)], encode(&fields)).await)
    };
    let own = ask(basic("bot-client", "s3cret/+"), vec![("grant_type", "client_credentials")]).await;
    let read = claims(&own["access_token"]);
    assert_eq!((read["sub"].as_str(), read["client_id"].as_str()), (Some("bot-client"), Some("bot-client")));
    assert_eq!(
        ask(basic("bot-client", "wrong"), vec![("grant_type", "client_credentials")]).await["error"],
        "invalid_client"
    );

    let alice = world.issuer.mint(&MintRequest { user: "alice".into(), ..MintRequest::default() }).unwrap();
    let exchange = |token: &str| {
        let fields = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
            ("subject_token", token),
            ("subject_token_type", ACCESS),
            ("audience", "https://upstream.example"),
            ("scope", "read"),
        ];
        fields.map(|(name, value)| (name, value.to_owned()))
    };
    const ACCESS: &str = "urn:ietf:params:oauth:token-type:access_token";
    let traded = async |authorization: String, token: &str| {
        let fields = exchange(token);
        ask(authorization, fields.iter().map(|(name, value)| (*name, value.as_str())).collect()).await
    };
    let first = traded(basic("gateway", "gw"), alice.expose_secret()).await;
    assert_eq!((first["token_type"].as_str(), first["issued_token_type"].as_str()), (Some("Bearer"), Some(ACCESS)));
    let read = claims(&first["access_token"]);
    assert_eq!((read["sub"].as_str(), read["aud"].as_str()), (Some("alice"), Some("https://upstream.example")));
    assert_eq!(read["act"], json!({"sub": "gateway"}));
    assert_eq!(read["groups"], json!(["developers"]));
    let second = traded(basic("second", "gw2"), first["access_token"].as_str().unwrap()).await;
    assert_eq!(claims(&second["access_token"])["act"], json!({"sub": "second", "act": {"sub": "gateway"}}));

    assert_eq!(traded(basic("bot-client", "s3cret/+"), alice.expose_secret()).await["error"], "unauthorized_client");
    assert_eq!(traded(basic("gateway", "gw"), "e30.e30.x").await["error"], "invalid_grant");
}

#[tokio::test]
async fn other_sites_and_other_names_get_no_answer() {
    let world = world().await;
    let url = world.issuer.url().to_owned();
    let ask = async |method: &str, path: &str, headers: &[(&str, &str)]| {
        let mut request = Request::builder().method(method).uri(format!("{url}{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        world.client.send(request.body(Vec::new()).unwrap()).await.unwrap()
    };
    let metadata = "/.well-known/oauth-authorization-server";
    assert_eq!(ask("GET", metadata, &[]).await.status(), 200);
    assert_eq!(ask("GET", metadata, &[("host", "evil.example")]).await.status(), 421);
    assert_eq!(ask("GET", metadata, &[("origin", "https://evil.example")]).await.status(), 403);
    assert_eq!(ask("POST", "/register", &[("origin", "null")]).await.status(), 403);
    let inspector = ask("OPTIONS", "/register", &[("origin", "http://localhost:6274")]).await;
    assert_eq!(inspector.headers()["access-control-allow-origin"], "http://localhost:6274");
    let elsewhere = ask("POST", "/authorize", &[("origin", "http://localhost:6274")]).await;
    assert_eq!(elsewhere.status(), 403, "signing in takes our own page");
    assert_eq!(ask("POST", "/demo/token", &[("authorization", "Bearer x")]).await.status(), 401);
    let long = "x".repeat(limit::DEMO_BODY_BYTES_MAX + 1);
    assert_eq!(world.post("/register", "application/json", &[], long).await.status(), 400);
    assert_eq!(std::fs::metadata(&world.door).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn it_listens_on_loopback_only() {
    let options = DemoOptions {
        listen: "0.0.0.0:0".parse().unwrap(),
        users: Vec::new(),
        clients: Vec::new(),
        pages: Vec::new(),
        resource: String::new(),
        scopes: Vec::new(),
        interactive_default: None,
        default_roles: Vec::new(),
        door_file: None,
    };
    assert!(DemoIssuer::start(options, &TaskTracker::new(), CancellationToken::new()).await.is_err());
}

/// Registers a client; answers its id and its name.
async fn registered(state: &Arc<State>, registration: Value) -> Result<(String, String), &'static str> {
    let registration = axum::Json(serde_json::from_value(registration).unwrap());
    let answer = register::register(axum::extract::State(Arc::clone(state)), Ok(registration)).await;
    let (_, axum::Json(client)) = answer.map_err(|problem| problem.code)?;
    Ok((client["client_id"].as_str().unwrap().to_owned(), client["client_name"].as_str().unwrap().to_owned()))
}

#[tokio::test]
async fn so_many_clients_are_remembered_and_of_each_so_much() {
    let world = world().await;
    let state = &world.issuer.state;
    let uris = |count: usize| -> Vec<_> { (0..count).map(|number| format!("http://127.0.0.1/{number}")).collect() };
    let many = uris(limit::DEMO_REDIRECT_URIS_MAX + 1);
    assert_eq!(registered(state, json!({ "redirect_uris": many })).await, Err("invalid_redirect_uri"));
    let name = "n".repeat(limit::DEMO_CLIENT_NAME_CHARACTERS_MAX + 1);
    let most = json!({ "redirect_uris": uris(limit::DEMO_REDIRECT_URIS_MAX), "client_name": name });
    let (_, shown) = registered(state, most).await.unwrap();
    assert_eq!(shown, name[1..]);
    let mut newest = String::new();
    for _ in 0..limit::DEMO_CLIENTS_MAX + 100 {
        (newest, _) = registered(state, json!({ "redirect_uris": uris(1) })).await.unwrap();
    }
    state.registered.run_pending_tasks();
    assert_eq!(state.registered.entry_count(), limit::DEMO_CLIENTS_MAX);
    assert!(state.client(&newest).is_some(), "who registers in a loop locks nobody out");
}

/// Asks for a page as the router does; answers the id of the request on it.
async fn page(state: &Arc<State>, client: &str) -> String {
    let query = authorize_path(client, &[]).split_once('?').unwrap().1.to_owned();
    let page = authorize::page(axum::extract::State(Arc::clone(state)), axum::extract::RawQuery(Some(query))).await;
    let page = axum::body::to_bytes(page.into_body(), limit::DEMO_BODY_BYTES_MAX).await.unwrap();
    let page = String::from_utf8(page.to_vec()).unwrap();
    page.split("name=\"request\" value=\"").nth(1).unwrap().split('"').next().unwrap().to_owned()
}

/// Clicks on a name; answers the code.
async fn click(state: &Arc<State>, request: &str) -> Option<String> {
    let form = encode(&[("request", request), ("user", "alice")]);
    let answer = authorize::signed_in(axum::extract::State(Arc::clone(state)), form.into()).await;
    let location = url::Url::parse(answer.headers().get("location")?.to_str().unwrap()).unwrap();
    location.query_pairs().find(|(name, _)| name == "code").map(|(_, code)| code.into_owned())
}

#[tokio::test]
async fn so_many_pages_and_codes_are_open_at_once_and_the_newest_are_good() {
    let world = world().await;
    let state = &world.issuer.state;
    let (client, _) = registered(state, json!({ "redirect_uris": ["http://127.0.0.1/cb"] })).await.unwrap();
    let first = page(state, &client).await;
    let mut newest = String::new();
    for _ in 0..limit::DEMO_PENDING_MAX + 100 {
        newest = page(state, &client).await;
    }
    state.pending.run_pending_tasks();
    assert_eq!(state.pending.entry_count(), limit::DEMO_PENDING_MAX);
    assert!(click(state, &first).await.is_none(), "the oldest page made room");
    let old = click(state, &newest).await.unwrap();
    let mut code = String::new();
    for _ in 0..limit::DEMO_PENDING_MAX + 100 {
        code = click(state, &page(state, &client).await).await.unwrap();
    }
    state.codes.run_pending_tasks();
    assert_eq!(state.codes.entry_count(), limit::DEMO_PENDING_MAX);
    assert_eq!(world.token(&redeem(&client, &old)).await["error"], "invalid_grant");
    assert!(world.token(&redeem(&client, &code)).await["access_token"].is_string());
}

#[tokio::test]
async fn so_many_requests_are_served_at_once_and_one_more_is_told_to_come_again() {
    use tokio::io::AsyncWriteExt as _;
    let world = world().await;
    let place = world.issuer.url().strip_prefix("http://").unwrap().to_owned();
    let mut unfinished = Vec::new();
    for _ in 0..limit::DEMO_REQUESTS_MAX {
        let mut stream = tokio::net::TcpStream::connect(&place).await.unwrap();
        // Its body never comes.
        let head = "content-type: application/json\r\ncontent-length: 9\r\n\r\n";
        stream.write_all(format!("POST /register HTTP/1.1\r\nhost: {place}\r\n{head}").as_bytes()).await.unwrap();
        unfinished.push(stream);
    }
    let until = async |wanted: u16| {
        for _ in 0..500 {
            if world.get("/jwks").await.status() == wanted {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("it never answered {wanted}");
    };
    until(503).await;
    drop(unfinished);
    until(200).await;
}

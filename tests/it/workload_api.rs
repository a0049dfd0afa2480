//! A trust domain whose keys the SPIFFE Workload API says: on a Unix socket, over gRPC, whenever they change.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use futures_util::StreamExt as _;
use http_body::Frame;
use http_body_util::StreamBody;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::sync::broadcast;

use crate::support::authority::{Authority, Leaf};
use crate::support::client::{Answer, Client};
use crate::support::eventually;
use crate::support::gateway::{Gateway, Setup};
use crate::support::holder::{Holder, call_as, call_over};
use crate::support::issuer::Issuer;
use crate::support::scripted::Scripted;

const BOT: &str = "spiffe://mesh.test/bot";

/// A workload API that says what the test wants.
struct Api {
    socket: PathBuf,
    shared: Arc<Shared>,
    _directory: tempfile::TempDir,
}

struct Shared {
    keys: Said,
    roots: Said,
    /// What each request came with.
    asked: Mutex<Vec<(String, HeaderMap)>>,
    refuses: Mutex<bool>,
    /// It says roots alone.
    without_keys: Mutex<bool>,
}

/// In the place of a message: the stream ends, and nothing says why.
const BREAKS: &[u8] = b"breaks";

/// What one of its streams says, now and later.
struct Said {
    said: Mutex<Bytes>,
    more: broadcast::Sender<Bytes>,
}

impl Said {
    fn new(first: Bytes) -> Self {
        Self { said: Mutex::new(first), more: broadcast::Sender::new(8) }
    }

    fn say(&self, message: Bytes) {
        *self.said.lock().unwrap() = message.clone();
        let _heard = self.more.send(message);
    }
}

/// A field of protocol buffers that has a length.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut all = vec![number << 3 | 2];
    let mut length = content.len();
    while length >= 0x80 {
        all.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
        length >>= 7;
    }
    all.push(u8::try_from(length).unwrap());
    [all, content.to_vec()].concat()
}

/// One message of gRPC: the bundles of these domains.
fn message(bundles: &[(&str, Value)]) -> Bytes {
    let entry = |(name, bundle): &(&str, Value)| {
        let bundle = bundle.to_string();
        field(1, &[field(1, format!("spiffe://{name}").as_bytes()), field(2, bundle.as_bytes())].concat())
    };
    framed(&bundles.iter().flat_map(entry).collect::<Vec<u8>>())
}

/// The same with the roots of these domains, and a list of what was withdrawn.
fn roots(bundles: &[(&str, Vec<u8>)], withdrawn: &[u8]) -> Bytes {
    let entry = |(name, roots): &(&str, Vec<u8>)| {
        field(2, &[field(1, format!("spiffe://{name}").as_bytes()), field(2, roots)].concat())
    };
    let list = if withdrawn.is_empty() { Vec::new() } else { field(1, withdrawn) };
    framed(&list.into_iter().chain(bundles.iter().flat_map(entry)).collect::<Vec<u8>>())
}

fn framed(content: &[u8]) -> Bytes {
    let length = u32::try_from(content.len()).unwrap().to_be_bytes();
    [&[0][..], &length, content].concat().into()
}

/// As SPIRE says it: without what a key is for.
fn keys(holders: &[(&Holder, &str)]) -> Value {
    let key = |(holder, id): &(&Holder, &str)| {
        let mut key = holder.jwk.clone();
        key["kid"] = json!(id);
        key.as_object_mut().unwrap().remove("use");
        key
    };
    json!({ "keys": holders.iter().map(key).collect::<Vec<_>>() })
}

impl Api {
    /// It has keys, and no roots.
    fn start(first: Bytes) -> Self {
        Self::with(first, framed(&[]))
    }

    fn with(keys: Bytes, roots: Bytes) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("agent.sock");
        let shared = Arc::new(Shared {
            keys: Said::new(keys),
            roots: Said::new(roots),
            asked: Mutex::default(),
            refuses: Mutex::default(),
            without_keys: Mutex::default(),
        });
        let api = Self { socket, shared, _directory: directory };
        api.listen();
        api
    }

    fn listen(&self) {
        let listener = tokio::net::UnixListener::bind(&self.socket).unwrap();
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = Arc::clone(&shared);
                let service = hyper::service::service_fn(move |request| answer(Arc::clone(&shared), request));
                tokio::spawn(
                    hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), service),
                );
            }
        });
    }

    fn say(&self, message: Bytes) {
        self.shared.keys.say(message);
    }

    /// Ends a stream that is open, without a word; the next one says what the last one said.
    fn breaks(said: &Said) {
        assert!(said.more.send(Bytes::from_static(BREAKS)).is_ok(), "somebody listens");
    }

    /// The requests for keys.
    fn asked(&self) -> Vec<HeaderMap> {
        let asked = self.shared.asked.lock().unwrap();
        let keys = asked.iter().filter(|(path, _)| path == "/SpiffeWorkloadAPI/FetchJWTBundles");
        keys.map(|(_, headers)| headers.clone()).collect()
    }
}

async fn answer(
    shared: Arc<Shared>,
    request: Request<hyper::body::Incoming>,
) -> Result<Response<Body>, std::convert::Infallible> {
    let (head, _) = request.into_parts();
    let said = match head.uri.path() {
        "/SpiffeWorkloadAPI/FetchJWTBundles" if *shared.without_keys.lock().unwrap() => {
            let unimplemented =
                Response::builder().header("content-type", "application/grpc").header("grpc-status", "12");
            return Ok(unimplemented.body(Body::empty()).unwrap());
        }
        "/SpiffeWorkloadAPI/FetchJWTBundles" => &shared.keys,
        "/SpiffeWorkloadAPI/FetchX509Bundles" => &shared.roots,
        other => panic!("nobody asks for {other}"),
    };
    shared.asked.lock().unwrap().push((head.uri.path().to_owned(), head.headers));
    let response = Response::builder().header("content-type", "application/grpc");
    if *shared.refuses.lock().unwrap() {
        return Ok(response.header("grpc-status", "7").body(Body::empty()).unwrap());
    }
    let more = said.more.subscribe();
    let first = said.said.lock().unwrap().clone();
    let more = futures_util::stream::unfold(more, async |mut more| Some((more.recv().await.ok()?, more)));
    let said = futures_util::stream::once(async { first }).chain(more);
    let said = said.take_while(|message| std::future::ready(message != BREAKS));
    // An empty message is none: the end of the stream, which tells that we are not known any more.
    let frames = said.map(|message| {
        let end = HeaderMap::from_iter([(HeaderName::from_static("grpc-status"), HeaderValue::from_static("7"))]);
        let frame = if message.is_empty() { Frame::trailers(end) } else { Frame::data(message) };
        Ok::<_, std::convert::Infallible>(frame)
    });
    Ok(response.body(Body::new(StreamBody::new(frames))).unwrap())
}

async fn start(issuer: &Issuer, upstream: &Scripted, socket: &Path) -> Gateway {
    start_as(issuer, upstream, socket, |setup| setup).await
}

async fn start_as(issuer: &Issuer, upstream: &Scripted, socket: &Path, more: impl FnOnce(Setup) -> Setup) -> Gateway {
    more(setup(Setup::new(issuer), upstream, socket)).start().await
}

/// With the trust domain, whose roots and keys come from that socket.
fn setup(setup: Setup, upstream: &Scripted, socket: &Path) -> Setup {
    let agents = format!(
        "[agents.assistant]\nowner = \"user:test/owner\"\npurpose = \"tests\"\nkind = \"interactive\"\nenvironments = [\"development\"]\n\
         [agents.bot]\nowner = \"user:test/owner\"\npurpose = \"tests\"\nkind = \"autonomous\"\nmandates = \"optional\"\n\
         environments = [\"development\"]\nclients = [{{ issuer = \"mesh\", client_id = \"{BOT}\" }}]\n"
    );
    let mesh = format!(
        "[issuers.mesh]\nkind = \"spiffe\"\ntrust_domain = \"mesh.test\"\nbundle = \"unix:{}\"\n",
        socket.display()
    );
    setup
        .http_server("tools", &upstream.url, "")
        .sections(&mesh)
        .policy("p, anyone, *, */*, call, -, allow\n")
        .policy_file("agents.toml", &agents)
}

async fn call(gateway: &Gateway, key: &Holder, id: &str) -> Answer {
    let now = jiff::Timestamp::now().as_second();
    let claims = json!({ "sub": BOT, "aud": [gateway.resource()], "exp": now + 300, "iat": now });
    let svid = key.sign(&(json!({ "alg": "ES256", "kid": id }), claims));
    call_as(&gateway.resource(), &format!("Bearer {svid}"), &[]).await
}

#[tokio::test]
async fn the_keys_that_the_workload_api_says_count_at_once_and_those_that_it_says_no_more_do_not() {
    let (issuer, upstream) = (Issuer::start().await, Scripted::echo().await);
    let (first, second, stranger) = (Holder::new(), Holder::new(), Holder::new());
    let said = |keys: Value| message(&[("other.test", self::keys(&[(&stranger, "one")])), ("mesh.test", keys)]);
    let api = Api::start(said(keys(&[(&first, "one")])));
    let gateway = start(&issuer, &upstream, &api.socket).await;
    let answer = call(&gateway, &first, "one").await;
    assert_eq!((answer.status, answer.tool_text()), (200, "{}"), "{}", answer.text);
    // Another domain's key is nobody's here, and neither is one that comes later.
    assert_eq!(call(&gateway, &stranger, "one").await.status, 401);
    assert_eq!(call(&gateway, &second, "two").await.status, 401);
    api.say(said(keys(&[(&first, "one"), (&second, "two")])));
    eventually("the new key to count", async || call(&gateway, &second, "two").await.status == 200).await;
    api.say(said(keys(&[(&second, "two")])));
    eventually("the old key to be gone", async || call(&gateway, &first, "one").await.status == 401).await;
    assert_eq!(call(&gateway, &second, "two").await.status, 200);
    let asked = api.asked();
    assert_eq!(asked.len(), 1, "one stream for all of it");
    assert_eq!(
        (&asked[0]["workload.spiffe.io"], &asked[0]["te"]),
        (&"true".parse().unwrap(), &"trailers".parse().unwrap())
    );
}

#[tokio::test]
async fn what_the_workload_api_leaves_out_is_withdrawn_and_so_is_everything_once_it_knows_the_gateway_no_more() {
    let (issuer, upstream, key) = (Issuer::start().await, Scripted::echo().await, Holder::new());
    let ours = message(&[("mesh.test", keys(&[(&key, "one")]))]);
    let api = Api::start(ours.clone());
    let gateway = start(&issuer, &upstream, &api.socket).await;
    assert_eq!(call(&gateway, &key, "one").await.status, 200);
    // A message without our domain is a message: its keys are not to be used any more.
    api.say(message(&[("other.test", keys(&[(&key, "one")]))]));
    eventually("its keys to be gone", async || call(&gateway, &key, "one").await.status == 401).await;
    assert!(gateway.log().contains("has no bundle of it for this process"), "{}", gateway.log());
    api.say(ours.clone());
    eventually("its keys to be back", async || call(&gateway, &key, "one").await.status == 200).await;
    assert_eq!(api.asked().len(), 1, "and all of that on one stream");
    // A stream that it ends because we are nobody there any more.
    *api.shared.refuses.lock().unwrap() = true;
    api.say(Bytes::new());
    eventually("its keys to be gone", async || call(&gateway, &key, "one").await.status == 401).await;
    *api.shared.keys.said.lock().unwrap() = ours;
    *api.shared.refuses.lock().unwrap() = false;
    eventually("its keys to be back", async || call(&gateway, &key, "one").await.status == 200).await;
}

#[tokio::test]
async fn a_workload_api_that_is_away_or_says_no_is_asked_again_and_what_it_said_last_holds() {
    let (issuer, upstream, key) = (Issuer::start().await, Scripted::echo().await, Holder::new());
    let api = Api::start(message(&[("mesh.test", keys(&[(&key, "one")]))]));
    *api.shared.refuses.lock().unwrap() = true;
    let gateway = start(&issuer, &upstream, &api.socket).await;
    assert_eq!(call(&gateway, &key, "one").await.status, 503, "nobody knows its keys");
    eventually("it to be said why", async || gateway.log().contains("register the gateway as a workload")).await;
    *api.shared.refuses.lock().unwrap() = false;
    eventually("it to be asked again", async || call(&gateway, &key, "one").await.status == 200).await;
    // Whatever it says that is nothing ends the stream, and changes nothing.
    api.say(Bytes::from_static(&[0, 0, 0, 0, 2, 0x0a, 0xff]));
    eventually("it to be noticed", async || gateway.log().contains("no message of protocol buffers")).await;
    assert_eq!(call(&gateway, &key, "one").await.status, 200);
}

#[tokio::test]
async fn a_workload_api_that_says_nothing_is_not_waited_for() {
    let (issuer, upstream, key) = (Issuer::start().await, Scripted::echo().await, Holder::new());
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("agent.sock");
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    let held = tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            held.push(stream);
        }
    });
    let gateway = start(&issuer, &upstream, &socket).await;
    let within = bailiwick::limit::WORKLOAD_API_TIMEOUT + std::time::Duration::from_secs(5);
    let said = async || gateway.log().contains("it does not answer in time");
    crate::support::eventually_within(within, "it to be given up", said).await;
    assert_eq!(call(&gateway, &key, "one").await.status, 503);
    held.abort();
    // A socket that others could put another one in the place of is not asked at all.
    std::fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    eventually("it not to be asked", async || gateway.log().contains("others can replace it")).await;
}

#[tokio::test]
async fn the_roots_that_the_workload_api_says_let_certificates_in_and_those_that_it_says_no_more_do_not() {
    let (issuer, upstream, key) = (Issuer::start().await, Scripted::echo().await, Holder::new());
    let (first, second, stranger) = (Authority::new(), Authority::called("another", &[]), Authority::new());
    let svid = |authority: &Authority, name: &str| {
        let uri = format!("subjectAltName=URI:{BOT}");
        authority.issue(name, &[&uri, "basicConstraints=critical,CA:FALSE", "keyUsage=critical,digitalSignature"])
    };
    let (old, new, foreign) = (svid(&first, "old"), svid(&second, "new"), svid(&stranger, "foreign"));
    let withdrawn = svid(&second, "withdrawn");
    let said = |ours: Vec<u8>, list: &[u8]| roots(&[("other.test", stranger.der()), ("mesh.test", ours)], list);
    let api = Api::with(message(&[("mesh.test", keys(&[(&key, "one")]))]), said(first.der(), &[]));
    let gateway = start_as(&issuer, &upstream, &api.socket, |setup| setup.tls(&first, Path::new(""))).await;
    let client = |leaf: &Leaf| Client::with_certificate(&gateway.resource(), &leaf.pem);
    let in_with = async |leaf: &Leaf| !client(leaf).refused().await;
    eventually("the roots", async || in_with(&old).await).await;
    let answer = call_over(&client(&old), "", &[]).await;
    assert_eq!((answer.status, answer.tool_text()), (200, "{}"), "{}", answer.text);
    // Another domain's root is nobody's here, and neither is one that comes later.
    assert!(!in_with(&foreign).await && !in_with(&new).await);
    let both = [first.der(), second.der()].concat();
    api.shared.roots.say(said(both.clone(), &[]));
    eventually("the new root to count", async || in_with(&new).await).await;
    assert!(in_with(&old).await && in_with(&withdrawn).await);
    // What its authority has withdrawn is not let in, beside what it has not.
    api.shared.roots.say(said(both, &second.withdraws("withdrawn")));
    eventually("the list to count", async || !in_with(&withdrawn).await).await;
    assert!(in_with(&old).await && in_with(&new).await);
    api.shared.roots.say(said(second.der(), &[]));
    eventually("the old root to be gone", async || !in_with(&old).await).await;
    assert!(in_with(&new).await);
    // What cannot be read, or is too much, changes nothing.
    let many = second.der().repeat(bailiwick::limit::JWKS_KEYS_MAX + 1);
    for (bad, why) in [(many, "roots"), (b"no certificate".to_vec(), "cannot be read")] {
        api.shared.roots.say(said(bad, &[]));
        eventually("it to be noticed", async || {
            gateway
                .log()
                .lines()
                .any(|line| line.contains("roots of a trust domain were not read") && line.contains(why))
        })
        .await;
        assert!(in_with(&new).await, "{why}");
        *api.shared.roots.said.lock().unwrap() = said(second.der(), &[]);
    }
    let told = gateway.piped(&["doctor"], &[], "").await;
    let told = String::from_utf8_lossy(&told.stdout).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(told.contains("verifies JWT-SVIDs (1 of its keys) and X.509-SVIDs"), "{told}");
    // A message without our domain withdraws its roots, and none of its keys.
    let now = jiff::Timestamp::now().as_second();
    let claims = json!({ "sub": BOT, "aud": [gateway.resource()], "exp": now + 300, "iat": now });
    let token = format!("Bearer {}", key.sign(&(json!({ "alg": "ES256", "kid": "one" }), claims)));
    let by_token = async || call_over(&Client::new(&gateway.resource(), None), &token, &[]).await.status;
    assert_eq!(by_token().await, 200);
    eventually("a stream to be open", async || api.shared.roots.more.receiver_count() > 0).await;
    api.shared.roots.say(roots(&[("other.test", second.der())], &[]));
    eventually("its roots to be gone", async || !in_with(&new).await).await;
    assert_eq!(by_token().await, 200);
}

#[tokio::test]
async fn an_api_that_knows_the_gateway_no_more_where_a_stream_is_opened_anew_withdraws_what_it_said() {
    let (issuer, upstream, key) = (Issuer::start().await, Scripted::echo().await, Holder::new());
    let api = Api::start(message(&[("mesh.test", keys(&[(&key, "one")]))]));
    let gateway = start(&issuer, &upstream, &api.socket).await;
    assert_eq!(call(&gateway, &key, "one").await.status, 200);
    // A stream that breaks withdraws nothing.
    Api::breaks(&api.shared.keys);
    eventually("it to be asked anew", async || api.asked().len() == 2).await;
    assert_eq!(call(&gateway, &key, "one").await.status, 200);
    // It is gone, and comes back as one that does not know us.
    *api.shared.refuses.lock().unwrap() = true;
    Api::breaks(&api.shared.keys);
    eventually("its keys to be gone", async || call(&gateway, &key, "one").await.status == 401).await;
    assert!(gateway.log().contains("has no bundle of it for this process"), "{}", gateway.log());
    *api.shared.refuses.lock().unwrap() = false;
    eventually("its keys to be back", async || call(&gateway, &key, "one").await.status == 200).await;
}

#[tokio::test]
async fn an_api_that_says_roots_and_no_keys_is_enough_until_it_knows_the_gateway_no_more() {
    let upstream = Scripted::echo().await;
    let authority = Authority::new();
    let uri = format!("subjectAltName=URI:{BOT}");
    let leaf =
        authority.issue("bot", &[&uri, "basicConstraints=critical,CA:FALSE", "keyUsage=critical,digitalSignature"]);
    let api = Api::with(message(&[]), roots(&[("mesh.test", authority.der())], &[]));
    *api.shared.without_keys.lock().unwrap() = true;
    // There is no other issuer that anybody could come from.
    let setup = setup(Setup::with_issuer("http://127.0.0.1:9"), &upstream, &api.socket);
    let gateway = setup.tls(&authority, Path::new("")).start().await;
    let client = || Client::with_certificate(&gateway.resource(), &leaf.pem);
    eventually("the roots", async || !client().refused().await).await;
    let answer = call_over(&client(), "", &[]).await;
    assert_eq!((answer.status, answer.tool_text()), (200, "{}"), "{}", answer.text);
    let ready = async || {
        let answer =
            bailiwick::control::client::request::<()>(&gateway.state(), http::Method::GET, "/readyz", None).await;
        answer.unwrap().status.as_u16()
    };
    assert_eq!(ready().await, 200);
    let told = gateway.piped(&["doctor"], &[], "").await;
    let told = String::from_utf8_lossy(&told.stdout).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(told.contains("half of the bundle of mesh.test cannot be had: no keys for JWT-SVIDs"), "{told}");
    *api.shared.refuses.lock().unwrap() = true;
    *api.shared.without_keys.lock().unwrap() = false;
    Api::breaks(&api.shared.roots);
    eventually("its roots to be gone", async || client().refused().await).await;
    assert_eq!(ready().await, 503, "nobody gets in");
}

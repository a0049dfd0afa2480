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

use crate::support::client::Answer;
use crate::support::eventually;
use crate::support::gateway::{Gateway, Setup};
use crate::support::holder::{Holder, call_as};
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
    said: Mutex<Bytes>,
    more: broadcast::Sender<Bytes>,
    /// What each request came with.
    asked: Mutex<Vec<(String, HeaderMap)>>,
    refuses: Mutex<bool>,
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
    let content: Vec<u8> = bundles.iter().flat_map(entry).collect();
    let length = u32::try_from(content.len()).unwrap().to_be_bytes();
    [&[0][..], &length, &content].concat().into()
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
    fn start(first: Bytes) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("agent.sock");
        let shared = Arc::new(Shared {
            said: Mutex::new(first),
            more: broadcast::Sender::new(8),
            asked: Mutex::default(),
            refuses: Mutex::default(),
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
        *self.shared.said.lock().unwrap() = message.clone();
        let _heard = self.shared.more.send(message);
    }
}

async fn answer(
    shared: Arc<Shared>,
    request: Request<hyper::body::Incoming>,
) -> Result<Response<Body>, std::convert::Infallible> {
    let (head, _) = request.into_parts();
    shared.asked.lock().unwrap().push((head.uri.path().to_owned(), head.headers));
    let response = Response::builder().header("content-type", "application/grpc");
    if *shared.refuses.lock().unwrap() {
        return Ok(response.header("grpc-status", "7").body(Body::empty()).unwrap());
    }
    let more = shared.more.subscribe();
    let first = shared.said.lock().unwrap().clone();
    let more = futures_util::stream::unfold(more, async |mut more| Some((more.recv().await.ok()?, more)));
    let said = futures_util::stream::once(async { first }).chain(more);
    // An empty message is none: the end of the stream, which tells that we are not known any more.
    let frames = said.map(|message| {
        let end = HeaderMap::from_iter([(HeaderName::from_static("grpc-status"), HeaderValue::from_static("7"))]);
        let frame = if message.is_empty() { Frame::trailers(end) } else { Frame::data(message) };
        Ok::<_, std::convert::Infallible>(frame)
    });
    Ok(response.body(Body::new(StreamBody::new(frames))).unwrap())
}

async fn start(issuer: &Issuer, upstream: &Scripted, socket: &Path) -> Gateway {
    let agents = format!(
        "[agents.assistant]\nowner = \"user:test/owner\"\npurpose = \"tests\"\nkind = \"interactive\"\nenvironments = [\"development\"]\n\
         [agents.bot]\nowner = \"user:test/owner\"\npurpose = \"tests\"\nkind = \"autonomous\"\nmandates = \"optional\"\n\
         environments = [\"development\"]\nclients = [{{ issuer = \"mesh\", client_id = \"{BOT}\" }}]\n"
    );
    let mesh = format!(
        "[issuers.mesh]\nkind = \"spiffe\"\ntrust_domain = \"mesh.test\"\nbundle = \"unix:{}\"\n",
        socket.display()
    );
    Setup::new(issuer)
        .http_server("tools", &upstream.url, "")
        .sections(&mesh)
        .policy("p, anyone, *, */*, call, -, allow\n")
        .policy_file("agents.toml", &agents)
        .start()
        .await
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
    let asked = api.shared.asked.lock().unwrap().clone();
    assert_eq!(asked.len(), 1, "one stream for all of it");
    assert_eq!(asked[0].0, "/SpiffeWorkloadAPI/FetchJWTBundles");
    assert_eq!(asked[0].1["workload.spiffe.io"], "true");
    assert_eq!(asked[0].1["te"], "trailers");
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
    assert_eq!(api.shared.asked.lock().unwrap().len(), 1, "and all of that on one stream");
    // A stream that it ends because we are nobody there any more.
    *api.shared.refuses.lock().unwrap() = true;
    api.say(Bytes::new());
    eventually("its keys to be gone", async || call(&gateway, &key, "one").await.status == 401).await;
    *api.shared.said.lock().unwrap() = ours;
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

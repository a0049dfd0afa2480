//! Checkpoints reach a bucket that whoever has the gateway's disk cannot change.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use bailiwick::record::checkpoint::SignedCheckpoint;

use crate::audit::Copy;
use crate::support::eventually;
use crate::support::gateway::Setup;
use crate::support::issuer::Issuer;
use crate::support::scripted::Scripted;

const ID: &str = "AKIAEXAMPLE";
const SECRET: &str = "a/secret+that signs";

/// A bucket that believes nothing but what was signed with its key.
#[derive(Clone, Default)]
struct Bucket {
    objects: Arc<Mutex<BTreeMap<String, String>>>,
    /// Puts that are answered with trouble first.
    trouble: Arc<Mutex<u32>>,
}

impl Bucket {
    async fn start() -> (Self, String) {
        let bucket = Self::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(put).with_state(bucket.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (bucket, endpoint)
    }

    fn objects(&self) -> BTreeMap<String, String> {
        self.objects.lock().unwrap().clone()
    }
}

async fn put(
    State(bucket): State<Bucket>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: String,
) -> (StatusCode, &'static str) {
    let in_trouble = |trouble: &mut u32| std::mem::replace(trouble, trouble.saturating_sub(1)) > 0;
    if in_trouble(&mut bucket.trouble.lock().unwrap()) {
        return (StatusCode::SERVICE_UNAVAILABLE, "slow down");
    }
    let host = headers["host"].to_str().unwrap();
    if method != Method::PUT || !is_signed(host, &uri, SECRET) || is_signed(host, &uri, "another") {
        return (StatusCode::FORBIDDEN, "SignatureDoesNotMatch");
    }
    bucket.objects.lock().unwrap().insert(uri.path().to_owned(), body);
    (StatusCode::OK, "")
}

/// The query's signature, version 4, as its definition has it.
fn is_signed(host: &str, uri: &Uri, secret: &str) -> bool {
    let mut query: Vec<&str> = uri.query().unwrap().split('&').collect();
    let at = query.iter().position(|pair| pair.starts_with("X-Amz-Signature=")).unwrap();
    let signature = query.remove(at).strip_prefix("X-Amz-Signature=").unwrap();
    query.sort_unstable();
    let value = |name: &str| query.iter().find_map(|pair| pair.strip_prefix(&format!("{name}="))).unwrap().to_owned();
    let credential = value("X-Amz-Credential").replace("%2F", "/");
    let (id, scope) = credential.split_once('/').unwrap();
    let request = format!("PUT\n{}\n{}\nhost:{host}\n\nhost\nUNSIGNED-PAYLOAD", uri.path(), query.join("&"));
    let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
    let sha256 = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, request.as_bytes());
    let text = format!("AWS4-HMAC-SHA256\n{}\n{scope}\n{}", value("X-Amz-Date"), hex(sha256.as_ref()));
    let sign = |key: &[u8], text: &str| {
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, key);
        aws_lc_rs::hmac::sign(&key, text.as_bytes()).as_ref().to_vec()
    };
    let key = scope.split('/').fold(format!("AWS4{secret}").into_bytes(), |key, part| sign(&key, part));
    id == ID && scope.ends_with("/eu-north-1/s3/aws4_request") && hex(&sign(&key, &text)) == signature
}

fn setup(issuer: &Issuer, upstream: &Scripted, endpoint: &str) -> Setup {
    let setup = Setup::new(issuer).http_server("tools", &upstream.url, "").sections(&format!(
        "[record.object_store]\nendpoint = \"{endpoint}\"\nbucket = \"audit\"\nprefix = \"gateways\"\n\
         region = \"eu-north-1\"\naccess_key_id = \"file:id\"\nsecret_access_key = \"file:key\"\n"
    ));
    for (name, content) in [("id", ID), ("key", SECRET)] {
        let path = setup.directory().join(name);
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    }
    setup
}

#[tokio::test]
async fn a_bucket_has_what_proves_that_the_end_was_cut_off() {
    let (issuer, upstream) = (Issuer::start().await, Scripted::echo().await);
    let (bucket, endpoint) = Bucket::start().await;
    let mut gateway = setup(&issuer, &upstream, &endpoint).start().await;
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    assert_eq!(client.call_tool("tools__echo", serde_json::json!({})).await.status, 200);
    assert!(gateway.stop().await.success());
    let objects = bucket.objects();
    let latest = std::fs::read_to_string(gateway.state().join("journal/checkpoint")).unwrap();
    let signed = SignedCheckpoint::parse(&latest).unwrap();
    let (name, text) = objects.last_key_value().unwrap();
    assert_eq!(text, &latest, "what is signed at the stop is there when it has stopped");
    let replica = gateway.journal()[0]["replica"].as_str().unwrap().to_owned();
    assert_eq!(*name, format!("/audit/gateways/{replica}/{:020}", signed.checkpoint.size));

    // Everything here says that the record ends earlier; only the bucket knows better.
    let copy = Copy::of(&gateway);
    let path = copy.segments().pop().unwrap();
    std::fs::remove_file(copy.file("checkpoint")).unwrap();
    let lines = std::fs::read_to_string(&path).unwrap();
    let cut = lines.trim_end().rsplit_once('\n').unwrap().0;
    std::fs::write(&path, format!("{cut}\n")).unwrap();
    let kept = copy.file("../kept");
    std::fs::write(&kept, objects.values().map(String::as_str).collect::<String>()).unwrap();
    let (code, printed) = copy.verify(&["--key", &copy.key, "--checkpoint", kept.to_str().unwrap()]);
    assert_eq!((code, &printed["seq"]), (1, &serde_json::json!(signed.checkpoint.size)), "{printed}");
}

#[tokio::test]
async fn a_checkpoint_that_the_bucket_refused_is_put_again() {
    let (issuer, upstream) = (Issuer::start().await, Scripted::echo().await);
    let (bucket, endpoint) = Bucket::start().await;
    *bucket.trouble.lock().unwrap() = 1;
    let mut gateway = setup(&issuer, &upstream, &endpoint).record("checkpoint_interval = \"100ms\"\n").start().await;
    eventually("an object", async || !bucket.objects().is_empty()).await;
    let log = gateway.log();
    assert!(log.contains("a checkpoint could not be put into the bucket"), "{log}");
    assert!(log.contains("checkpoints reach the bucket again"), "{log}");
    assert!(!log.contains("X-Amz-Signature") && !log.contains(SECRET), "{log}");
    assert!(gateway.stop().await.success());
}

#[tokio::test]
async fn a_bucket_that_is_away_does_not_hold_up_a_stop_for_long() {
    let (issuer, upstream) = (Issuer::start().await, Scripted::echo().await);
    let (bucket, endpoint) = Bucket::start().await;
    *bucket.trouble.lock().unwrap() = u32::MAX;
    let mut gateway = setup(&issuer, &upstream, &endpoint).start().await;
    let tried = || u32::MAX - *bucket.trouble.lock().unwrap();
    let before = tried();
    let began = std::time::Instant::now();
    assert!(gateway.stop().await.success());
    assert!(began.elapsed() < bailiwick::limit::OBJECT_STORE_LAST_WAIT, "{:?}", began.elapsed());
    assert!(tried() > before && tried() <= before + bailiwick::limit::OBJECT_STORE_LAST_TRIES, "{}", tried());
    let log = gateway.log();
    assert!(log.contains("the last checkpoint is not in the bucket"), "{log}");
}

//! A trust domain whose bundle is fetched from an endpoint that is known by its SVID (SPIFFE Federation, `https_spiffe`).

use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::http::Response;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};

use crate::support::authority::{Authority, Leaf};
use crate::support::eventually_within;
use crate::support::gateway::Setup;
use crate::support::holder::{Holder, call_as};
use crate::support::issuer::Issuer;
use crate::support::scripted::Scripted;

const BOT: &str = "spiffe://mesh.test/bot";
const SERVER: &str = "spiffe://mesh.test/spire/server";
const SOON: std::time::Duration = std::time::Duration::from_secs(20);

/// An endpoint that shows the certificate and says the bundle that the test wants.
struct Endpoint {
    url: String,
    shared: Arc<Shared>,
}

struct Shared {
    tls: Mutex<Arc<rustls::ServerConfig>>,
    bundle: Mutex<String>,
}

impl Endpoint {
    async fn start(shown: &Leaf, bundle: &Value) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}/bundle", listener.local_addr().unwrap());
        let shared = Arc::new(Shared { tls: Mutex::new(with(shown)), bundle: Mutex::new(bundle.to_string()) });
        let serving = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = tokio_rustls::TlsAcceptor::from(Arc::clone(&*serving.tls.lock().unwrap()));
                let shared = Arc::clone(&serving);
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = hyper::service::service_fn(move |_| {
                        let bundle = shared.bundle.lock().unwrap().clone();
                        async move { Ok::<_, std::convert::Infallible>(Response::new(Body::from(bundle))) }
                    });
                    let _gone = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { url, shared }
    }

    fn shows(&self, leaf: &Leaf) {
        *self.shared.tls.lock().unwrap() = with(leaf);
    }

    fn says(&self, bundle: &Value) {
        *self.shared.bundle.lock().unwrap() = bundle.to_string();
    }
}

fn with(leaf: &Leaf) -> Arc<rustls::ServerConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let certificate = CertificateDer::from_pem_slice(leaf.pem.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(leaf.pem.as_bytes()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    Arc::new(config.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap())
}

fn svid(authority: &Authority, id: &str) -> Leaf {
    let uri = format!("subjectAltName=URI:{id}");
    authority.issue("svid", &[&uri, "basicConstraints=critical,CA:FALSE", "keyUsage=critical,digitalSignature"])
}

fn bundle(sequence: u64, keys: &[(&Holder, &str)], roots: &[&Authority]) -> Value {
    let key = |(holder, id): &(&Holder, &str)| {
        let mut key = holder.jwk.clone();
        (key["use"], key["kid"]) = (json!("jwt-svid"), json!(id));
        key
    };
    let root = |authority: &&Authority| json!({ "kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "use": "x509-svid", "x5c": [authority.x5c()] });
    let all: Vec<Value> = keys.iter().map(key).chain(roots.iter().map(root)).collect();
    json!({ "keys": all, "spiffe_sequence": sequence, "spiffe_refresh_hint": 1 })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bundle_comes_from_the_endpoint_that_the_bundle_before_it_vouches_for_and_from_no_other() {
    let (issuer, upstream) = (Issuer::start().await, Scripted::echo().await);
    let (first, second, stranger) = (Authority::new(), Authority::new(), Authority::new());
    let (one, two, three) = (Holder::new(), Holder::new(), Holder::new());
    let endpoint = Endpoint::start(&svid(&first, SERVER), &bundle(1, &[(&one, "one")], &[&first])).await;
    let place = tempfile::tempdir().unwrap();
    let known = place.path().join("first.json");
    std::fs::write(&known, bundle(0, &[], &[&first]).to_string()).unwrap();
    let mesh = format!(
        "[issuers.mesh]\nkind = \"spiffe\"\ntrust_domain = \"mesh.test\"\nbundle = \"{}\"\nendpoint_id = \"{SERVER}\"\n\
         endpoint_bundle = \"file:{}\"\n",
        endpoint.url,
        known.display()
    );
    let agents = format!(
        "[agents.assistant]\nowner = \"user:test/owner\"\npurpose = \"tests\"\nkind = \"interactive\"\nenvironments = [\"development\"]\n\
         [agents.bot]\nowner = \"user:test/owner\"\npurpose = \"tests\"\nkind = \"autonomous\"\nmandates = \"optional\"\n\
         environments = [\"development\"]\nclients = [{{ issuer = \"mesh\", client_id = \"{BOT}\" }}]\n"
    );
    let gateway = Setup::new(&issuer)
        .http_server("tools", &upstream.url, "")
        .sections(&mesh)
        .policy("p, anyone, *, */*, call, -, allow\n")
        .policy_file("agents.toml", &agents)
        .start()
        .await;
    let status = async |key: &Holder, id: &str| {
        let now = jiff::Timestamp::now().as_second();
        let claims = json!({ "sub": BOT, "aud": [gateway.resource()], "exp": now + 300, "iat": now });
        let token = key.sign(&(json!({ "alg": "ES256", "kid": id }), claims));
        call_as(&gateway.resource(), &format!("Bearer {token}"), &[]).await.status
    };
    eventually_within(SOON, "the bundle", async || status(&one, "one").await == 200).await;
    // Its roots change hands while it is known by the old ones, and it goes on by the new ones alone.
    endpoint.says(&bundle(2, &[(&one, "one"), (&two, "two")], &[&first, &second]));
    eventually_within(SOON, "the second key", async || status(&two, "two").await == 200).await;
    endpoint.shows(&svid(&second, SERVER));
    endpoint.says(&bundle(3, &[(&two, "two")], &[&second]));
    eventually_within(SOON, "the first key to be gone", async || status(&one, "one").await == 401).await;
    // Neither another workload of the domain, nor one whom nobody here vouches for, nor whom the old root vouches for, nor a
    // bundle after which it would be unknown.
    endpoint.says(&bundle(4, &[(&two, "two"), (&three, "three")], &[&second]));
    let failures = || gateway.log().matches("the bundle of a trust domain was not read").count();
    let other = svid(&second, "spiffe://mesh.test/other");
    for (shown, why) in [
        (other, "its certificate is not that of spiffe://mesh.test/spire/server"),
        (svid(&second, "spiffe://other.test/spire/server"), "its certificate is not that of"),
        (svid(&stranger, SERVER), "certificate"),
        (svid(&first, SERVER), "certificate"),
    ] {
        endpoint.shows(&shown);
        // One may have been under way.
        let before = failures();
        eventually_within(SOON, why, async || failures() > before + 1).await;
        assert!(gateway.log().contains(why), "{why}");
        assert_eq!((status(&three, "three").await, status(&two, "two").await), (401, 200), "{why}");
    }
    endpoint.says(&bundle(4, &[(&two, "two"), (&three, "three")], &[]));
    endpoint.shows(&svid(&second, SERVER));
    eventually_within(SOON, "it not to be taken", async || gateway.log().contains("it has no root")).await;
    assert_eq!(status(&three, "three").await, 401);
    endpoint.says(&bundle(4, &[(&two, "two"), (&three, "three")], &[&second]));
    eventually_within(SOON, "the third key", async || status(&three, "three").await == 200).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_of_another_trust_domain_is_known_by_the_bundle_of_that_one_as_it_is_now() {
    const GUARD: &str = "spiffe://guard.test/bundles";
    let (issuer, upstream) = (Issuer::start().await, Scripted::echo().await);
    let (own, first, second) = (Authority::new(), Authority::new(), Authority::new());
    let [one, two, three, foreign] = [(); 4].map(|()| Holder::new());
    // Its bundle has no root of its own: that is none of the endpoint's business here.
    let endpoint = Endpoint::start(&svid(&first, GUARD), &bundle(1, &[(&one, "one")], &[])).await;
    let place = tempfile::tempdir().unwrap();
    let known = place.path().join("guard.json");
    let vouches = |roots: &[&Authority], sequence: u64| {
        // Whole or not at all: it is read at any moment.
        let next = place.path().join("next.json");
        std::fs::write(&next, bundle(sequence, &[(&foreign, "one")], roots).to_string()).unwrap();
        std::fs::rename(next, &known).unwrap();
    };
    vouches(&[&first], 1);
    let domains = format!(
        "[issuers.mesh]\nkind = \"spiffe\"\ntrust_domain = \"mesh.test\"\nbundle = \"{}\"\nendpoint_id = \"{GUARD}\"\n\
         [issuers.guard]\nkind = \"spiffe\"\ntrust_domain = \"guard.test\"\nbundle = \"file:{}\"\n",
        endpoint.url,
        known.display()
    );
    let agents = format!(
        "[agents.assistant]\nowner = \"user:test/owner\"\npurpose = \"tests\"\nkind = \"interactive\"\nenvironments = [\"development\"]\n\
         [agents.bot]\nowner = \"user:test/owner\"\npurpose = \"tests\"\nkind = \"autonomous\"\nmandates = \"optional\"\n\
         environments = [\"development\"]\nclients = [{{ issuer = \"mesh\", client_id = \"{BOT}\" }}]\n"
    );
    let gateway = Setup::new(&issuer)
        .http_server("tools", &upstream.url, "")
        .sections(&domains)
        .policy("p, anyone, *, */*, call, -, allow\n")
        .policy_file("agents.toml", &agents)
        .start()
        .await;
    let status = async |key: &Holder, id: &str| {
        let now = jiff::Timestamp::now().as_second();
        let claims = json!({ "sub": BOT, "aud": [gateway.resource()], "exp": now + 300, "iat": now });
        let token = key.sign(&(json!({ "alg": "ES256", "kid": id }), claims));
        call_as(&gateway.resource(), &format!("Bearer {token}"), &[]).await.status
    };
    eventually_within(SOON, "the bundle", async || status(&one, "one").await == 200).await;
    // Whoever vouches for the endpoint vouches for nobody in the domain.
    assert_eq!(status(&foreign, "one").await, 401);
    let doctor = gateway.command(&["doctor", "--config", "servers.toml", "--json"]);
    let told = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(told.contains("the bundle of mesh.test verifies JWT-SVIDs (1 of its keys)"), "{told}");

    // Neither whom the domain itself vouches for, nor another workload of the other one, nor that name from elsewhere.
    endpoint.says(&bundle(2, &[(&two, "two")], &[&own]));
    let failures = || gateway.log().matches("the bundle of a trust domain was not read").count();
    for (shown, why) in [
        (svid(&own, GUARD), "guard.test has not issued its certificate"),
        (svid(&second, GUARD), "guard.test has not issued its certificate"),
        (svid(&own, SERVER), "its certificate is not that of spiffe://guard.test/bundles"),
        (svid(&first, "spiffe://guard.test/other"), "its certificate is not that of spiffe://guard.test/bundles"),
    ] {
        endpoint.shows(&shown);
        let before = failures();
        eventually_within(SOON, why, async || failures() > before + 1).await;
        assert!(gateway.log().contains(why), "{why}");
        assert_eq!((status(&two, "two").await, status(&one, "one").await), (401, 200), "{why}");
    }

    // The roots of the other one change, and the endpoint is known by the new ones and not by the old ones.
    vouches(&[&second], 2);
    endpoint.shows(&svid(&second, GUARD));
    eventually_within(SOON, "the second bundle", async || status(&two, "two").await == 200).await;
    assert_eq!(status(&one, "one").await, 401);
    endpoint.shows(&svid(&first, GUARD));
    endpoint.says(&bundle(3, &[(&three, "three")], &[]));
    let before = failures();
    eventually_within(SOON, "it not to be taken", async || failures() > before + 1).await;
    assert_eq!((status(&three, "three").await, status(&two, "two").await), (401, 200));
    vouches(&[&first], 3);
    eventually_within(SOON, "the third bundle", async || status(&three, "three").await == 200).await;
}

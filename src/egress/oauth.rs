//! The client for discovery, keys and token endpoints: small questions, small answers.
//!
//! Decides nothing but where it may go. Invariant: no redirect is followed, no answer is read past
//! its limit, and a literal address is checked before it is dialled.

use std::sync::Arc;

use http::{Request, Response};
use rustls::client::danger::ServerCertVerifier;

use super::{EgressError, EgressPolicy, GuardedResolver, tls};
use crate::limit;

const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// The client for discovery, keys and token endpoints. Cheap to clone.
#[derive(Debug, Clone)]
pub struct OauthClient {
    client: reqwest::Client,
    policy: Arc<EgressPolicy>,
}

/// Builds the client.
///
/// # Errors
/// [`EgressError::Build`] when TLS cannot be set up.
pub fn oauth_client(policy: EgressPolicy) -> Result<OauthClient, EgressError> {
    build(policy, tls::client_config(&PROTOCOLS)?, limit::OAUTH_IDLE_CONNECTIONS_MAX)
}

/// The same where somebody else says whom we trust. No connection outlives its request: what is trusted may change.
///
/// # Errors
/// As [`oauth_client`].
pub fn oauth_client_trusting(
    policy: EgressPolicy,
    verifier: Arc<dyn ServerCertVerifier>,
) -> Result<OauthClient, EgressError> {
    build(policy, tls::client_config_trusting(&PROTOCOLS, verifier)?, 0)
}

#[expect(clippy::disallowed_methods, reason = "this is the one place that builds clients, with the guard")]
fn build(policy: EgressPolicy, tls: rustls::ClientConfig, idle_max: usize) -> Result<OauthClient, EgressError> {
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .dns_resolver(GuardedResolver::new(policy.clone()))
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .referer(false)
        .user_agent(concat!("bailiwick/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(limit::OAUTH_CONNECT_TIMEOUT)
        .timeout(limit::OAUTH_TIMEOUT)
        .pool_idle_timeout(limit::OAUTH_IDLE_TIMEOUT)
        .pool_max_idle_per_host(idle_max)
        .tcp_nodelay(true)
        .build()
        .map_err(|error| EgressError::Build(error.to_string()))?;
    Ok(OauthClient { client, policy: Arc::new(policy) })
}

impl OauthClient {
    /// Sends one request and reads its answer, whatever its status, up to
    /// [`limit::OAUTH_RESPONSE_BYTES_MAX`].
    ///
    /// # Errors
    /// When the address is refused, nobody answers in time, or the answer is too large.
    pub async fn send(&self, request: Request<Vec<u8>>) -> Result<Response<Vec<u8>>, EgressError> {
        let host = super::bounded(request.uri().host().unwrap_or_default());
        let unreachable =
            |error: &reqwest::Error| EgressError::Unreachable { host: host.clone(), problem: causes(error) };
        let request = reqwest::Request::try_from(request).map_err(|error| EgressError::Url(causes(&error)))?;
        // What is checked is what will be dialled: this client normalises hosts, and asks no resolver for addresses.
        self.policy.check_url(request.url())?;
        let mut answer = self.client.execute(request).await.map_err(|error| unreachable(&error))?;
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|error| unreachable(&error))? {
            if body.len().saturating_add(chunk.len()) > limit::OAUTH_RESPONSE_BYTES_MAX {
                return Err(EgressError::TooLarge { host, bytes_max: limit::OAUTH_RESPONSE_BYTES_MAX });
            }
            body.extend_from_slice(&chunk);
        }
        let mut response = Response::new(body);
        *response.status_mut() = answer.status();
        *response.headers_mut() = std::mem::take(answer.headers_mut());
        Ok(response)
    }
}

/// The whole chain of causes, without the URL: a query could hold a secret.
fn causes(error: &reqwest::Error) -> String {
    let mut text = match (error.is_timeout(), error.is_connect()) {
        (true, _) => "it took too long".to_owned(),
        (_, true) => "no connection".to_owned(),
        _ => "the exchange broke off".to_owned(),
    };
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text.chars().take(limit::ERROR_SHOWN_CHARACTERS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;
    use axum::response::Redirect;
    use axum::routing::get;

    use super::*;

    async fn serve(router: axum::Router) -> std::net::SocketAddr {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        address
    }

    fn request(url: &str) -> Request<Vec<u8>> {
        Request::get(url).body(Vec::new()).unwrap()
    }

    #[tokio::test]
    async fn a_redirect_is_answered_and_not_followed() {
        let router = axum::Router::new()
            .route("/away", get(|| async { Redirect::temporary("http://169.254.169.254/") }))
            .route("/here", get(|| async { "here" }));
        let address = serve(router).await;
        let client = oauth_client(EgressPolicy::server(true)).unwrap();
        let away = client.send(request(&format!("http://{address}/away"))).await.unwrap();
        assert_eq!(away.status(), StatusCode::TEMPORARY_REDIRECT);
        let here = client.send(request(&format!("http://localhost:{}/here", address.port()))).await.unwrap();
        assert_eq!(here.body(), b"here");
    }

    #[tokio::test]
    async fn an_endless_answer_is_cut_at_the_limit() {
        let body = vec![b'x'; limit::OAUTH_RESPONSE_BYTES_MAX];
        let longer = vec![b'x'; limit::OAUTH_RESPONSE_BYTES_MAX + 1];
        let router = axum::Router::new()
            .route("/fits", get(move || async { body }))
            .route("/long", get(move || async { longer }));
        let address = serve(router).await;
        let client = oauth_client(EgressPolicy::server(true)).unwrap();
        assert!(client.send(request(&format!("http://{address}/fits"))).await.is_ok());
        let error = client.send(request(&format!("http://{address}/long"))).await.unwrap_err();
        assert!(matches!(error, EgressError::TooLarge { .. }), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_says_nothing_is_waited_for_so_long() {
        // The kernel takes the connection; nobody answers.
        let silent = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let client = oauth_client(EgressPolicy::server(true)).unwrap();
        let began = tokio::time::Instant::now();
        let error = client.send(request(&format!("http://{}/", silent.local_addr().unwrap()))).await.unwrap_err();
        assert!(error.to_string().contains("it took too long"), "{error}");
        let took = began.elapsed();
        assert!(took >= limit::OAUTH_TIMEOUT && took < 2 * limit::OAUTH_TIMEOUT, "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_takes_no_connection_is_waited_for_less_long() {
        use rustix::net::{AddressFamily, SocketType, bind, getsockname, listen, socket};
        let full = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        bind(&full, &std::net::SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        listen(&full, 0).unwrap();
        let address = std::net::SocketAddr::try_from(getsockname(&full).unwrap()).unwrap();
        // Its queue is full after these, and the kernel leaves further ones without an answer.
        let filling: Vec<_> = (0..4)
            .map_while(|_| std::net::TcpStream::connect_timeout(&address, std::time::Duration::from_millis(300)).ok())
            .collect();
        assert!(filling.len() < 4, "the queue never fills");
        let client = oauth_client(EgressPolicy::server(true)).unwrap();
        let began = tokio::time::Instant::now();
        let error = client.send(request(&format!("http://{address}/"))).await.unwrap_err();
        assert!(matches!(error, EgressError::Unreachable { .. }), "{error}");
        let took = began.elapsed();
        assert!(took >= limit::OAUTH_CONNECT_TIMEOUT && took < limit::OAUTH_TIMEOUT, "{took:?}");
    }

    #[tokio::test]
    async fn a_loopback_server_is_not_reached_under_the_public_policy() {
        let address = serve(axum::Router::new().route("/", get(|| async { "reached" }))).await;
        let client = oauth_client(EgressPolicy::public()).unwrap();
        let port = address.port();
        for url in [
            format!("http://{address}/"),
            format!("https://{address}/"),
            format!("https://localhost:{port}/"),
            format!("https://0x7f.1:{port}/"),
            format!("https://2130706433:{port}/"),
        ] {
            let error = client.send(request(&url)).await.unwrap_err();
            assert!(error.to_string().contains("allow_") || error.to_string().contains("allow "), "{error}");
        }
    }
}

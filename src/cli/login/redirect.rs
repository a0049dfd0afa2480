//! Where the browser brings the code: a listener on 127.0.0.1 that lives for one login (RFC 8252 section 7.3).
//!
//! Decides which answer belongs to this login. Invariant: only a request with our own `state`, and with the right
//! `iss` where the server says that it sends one, ends the login; every other one is told off and changes nothing.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, HeaderValue, REFERRER_POLICY};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, oneshot};

use super::discover::shown;
use crate::limit;

const PATH: &str = "/callback";

/// A listener that waits for one answer.
pub(super) struct Redirect {
    listener: TcpListener,
    port: u16,
}

/// What the right answer has.
pub(super) struct Expected {
    /// Our own random text.
    pub state: String,
    /// Who must have answered (RFC 9207).
    pub issuer: String,
    /// The server says that it always names itself.
    pub issuer_is_named: bool,
}

/// What a request is.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    /// The login ends with a code, or with the reason why there is none.
    Ours(Result<String, String>),
    /// Somebody else's.
    Strange,
}

type Ending = Arc<Mutex<Option<oneshot::Sender<Result<String, String>>>>>;

impl Redirect {
    /// Listens; port 0 takes any that is free.
    pub(super) async fn open(port: u16) -> Result<Self, String> {
        let failed = |error: std::io::Error| format!("cannot listen on 127.0.0.1:{port} for the browser: {error}");
        let listener = TcpListener::bind(("127.0.0.1", port)).await.map_err(failed)?;
        let port = listener.local_addr().map_err(failed)?.port();
        Ok(Self { listener, port })
    }

    /// The redirect URI.
    pub(super) fn uri(&self) -> String {
        format!("http://127.0.0.1:{}{PATH}", self.port)
    }

    /// Waits for the answer; who calls bounds the time.
    pub(super) async fn code(self, expected: Expected) -> Result<String, String> {
        let (sender, answered) = oneshot::channel();
        let ending: Ending = Arc::new(Mutex::new(Some(sender)));
        let expected = Arc::new(expected);
        let host = format!("127.0.0.1:{}", self.port);
        let accept = async {
            let places = Arc::new(Semaphore::new(limit::LOGIN_CONNECTIONS_MAX));
            loop {
                let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
                let Ok((stream, _)) = self.listener.accept().await else {
                    tokio::time::sleep(limit::ACCEPT_RETRY_PAUSE).await;
                    continue;
                };
                let (ending, expected, host) = (Arc::clone(&ending), Arc::clone(&expected), host.clone());
                tokio::spawn(async move {
                    let service = service_fn(|request: Request<Incoming>| {
                        let page = answer(&request, &host, &expected, &ending);
                        async move { Ok::<_, Infallible>(page) }
                    });
                    let mut builder = hyper::server::conn::http1::Builder::new();
                    builder
                        .timer(TokioTimer::new())
                        .header_read_timeout(limit::HEADER_READ_TIMEOUT)
                        .max_buf_size(limit::HEADER_BYTES_MAX)
                        .keep_alive(false);
                    // A browser that goes away early is its own matter.
                    let _ended = builder.serve_connection(TokioIo::new(stream), service).await;
                    drop(place);
                });
            }
        };
        tokio::select! {
            () = accept => Err("nobody can come back from the browser any more".to_owned()),
            answered = answered => answered.unwrap_or_else(|_| Err("the login broke off".to_owned())),
        }
    }
}

fn answer(request: &Request<Incoming>, host: &str, expected: &Expected, ending: &Ending) -> Response<Full<Bytes>> {
    let named = request.headers().get(HOST).and_then(|value| value.to_str().ok());
    // A page elsewhere that calls itself 127.0.0.1 by its own name is not the browser that we sent away.
    if named != Some(host) || request.method() != Method::GET || request.uri().path() != PATH {
        return page(StatusCode::NOT_FOUND, "There is nothing here.");
    }
    match read(request.uri().query().unwrap_or_default(), expected) {
        Answer::Strange => page(
            StatusCode::BAD_REQUEST,
            "This does not belong to the login that bailiwick waits for. Use the address that it printed last.",
        ),
        Answer::Ours(outcome) => {
            let text = if outcome.is_ok() {
                "You are logged in. This window can be closed."
            } else {
                "You are not logged in. bailiwick says why; this window can be closed."
            };
            if let Some(sender) = ending.lock().unwrap_or_else(PoisonError::into_inner).take() {
                let _gone = sender.send(outcome);
            }
            page(StatusCode::OK, text)
        }
    }
}

/// Reads the answer of an authorization endpoint (RFC 6749 section 4.1.2, RFC 9207).
fn read(query: &str, expected: &Expected) -> Answer {
    let parameters: Vec<(String, String)> = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    // A parameter that stands there twice has no value.
    let get = |name: &str| {
        let mut values = parameters.iter().filter(|(own, _)| own == name).map(|(_, value)| value.as_str());
        values.next().filter(|_| values.next().is_none())
    };
    if get("state") != Some(expected.state.as_str()) {
        return Answer::Strange;
    }
    let named = get("iss");
    if named.map_or(expected.issuer_is_named, |issuer| issuer != expected.issuer) {
        let problem = format!("the answer does not come from {}; try again", expected.issuer);
        return Answer::Ours(Err(problem));
    }
    if let Some(error) = get("error") {
        let why = get("error_description").map(|text| format!(" ({})", shown(text))).unwrap_or_default();
        let problem = if error == "access_denied" {
            format!("the login was refused{why}; log in again, as somebody who may use the gateway")
        } else {
            format!("the issuer answers {}{why}", shown(error))
        };
        return Answer::Ours(Err(problem));
    }
    match get("code") {
        Some(code) if !code.is_empty() => Answer::Ours(Ok(code.to_owned())),
        _ => Answer::Ours(Err("the issuer sent no code".to_owned())),
    }
}

/// A whole page: nothing on it comes from the request, and nothing is loaded or run.
fn page(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let html = format!("<!doctype html><meta charset=\"utf-8\"><title>Bailiwick</title><p>{text}</p>\n");
    let mut response = Response::new(Full::new(Bytes::from(html)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected(issuer_is_named: bool) -> Expected {
        Expected { state: "s&1".to_owned(), issuer: "https://idp.example".to_owned(), issuer_is_named }
    }

    #[test]
    fn only_an_answer_with_our_state_ends_the_login() {
        for strange in
            ["", "code=c", "code=c&state=other", "error=access_denied&state=", "code=c&state=s%261&state=s%261"]
        {
            assert_eq!(read(strange, &expected(false)), Answer::Strange, "{strange}");
        }
        assert_eq!(read("code=c&state=s%261", &expected(false)), Answer::Ours(Ok("c".to_owned())));
    }

    #[test]
    fn an_answer_of_another_issuer_has_no_code() {
        let refused = |query: &str, named: bool| matches!(read(query, &expected(named)), Answer::Ours(Err(_)));
        assert!(refused("code=c&state=s%261", true), "it says that it names itself, and does not");
        assert!(refused("code=c&state=s%261&iss=https%3A%2F%2Fevil.example", true));
        assert!(refused("code=c&state=s%261&iss=https%3A%2F%2Fevil.example", false));
        assert!(!refused("code=c&state=s%261&iss=https%3A%2F%2Fidp.example", true));
    }

    #[test]
    fn a_refusal_is_told_without_driving_the_terminal() {
        let Answer::Ours(Err(problem)) =
            read("error=access_denied&error_description=no%1b%5b2J&state=s%261", &expected(false))
        else {
            panic!("a code")
        };
        assert!(problem.contains("refused") && !problem.contains('\u{1b}'), "{problem}");
    }

    #[tokio::test]
    async fn so_many_connections_are_served_at_once_and_the_next_waits_for_a_place() {
        use tokio::io::AsyncWriteExt as _;
        use tokio::net::TcpStream;
        let redirect = Redirect::open(0).await.unwrap();
        let place = ("127.0.0.1", redirect.port);
        let mut login = tokio::spawn(redirect.code(expected(false)));
        let mut silent = Vec::new();
        for _ in 0..limit::LOGIN_CONNECTIONS_MAX {
            silent.push(TcpStream::connect(place).await.unwrap());
        }
        let mut browser = TcpStream::connect(place).await.unwrap();
        let request = format!("GET {PATH}?code=c&state=s%261 HTTP/1.1\r\nhost: 127.0.0.1:{}\r\n\r\n", place.1);
        browser.write_all(request.as_bytes()).await.unwrap();
        let early = tokio::time::timeout(std::time::Duration::from_millis(300), &mut login).await;
        assert!(early.is_err(), "one more was served than there are places");
        silent.pop();
        assert_eq!(login.await.unwrap(), Ok("c".to_owned()));
    }
}

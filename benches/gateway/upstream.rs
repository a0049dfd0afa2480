//! The upstream: the cheapest server that still speaks modern MCP. It echoes what a tool is called with.
//!
//! `/mcp/N` offers N tools. `/sick/hangs`, `/sick/floods` and `/sick/flaps` list like `/mcp/10` and never answer a
//! call, answer it with thousands of notifications, or break the connection. It prints its address and serves until
//! its standard input ends.

use std::fmt::Write as _;
use std::io::Read as _;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::Result;

/// Tools that the benchmark calls, beside those that fill the list.
pub const ECHO: &str = "echo";

/// Runs the server until standard input ends.
pub fn serve() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let lists = Arc::new([10, 100, 1_000].map(|count| (count, tools(count))));
        let router =
            Router::new().route("/mcp/{count}", post(answer)).route("/sick/{illness}", post(suffer)).with_state(lists);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        println!("{}", listener.local_addr()?);
        let listener = axum::serve::ListenerExt::tap_io(listener, |stream| {
            // Without it the answer waits for an acknowledgement that waits for the answer.
            let _ = stream.set_nodelay(true);
        });
        tokio::spawn(async { axum::serve(listener, router).await });
        tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
        Ok(())
    })
}

/// Lists of so many tools.
type Lists = Arc<[(usize, String); 3]>;

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    method: &'a str,
    #[serde(borrow)]
    params: Option<Params<'a>>,
}

#[derive(Deserialize)]
struct Params<'a> {
    #[serde(borrow)]
    arguments: Option<&'a RawValue>,
}

async fn answer(Path(count): Path<usize>, State(lists): State<Lists>, body: Bytes) -> Response {
    let list = lists.iter().find(|(own, _)| *own == count).map_or("", |(_, list)| list.as_str());
    answered(list, &body)
}

/// The answer of a server with this list.
pub fn answered(list: &str, body: &[u8]) -> Response {
    let Ok(request) = serde_json::from_slice::<Envelope<'_>>(body) else {
        return axum::http::StatusCode::BAD_REQUEST.into_response();
    };
    let Some(id) = request.id else { return axum::http::StatusCode::ACCEPTED.into_response() };
    let id = id.get();
    let text = match request.method {
        "tools/call" => {
            let arguments = request.params.and_then(|params| params.arguments).map_or("{}", RawValue::get);
            format!(
                r#"{{"jsonrpc":"2.0","id":{id},"result":{{"resultType":"complete","content":[{{"type":"text","text":"done"}}],"structuredContent":{arguments},"isError":false}}}}"#
            )
        }
        "tools/list" => {
            format!(
                r#"{{"jsonrpc":"2.0","id":{id},"result":{{"resultType":"complete","tools":[{list}],"ttlMs":3600000,"cacheScope":"public"}}}}"#
            )
        }
        "server/discover" => format!(
            r#"{{"jsonrpc":"2.0","id":{id},"result":{{"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{{"tools":{{}}}},"serverInfo":{{"name":"bench","version":"1"}},"ttlMs":3600000,"cacheScope":"public"}}}}"#
        ),
        _ => format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":-32601,"message":"method not found"}}}}"#),
    };
    ([(CONTENT_TYPE, "application/json")], text).into_response()
}

/// Answers lists as a healthy server does, and calls as a sick one.
async fn suffer(Path(illness): Path<String>, lists: State<Lists>, body: Bytes) -> Response {
    const EVENTS: u64 = 2_000;
    let call = serde_json::from_slice::<Envelope<'_>>(&body).ok().filter(|request| request.method == "tools/call");
    let Some(id) = call.and_then(|request| request.id).map(|id| id.get().to_owned()) else {
        return answer(Path(10), lists, body).await;
    };
    match illness.as_str() {
        "hangs" => std::future::pending().await,
        "floods" => {
            let events = futures_util::stream::unfold(0, move |number| {
                let id = id.clone();
                async move {
                    let event = match number {
                        0..EVENTS => format!(
                            "data: {{\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\",\"params\":{{\"level\":\"info\",\"data\":\"{number}: {}\"}}}}\n\n",
                            "x".repeat(400)
                        ),
                        EVENTS => format!(
                            "data: {{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{{\"resultType\":\"complete\",\"content\":[]}}}}\n\n"
                        ),
                        _ => return None,
                    };
                    // What the network would do to it; without a pause the flood is the speed of this machine.
                    if number % 20 == 0 {
                        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                    }
                    Some((Ok::<_, std::convert::Infallible>(event), number + 1))
                }
            });
            ([(CONTENT_TYPE, "text/event-stream")], Body::from_stream(events)).into_response()
        }
        _ => {
            let broken = futures_util::stream::once(async { Err::<Bytes, _>(std::io::Error::other("flap")) });
            ([(CONTENT_TYPE, "application/json")], Body::from_stream(broken)).into_response()
        }
    }
}

/// So many tools of about 600 bytes each, as one finds them in the field; the first is `echo`.
pub fn tools(count: usize) -> String {
    let mut list = String::new();
    let verbs = ["list", "get", "create", "update", "search", "archive", "assign", "comment_on", "close", "export"];
    let things = ["issues", "projects", "milestones", "pipelines", "releases", "members", "branches", "labels"];
    for index in 0..count {
        let (verb, thing) = (verbs[index % verbs.len()], things[(index / verbs.len()) % things.len()]);
        let name = match index {
            0 => ECHO.to_owned(),
            1..10 => format!("probe_{index}"),
            _ => format!("{verb}_{thing}_{index}"),
        };
        if index > 0 {
            list.push(',');
        }
        let _ = write!(
            list,
            r#"{{"name":"{name}","title":"{verb} {thing}","description":"Use this to {verb} {thing} of a project. Needs the project's path; results are paged, newest first. Fails when the project is archived.","inputSchema":{{"type":"object","properties":{{"project":{{"type":"string","description":"Path of the project, group and name"}},"count":{{"type":"integer","minimum":1,"maximum":1000000000,"description":"How many"}},"text":{{"type":"string","maxLength":4000}},"state":{{"type":"string","enum":["open","closed","all"]}}}},"additionalProperties":true}},"annotations":{{"readOnlyHint":{read},"openWorldHint":false}}}}"#,
            read = index % 2 == 0,
        );
    }
    list
}

//! Servers built with the official SDK, in each era, as upstreams.

use std::borrow::Cow;

use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, Implementation, ListToolsResult,
    PaginatedRequestParams, ProgressNotificationParam, ProtocolVersion, ServerCapabilities, Tool,
};
use rmcp::service::{RequestContext, RoleServer};
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use rmcp::{ErrorData, ServerHandler};
use tokio::sync::Notify;

use super::*;
use crate::wire::mcp::{Era, Kind};

#[derive(Clone)]
struct Real {
    era: Era,
    cancelled: Arc<Notify>,
    begun: Arc<Notify>,
}

impl ServerHandler for Real {
    fn supported_protocol_versions(&self) -> Cow<'static, [ProtocolVersion]> {
        match self.era {
            Era::Modern => Cow::Borrowed(&[ProtocolVersion::V_2026_07_28]),
            Era::Legacy => Cow::Borrowed(&[ProtocolVersion::V_2025_11_25, ProtocolVersion::V_2025_06_18]),
        }
    }

    fn get_info(&self) -> rmcp::model::ServerConfig {
        let capabilities = ServerCapabilities::builder().enable_tools().enable_tool_list_changed().build();
        rmcp::model::ServerConfig::new(capabilities).with_server_info(Implementation::new("real", "1.0.0"))
    }

    async fn list_tools(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let schema = serde_json::from_value::<serde_json::Map<_, _>>(json!({ "type": "object" })).unwrap();
        Ok(ListToolsResult::with_all_items(vec![Tool::new("echo", "Says it again.", schema)]))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        match request.name.as_ref() {
            "progress" => {
                let token = context.meta.get_progress_token().ok_or(ErrorData::invalid_params("no token", None))?;
                let progress = ProgressNotificationParam::new(token, 1.0).with_total(2.0);
                context.peer.notify_progress(progress).await.map_err(|_| ErrorData::internal_error("gone", None))?;
            }
            "long" => {
                self.begun.notify_one();
                context.ct.cancelled().await;
                self.cancelled.notify_one();
            }
            "echo" => {}
            _ => return Err(ErrorData::invalid_params("Unknown tool", None)),
        }
        let text = serde_json::to_string(&request.arguments).unwrap();
        Ok(CallToolResult::success(vec![ContentBlock::text(text)]).into())
    }
}

async fn real(era: Era, json_response: bool) -> (Real, ServerConfig) {
    let real = Real { era, cancelled: Arc::new(Notify::new()), begun: Arc::new(Notify::new()) };
    let server = real.clone();
    let config = StreamableHttpServerConfig::default().with_json_response(json_response);
    let service: StreamableHttpService<Real, LocalSessionManager> =
        StreamableHttpService::new(move || Ok(server.clone()), Arc::default(), config);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let entry = entry(http_transport(listener.local_addr().unwrap()));
    let router = axum::Router::new().nest_service("/mcp", service);
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (real, entry)
}

#[tokio::test]
async fn a_server_of_the_sdk_is_spoken_to_in_its_own_era() {
    for (era, json_response) in [(Era::Modern, false), (Era::Modern, true), (Era::Legacy, false), (Era::Legacy, true)] {
        let (_real, entry) = real(era, json_response).await;
        let upstreams = upstreams(entry);
        let facts = upstreams.facts(&id(), &Access::bare()).await.unwrap();
        assert_eq!(facts.era(), era);
        assert!(facts.announces("tools", Some("listChanged")));
        let listing = upstreams.list(&id(), &Access::bare(), Kind::Tool).await.unwrap();
        assert_eq!((listing.items.len(), listing.dropped), (1, 0));
        assert_eq!(upstreams.list(&id(), &Access::bare(), Kind::Prompt).await.unwrap().items.len(), 0);
        for n in 0..3 {
            let exchange = upstreams.send(dispatch(1, tool_call("echo", json!({ "n": n }))));
            let result = completed(outcome(exchange).await);
            assert_eq!(result["content"][0]["text"], format!("{{\"n\":{n}}}"), "{era:?} {json_response}");
        }
        let Outcome::Error(error) = outcome(upstreams.send(dispatch(1, tool_call("nope", json!({}))))).await else {
            panic!("{era:?}")
        };
        assert_eq!(crate::upstream::answer::error_code(&error), Some(-32602));
        upstreams.shutdown().await;
    }
}

#[tokio::test]
async fn progress_of_the_sdk_comes_back_under_the_clients_token() {
    for era in [Era::Modern, Era::Legacy] {
        let (_real, entry) = real(era, false).await;
        let upstreams = upstreams(entry);
        let mut outgoing = tool_call("progress", json!({}));
        outgoing.progress_token = Some(Json::of("mine"));
        let (notifications, outcome) = ending(upstreams.send(dispatch(1, outgoing))).await;
        completed(outcome);
        assert_eq!(notifications.len(), 1, "{era:?}");
        let params = notifications[0].params().unwrap();
        assert_eq!(params.get("progressToken").unwrap().raw(), "\"mine\"");
        assert_eq!(params.get("total").unwrap().raw(), "2.0");
        upstreams.shutdown().await;
    }
}

#[tokio::test]
async fn a_call_that_is_dropped_is_cancelled_at_the_sdk() {
    for era in [Era::Modern, Era::Legacy] {
        let (real, entry) = real(era, false).await;
        let upstreams = upstreams(entry);
        let mut exchange = upstreams.send(dispatch(1, tool_call("long", json!({}))));
        tokio::select! { event = exchange.next() => panic!("{event:?}"), () = real.begun.notified() => {} }
        drop(exchange);
        let cancelled = tokio::time::timeout(Duration::from_secs(5), real.cancelled.notified()).await;
        assert!(cancelled.is_ok(), "{era:?} was not told");
        upstreams.shutdown().await;
    }
}

//! The life of a call.

use std::net::IpAddr;
use std::sync::Arc;

use crate::gateway::Gateway;
use crate::identity::Caller;
pub use crate::ids::Endpoint;
use crate::outcome::{Reason, Refusal};
use crate::upstream::{Event, Exchange};
use crate::wire::mcp::{Method, Version};
use crate::wire::{Json, Message};

/// What a client says of itself: with each request (modern) or once (legacy).
#[derive(Debug, Clone)]
pub struct ClientFacts {
    /// The version it speaks.
    pub version: Version,
    /// Its capabilities object.
    pub capabilities: Json,
    /// Its name and version; display only.
    pub info: Option<Json>,
    /// Log messages are wanted from this level on.
    pub log_level: Option<Json>,
}

/// One request as a front hands it in; headers and body were found to agree.
#[derive(Debug, Clone)]
pub struct Request {
    /// The message as it came.
    pub message: Message,
    /// Its method.
    pub method: Method,
    /// Where it came in.
    pub endpoint: Endpoint,
    /// What the client says of itself.
    pub client: ClientFacts,
    /// `mcp-param-*` headers of a modern request, lower-case names, decoded values; checked after authorization.
    pub header_parameters: Vec<(String, String)>,
    /// All other headers that some server's `forward_headers` names, lower-case names.
    pub headers: Vec<(String, String)>,
    /// The address it came from, behind trusted proxies.
    pub peer: IpAddr,
}

/// A call under way.
pub struct Running {
    exchange: Exchange,
}

impl Running {
    /// The next event; the last is [`Event::Done`].
    pub async fn next(&mut self) -> Event {
        self.exchange.next().await
    }
}

/// One call, door to door: `tools/call`, `prompts/get`, `resources/read`, `completion/complete`.
pub async fn call(gateway: &Arc<Gateway>, caller: &Caller, request: Request) -> Running {
    let _ = (gateway, caller, request);
    Running { exchange: Exchange::finished(Refusal::new(Reason::NotAllowed).into()) }
}

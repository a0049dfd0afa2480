//! The names that MCP gives things: versions, methods, `_meta` keys, headers, error codes.
//!
//! Specification 2026-07-28 and the versions before it.

use std::fmt;

/// Protocol versions, newest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// 2025-03-26: the first with streamable HTTP.
    V2025_03_26,
    /// 2025-06-18.
    V2025_06_18,
    /// 2025-11-25: the last with `initialize`.
    V2025_11_25,
    /// 2026-07-28: stateless.
    V2026_07_28,
}

impl Version {
    /// The versions that begin with `initialize`, newest first.
    pub const LEGACY: [Self; 3] = [Self::V2025_11_25, Self::V2025_06_18, Self::V2025_03_26];
    /// All, newest first.
    pub const ALL: [Self; 4] = [Self::V2026_07_28, Self::V2025_11_25, Self::V2025_06_18, Self::V2025_03_26];
    /// The versions without `initialize`, as `server/discover` and -32022 name them.
    pub const MODERN: [Self; 1] = [Self::V2026_07_28];

    /// Reads a version as the wire spells it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|version| version.as_str() == text)
    }

    /// The spelling on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V2025_03_26 => "2025-03-26",
            Self::V2025_06_18 => "2025-06-18",
            Self::V2025_11_25 => "2025-11-25",
            Self::V2026_07_28 => "2026-07-28",
        }
    }

    /// Which era it belongs to.
    #[must_use]
    pub const fn era(self) -> Era {
        match self {
            Self::V2026_07_28 => Era::Modern,
            _ => Era::Legacy,
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

/// The two ways in which MCP is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Era {
    /// 2026-07-28: stateless, `_meta` on every request, `input_required`.
    Modern,
    /// 2025-11-25 and before: `initialize`, sessions, requests from the server.
    Legacy,
}

impl Era {
    /// The word that people read.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Modern => "modern",
            Self::Legacy => "legacy",
        }
    }
}

/// `_meta` keys of the specification.
pub mod meta {
    /// The version of this request; required.
    pub const PROTOCOL_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
    /// The client's capabilities; required.
    pub const CLIENT_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
    /// Who the client says it is; display only.
    pub const CLIENT_INFO: &str = "io.modelcontextprotocol/clientInfo";
    /// Log messages are wanted from this level on.
    pub const LOG_LEVEL: &str = "io.modelcontextprotocol/logLevel";
    /// Which listen a notification belongs to.
    pub const SUBSCRIPTION_ID: &str = "io.modelcontextprotocol/subscriptionId";
    /// Who answers; recommended on every result.
    pub const SERVER_INFO: &str = "io.modelcontextprotocol/serverInfo";
    /// Progress is wanted under this token.
    pub const PROGRESS_TOKEN: &str = "progressToken";
    /// Which task a message of 2025-11-25 belongs to.
    pub const RELATED_TASK: &str = "io.modelcontextprotocol/related-task";
    /// What a server of 2025-11-25 may tell of a task's state.
    pub const TASK_STATUS: &str = "notifications/tasks/status";
    /// In an answer of the gateway's own making: the error that a legacy client answered with instead.
    pub const ANSWER_ERROR: &str = "dev.bailiwick/error";
    /// In a request: the handle of the mandate that it is part of.
    pub const MANDATE: &str = "dev.bailiwick/mandate";
    /// In a request: what it is for, as its client declares.
    pub const INTENT: &str = "dev.bailiwick/intent";
    /// Our own keys; removed in both directions and added again only by us.
    pub const OWN_PREFIX: &str = "dev.bailiwick/";
}

/// The identifier of the tasks extension, under `extensions` of either side's capabilities.
pub const TASKS_EXTENSION: &str = "io.modelcontextprotocol/tasks";

/// HTTP header names, lower case.
pub mod header {
    /// The protocol version of the request.
    pub const PROTOCOL_VERSION: &str = "mcp-protocol-version";
    /// The method of the request.
    pub const METHOD: &str = "mcp-method";
    /// The tool or prompt name, URI or task id of the request.
    pub const NAME: &str = "mcp-name";
    /// Before the header name of a mirrored parameter.
    pub const PARAMETER_PREFIX: &str = "mcp-param-";
    /// The legacy session.
    pub const SESSION_ID: &str = "mcp-session-id";
    /// The handle of the mandate that a request is part of, where `_meta` cannot carry it.
    pub const MANDATE: &str = "bailiwick-mandate";
    /// Where a legacy stream broke off.
    pub const LAST_EVENT_ID: &str = "last-event-id";
}

/// JSON-RPC error codes.
pub mod code {
    /// Not JSON.
    pub const PARSE_ERROR: i32 = -32700;
    /// Not a request.
    pub const INVALID_REQUEST: i32 = -32600;
    /// Unknown method.
    pub const METHOD_NOT_FOUND: i32 = -32601;
    /// Wrong parameters; also an unknown tool or resource.
    pub const INVALID_PARAMS: i32 = -32602;
    /// Our trouble.
    pub const INTERNAL_ERROR: i32 = -32603;
    /// Header and body disagree (2026-07-28).
    pub const HEADER_MISMATCH: i32 = -32020;
    /// The client lacks a capability (2026-07-28).
    pub const MISSING_CAPABILITY: i32 = -32021;
    /// Unsupported version (2026-07-28).
    pub const UNSUPPORTED_VERSION: i32 = -32022;
    /// Pages must be visited first (2025-11-25 only).
    pub const LEGACY_URL_REQUIRED: i32 = -32042;
    /// Unknown resource, as legacy clients expect it.
    pub const LEGACY_RESOURCE_NOT_FOUND: i32 = -32002;
}

/// What a primitive is; its lists and calls have methods of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// `tools/list`, `tools/call`.
    Tool,
    /// `prompts/list`, `prompts/get`.
    Prompt,
    /// `resources/list`, `resources/read`.
    Resource,
    /// `resources/templates/list`.
    ResourceTemplate,
}

impl Kind {
    /// All four.
    pub const ALL: [Self; 4] = [Self::Tool, Self::Prompt, Self::Resource, Self::ResourceTemplate];

    /// The method that lists it.
    #[must_use]
    pub const fn list_method(self) -> &'static str {
        match self {
            Self::Tool => "tools/list",
            Self::Prompt => "prompts/list",
            Self::Resource => "resources/list",
            Self::ResourceTemplate => "resources/templates/list",
        }
    }

    /// The member of the list result that holds the items.
    #[must_use]
    pub const fn list_member(self) -> &'static str {
        match self {
            Self::Tool => "tools",
            Self::Prompt => "prompts",
            Self::Resource => "resources",
            Self::ResourceTemplate => "resourceTemplates",
        }
    }

    /// The member of a definition that identifies it.
    #[must_use]
    pub const fn key_member(self) -> &'static str {
        match self {
            Self::Tool | Self::Prompt => "name",
            Self::Resource => "uri",
            Self::ResourceTemplate => "uriTemplate",
        }
    }

    /// The server capability that announces it.
    #[must_use]
    pub const fn capability(self) -> &'static str {
        match self {
            Self::Tool => "tools",
            Self::Prompt => "prompts",
            Self::Resource | Self::ResourceTemplate => "resources",
        }
    }
}

/// How grave a log message is (RFC 5424), in rising order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// `debug`.
    Debug,
    /// `info`.
    Info,
    /// `notice`.
    Notice,
    /// `warning`.
    Warning,
    /// `error`.
    Error,
    /// `critical`.
    Critical,
    /// `alert`.
    Alert,
    /// `emergency`.
    Emergency,
}

impl LogLevel {
    /// The level of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "debug" => Self::Debug,
            "info" => Self::Info,
            "notice" => Self::Notice,
            "warning" => Self::Warning,
            "error" => Self::Error,
            "critical" => Self::Critical,
            "alert" => Self::Alert,
            "emergency" => Self::Emergency,
            _ => return None,
        })
    }

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Notice => "notice",
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Critical => "critical",
            Self::Alert => "alert",
            Self::Emergency => "emergency",
        }
    }
}

/// The methods that a client may send, as far as the gateway knows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    /// `server/discover` (modern).
    Discover,
    /// One of the four lists.
    List(Kind),
    /// `tools/call`.
    CallTool,
    /// `prompts/get`.
    GetPrompt,
    /// `resources/read`.
    ReadResource,
    /// `completion/complete`.
    Complete,
    /// `subscriptions/listen` (modern).
    Listen,
    /// `initialize` (legacy).
    Initialize,
    /// `ping` (legacy).
    Ping,
    /// `logging/setLevel` (legacy).
    SetLogLevel,
    /// `resources/subscribe` (legacy).
    Subscribe,
    /// `resources/unsubscribe` (legacy).
    Unsubscribe,
    /// `tasks/get` (modern as an extension, legacy as the experiment of 2025-11-25).
    TaskGet,
    /// `tasks/update` (modern).
    TaskUpdate,
    /// `tasks/cancel` (as `tasks/get`).
    TaskCancel,
    /// `tasks/result` (legacy).
    TaskResult,
    /// `tasks/list` (legacy).
    TaskList,
    /// A method of an extension that the gateway does not know.
    Extension,
}

impl Method {
    /// The known method of that name in that era.
    #[must_use]
    pub fn parse(name: &str, era: Era) -> Option<Self> {
        let (method, only) = match name {
            "server/discover" => (Self::Discover, Some(Era::Modern)),
            "tools/list" => (Self::List(Kind::Tool), None),
            "prompts/list" => (Self::List(Kind::Prompt), None),
            "resources/list" => (Self::List(Kind::Resource), None),
            "resources/templates/list" => (Self::List(Kind::ResourceTemplate), None),
            "tools/call" => (Self::CallTool, None),
            "prompts/get" => (Self::GetPrompt, None),
            "resources/read" => (Self::ReadResource, None),
            "completion/complete" => (Self::Complete, None),
            "subscriptions/listen" => (Self::Listen, Some(Era::Modern)),
            "initialize" => (Self::Initialize, Some(Era::Legacy)),
            "ping" => (Self::Ping, Some(Era::Legacy)),
            "logging/setLevel" => (Self::SetLogLevel, Some(Era::Legacy)),
            "resources/subscribe" => (Self::Subscribe, Some(Era::Legacy)),
            "resources/unsubscribe" => (Self::Unsubscribe, Some(Era::Legacy)),
            "tasks/get" => (Self::TaskGet, None),
            "tasks/update" => (Self::TaskUpdate, Some(Era::Modern)),
            "tasks/cancel" => (Self::TaskCancel, None),
            "tasks/result" => (Self::TaskResult, Some(Era::Legacy)),
            "tasks/list" => (Self::TaskList, Some(Era::Legacy)),
            _ => return None,
        };
        only.is_none_or(|only| only == era).then_some(method)
    }

    /// [`Method::Extension`], if the name can be one: not a method of the protocol in any era or direction, and
    /// nothing that a transport or a log could misread.
    #[must_use]
    pub fn extension(name: &str) -> Option<Self> {
        const OWN: [&str; 8] = [
            "notifications/",
            "tasks/",
            "server/",
            "sampling/",
            "elicitation/",
            "roots/",
            "logging/",
            "subscriptions/",
        ];
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'.' | b'_' | b'-');
        let known = [Era::Modern, Era::Legacy].into_iter().any(|era| Self::parse(name, era).is_some());
        let is_one = name.contains('/')
            && name.len() <= crate::limit::METHOD_NAME_BYTES_MAX
            && name.bytes().all(plain)
            && !known
            && !OWN.iter().any(|prefix| name.starts_with(prefix));
        is_one.then_some(Self::Extension)
    }

    /// Whether it is about a task that an earlier call became.
    #[must_use]
    pub const fn is_about_task(self) -> bool {
        matches!(self, Self::TaskGet | Self::TaskUpdate | Self::TaskCancel | Self::TaskResult)
    }

    /// The parameter that `Mcp-Name` mirrors.
    #[must_use]
    pub const fn name_parameter(self) -> Option<&'static str> {
        match self {
            Self::CallTool | Self::GetPrompt => Some("name"),
            Self::ReadResource => Some("uri"),
            Self::TaskGet | Self::TaskUpdate | Self::TaskCancel => Some("taskId"),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_extension_has_no_name_of_the_protocol_and_none_that_could_be_misread() {
        for name in ["skills/list", "resources/directory/read", "x.y/z_1-a"] {
            assert_eq!(Method::extension(name), Some(Method::Extension), "{name}");
        }
        let long = format!("x/{}", "a".repeat(crate::limit::METHOD_NAME_BYTES_MAX - 2));
        assert_eq!(Method::extension(&long), Some(Method::Extension));
        for name in [
            "tools/call",
            "initialize",
            "ping",
            "resources/subscribe",
            "subscriptions/listen",
            "tasks/list",
            "",
            "notifications/x",
            "sampling/createMessage",
            "roots/list",
            "elicitation/create",
            "list",
            "x/a b",
            "x/\n",
            "server/x",
            "x/\u{fc}",
            &format!("{long}a"),
        ] {
            assert_eq!(Method::extension(name), None, "{name:?}");
        }
    }
}

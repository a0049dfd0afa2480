//! A request on its way to an upstream, in the modern shape, before an adapter gives it an id and an era.

use super::last_words::LastWords;
use super::value::Json;
use crate::ids::ProcessId;

/// A request on its way to an upstream: the upstream's own names, our `_meta` removed.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// The method, in its modern spelling.
    pub method: String,
    /// The parameters. `_meta` holds the client's `clientCapabilities`, `clientInfo` and `logLevel` under
    /// their modern keys whatever the client's era; the adapter sees to the version and sets the progress token.
    pub params: Json,
    /// What `Mcp-Name` mirrors: the tool or prompt name, or the URI, in the upstream's spelling.
    pub name: Option<String>,
    /// Parameters mirrored into headers by the upstream's own schema: full header name, decoded value.
    pub header_parameters: Vec<(String, String)>,
    /// Inbound HTTP headers that this server's `forward_headers` lets through, lower case.
    pub headers: Vec<(String, String)>,
    /// The client's progress token, if it wants progress.
    pub progress_token: Option<Json>,
    /// Where the client leaves its words should it cancel; a modern one has none.
    pub last_words: Option<LastWords>,
    /// The one process that can answer it; whatever another one has under the same name is something else.
    pub process: Option<ProcessId>,
}

//! `notes`: what a team has written down. Speaks 2026-07-28 only, without sessions.
//!
//! Refuses to grow: the number of notes and the length of each are bounded. Invariant: an id is never used twice.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rmcp::handler::server::router::prompt::PromptRouter;
use rmcp::handler::server::router::tool::ToolRouter;
use rmcp::handler::server::wrapper::{Json, Parameters};
use rmcp::model::{
    CacheScope, ErrorData, Implementation, ListResourceTemplatesResult, ListResourcesResult, PaginatedRequestParams,
    PromptMessage, ProtocolVersion, ReadResourceRequestParams, ReadResourceResponse, ReadResourceResult, Resource,
    ResourceContents, ResourceTemplate, Role, ServerCapabilities, ServerConfig,
};
use rmcp::schemars::JsonSchema;
use rmcp::service::RequestContext;
use rmcp::{RoleServer, ServerHandler, prompt, prompt_handler, prompt_router, tool, tool_handler, tool_router};
use serde::{Deserialize, Serialize};

use crate::limit::{NOTE_TEXT_BYTES_MAX, NOTE_TITLE_BYTES_MAX, NOTES_MAX};

const URI_PREFIX: &str = "note://demo/";

/// The server; clones share the notes.
#[derive(Debug, Clone)]
pub struct Notes {
    notes: Arc<Mutex<Shelf>>,
    tool_router: ToolRouter<Self>,
    prompt_router: PromptRouter<Self>,
}

#[derive(Debug)]
struct Shelf {
    notes: BTreeMap<u64, Note>,
    next: u64,
}

/// One note.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(crate = "rmcp::schemars")]
struct Note {
    /// Its number, which also ends its URI.
    id: u64,
    /// One line.
    title: String,
    /// The whole text, Markdown.
    text: String,
    /// Words to find it by.
    tags: Vec<String>,
}

/// A note without its text.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(crate = "rmcp::schemars")]
struct Heading {
    /// Its number.
    id: u64,
    /// One line.
    title: String,
    /// Where it can be read as a resource.
    uri: String,
    /// Words to find it by.
    tags: Vec<String>,
}

/// Notes without their texts, lowest number first.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(crate = "rmcp::schemars")]
struct Headings {
    /// The notes.
    notes: Vec<Heading>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(crate = "rmcp::schemars")]
#[serde(deny_unknown_fields)]
struct ListArguments {
    /// Only notes with this tag.
    #[serde(default)]
    tag: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(crate = "rmcp::schemars")]
#[serde(deny_unknown_fields)]
struct NoteId {
    /// The note's number, as `list_notes` shows it.
    #[schemars(range(min = 1))]
    id: u64,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(crate = "rmcp::schemars")]
#[serde(deny_unknown_fields)]
struct AddArguments {
    /// One line that says what the note is about.
    #[schemars(length(min = 1, max = 200))]
    title: String,
    /// The whole text, Markdown.
    #[schemars(length(max = 10000))]
    text: String,
    /// Words to find it by.
    #[serde(default)]
    #[schemars(length(max = 8))]
    tags: Vec<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(crate = "rmcp::schemars")]
#[serde(deny_unknown_fields)]
struct SearchArguments {
    /// Words to look for in titles and texts; upper and lower case are the same.
    #[schemars(length(min = 1, max = 200))]
    query: String,
    /// At most so many notes.
    #[serde(default)]
    #[schemars(range(min = 1, max = 50))]
    limit: Option<u32>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(crate = "rmcp::schemars")]
struct SummarizeArguments {
    /// Only notes with this tag.
    #[serde(default)]
    tag: Option<String>,
}

#[tool_router]
impl Notes {
    /// The server with the notes that the demo starts with.
    pub fn new() -> Self {
        let mut shelf = Shelf { notes: BTreeMap::new(), next: 1 };
        for (title, text, tags) in FIRST_NOTES {
            shelf.add((*title).to_owned(), (*text).to_owned(), tags.iter().map(|tag| (*tag).to_owned()).collect());
        }
        Self {
            notes: Arc::new(Mutex::new(shelf)),
            tool_router: Self::tool_router(),
            prompt_router: Self::prompt_router(),
        }
    }

    #[tool(
        description = "List the team's notes: number, title, tags and resource URI, without the texts.",
        annotations(title = "List notes", read_only_hint = true, idempotent_hint = true, open_world_hint = false)
    )]
    async fn list_notes(&self, Parameters(arguments): Parameters<ListArguments>) -> Json<Headings> {
        let tag = arguments.tag.as_deref();
        let notes = self.shelf().notes.values().filter(|note| note.has(tag)).map(Note::heading).collect();
        Json(Headings { notes })
    }

    #[tool(
        description = "Read one note in full.",
        annotations(title = "Read a note", read_only_hint = true, idempotent_hint = true, open_world_hint = false)
    )]
    async fn read_note(&self, Parameters(NoteId { id }): Parameters<NoteId>) -> Result<Json<Note>, String> {
        self.shelf().notes.get(&id).cloned().map(Json).ok_or_else(|| format!("there is no note {id}"))
    }

    #[tool(
        description = "Write a new note. Answers with the note and its number.",
        annotations(title = "Add a note", read_only_hint = false, destructive_hint = false, open_world_hint = false)
    )]
    async fn add_note(&self, Parameters(arguments): Parameters<AddArguments>) -> Result<Json<Note>, String> {
        let AddArguments { title, text, tags } = arguments;
        if title.is_empty() || title.len() > NOTE_TITLE_BYTES_MAX {
            return Err(format!("the title has {} bytes: write 1 to {NOTE_TITLE_BYTES_MAX}", title.len()));
        }
        let tag_bytes: usize = tags.iter().map(String::len).sum();
        if text.len() + tag_bytes > NOTE_TEXT_BYTES_MAX {
            return Err(format!("text and tags are longer than {NOTE_TEXT_BYTES_MAX} bytes: shorten them"));
        }
        let mut shelf = self.shelf();
        if shelf.notes.len() >= NOTES_MAX {
            return Err(format!("there are {NOTES_MAX} notes already: delete one first"));
        }
        Ok(Json(shelf.add(title, text, tags)))
    }

    #[tool(
        description = "Delete one note for good. There is no bin.",
        annotations(
            title = "Delete a note",
            read_only_hint = false,
            destructive_hint = true,
            idempotent_hint = true,
            open_world_hint = false
        )
    )]
    async fn delete_note(&self, Parameters(NoteId { id }): Parameters<NoteId>) -> Result<String, String> {
        let removed = self.shelf().notes.remove(&id);
        removed.map(|note| format!("note {id} deleted: {}", note.title)).ok_or_else(|| format!("there is no note {id}"))
    }

    #[tool(
        description = "Find notes whose title or text contains the words, lowest number first.",
        annotations(title = "Search notes", read_only_hint = true, idempotent_hint = true, open_world_hint = false)
    )]
    async fn search_notes(&self, Parameters(arguments): Parameters<SearchArguments>) -> Json<Headings> {
        let query = arguments.query.to_lowercase();
        let count_max = arguments.limit.unwrap_or(10).clamp(1, 50) as usize;
        let shelf = self.shelf();
        let found = shelf.notes.values().filter(|note| {
            query
                .split_whitespace()
                .all(|word| note.title.to_lowercase().contains(word) || note.text.to_lowercase().contains(word))
        });
        Json(Headings { notes: found.take(count_max).map(Note::heading).collect() })
    }
}

#[prompt_router]
impl Notes {
    #[prompt(name = "summarize_notes", description = "Summarize the team's notes, or those with one tag.")]
    async fn summarize_notes(&self, Parameters(arguments): Parameters<SummarizeArguments>) -> Vec<PromptMessage> {
        let tag = arguments.tag.as_deref();
        let mut text = String::from("Summarize these notes in five sentences. Say which of them disagree.\n");
        for note in self.shelf().notes.values().filter(|note| note.has(tag)) {
            text.push_str(&format!("\n## {} (note {})\n\n{}\n", note.title, note.id, note.text));
        }
        vec![PromptMessage::new_text(Role::User, text)]
    }
}

#[tool_handler(router = self.tool_router)]
#[prompt_handler(router = self.prompt_router)]
impl ServerHandler for Notes {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder().enable_tools().enable_resources().enable_prompts().build();
        ServerConfig::new(capabilities)
            .with_server_info(Implementation::new("bailiwick-demo-notes", env!("CARGO_PKG_VERSION")))
            .with_instructions("Notes of a team. Search before you add one; ask before you delete one.")
    }

    fn supported_protocol_versions(&self) -> Cow<'static, [ProtocolVersion]> {
        Cow::Borrowed(&[ProtocolVersion::V_2026_07_28])
    }

    async fn list_resources(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        let resources = self.shelf().notes.values().map(Note::resource).collect();
        Ok(ListResourcesResult::with_all_items(resources).with_ttl_ms(0).with_cache_scope(CacheScope::Private))
    }

    async fn list_resource_templates(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        let template = ResourceTemplate::new("note://demo/{id}", "note")
            .with_description("One note by its number")
            .with_mime_type("text/markdown");
        let result = ListResourceTemplatesResult::with_all_items(vec![template]);
        Ok(result.with_ttl_ms(60_000).with_cache_scope(CacheScope::Public))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let id = request.uri.strip_prefix(URI_PREFIX).and_then(|id| id.parse().ok());
        let note = id.and_then(|id: u64| self.shelf().notes.get(&id).cloned());
        let Some(note) = note.filter(|note| note.uri() == request.uri) else {
            let data = serde_json::json!({ "uri": request.uri });
            return Err(ErrorData::invalid_params("there is no such note", Some(data)));
        };
        let contents = ResourceContents::text(note.text, request.uri).with_mime_type("text/markdown");
        let result = ReadResourceResult::new(vec![contents]);
        Ok(result.with_ttl_ms(0).with_cache_scope(CacheScope::Private).into())
    }
}

impl Notes {
    /// The notes; a panic elsewhere cannot have left them half changed, because each change is one insertion.
    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shelf {
    fn add(&mut self, title: String, text: String, tags: Vec<String>) -> Note {
        let note = Note { id: self.next, title, text, tags };
        self.next += 1;
        self.notes.insert(note.id, note.clone());
        note
    }
}

impl Note {
    fn uri(&self) -> String {
        format!("{URI_PREFIX}{}", self.id)
    }

    fn has(&self, tag: Option<&str>) -> bool {
        tag.is_none_or(|tag| self.tags.iter().any(|own| own == tag))
    }

    fn heading(&self) -> Heading {
        Heading { id: self.id, title: self.title.clone(), uri: self.uri(), tags: self.tags.clone() }
    }

    fn resource(&self) -> Resource {
        Resource::new(self.uri(), format!("note-{}", self.id))
            .with_title(self.title.clone())
            .with_mime_type("text/markdown")
            .with_size(self.text.len() as u64)
    }
}

const FIRST_NOTES: &[(&str, &str, &[&str])] = &[
    (
        "How we release",
        "Every merge to `main` is built and goes to staging by itself. Production takes a rollout by hand, a \
         quarter of the replicas first. Wait ten minutes and look at the error rate before the rest.",
        &["release", "runbook"],
    ),
    (
        "Who is on call",
        "The platform team is on call in weekly turns, handover on Mondays at ten. The checkout team answers for \
         its own service during office hours.",
        &["on-call"],
    ),
    (
        "Incident of the slow cache",
        "Purging the whole cache at noon doubled the database load for forty minutes. Purge by prefix, outside \
         office hours, and tell the database team first.",
        &["incident", "cache"],
    ),
    (
        "Interview questions",
        "Ask for a story of something that broke, what the first guess was, and what turned out to be true.",
        &["hiring"],
    ),
];

//! What a call carries to tell of itself: one span, and a child for each stage that it passes.
//!
//! Decides what may be told: the method, the names that the configuration and the server have, reasons. Invariant: a
//! call that nobody follows carries nothing, and one that is dropped on the way is told of as cancelled.

use std::sync::Arc;
use std::time::SystemTime;

use super::Inner;
use super::context::{Context, span};
use crate::limit;

/// A stage of a call, in the order in which they are passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Who, what, and whether.
    Decide,
    /// The credential for the upstream.
    Delegate,
    /// The intent becomes durable.
    Record,
    /// The upstream works.
    Forward,
}

impl Stage {
    const fn name(self) -> &'static str {
        match self {
            Self::Decide => "decide",
            Self::Delegate => "delegate",
            Self::Record => "record",
            Self::Forward => "forward",
        }
    }
}

/// What a call is about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subject {
    /// The method.
    pub method: String,
    /// The protocol version of the request.
    pub protocol: String,
    /// The call's id in the record.
    pub call: String,
    /// The upstream, its environment, and the primitive in its spelling; once it was resolved.
    pub target: Option<(String, String, String)>,
    /// The agent.
    pub agent: Option<String>,
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Well.
    Well,
    /// With an error of this code.
    Error(&'static str),
    /// With an error of this JSON-RPC code.
    Code(i64),
}

/// A call that is followed, or not.
#[derive(Debug)]
pub struct Trace(Option<Box<Live>>);

#[derive(Debug)]
struct Live {
    context: Context,
    root: [u8; 8],
    /// Known beforehand: it goes with the request.
    forward: [u8; 8],
    began: SystemTime,
    stages: Vec<(Stage, SystemTime)>,
    subject: Subject,
    to: Arc<Inner>,
}

/// The spans of a call that is over.
#[derive(Debug)]
pub(super) struct Finished {
    pub trace: [u8; 16],
    pub spans: Vec<Span>,
}

/// One span.
#[derive(Debug)]
pub(super) struct Span {
    pub id: [u8; 8],
    pub parent: Option<[u8; 8]>,
    pub name: String,
    pub kind: Kind,
    pub began: SystemTime,
    pub ended: SystemTime,
    pub attributes: Vec<(&'static str, String)>,
    pub failed: bool,
}

/// What a span is, as OTLP counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Internal = 1,
    Server = 2,
    Client = 3,
}

impl Trace {
    /// Nobody follows it.
    #[must_use]
    pub const fn off() -> Self {
        Self(None)
    }

    pub(super) fn begin(context: Context, to: Arc<Inner>) -> Self {
        let began = SystemTime::now();
        let stages = vec![(Stage::Decide, began)];
        let subject = Subject::default();
        Self(Some(Box::new(Live { context, root: span(), forward: span(), began, stages, subject, to })))
    }

    /// Whether it is followed.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// The next stage begins.
    pub fn stage(&mut self, stage: Stage) {
        if let Some(live) = &mut self.0 {
            live.stages.push((stage, SystemTime::now()));
        }
    }

    /// Whatever it passed, the upstream works from now on, if it does not already.
    pub fn forwarding(&mut self) {
        if let Some(live) = &mut self.0
            && live.stages.last().is_none_or(|(stage, _)| *stage != Stage::Forward)
        {
            live.stages.push((Stage::Forward, SystemTime::now()));
        }
    }

    /// Says what it is about; asked only where it is followed.
    pub fn about(&mut self, subject: impl FnOnce() -> Subject) {
        if let Some(live) = &mut self.0 {
            live.subject = subject();
        }
    }

    /// What goes upstream with the request, under the span of its forwarding.
    #[must_use]
    pub fn traceparent(&self) -> Option<String> {
        self.0.as_ref().map(|live| live.context.traceparent(live.forward))
    }

    /// It is over.
    pub fn end(&mut self, ended: impl FnOnce() -> Ended) {
        if let Some(live) = self.0.take() {
            live.end(ended());
        }
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        self.end(|| Ended::Error("cancelled"));
    }
}

impl Live {
    fn end(self, ended: Ended) {
        let now = SystemTime::now();
        let error = match ended {
            Ended::Well => None,
            Ended::Error(code) => Some(code.to_owned()),
            Ended::Code(code) => Some(code.to_string()),
        };
        let mut spans = vec![Span {
            id: self.root,
            parent: self.context.parent,
            name: self.subject.name(),
            kind: Kind::Server,
            began: self.began,
            ended: now,
            attributes: self.subject.attributes(error.as_deref()),
            failed: error.is_some(),
        }];
        let ends = self.stages.iter().skip(1).map(|(_, began)| *began).chain([now]);
        for ((stage, began), ended) in self.stages.iter().zip(ends) {
            let is_last = ended == now;
            let forward = *stage == Stage::Forward;
            let server = self.subject.target.as_ref().filter(|_| forward).map(|(server, ..)| server.clone());
            spans.push(Span {
                id: if forward { self.forward } else { span() },
                parent: Some(self.root),
                name: stage.name().to_owned(),
                kind: if forward { Kind::Client } else { Kind::Internal },
                began: *began,
                ended,
                attributes: server.map(|server| ("bailiwick.server", server)).into_iter().collect(),
                failed: is_last && error.is_some(),
            });
        }
        self.to.push(Finished { trace: self.context.trace, spans });
    }
}

impl Subject {
    /// As the conventions name it; a name that nobody here knows is not in it, or anybody could make up as many.
    fn name(&self) -> String {
        match &self.target {
            Some((_, _, name)) if self.method != "resources/read" => format!("{} {}", self.method, cut(name)),
            _ => cut(&self.method),
        }
    }

    fn attributes(&self, error: Option<&str>) -> Vec<(&'static str, String)> {
        let mut all = vec![("mcp.method.name", cut(&self.method)), ("mcp.protocol.version", cut(&self.protocol))];
        all.push(("bailiwick.call", self.call.clone()));
        if let Some((server, environment, name)) = &self.target {
            all.push(("bailiwick.server", server.clone()));
            all.push(("bailiwick.environment", environment.clone()));
            match self.method.as_str() {
                "tools/call" => {
                    all.push(("gen_ai.operation.name", "execute_tool".to_owned()));
                    all.push(("gen_ai.tool.name", cut(name)));
                }
                "prompts/get" => all.push(("gen_ai.prompt.name", cut(name))),
                // What stands behind a question mark is an argument.
                "resources/read" => all.push(("mcp.resource.uri", cut(name.split('?').next().unwrap_or_default()))),
                _ => {}
            }
        }
        if let Some(agent) = &self.agent {
            all.push(("gen_ai.agent.id", agent.clone()));
        }
        if let Some(error) = error {
            all.push(("error.type", error.to_owned()));
        }
        all
    }
}

fn cut(text: &str) -> String {
    let text: String = text.chars().take(limit::SPAN_TEXT_CHARACTERS_MAX).collect();
    crate::record::redact::text(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::mpsc;

    use super::*;
    use crate::record::Metrics;

    fn inner(queued_max: usize) -> (Arc<Inner>, mpsc::Receiver<Finished>) {
        let (queue, waiting) = mpsc::channel(queued_max);
        (Arc::new(Inner { sample_percent: 100, queue, metrics: Metrics::new(), sender: None }), waiting)
    }

    fn subject() -> Subject {
        Subject {
            method: "tools/call".to_owned(),
            target: Some(("crm".to_owned(), "production".to_owned(), "search".to_owned())),
            ..Subject::default()
        }
    }

    #[test]
    fn a_call_is_a_span_with_a_child_for_each_stage_that_it_passed() {
        let (inner, mut waiting) = inner(1);
        let context = Context::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").unwrap();
        let mut trace = Trace::begin(context, inner);
        trace.about(subject);
        for stage in [Stage::Delegate, Stage::Record, Stage::Forward] {
            std::thread::sleep(Duration::from_millis(1));
            trace.stage(stage);
        }
        let sent = trace.traceparent().unwrap();
        trace.end(|| Ended::Well);
        let finished = waiting.try_recv().unwrap();
        let names: Vec<&str> = finished.spans.iter().map(|span| span.name.as_str()).collect();
        assert_eq!(names, ["tools/call search", "decide", "delegate", "record", "forward"]);
        let root = &finished.spans[0];
        assert_eq!((root.parent, root.failed), (context.parent, false));
        assert!(finished.spans[1..].iter().all(|span| span.parent == Some(root.id) && span.began <= span.ended));
        assert_eq!(sent, context.traceparent(finished.spans[4].id), "the server's span is below the forwarding");
        assert!(root.attributes.contains(&("gen_ai.tool.name", "search".to_owned())));
        drop(trace);
        assert!(waiting.try_recv().is_err(), "it is told of once");
    }

    #[test]
    fn what_is_dropped_is_cancelled_and_what_finds_no_place_is_counted() {
        let (inner, mut waiting) = inner(1);
        drop(Trace::begin(Context::fresh(), Arc::clone(&inner)));
        drop(Trace::begin(Context::fresh(), Arc::clone(&inner)));
        assert_eq!(inner.metrics.spans_dropped.get(), 2, "a span and its stage");
        let finished = waiting.try_recv().unwrap();
        assert!(finished.spans[0].attributes.contains(&("error.type", "cancelled".to_owned())));
    }

    #[test]
    fn names_are_cut_and_an_address_loses_what_may_be_an_argument() {
        let long = Subject { method: "span/".repeat(limit::SPAN_TEXT_CHARACTERS_MAX), ..Subject::default() };
        assert_eq!(long.name().len(), limit::SPAN_TEXT_CHARACTERS_MAX);
        let target = Some(("s".to_owned(), "e".to_owned(), "notes://a?key=hunter2".to_owned()));
        let read = Subject { method: "resources/read".to_owned(), target, ..Subject::default() };
        assert_eq!(read.name(), "resources/read");
        assert!(!format!("{:?}", read.attributes(None)).contains("hunter2"));
    }
}

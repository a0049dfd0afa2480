//! What led to what, as a tree: a mandate, its calls, and in each leg of a call the decision, what people said, the
//! credential, what was sent and what came back.
//!
//! Decides what stands under what and how a line reads. Refuses to read files. Invariant: nothing from the record reaches
//! a terminal as anything but text, and what is not on the record is not shown.

use jiff::tz::TimeZone;
use serde_json::Value;

use super::super::output::{BAD, GOOD, STRONG, WARNING};
use super::node::Node;
use super::words::{
    approver, asked, budget, decision, fields, ids, is_about_mandate, joined, outcome, owners, plain, purpose, short,
    text, who,
};

/// The records about one thing, in the order in which they were written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Records<'a> {
    pub(super) all: &'a [Value],
    pub(super) zone: &'a TimeZone,
}

impl Records<'_> {
    /// A call: who, under which mandate, and each of its legs.
    pub(super) fn call(&self, call: &str) -> Node {
        let own = || self.all.iter().filter(move |record| text(record, "/call") == call);
        // The last one knows most: who was refused at first may have logged in further since.
        let about = own().rfind(|record| record.get("mcp").is_some());
        let mut root = Node::new("call", STRONG, call);
        if let Some(about) = about {
            root.text = format!("{call} {}", asked(about));
            root.children.push(Node::plain("who", who(about)));
            if let Some(owners) = owners(about) {
                root.children.push(Node::plain("owners", owners));
            }
            root.children.extend(self.mandate_of(about));
        }
        let mut legs: Vec<&str> = Vec::new();
        for record in own() {
            let leg = text(record, "/leg");
            if !legs.contains(&leg) {
                legs.push(leg);
            }
        }
        for (place, leg) in legs.iter().enumerate() {
            let of: Vec<&Value> = own().filter(|record| text(record, "/leg") == *leg).collect();
            root.children.extend(self.leg(place + 1, &of));
        }
        root
    }

    /// A mandate: what it is for, what became of it, the mandates below it, and its calls in a line each.
    pub(super) fn mandate(&self, id: &str, calls_max: usize) -> Node {
        let mut root = Node::new("mandate", STRONG, id);
        for record in self.all.iter().filter(|record| is_about_mandate(record, id)) {
            let event = text(record, "/mandate/event");
            if event == "opened" {
                root.text = format!("{id} {}", purpose(record));
            }
            let style = if event == "opened" { GOOD } else { STRONG };
            root.children.push(Node::new("task", style, self.mandate_event(record)));
        }
        root.children.extend(self.others(id));
        let below = self.all.iter().filter(|record| {
            text(record, "/type") == "mandate"
                && text(record, "/mandate/event") == "opened"
                && text(record, "/mandate/parent") == id
        });
        for record in below {
            root.children.push(self.mandate(text(record, "/mandate/id"), calls_max));
        }
        let mut calls = Vec::new();
        let under = |record: &&Value| text(record, "/mandate/id") == id && record.get("call").is_some();
        for record in self.all.iter().filter(under) {
            let call = text(record, "/call");
            if !calls.contains(&call) {
                calls.push(call);
            }
        }
        for call in calls.iter().take(calls_max) {
            root.children.push(self.call_in_a_line(call));
        }
        if calls.len() > calls_max {
            let more = format!("{} more calls: bailiwick logs --since 30d --grep {id}", calls.len() - calls_max);
            root.children.push(Node::plain("and", more));
        }
        root
    }

    /// A request for approval: what was asked for, who said what, and the call that used it.
    pub(super) fn approval(&self, id: &str) -> Node {
        let mut root = Node::new("approval", STRONG, id);
        root.children = self.approval_events(id);
        for record in self.all.iter().filter(|record| text(record, "/approval") == id) {
            root.children.push(self.call_in_a_line(text(record, "/call")));
        }
        root
    }

    fn call_in_a_line(&self, call: &str) -> Node {
        let own = || self.all.iter().filter(move |record| text(record, "/call") == call);
        let asked = own().find(|record| record.get("mcp").is_some()).map(asked).unwrap_or_default();
        let last = own().next_back();
        let (style, ended) = last.map_or((WARNING, "no end on the record".to_owned()), outcome);
        let at = last.map(|record| format!("{}{}", self.time(record), self.place(record))).unwrap_or_default();
        Node::new("call", style, format!("{call} {at} {asked}: {ended}"))
    }

    fn leg(&self, number: usize, of: &[&Value]) -> Option<Node> {
        let first = of.first()?;
        let mut leg = Node::new("leg", STRONG, format!("{number} {}{}", self.time(first), self.place(first)));
        let via = text(first, "/via");
        if !via.is_empty() {
            leg.text.push_str(&format!(", handed on by replica {via}"));
        }
        for record in of {
            match text(record, "/type") {
                "intent" => self.intent(record, &mut leg.children),
                "refusal" | "failure" | "list" => leg.children.push(decision(record)),
                "result" => {
                    let (style, ended) = outcome(record);
                    leg.children.push(Node::new("outcome", style, ended));
                    leg.children.extend(record.pointer("/result/budget").and_then(budget));
                }
                "approval" => {}
                "relay" => leg.children.push(Node::plain("relay", fields(record.get("relay")))),
                kind => {
                    let said = fields(record.get(kind));
                    leg.children.push(Node::plain("also", format!("{kind} {said}")));
                }
            }
        }
        // Those that no intent has used: asked for, denied, or waiting still.
        for id in ids(of.iter().filter_map(|record| record.pointer("/approval/id"))) {
            let mut node = Node::plain("approval", id);
            node.children = self.approval_events(id);
            leg.children.push(node);
        }
        Some(leg)
    }

    fn intent(&self, record: &Value, children: &mut Vec<Node>) {
        children.push(decision(record));
        if let Some(Value::Object(values)) = record.pointer("/arguments/values") {
            let read: Vec<String> = values.iter().map(|(name, value)| format!("{name} = {}", plain(value))).collect();
            children.push(Node::plain("read", read.join(", ")));
        }
        if let Some(labels) = record.get("labels") {
            let list = |name: &str| joined(labels.get(name), "nothing");
            let mut said = format!("had seen {}; afterwards {}", list("before"), list("after"));
            if labels.get("tool").is_some() {
                said.push_str(&format!("; the tool {}", list("tool")));
            }
            let against = text(record, "/labels/observed");
            if !against.is_empty() {
                said.push_str(&format!("; only written down, {against} speaks against it"));
            }
            if labels.get("asked").is_some() {
                said.push_str(&format!("; {} asked persons", list("asked")));
            }
            children.push(Node::plain("labels", said));
        }
        let approval = text(record, "/approval");
        if !approval.is_empty() {
            let mut node = Node::new("approval", GOOD, format!("{approval}, used by this leg"));
            node.children = self.approval_events(approval);
            children.push(node);
        }
        if let Some(credential) = record.get("credential") {
            let issue = text(record, "/credential/issue");
            let mut node = Node::plain("credential", self.credential(credential));
            if !issue.is_empty() {
                node.children = self.others(issue);
            }
            children.push(node);
        }
        let mut sent = vec![format!("at {}", self.time(record))];
        let definition = text(record, "/mcp/definition");
        if !definition.is_empty() {
            sent.push(format!("definition {}", short(definition)));
        }
        if let Some(bytes) = record.pointer("/arguments/bytes") {
            let digest = short(text(record, "/arguments/hmac"));
            sent.push(format!("{} bytes of arguments, keyed digest {digest}", plain(bytes)));
        }
        let server = text(record, "/mcp/server");
        if !server.is_empty() {
            sent.push(format!("to {server}"));
        }
        children.push(Node::new("sent", STRONG, sent.join(", ")));
    }

    fn credential(&self, credential: &Value) -> String {
        let mut said = vec![text(credential, "/kind").to_owned()];
        for (name, what) in [("/audience", "for"), ("/issue", "issue"), ("/id", "id")] {
            let value = text(credential, name);
            if !value.is_empty() {
                said.push(format!("{what} {value}"));
            }
        }
        for (name, what) in [("/used_until", "used until"), ("/expires_at", "expires")] {
            if let Some(at) = credential.pointer(name).and_then(Value::as_i64) {
                said.push(format!("{what} {}", self.second(at)));
            }
        }
        said.join(", ")
    }

    fn mandate_of(&self, record: &Value) -> Option<Node> {
        let id = text(record, "/mandate/id");
        if id.is_empty() {
            return None;
        }
        let mut node = Node::plain("mandate", format!("{id} {}", purpose(record)));
        for event in self.all.iter().filter(|record| is_about_mandate(record, id)) {
            node.children.push(Node::plain("task", self.mandate_event(event)));
        }
        node.children.extend(self.others(id));
        let parent = text(record, "/mandate/parent");
        let above = self.all.iter().find(|record| {
            is_about_mandate(record, parent) && text(record, "/mandate/event") == "opened" && parent != id
        });
        match above {
            Some(above) if !parent.is_empty() => node.children.extend(self.mandate_of(above)),
            _ if !parent.is_empty() => node.children.push(Node::plain("mandate", format!("{parent}, above it"))),
            _ => {}
        }
        Some(node)
    }

    fn mandate_event(&self, record: &Value) -> String {
        let (event, actor) = (text(record, "/mandate/event"), text(record, "/mandate/actor"));
        let mut said = format!("{} {event} by {actor}{}", self.time(record), self.place(record));
        for (name, what) in [("/mandate/agent", "for agent"), ("/mandate/subject", "acting for")] {
            let value = text(record, name);
            if !value.is_empty() {
                said.push_str(&format!(", {what} {value}"));
            }
        }
        if let Some(at) = record.pointer("/mandate/ends_at").and_then(Value::as_i64) {
            said.push_str(&format!(", ends by itself {}", self.second(at)));
        }
        if let Some(Value::Array(calls)) = record.pointer("/mandate/calls") {
            let counted =
                calls.iter().filter_map(|pair| Some(format!("{} {}", plain(pair.get(0)?), plain(pair.get(1)?))));
            said.push_str(&format!(", calls: {}", counted.collect::<Vec<_>>().join(", ")));
        }
        said
    }

    fn approval_events(&self, id: &str) -> Vec<Node> {
        let mut events = Vec::new();
        for record in self.all.iter().filter(|record| text(record, "/approval/id") == id) {
            let event = text(record, "/approval/event");
            let style = match event {
                "denied" | "refused" | "voided" | "standing_void" | "break_glass_opened" | "break_glass_used" => BAD,
                "requested" | "expired" => WARNING,
                _ => GOOD,
            };
            let gates = joined(record.pointer("/approval/gates"), "no gate");
            let mut said = format!("{} {event}{}", self.time(record), self.place(record));
            if event == "requested" {
                said.push_str(&format!(" by {}, gates {gates}", text(record, "/approval/requester")));
            }
            if let Some(Value::Array(approvers)) = record.pointer("/approval/approvers") {
                let named: Vec<String> = approvers.iter().map(approver).collect();
                said.push_str(&format!(" by {}", named.join(" and ")));
            }
            let detail = text(record, "/approval/detail");
            if !detail.is_empty() {
                said.push_str(&format!(": {detail}"));
            }
            events.push(Node::new("said", style, said));
        }
        events
    }

    /// What was done to something by its id: taken back, or operated on.
    fn others(&self, id: &str) -> Vec<Node> {
        let mut nodes = Vec::new();
        for record in self.all {
            if text(record, "/type") == "revocation" && text(record, "/revocation/value") == id {
                let lifted = record.pointer("/revocation/lifted").and_then(Value::as_bool).unwrap_or_default();
                let (style, what) = if lifted { (WARNING, "lifted") } else { (BAD, "taken back") };
                let note = text(record, "/revocation/note");
                let note = if note.is_empty() { String::new() } else { format!(": {note}") };
                let said = format!("{} {what} by {}{note}", self.time(record), text(record, "/revocation/actor"));
                nodes.push(Node::new("revoked", style, said));
            } else if text(record, "/type") == "admin" && text(record, "/admin/about").contains(id) {
                let said = format!(
                    "{} {} {} by {}",
                    self.time(record),
                    text(record, "/admin/operation"),
                    text(record, "/admin/outcome"),
                    text(record, "/admin/actor")
                );
                let detail = text(record, "/admin/detail");
                let detail = if detail.is_empty() { String::new() } else { format!(": {detail}") };
                nodes.push(Node::plain("admin", format!("{said}{detail}")));
            }
        }
        nodes
    }

    /// On which replica's record it stands, where these are of several.
    fn place(&self, record: &Value) -> String {
        let of = |record: &Value| text(record, "/replica").to_owned();
        let first = self.all.first().map(of).unwrap_or_default();
        let several = self.all.iter().any(|record| of(record) != first);
        if several { format!(" at replica {}", of(record)) } else { String::new() }
    }

    fn time(&self, record: &Value) -> String {
        let at = text(record, "/at").parse::<jiff::Timestamp>();
        at.map_or_else(
            |_| String::new(),
            |at| at.to_zoned_datetime(self.zone.clone()).strftime("%Y-%m-%d %H:%M:%S%.3f").to_string(),
        )
    }

    fn second(&self, at: i64) -> String {
        let at = jiff::Timestamp::from_second(at);
        at.map_or_else(
            |_| "never".to_owned(),
            |at| at.to_zoned_datetime(self.zone.clone()).strftime("%Y-%m-%d %H:%M:%S").to_string(),
        )
    }
}

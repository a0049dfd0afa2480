//! From the name or URI in a request to the one primitive that it means.
//!
//! Decides the order of routing and refuses what could mean two things. Invariant: unknown and ambiguous
//! are one refusal with the same bytes. Resolving a name is one hash lookup and no allocation.

use std::sync::Arc;

use super::compose::{Claim, naming_on};
use super::target::{Definition, Target};
use super::uri;
use super::view::{Item, Member, View};
use crate::ids::{Action, Endpoint, ServerId};
use crate::outcome::{Reason, Refusal};
use crate::wire::mcp::Kind;

/// What a request names, and what for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted<'a> {
    /// `tools/call`: the public name.
    Call(&'a str),
    /// `prompts/get`: the public name.
    Get(&'a str),
    /// `resources/read`: the URI.
    Read(&'a str),
    /// `resources/subscribe` or `subscriptions/listen`: the URI.
    Subscribe(&'a str),
    /// `completion/complete` with `ref/prompt`: the public name.
    CompletePrompt(&'a str),
    /// `completion/complete` with `ref/resource`: the URI or template.
    CompleteResource(&'a str),
}

impl Wanted<'_> {
    /// What is done to it.
    #[must_use]
    pub const fn action(self) -> Action {
        match self {
            Self::Call(_) => Action::Call,
            Self::Get(_) => Action::Get,
            Self::Read(_) => Action::Read,
            Self::Subscribe(_) => Action::Subscribe,
            Self::CompletePrompt(_) | Self::CompleteResource(_) => Action::Complete,
        }
    }
}

impl View {
    /// The one primitive that is meant.
    ///
    /// # Errors
    /// `target_unknown` where nothing or more than one thing is meant; `uri_refused` for a URI that could
    /// confuse a matcher, whether it exists or not.
    pub fn resolve(&self, wanted: Wanted<'_>) -> Result<Target, Refusal> {
        let target = match wanted {
            Wanted::Call(name) => self.named(Kind::Tool, name),
            Wanted::Get(name) | Wanted::CompletePrompt(name) => self.named(Kind::Prompt, name),
            Wanted::Read(uri) | Wanted::Subscribe(uri) => self.resource(uri)?,
            Wanted::CompleteResource(reference) => match self.named(Kind::ResourceTemplate, reference) {
                Some(target) => Some(target),
                None => self.resource(reference)?,
            },
        };
        let mut target = target.ok_or_else(unknown)?;
        target.action = wanted.action();
        Ok(target)
    }

    /// What a server lists under the name that is wanted, and nobody has accepted; for the record. To whoever asked it is
    /// not there.
    #[must_use]
    pub fn withheld(&self, wanted: Wanted<'_>) -> Option<Target> {
        let (kind, name) = match wanted {
            Wanted::Call(name) => (Kind::Tool, name),
            Wanted::Get(name) | Wanted::CompletePrompt(name) => (Kind::Prompt, name),
            Wanted::CompleteResource(name) => (Kind::ResourceTemplate, name),
            Wanted::Read(_) | Wanted::Subscribe(_) => return None,
        };
        self.listed().find_map(|(member, slice)| {
            let definition = slice.withheld(kind, name, naming_on(&self.endpoint, &member.server))?;
            Some(routed(member, wanted.action(), &definition.name, Some(Arc::clone(definition))))
        })
    }

    /// The server itself, for actions that are about no primitive: `elicit`, `sample`, `roots`, `method:NAME`.
    ///
    /// # Errors
    /// `target_unknown` where the server is not part of this view.
    pub fn on_server(&self, server: &ServerId, action: Action) -> Result<Target, Refusal> {
        let member = self.members.iter().find(|member| member.server.id == *server).ok_or_else(unknown)?;
        Ok(routed(member, action, "", None))
    }

    fn named(&self, kind: Kind, name: &str) -> Option<Target> {
        self.place(kind, name).flatten().map(Item::target).cloned()
    }

    fn resource(&self, uri: &str) -> Result<Option<Target>, Refusal> {
        if uri::is_confusing(uri) {
            return Err(Refusal::new(Reason::UriRefused));
        }
        // Exactly one lists it, or several do: then no later rule may pick one of them, except for the
        // administrator's word.
        let listed = self.place(Kind::Resource, uri);
        if let Some(Some(item)) = listed {
            return Ok(Some(item.target().clone()));
        }
        if let Endpoint::Server(_) = self.endpoint {
            let member = self.members.first();
            return Ok(member.map(|member| routed(member, Action::Read, uri, self.template(uri).map(|(_, of)| of))));
        }
        let owner = match Claim::on(&self.config, &self.members, uri) {
            Some(claim) => claim
                .member()
                .map(|owner| (owner, self.template(uri).filter(|(member, _)| *member == owner).map(|(_, of)| of))),
            None if listed.is_some() => None,
            None => match self.ui.get(uri) {
                Some(owner) => owner.map(|owner| (owner, None)),
                None => self.template(uri).map(|(owner, definition)| (owner, Some(definition))),
            },
        };
        Ok(owner.and_then(|(owner, definition)| {
            self.members.get(owner).map(|member| routed(member, Action::Read, uri, definition))
        }))
    }

    /// The one member whose template expands to a URI, and its first template that does.
    fn template(&self, uri: &str) -> Option<(usize, Arc<Definition>)> {
        let mut found: Option<(usize, &Arc<Definition>)> = None;
        for routed in self.templates.iter().filter(|routed| routed.template.matches(uri)) {
            match found {
                None => found = Some((routed.member, &routed.definition)),
                Some((member, _)) if member == routed.member => {}
                Some(_) => return None,
            }
        }
        found.map(|(member, definition)| (member, Arc::clone(definition)))
    }
}

fn routed(member: &Member, action: Action, name: &str, definition: Option<Arc<Definition>>) -> Target {
    Target { server: Arc::clone(&member.server), action, name: Arc::from(name), definition }
}

fn unknown() -> Refusal {
    Refusal::new(Reason::TargetUnknown)
}

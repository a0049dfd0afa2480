//! What a request asks for, and the request that goes upstream for it.
//!
//! Decides which parameters route, and which are changed on the way: the name becomes the upstream's,
//! our own `_meta` goes, the client's capabilities become what this server may use of them, and of a retry
//! only the answers and the server's own state go on. Everything else keeps its bytes. Refuses to know who
//! asks.

use std::borrow::Cow;
use std::sync::{Arc, LazyLock};

mod intent;

use super::Request;
use super::retry::Retry;
use super::task::Augmented;
use crate::catalog::{Target, Wanted, uri};
use crate::delegate::Leg;
use crate::gateway::Gateway;
use crate::guard::Cleared;
use crate::ids::Action;
use crate::inversion::{self, Control};
use crate::outcome::{Reason, Refusal};
use crate::record::declared::Declared;
use crate::record::hidden::Hidden;
use crate::wire::mcp::{Era, Method, Version, meta};
use crate::wire::{Edit, Json, Object, Outgoing, Value};

static MODERN: LazyLock<Json> = LazyLock::new(|| Json::of(Version::V2026_07_28.as_str()));

/// The parameters of a call that persons can be shown, or that are the protocol's own.
const SHOWN: [&str; 7] = ["name", "uri", "arguments", "inputResponses", "requestState", "task", "_meta"];
/// What the gateway itself says beside them.
const SHOWN_META: [&str; 4] = [meta::PROTOCOL_VERSION, meta::CLIENT_CAPABILITIES, meta::CLIENT_INFO, meta::LOG_LEVEL];

/// What a request asks for.
pub struct Asked<'a> {
    action: Action,
    /// To what, as the client spells it: a public name or a URI.
    pub name: Cow<'a, str>,
    /// With which arguments: an object, or nothing.
    pub arguments: Option<Value<'a>>,
    params: Object<'a>,
    method: Method,
}

impl<'a> Asked<'a> {
    /// Reads the routing fields of a request.
    ///
    /// # Errors
    /// `parameters_invalid`, naming the parameter.
    pub fn read(request: &'a Request) -> Result<Self, Refusal> {
        let params = request.message.params().ok_or_else(|| missing("params"))?;
        let text = |value: Option<Value<'a>>, name: &'static str| {
            value.and_then(Value::as_str).filter(|text| !text.is_empty()).ok_or_else(|| missing(name))
        };
        let (action, name) = match request.method {
            Method::CallTool => (Action::Call, text(params.get("name"), "name")?),
            Method::GetPrompt => (Action::Get, text(params.get("name"), "name")?),
            Method::ReadResource => (Action::Read, text(params.get("uri"), "uri")?),
            Method::Complete => {
                let reference = params.get("ref").and_then(Value::as_object).ok_or_else(|| missing("ref"))?;
                let key = if is_prompt(reference) { "name" } else { "uri" };
                (Action::Complete, text(reference.get(key), "ref")?)
            }
            Method::Extension => (Action::Method(request.message.method().into()), Cow::Borrowed("")),
            _ => return Err(Refusal::new(Reason::MethodUnknown)),
        };
        if request.method == Method::Extension {
            // Nobody here knows which of its parameters are arguments, so a condition on one does not hold.
            return Ok(Self { action, name, arguments: None, params, method: request.method });
        }
        let member = if request.method == Method::Complete { "argument" } else { "arguments" };
        let arguments = params.get(member).filter(|value| !value.is_null());
        if arguments.is_some_and(|value| value.as_object().is_none()) {
            return Err(missing(member));
        }
        // Before anything is looked up, so that a server that is hidden refuses the same URIs as one that is not there.
        let is_uri = match request.method {
            Method::ReadResource => true,
            Method::Complete => !params.get("ref").and_then(Value::as_object).is_some_and(is_prompt),
            _ => false,
        };
        if is_uri && uri::is_confusing(&name) {
            return Err(Refusal::new(Reason::UriRefused));
        }
        Ok(Self { action, name, arguments, params, method: request.method })
    }

    /// What the catalog is asked for.
    #[must_use]
    pub fn wanted(&self) -> Wanted<'_> {
        let name = self.name.as_ref();
        match self.action {
            Action::Get => Wanted::Get(name),
            Action::Read => Wanted::Read(name),
            Action::Complete if self.params.get("ref").and_then(Value::as_object).is_some_and(is_prompt) => {
                Wanted::CompletePrompt(name)
            }
            Action::Complete => Wanted::CompleteResource(name),
            _ => Wanted::Call(name),
        }
    }

    /// What its client declares that it is for, as long as nobody knows where it goes: without whatever the record leaves
    /// out of anybody's arguments.
    ///
    /// # Errors
    /// `parameters_invalid`.
    pub fn declared(&self, request: &Request, gateway: &Gateway) -> Result<Option<Arc<Declared>>, Refusal> {
        self.declared_without(request, |arguments| Hidden::named(gateway.config().record.redact.iter(), arguments))
    }

    /// The same for this target: without what the record leaves out of its arguments. Nothing is read again where nothing was
    /// declared.
    ///
    /// # Errors
    /// As [`Self::declared`].
    pub fn declared_to(
        &self,
        request: &Request,
        target: &Target,
        declared: Option<&Arc<Declared>>,
    ) -> Result<Option<Arc<Declared>>, Refusal> {
        match declared {
            Some(_) => self
                .declared_without(request, |arguments| Hidden::of(&target.server().redact, target.name(), arguments)),
            None => Ok(None),
        }
    }

    fn declared_without(
        &self,
        request: &Request,
        hidden: impl FnOnce(Option<&Json>) -> Option<Box<Hidden>>,
    ) -> Result<Option<Arc<Declared>>, Refusal> {
        let Some(declared) = intent::read(self.params)? else { return Ok(None) };
        let arguments = self.arguments.map(|arguments| request.message.cut(arguments));
        Ok(Some(Arc::new(match hidden(arguments.as_ref()) {
            Some(hidden) => declared.without(&hidden),
            None => declared,
        })))
    }

    /// Checks after authorization what the tool asks for beside its arguments: what the call is for, where that has to be
    /// said and was not when it began, and the mirrored parameters of a modern client.
    ///
    /// # Errors
    /// `intent_required`; `header_mismatch`.
    pub fn check(&self, target: &Target, request: &Request, (leg, has_begun): (&Leg, bool)) -> Result<(), Refusal> {
        let purpose = leg.declared.as_ref().and_then(|declared| declared.purpose.as_ref());
        if purpose.is_none() && !has_begun && is_intent_required(target) && !inversion::is_off(Control::Purpose) {
            return Err(Refusal::new(Reason::IntentRequired));
        }
        self.check_headers(target, request)
    }

    fn check_headers(&self, target: &Target, request: &Request) -> Result<(), Refusal> {
        let Some(definition) = target.definition() else { return Ok(()) };
        // A legacy client mirrors nothing; what goes upstream is computed from its arguments.
        if request.client.version.era() == Era::Legacy {
            return Ok(());
        }
        let headers = &request.header_parameters;
        for parameter in &definition.header_parameters {
            let name = header_name(&parameter.header);
            let sent = headers.iter().find(|(header, _)| *header == name).map(|(_, value)| value.as_str());
            let equal = match (self.argument(&parameter.path), sent) {
                (None, None) => true,
                (Some(argument), Some(sent)) => header_equals(argument, sent),
                _ => false,
            };
            if !equal {
                let hint = format!("send {name} equal to its argument, and only if the argument is present");
                return Err(Refusal::new(Reason::HeaderMismatch).hint(hint));
            }
        }
        Ok(())
    }

    /// The parameters.
    pub const fn params(&self) -> Object<'a> {
        self.params
    }

    /// The request that goes upstream; `capabilities` is what it declares there.
    #[must_use]
    pub fn outgoing(
        &self,
        request: &Request,
        target: &Target,
        capabilities: Json,
        augmented: Augmented,
        retry: Option<&Retry>,
        answers: Option<&Json>,
    ) -> Outgoing {
        let own_meta = self.params.get("_meta").and_then(Value::as_object);
        let mut meta_edits = vec![
            Edit::Set(meta::CLIENT_CAPABILITIES, capabilities),
            Edit::Remove(meta::PROGRESS_TOKEN),
            // As most servers speak it; the adapter takes it out again for the others.
            Edit::Set(meta::PROTOCOL_VERSION, MODERN.clone()),
            Edit::RemovePrefix(meta::OWN_PREFIX),
        ];
        if let Some(info) = &request.client.info {
            meta_edits.push(Edit::Set(meta::CLIENT_INFO, info.clone()));
        }
        if let Some(level) = &request.client.log_level {
            meta_edits.push(Edit::Set(meta::LOG_LEVEL, level.clone()));
        }
        let empty = empty_object();
        let meta =
            own_meta.or_else(|| empty.value().as_object()).map_or(empty.clone(), |meta| meta.edited(&meta_edits));
        let mut edits = vec![Edit::Set("_meta", meta)];
        edits.extend(augmented.edit());
        let answers = answers.filter(|_| self.params.get("inputResponses").is_some());
        let inner = retry.and_then(Retry::inner).map(Json::of);
        for (name, value) in [("inputResponses", answers.cloned()), ("requestState", inner)] {
            edits.push(value.map_or(Edit::Remove(name), |value| Edit::Set(name, value)));
        }
        let key = if self.method == Method::ReadResource { "uri" } else { "name" };
        if self.method == Method::Complete {
            if let Some(reference) = self.params.get("ref").and_then(Value::as_object) {
                let key = if is_prompt(reference) { "name" } else { "uri" };
                edits.push(Edit::Set("ref", reference.edited(&[Edit::Set(key, Json::of(target.name()))])));
            }
        } else if self.name != target.name() {
            edits.push(Edit::Set(key, Json::of(target.name())));
        }
        Outgoing {
            method: request.message.method().into_owned(),
            params: self.params.edited(&edits),
            name: self.method.name_parameter().is_some().then(|| target.name().to_owned()),
            header_parameters: self.header_parameters(target),
            headers: forwarded(&request.headers, &target.server().forward_headers),
            progress_token: own_meta
                .and_then(|meta| meta.get(meta::PROGRESS_TOKEN))
                .map(|token| request.message.cut(token)),
            last_words: request.last_words.clone(),
            process: None,
        }
    }

    fn header_parameters(&self, target: &Target) -> Vec<(String, String)> {
        let Some(definition) = target.definition() else { return Vec::new() };
        definition
            .header_parameters
            .iter()
            .filter_map(|parameter| {
                let argument = self.argument(&parameter.path)?;
                let value = argument.as_str().map_or_else(|| argument.raw().to_owned(), Cow::into_owned);
                Some((header_name(&parameter.header), value))
            })
            .collect()
    }

    fn argument(&self, path: &[String]) -> Option<Value<'a>> {
        path.iter()
            .try_fold(self.arguments?, |value, name| value.as_object()?.get(name))
            .filter(|value| !value.is_null())
    }
}

/// What goes out with a call that was cleared. Why its client cancels is text that comes after the decision: it stays here
/// where something about this call hung on what it says.
#[must_use]
pub fn as_cleared(outgoing: Outgoing, cleared: &Cleared) -> Outgoing {
    let outgoing = if cleared.approval().is_some() { as_shown(outgoing) } else { outgoing };
    Outgoing { last_words: outgoing.last_words.clone().filter(|_| !cleared.hangs_on_words()), ..outgoing }
}

/// What goes out with a call that persons have said yes to: what they were shown, what its server asked since, and what the
/// gateway itself says. Nothing that only its client has written.
#[must_use]
pub fn as_shown(outgoing: Outgoing) -> Outgoing {
    let outgoing = Outgoing { headers: Vec::new(), last_words: None, ..outgoing };
    let Some(params) = outgoing.params.value().as_object() else { return outgoing };
    let others = |object: Object<'_>, known: &[&str]| -> Vec<String> {
        let names = object.members().map(|(name, _)| name.into_owned());
        names.filter(|name| !known.contains(&name.as_str())).collect()
    };
    let meta = params.get("_meta").and_then(Value::as_object).map(|meta| {
        let others = others(meta, &SHOWN_META);
        meta.edited(&others.iter().map(|name| Edit::Remove(name)).collect::<Vec<_>>())
    });
    let others = others(params, &SHOWN);
    let mut edits: Vec<_> = others.iter().map(|name| Edit::Remove(name)).collect();
    edits.extend(meta.map(|meta| Edit::Set("_meta", meta)));
    let params = params.edited(&edits);
    Outgoing { params, ..outgoing }
}

fn is_intent_required(target: &Target) -> bool {
    let named = || target.server().intent_required.iter().any(|name| name == "*" || name == target.name());
    *target.action() == Action::Call && named()
}

fn is_prompt(reference: Object<'_>) -> bool {
    reference.get("type").and_then(Value::as_str).as_deref() == Some("ref/prompt")
}

fn missing(parameter: &'static str) -> Refusal {
    Refusal::new(Reason::ParametersInvalid).hint(format!("the parameter `{parameter}` is missing or of the wrong type"))
}

fn empty_object() -> Json {
    Json::of(&serde_json::Map::new())
}

fn header_name(annotation: &str) -> String {
    format!("{}{}", crate::wire::mcp::header::PARAMETER_PREFIX, annotation.to_ascii_lowercase())
}

/// Strings are compared as they are, integers as numbers, booleans by their word.
fn header_equals(argument: Value<'_>, sent: &str) -> bool {
    match (argument.as_str(), argument.as_i64()) {
        (Some(text), _) => text == sent,
        (None, Some(number)) => sent.parse() == Ok(number),
        (None, None) => argument.raw() == sent,
    }
}

fn forwarded(headers: &[(String, String)], allowed: &[String]) -> Vec<(String, String)> {
    headers.iter().filter(|(name, _)| allowed.contains(name)).cloned().collect()
}

//! The gateway's own tools: opening, completing and looking at mandates, for agents that have no other client.
//!
//! Decides who is shown them: whoever the rules let open a mandate, and agents that one could be opened for. Refuses to
//! know what a mandate says. Invariants: each is a call with an intent on the record before anything happens; to whoever
//! is not shown a tool it does not exist.

use std::sync::{Arc, LazyLock};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde::Deserialize;
use serde_json::json;

use super::Request;
use super::Trail;
use crate::delegate::{Leg, attempt};
use crate::gateway::mandates::{MandateStatus, Opener};
use crate::gateway::{Gateway, Snapshot};
use crate::guard::mandate::{Held, Wish};
use crate::guard::{Reservations, approval};
use crate::identity::Caller;
use crate::ids::{Action, Endpoint, MandateId, ServerId};
use crate::outcome::{Outcome, Reason, Refusal, Stop};
use crate::policy::{Class, GATEWAY_ENVIRONMENT, GATEWAY_SERVER};
use crate::record::event::CredentialNote;
use crate::record::{Evidence, Intent, Journal};
use crate::wire::mcp::Method;
use crate::wire::{Json, Outgoing, Value};

/// One of the gateway's own tools.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnTool {
    /// Opens a mandate.
    Open,
    /// Completes one.
    Complete,
    /// Tells of one.
    Status,
}

impl OwnTool {
    const ALL: [Self; 3] = [Self::Open, Self::Complete, Self::Status];

    /// Its public name; no server can have one that begins like this.
    const fn public_name(self) -> &'static str {
        match self {
            Self::Open => "bailiwick__mandate_open",
            Self::Complete => "bailiwick__mandate_complete",
            Self::Status => "bailiwick__mandate_status",
        }
    }

    /// Its name as the record has it.
    const fn name(self) -> &'static str {
        match self {
            Self::Open => "mandate_open",
            Self::Complete => "mandate_complete",
            Self::Status => "mandate_status",
        }
    }

    fn definition(self) -> &'static Json {
        match self {
            Self::Open => &OPEN,
            Self::Complete => &COMPLETE,
            Self::Status => &STATUS,
        }
    }
}

static OPEN: LazyLock<Json> = LazyLock::new(|| {
    let names = json!({ "type": "array", "items": { "type": "string" } });
    Json::of(&json!({
        "name": OwnTool::Open.public_name(),
        "title": "Open a mandate",
        "description": "Opens a mandate from a template: a task with its own tools, time and budget. Send the handle that \
                        this answers as `dev.bailiwick/mandate` in `_meta`, or as the header `Bailiwick-Mandate`, with \
                        each call of the task. Everything but the template is optional and can only narrow it.",
        "inputSchema": {
            "type": "object",
            "properties": {
                "template": { "type": "string", "description": "the template's name" },
                "agent": { "type": "string", "description": "the agent that it is for; your own by default" },
                "client": { "type": "string", "description": "which client of that agent, where it has several" },
                "subject": { "type": "string", "description": "for whom that agent acts: user:ISSUER/SUB" },
                "tools": names, "conditions": names, "environments": names,
                "seconds": { "type": "integer", "minimum": 1 },
                "budget": {
                    "type": "object",
                    "properties": {
                        "calls": { "type": "integer", "minimum": 1 },
                        "calls_per_minute": { "type": "integer", "minimum": 1 },
                        "bytes": { "type": "integer", "minimum": 1 }
                    },
                    "additionalProperties": false
                },
                "purpose": { "type": "string", "description": "what it is for; on the record as declared" },
                "isolate": { "type": "boolean" }
            },
            "required": ["template"],
            "additionalProperties": false
        }
    }))
});

static COMPLETE: LazyLock<Json> = LazyLock::new(|| {
    about_one(
        OwnTool::Complete,
        "Complete a mandate",
        "Ends a mandate: what is under way under it is cut off, and nothing more is called under it.",
    )
});

static STATUS: LazyLock<Json> = LazyLock::new(|| {
    about_one(OwnTool::Status, "Look at a mandate", "Tells whether a mandate is active, and what is left of it.")
});

fn about_one(tool: OwnTool, title: &str, description: &str) -> Json {
    Json::of(&json!({
        "name": tool.public_name(),
        "title": title,
        "description": format!("{description} Without `id` it is the one whose handle comes with the call."),
        "inputSchema": {
            "type": "object",
            "properties": { "id": { "type": "string", "description": "the mandate's id" } },
            "additionalProperties": false
        }
    }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct One {
    #[serde(default)]
    id: Option<MandateId>,
}

/// The tool of ours that a request calls.
pub fn named(request: &Request) -> Option<OwnTool> {
    if request.method != Method::CallTool || request.endpoint != Endpoint::Merged {
        return None;
    }
    let name = request.message.params()?.get("name").and_then(Value::as_str)?;
    OwnTool::ALL.into_iter().find(|tool| tool.public_name() == name)
}

/// The definitions of ours that a caller of this class is shown.
pub fn shown(now: &Snapshot, class: &Class, caller: &Caller, endpoint: &Endpoint) -> Vec<&'static Json> {
    let shown = |tool: &OwnTool| is_shown(now, class, caller, *tool);
    let tools = OwnTool::ALL.into_iter().filter(|_| *endpoint == Endpoint::Merged);
    tools.filter(shown).map(OwnTool::definition).collect()
}

fn is_shown(now: &Snapshot, class: &Class, caller: &Caller, tool: OwnTool) -> bool {
    let opens = now.config.templates.keys().any(|name| now.policy.shows_mandate(class, name));
    let own = caller.persona().agent.as_ref();
    let given = || {
        let fits = |agent: &crate::identity::AgentFacts| {
            now.config.templates.values().any(|template| template.agents.contains(&agent.id))
        };
        own.is_some_and(fits)
    };
    opens || (tool != OwnTool::Open && given())
}

/// Calls one, door to door.
pub async fn call(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    request: &Request,
    tool: OwnTool,
    mut trail: Trail,
) -> Outcome {
    trail.name = Some(tool.name().to_owned());
    let outcome = match passed(gateway, caller, request, tool, &mut trail).await {
        Ok(outcome) => outcome,
        Err(stop) => {
            let mut attempt = attempt(caller, &trail.leg, None, trail.name.as_deref());
            attempt.mcp.server = Some(GATEWAY_SERVER);
            attempt.mandate = trail.mandate.as_ref().map(Held::facts);
            gateway.journal().stopped(&attempt, &stop);
            super::breaker::stopped(gateway, caller, trail.mandate.as_ref(), &stop);
            stop.into()
        }
    };
    trail.about(caller);
    trail.trace.end(|| super::traced::ended(&outcome));
    outcome
}

async fn passed(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    request: &Request,
    tool: OwnTool,
    trail: &mut Trail,
) -> Result<Outcome, Stop> {
    gateway.quotas().request(caller.principal())?;
    let now = gateway.snapshot();
    gateway.still_trusted(caller)?;
    let class = crate::list::class_of(&now, caller)?;
    if !is_shown(&now, &class, caller, tool) {
        return Err(Refusal::new(Reason::TargetUnknown).into());
    }
    let _slot = gateway.quotas().call(caller.principal())?;
    let arguments = request.message.params().and_then(|params| params.get("arguments"));
    let arguments = arguments.filter(|arguments| !arguments.is_null()).map(|value| request.message.cut(value));
    trail.mandate = gateway.mandate(caller, request.mandate.as_deref(), None).await?;
    let proof = OwnCall {
        gateway: Arc::clone(gateway),
        caller: caller.clone(),
        tool,
        leg: trail.leg.clone(),
        mandate: trail.mandate.clone(),
        arguments,
    };
    let outgoing = Outgoing {
        method: "tools/call".to_owned(),
        params: Json::of(&serde_json::Map::new()),
        name: None,
        header_parameters: Vec::new(),
        headers: Vec::new(),
        progress_token: None,
        last_words: None,
        process: None,
    };
    let entry = gateway.journal().open(proof, outgoing).await?;
    if caller.elevation().is_some() {
        let approvals = gateway.guard().approvals();
        approvals.alarm(caller, &entry.proof().place(), &gateway.config(), entry.call_id()).await;
    }
    let outcome = match entry.proof().done().await {
        Ok(result) => Outcome::Complete(told(&result)),
        Err(stop) => {
            super::breaker::stopped(gateway, caller, trail.mandate.as_ref(), &stop);
            stop.into()
        }
    };
    entry.close(&outcome);
    Ok(outcome)
}

/// The proof that a call of ours may be made: its intent is sealed with it.
struct OwnCall {
    gateway: Arc<Gateway>,
    caller: Caller,
    tool: OwnTool,
    leg: Leg,
    mandate: Option<Held>,
    arguments: Option<Json>,
}

impl OwnCall {
    fn place(&self) -> approval::Place<'static> {
        let action = Action::Call.to_string();
        approval::Place { server: GATEWAY_SERVER, name: self.tool.name(), environment: GATEWAY_ENVIRONMENT, action }
    }

    async fn done(&self) -> Result<serde_json::Value, Stop> {
        let Self { gateway, caller, .. } = self;
        match self.tool {
            OwnTool::Open => {
                let wish: Wish = self.read()?;
                let opened = gateway.open_mandate(caller, Opener::Caller, &wish, self.mandate.as_ref()).await?;
                Ok(json!({
                    "id": opened.mandate.id,
                    "handle": opened.handle,
                    "template": opened.mandate.template,
                    "agent": opened.mandate.agent,
                    "expires_at": moment(opened.mandate.ends_us),
                    "budget": opened.mandate.budget,
                }))
            }
            OwnTool::Complete => {
                let id = self.meant().await?;
                let persona = caller.persona();
                let by = persona
                    .user
                    .as_ref()
                    .map(ToString::to_string)
                    .or_else(|| persona.agent.as_ref().map(|agent| format!("agent:{}", agent.id)));
                Ok(status(&gateway.complete_mandate(&id, &by.unwrap_or_default()).await?))
            }
            OwnTool::Status => Ok(status(&gateway.mandate_status(&self.meant().await?).await?)),
        }
    }

    /// Which one it is about: what only its holder and its opener can name.
    async fn meant(&self) -> Result<MandateId, Stop> {
        let One { id } = self.read()?;
        match (id, &self.mandate) {
            (Some(id), _) => {
                let status = self.gateway.mandate_status(&id).await?;
                let own = self.caller.principal().0;
                let theirs = status.mandate.holder == own || status.mandate.opener_key == Some(own);
                if theirs { Ok(id) } else { Err(Refusal::new(Reason::MandateUnknown).into()) }
            }
            (None, Some(held)) => Ok(held.mandate().id.clone()),
            (None, None) => {
                Err(Refusal::new(Reason::ParametersInvalid).hint("name the mandate: send its handle, or its id").into())
            }
        }
    }

    fn read<T: serde::de::DeserializeOwned>(&self) -> Result<T, Refusal> {
        let text = self.arguments.as_ref().map_or("{}", Json::as_str);
        serde_json::from_str(text)
            .map_err(|error| Refusal::new(Reason::ParametersInvalid).hint(format!("the arguments do not fit: {error}")))
    }
}

impl Evidence for OwnCall {
    fn recheck(&self) -> Result<(), Refusal> {
        self.gateway.standing().current().map_err(|failure| Refusal::new(failure.reason).hint(failure.detail))?;
        self.gateway.still_trusted(&self.caller)
    }

    fn consume(&self) -> Option<BoxFuture<'_, Result<(), Stop>>> {
        let mut reservations = Reservations::none(Arc::new(self.gateway.store().clone()));
        approval::reserve_emergency(&self.caller, &mut reservations);
        reservations.is_any().then(|| async move { reservations.consume(Vec::new()).await.map(drop) }.boxed())
    }

    fn consumed(&self, journal: &Journal) {
        if self.caller.elevation().is_some() {
            approval::tell_emergency(journal, &self.caller, &self.place(), (self.leg.call, self.leg.leg));
        }
    }

    fn intent(&self) -> Intent<'_> {
        let mut attempt = attempt(&self.caller, &self.leg, None, Some(self.tool.name()));
        (attempt.mcp.server, attempt.mcp.environment) = (Some(GATEWAY_SERVER), Some(GATEWAY_ENVIRONMENT));
        attempt.revision = Some(self.gateway.snapshot().policy.revision());
        attempt.mandate = self.mandate.as_ref().map(Held::facts);
        Intent {
            approval: None,
            attempt,
            rule: None,
            credential: CredentialNote { kind: "none", ..CredentialNote::default() },
            arguments: self.arguments.as_ref().map(|arguments| arguments.as_bytes().as_ref()),
            values: &[],
            labels: None,
        }
    }

    fn server(&self) -> Option<&ServerId> {
        None
    }
}

fn status(status: &MandateStatus) -> serde_json::Value {
    json!({
        "id": status.mandate.id,
        "state": status.state,
        "template": status.mandate.template,
        "expires_at": moment(status.mandate.ends_us),
        "budget": status.mandate.budget,
        "left": status.left,
        "calls": status.calls.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
    })
}

fn moment(us: i64) -> Option<jiff::Timestamp> {
    jiff::Timestamp::from_microsecond(us).ok()
}

fn told(result: &serde_json::Value) -> Json {
    Json::of(&json!({
        "resultType": "complete",
        "content": [{ "type": "text", "text": result.to_string() }],
        "structuredContent": result,
    }))
}

//! What administrators ask about definitions, and how the answer is put.
//!
//! Decides which orders make sense. Refuses to know which definitions there are. Invariant: an order names digests, so
//! that what is accepted is what whoever accepts it was shown.

use axum::Json;
use axum::response::IntoResponse as _;

use super::desk::{Done, Order, Understood};
use super::handlers::{json, query};
use crate::gateway::pins::{NamedPin, PinOrder};
use crate::ids::{DefinitionDigest, Digest, PinKind};
use crate::limit;
use crate::outcome::Reason;
use crate::outcome::Refusal;
use crate::policy::Weight;
use crate::record::redact;

type Taken = Result<Understood, Refusal>;

/// `GET /pins`.
pub(super) fn pins(order: Order) -> Taken {
    let Order { operations, .. } = order;
    let act = async move { Ok(Done::with(Json(operations.pins().await?).into_response())) };
    Ok(Understood { weight: Weight::Look, about: String::new(), act: Box::pin(act) })
}

/// `GET /pins/diff`.
pub(super) fn diff(order: Order) -> Taken {
    let [server, name, kind, digest] = query(&order, ["server", "name", "kind", "digest"])?;
    let invalid = |hint: &'static str| Refusal::new(Reason::ParametersInvalid).hint(hint);
    let (Some(server), Some(name)) = (server, name) else {
        return Err(invalid("name the definition: ?server=SERVER&name=NAME"));
    };
    let kind = match kind {
        Some(kind) => {
            Some(PinKind::parse(&kind).ok_or_else(|| invalid("kind is tool, prompt, template or instructions"))?)
        }
        None => None,
    };
    let digest = match digest {
        Some(digest) => {
            let read = Digest::from_hex(&digest).map(DefinitionDigest);
            Some(read.ok_or_else(|| invalid("digest is 64 lower-case hexadecimal digits"))?)
        }
        None => None,
    };
    let Order { operations, .. } = order;
    let about = format!("what changes with {server}/{name}");
    let act = async move {
        let named = NamedPin { server, name, kind, digest };
        Ok(Done::with(Json(operations.pin_diffs(named).await?).into_response()))
    };
    Ok(Understood { weight: Weight::Look, about, act: Box::pin(act) })
}

/// `GET /pins/export`.
pub(super) fn export(order: Order) -> Taken {
    let Order { operations, .. } = order;
    let act = async move { Ok(Done::with(Json(operations.pin_lock()).into_response())) };
    Ok(Understood { weight: Weight::Look, about: "pins.lock".to_owned(), act: Box::pin(act) })
}

/// `POST /pins/accept`.
pub(super) fn accept(order: Order) -> Taken {
    pin(order, true)
}

/// `POST /pins/reject`.
pub(super) fn reject(order: Order) -> Taken {
    pin(order, false)
}

fn pin(order: Order, accept: bool) -> Taken {
    let mut asked: PinOrder = json(&order)?;
    let invalid = |hint: String| Refusal::new(Reason::ParametersInvalid).hint(hint);
    if asked.pins.is_empty() || asked.pins.len() > limit::PINS_ORDERED_MAX {
        return Err(invalid(format!("name one to {} digests", limit::PINS_ORDERED_MAX)));
    }
    asked.note = redact::text(&asked.note).into_owned();
    let digests: Vec<String> = asked.pins.iter().take(5).map(|digest| digest.0.short()).collect();
    let more = asked.pins.len().saturating_sub(digests.len());
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    let about = format!("{} of {}{more}", digests.join(" "), asked.server);
    let Order { operations, actor, .. } = order;
    let act = async move {
        let changed = operations.pin(asked, accept, actor.name()).await?;
        Ok(Done { detail: format!("{} definitions", changed.changed), ..Done::with(Json(changed).into_response()) })
    };
    let weight = if accept { Weight::Loosen } else { Weight::Brake };
    Ok(Understood { weight, about, act: Box::pin(act) })
}

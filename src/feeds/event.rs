//! What security events take back: those of CAEP and RISC that mean that somebody may do less.
//!
//! Decides after the token was verified. Invariants: an event that says that somebody may do more takes nothing back and
//! gives nothing back; one that is not known is told and has no effect.

use serde_json::Value;

use super::order::Order;
use super::taken::Begun;
use super::{Feeds, subject};
use crate::config::FeedConfig;
use crate::identity::statement::{Statement, StatementKind};
use crate::ids::Digest;
use crate::limit;
use crate::outcome::{Failure, Reason, Refusal, Stop};

const CAEP: &str = "https://schemas.openid.net/secevent/caep/event-type/";
const RISC: &str = "https://schemas.openid.net/secevent/risc/event-type/";
const SSF: &str = "https://schemas.openid.net/secevent/ssf/event-type/";

/// What an event means.
#[derive(Debug, PartialEq, Eq)]
enum Meaning {
    /// The person or the session has to prove itself again.
    End,
    /// The person has left.
    Left,
    /// Nothing is taken back; why.
    Nothing(&'static str),
}

/// How a token was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// Whatever it takes back is durable.
    Now,
    /// It came before.
    Before,
}

impl Feeds {
    /// Takes one security event token; what it takes back is durable when this returns.
    pub(super) async fn take(&self, feed: &FeedConfig, text: &str) -> Result<(Taken, String), Stop> {
        let taken = self.take_known(feed, text).await;
        if let Err(stop) = &taken {
            // Whoever sends it has proven that they may: what is wrong with it is no guess, and told once.
            let once = Digest::of("bailiwick/feed-refused/v1", &[feed.name.as_str().as_bytes(), text.as_bytes()]);
            if !matches!(stop, Stop::Refused(_)) || self.refused.entry(once).or_insert(()).is_fresh() {
                self.note(feed, "event", Some(stop), "").await;
            }
        }
        taken
    }

    async fn take_known(&self, feed: &FeedConfig, text: &str) -> Result<(Taken, String), Stop> {
        let statement = self.brake.statement(feed, StatementKind::Event, text, true).await?;
        let id = statement.id().to_owned();
        let taking = match self.events.begin(feed, &id) {
            Begun::Now(taking) => taking,
            Begun::Before => return Ok((Taken::Before, id)),
            Begun::UnderWay => return Err(under_way().into()),
        };
        let orders = self.orders(feed, &statement).await?;
        self.carry_out(feed, orders, statement.issued_at(), Some(taking)).await?;
        Ok((Taken::Now, id))
    }

    /// All of them are understood before the first has an effect.
    async fn orders(&self, feed: &FeedConfig, statement: &Statement) -> Result<Vec<(Order, String)>, Stop> {
        let mut orders = Vec::new();
        for (kind, event) in statement.events() {
            let order = match meaning(kind, event) {
                Meaning::Nothing(why) => {
                    self.note(feed, short(kind), None, why).await;
                    continue;
                }
                Meaning::End => {
                    let named = self.named(feed, statement)?;
                    Order::end(feed, named.subject.as_deref(), named.session.as_deref())
                }
                Meaning::Left => self.named(feed, statement)?.subject.map(Order::Left),
            };
            let nobody = || Refusal::new(Reason::FeedMessageInvalid).hint("the event names nobody");
            orders.push((order.ok_or_else(nobody)?, short(kind).to_owned()));
        }
        Ok(orders)
    }

    fn named(&self, feed: &FeedConfig, statement: &Statement) -> Result<subject::Named, Refusal> {
        let issuer = self.brake.issuer_of(feed).ok_or_else(|| Refusal::new(Reason::IssuerUnknown))?;
        subject::named(feed, &issuer, statement.subject_id())
    }
}

fn meaning(kind: &str, event: &Value) -> Meaning {
    let says = |member: &str, word: &str| event.get(member).and_then(Value::as_str) == Some(word);
    if let Some(kind) = kind.strip_prefix(CAEP) {
        return match kind {
            "assurance-level-change" if says("change_direction", "increase") => {
                Meaning::Nothing("more assurance gives nothing back by itself")
            }
            "device-compliance-change" if says("current_status", "compliant") => {
                Meaning::Nothing("a device that complies gives nothing back by itself")
            }
            "session-revoked"
            | "credential-change"
            | "token-claims-change"
            | "assurance-level-change"
            | "device-compliance-change" => Meaning::End,
            _ => Meaning::Nothing("an event of a kind that takes nothing back here"),
        };
    }
    match (kind.strip_prefix(RISC), kind.strip_prefix(SSF)) {
        (Some("account-disabled" | "account-purged"), _) => Meaning::Left,
        (Some("account-credential-change-required" | "credential-compromise" | "sessions-revoked"), _) => Meaning::End,
        (Some("account-enabled"), _) => Meaning::Nothing("a feed gives nothing back: that needs a person"),
        (_, Some("verification")) => Meaning::Nothing("the stream works"),
        (_, Some("stream-updated")) => Meaning::Nothing("the transmitter changed the stream"),
        _ => Meaning::Nothing("an event of a kind that takes nothing back here"),
    }
}

/// The same message is being carried out: whoever sends it again hears of its end then.
pub(super) fn under_way() -> Failure {
    Failure::before(Reason::StoreUnavailable, "the same message is being carried out: send it again in a moment")
}

/// The last part of an event's URI, for people.
fn short(kind: &str) -> &str {
    let name = kind.rsplit('/').next().unwrap_or_default();
    name.get(..name.len().min(limit::FEED_EVENT_SHOWN_BYTES_MAX)).unwrap_or("event")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_event_that_means_less_takes_something_back_and_no_other_does() {
        let of = |kind: &str, event: Value| meaning(kind, &event);
        for kind in ["session-revoked", "credential-change", "token-claims-change"] {
            assert_eq!(of(&format!("{CAEP}{kind}"), json!({})), Meaning::End, "{kind}");
        }
        let assurance = format!("{CAEP}assurance-level-change");
        assert_eq!(of(&assurance, json!({"change_direction": "decrease"})), Meaning::End);
        assert_eq!(of(&assurance, json!({})), Meaning::End, "what does not say that it is harmless is not");
        assert!(matches!(of(&assurance, json!({"change_direction": "increase"})), Meaning::Nothing(_)));
        let device = format!("{CAEP}device-compliance-change");
        assert_eq!(of(&device, json!({"current_status": "not-compliant"})), Meaning::End);
        assert_eq!(of(&device, json!({})), Meaning::End);
        assert!(matches!(of(&device, json!({"current_status": "compliant"})), Meaning::Nothing(_)));
        for kind in ["account-disabled", "account-purged"] {
            assert_eq!(of(&format!("{RISC}{kind}"), json!({})), Meaning::Left, "{kind}");
        }
        for kind in [
            format!("{RISC}account-enabled"),
            format!("{SSF}verification"),
            format!("{SSF}stream-updated"),
            format!("{CAEP}session-established"),
            "https://evil.example/session-revoked".to_owned(),
            "session-revoked".to_owned(),
        ] {
            assert!(matches!(of(&kind, json!({})), Meaning::Nothing(_)), "{kind}");
        }
        assert_eq!(short(&assurance), "assurance-level-change");
        let longest = "x".repeat(limit::FEED_EVENT_SHOWN_BYTES_MAX);
        assert_eq!(short(&format!("{longest}y")), longest);
        assert_eq!(short(&format!("x{}", "é".repeat(longest.len()))), "event", "never half a character");
    }
}

//! Labels as administrators see them, and take them off.
//!
//! Decides nothing: it puts what the guard keeps into words, and brings what was taken off into force. Refuses to know
//! doors. Invariant: whoever is told that a label is off is told so when this replica goes by it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Gateway;
use crate::config::Config;
use crate::guard::label::{Carrier, Declassification, Declassified, Origin};
pub use crate::guard::label::{CarrierKind, Wish};
use crate::identity::Caller;
use crate::ids::RevocationEpoch;
use crate::limit;
use crate::outcome::Stop;
use crate::policy::label::Seen;

/// `GET /labels`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabelsReport {
    /// Who carries labels, by kind and name.
    pub carriers: Vec<CarrierView>,
    /// Whether there are more of them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
    /// What waits for a second person.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting: Vec<DeclassificationView>,
}

/// Something that carries labels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CarrierView {
    /// A user with an agent, a mandate or a store.
    pub kind: CarrierKind,
    /// Its name: `user:ISSUER/SUB AGENT`, a mandate's id, or a store's name.
    pub name: String,
    /// Each label that it carries.
    pub labels: Vec<LabelView>,
    /// When it forgets by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// One label of a carrier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabelView {
    /// Which.
    pub label: String,
    /// Since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// The call that brought it first; nothing where a mandate began with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call: Option<String>,
    /// Whose call that was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// `POST /labels/declassify`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeclassifyOrder {
    /// Of which kind of carrier.
    pub kind: CarrierKind,
    /// The carrier.
    pub name: String,
    /// Which labels.
    pub labels: Vec<String>,
    /// Why.
    pub reason: String,
}

/// What was asked to be taken off, and waits for a second person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeclassificationView {
    /// Its name.
    pub id: String,
    /// Of which kind of carrier.
    pub kind: CarrierKind,
    /// The carrier.
    pub name: String,
    /// What the carrier carried when it was asked for.
    pub before: Vec<String>,
    /// What is to be taken off.
    pub labels: Vec<String>,
    /// Why.
    pub reason: String,
    /// Who asked.
    pub asked_by: String,
    /// When.
    pub asked_at: Timestamp,
    /// Until when somebody else can confirm it.
    pub until: Timestamp,
    /// The page of the console where that is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

/// `POST /labels/declassify/{id}/confirm`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeclassifiedView {
    /// Of which kind of carrier.
    pub kind: CarrierKind,
    /// The carrier.
    pub name: String,
    /// What it carried.
    pub before: Vec<String>,
    /// What it carries now.
    pub after: Vec<String>,
    /// Why.
    pub reason: String,
    /// Who asked.
    pub asked_by: String,
    /// The epoch that includes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<RevocationEpoch>,
}

impl DeclassifyOrder {
    /// What is wanted.
    ///
    /// # Errors
    /// A lower-case sentence: what is wrong with the order.
    pub fn wish(&self) -> Result<Wish, String> {
        let mut labels = Seen::NOTHING;
        for name in &self.labels {
            let label = Seen::named(name);
            labels =
                labels.with(label.ok_or_else(|| {
                    format!("`{name:.40}` is no label: write untrusted, internal, private or regulated")
                })?);
        }
        if !labels.is_any() {
            return Err("say which labels are to be taken off".to_owned());
        }
        let reason = self.reason.trim();
        if reason.is_empty() {
            return Err("say why: whoever confirms it, and whoever reads the record, will ask".to_owned());
        }
        if reason.len() > limit::DECLASSIFICATION_REASON_BYTES_MAX {
            let most = limit::DECLASSIFICATION_REASON_BYTES_MAX;
            return Err(format!("the reason is longer than {most} bytes"));
        }
        Ok(Wish { kind: self.kind, name: self.name.clone(), labels, reason: reason.to_owned() })
    }
}

impl Gateway {
    /// Who carries labels, and what waits for a second person.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn labels_report(&self, of: Option<&str>) -> Result<LabelsReport, Stop> {
        let labels = self.guard().labels();
        let (carriers, more) = labels.carriers(of).await?;
        let waiting = labels.declassifications().await?;
        Ok(LabelsReport {
            carriers: carriers.iter().map(carrier).collect(),
            more,
            waiting: waiting.iter().map(|waiting| asked(waiting, &self.config())).collect(),
        })
    }

    /// Asks for labels to be taken off.
    ///
    /// # Errors
    /// As [`crate::guard::label::Labels::ask`].
    pub async fn ask_declassify(&self, wish: &Wish, by: &Caller) -> Result<DeclassificationView, Stop> {
        self.standing().current()?;
        let now = self.snapshot();
        let waiting = self.guard().labels().ask(wish, by, (&now.config, &now.policy)).await?;
        Ok(asked(&waiting, &now.config))
    }

    /// Takes off what somebody else asked for: durable, and in force here.
    ///
    /// # Errors
    /// As [`crate::guard::label::Labels::confirm`].
    pub async fn confirm_declassify(&self, id: &str, by: &Caller) -> Result<DeclassifiedView, Stop> {
        // What a store acknowledges that went back is not kept.
        self.standing().believed()?;
        self.standing().current()?;
        let (now, revocations) = (self.snapshot(), &self.live.revocations);
        let done = self.guard().labels().confirm(id, by, (&now.config, &now.policy), revocations).await?;
        // What is remembered of labels is good for one epoch: it was one more than they are now.
        self.take_revocations().await?;
        Ok(declassified(&done))
    }

    /// Wants it no more.
    ///
    /// # Errors
    /// As [`crate::guard::label::Labels::withdraw`].
    pub async fn withdraw_declassify(&self, id: &str) -> Result<DeclassificationView, Stop> {
        Ok(asked(&self.guard().labels().withdraw(id).await?, &self.config()))
    }
}

impl LabelsReport {
    /// What cannot be found in a report is carried by nobody.
    #[must_use]
    pub fn carrier(&self, kind: CarrierKind, name: &str) -> Option<&CarrierView> {
        self.carriers.iter().find(|carrier| carrier.kind == kind && carrier.name == name)
    }
}

fn carrier(carrier: &Carrier) -> CarrierView {
    let label = |(label, origin): (&'static str, Option<&Origin>)| LabelView {
        label: label.to_owned(),
        since: origin.map(|origin| moment(origin.at_us)),
        call: origin.and_then(|origin| origin.call.clone()),
        by: origin.and_then(|origin| origin.by.as_ref()).map(|by| by.user.clone()),
    };
    CarrierView {
        kind: carrier.kind,
        name: carrier.name.clone(),
        labels: carrier.labels().map(label).collect(),
        until: carrier.until_us.map(moment),
    }
}

fn asked(asked: &Declassification, config: &Config) -> DeclassificationView {
    let console = config.admin.as_ref().filter(|admin| admin.console.is_some());
    DeclassificationView {
        id: asked.id.clone(),
        kind: asked.kind,
        name: asked.name.clone(),
        before: names(asked.before()),
        labels: names(asked.labels()),
        reason: asked.reason.clone(),
        asked_by: asked.asked_by().to_owned(),
        asked_at: moment(asked.asked_us()),
        until: moment(asked.until_us),
        url: console.map(|admin| format!("{}/labels", admin.resource())),
    }
}

fn declassified(done: &Declassified) -> DeclassifiedView {
    DeclassifiedView {
        kind: done.asked.kind,
        name: done.asked.name.clone(),
        before: names(done.before),
        after: names(done.after),
        reason: done.asked.reason.clone(),
        asked_by: done.asked.asked_by().to_owned(),
        epoch: done.epoch,
    }
}

fn names(seen: Seen) -> Vec<String> {
    seen.names().map(str::to_owned).collect()
}

fn moment(at_us: i64) -> Timestamp {
    Timestamp::from_microsecond(at_us).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_says_which_labels_and_why() {
        let order = |labels: &[&str], reason: &str| DeclassifyOrder {
            kind: CarrierKind::Store,
            name: "memory".to_owned(),
            labels: labels.iter().map(ToString::to_string).collect(),
            reason: reason.to_owned(),
        };
        let wish = order(&["private", "untrusted"], " it was test data ").wish().unwrap();
        assert_eq!((wish.labels, wish.reason.as_str()), (Seen::PRIVATE.with(Seen::UNTRUSTED), "it was test data"));
        let long = "x".repeat(limit::DECLASSIFICATION_REASON_BYTES_MAX);
        assert!(order(&["private"], &long).wish().is_ok());
        for refused in [
            order(&[], "why"),
            order(&["secret"], "why"),
            order(&["private"], "  "),
            order(&["private"], &format!("{long}x")),
        ] {
            assert!(refused.wish().is_err(), "{refused:?}");
        }
    }
}

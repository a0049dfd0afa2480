//! Who carries which labels, since when, and from which call.
//!
//! Decides how a carrier is named and read. Refuses to know who looks. Invariant: what is told is what the rows say at
//! this moment, and never what is remembered of them.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{CALLERS, Labels, MANDATED, Origin, STORES};
use crate::guard::Party;
use crate::guard::mandate::{MANDATES, Mandate};
use crate::limit;
use crate::outcome::Failure;
use crate::policy::label::Seen;
use crate::shelf::{Row, Section, Shelf, Version};

/// What ends the name of a caller's row.
const CALLER_END: &str = " -";

/// Whose labels they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CarrierKind {
    /// A user with an agent.
    Caller,
    /// A mandate.
    Mandate,
    /// A store that tools read from and write into.
    Store,
}

/// Something that carries labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carrier {
    /// Of which kind.
    pub kind: CarrierKind,
    /// Its name: `user:ISSUER/SUB AGENT`, a mandate's id, or a store's name.
    pub name: String,
    /// What it carries.
    pub seen: Seen,
    /// Where that came from, the oldest first.
    pub origins: Vec<Origin>,
    /// When it forgets by itself, microseconds since 1970.
    pub until_us: Option<i64>,
    pub(super) key: String,
    pub(super) body: String,
    pub(super) version: Version,
}

impl CarrierKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Caller, Self::Mandate, Self::Store];

    /// As orders and lists spell it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Caller => "caller",
            Self::Mandate => "mandate",
            Self::Store => "store",
        }
    }

    pub(super) const fn section(self) -> Section {
        match self {
            Self::Caller => CALLERS,
            Self::Mandate => MANDATED,
            Self::Store => STORES,
        }
    }
}

impl Carrier {
    fn of(kind: CarrierKind, row: Row) -> Self {
        let name = match kind {
            CarrierKind::Caller => row.key.strip_suffix(CALLER_END).unwrap_or(&row.key).to_owned(),
            CarrierKind::Mandate | CarrierKind::Store => row.key.clone(),
        };
        let (seen, origins) = (Seen::of_bits(row.number), Origin::all(&row.body));
        let Row { key, version, body, expires_at_us: until_us, .. } = row;
        Self { kind, name, seen, origins, until_us, key, body, version }
    }

    /// Since when, from which call and by whom it carries each of its labels.
    pub fn labels(&self) -> impl Iterator<Item = (&'static str, Option<&Origin>)> {
        self.seen.names().map(|name| {
            let label = Seen::named(name).unwrap_or_default();
            (name, Origin::first_of(&self.origins, label))
        })
    }

    /// Whether that text names it, or somebody who has a part in it.
    fn is_of(&self, text: &str) -> bool {
        self.name == text || self.name.split(' ').any(|part| part == text)
    }
}

impl Labels {
    /// Carriers by kind and name, only those that a text names where there is one; and whether there are more.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn carriers(&self, of: Option<&str>) -> Result<(Vec<Carrier>, bool), Failure> {
        let mut found = Vec::new();
        for kind in CarrierKind::ALL {
            let mut after: Option<String> = None;
            loop {
                let rows = self.shelf.rows(kind.section(), None, after.as_deref()).await?;
                let is_last = rows.len() < limit::SHELF_ROWS_READ_MAX;
                after = rows.last().map(|row| row.key.clone());
                let carriers = rows.into_iter().map(|row| Carrier::of(kind, row));
                let meant = |carrier: &Carrier| carrier.seen.is_any() && of.is_none_or(|text| carrier.is_of(text));
                found.extend(carriers.filter(meant));
                if found.len() > limit::LABELS_LISTED_MAX {
                    found.truncate(limit::LABELS_LISTED_MAX);
                    return Ok((found, true));
                }
                if is_last {
                    break;
                }
            }
        }
        Ok((found, false))
    }

    /// One of them, as it is now.
    pub(super) async fn carrier(&self, kind: CarrierKind, name: &str) -> Result<Option<Carrier>, Failure> {
        let shelf: &Arc<dyn Shelf> = &self.shelf;
        let row = match kind {
            CarrierKind::Caller => match shelf.row(CALLERS, &format!("{name}{CALLER_END}")).await? {
                // The name of a long one ends with its digest.
                None => shelf.row(CALLERS, name).await?,
                found => found,
            },
            CarrierKind::Mandate | CarrierKind::Store => shelf.row(kind.section(), name).await?,
        };
        Ok(row.map(|row| Carrier::of(kind, row)).filter(|carrier| carrier.seen.is_any()))
    }

    /// Whoever has a part in what a carrier has seen; nothing where that is not known of all of it.
    pub(super) async fn parties(&self, carrier: &Carrier) -> Result<Option<Vec<Party>>, Failure> {
        let known = carrier.origins.iter().map(Origin::brought).fold(Seen::NOTHING, Seen::with);
        let mut parties = Vec::new();
        for origin in &carrier.origins {
            let Some(party) = &origin.by else { return Ok(None) };
            if !parties.contains(party) {
                parties.push(party.clone());
            }
        }
        if carrier.seen.beyond(known).is_any() {
            return Ok(None);
        }
        if carrier.kind == CarrierKind::Mandate
            && let Some(row) = self.shelf.row(MANDATES, &carrier.key).await?
            && let Ok(mandate) = serde_json::from_str::<Mandate>(&row.body)
        {
            parties.push(mandate.opened_by.unwrap_or_else(|| Party::called(&mandate.opener)));
        }
        Ok(Some(parties))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_carrier_is_named_by_whoever_is_part_of_it() {
        let row = |key: &str| Row {
            key: key.to_owned(),
            version: Version(1),
            owner: String::new(),
            body: String::new(),
            number: Seen::PRIVATE.bits(),
            expires_at_us: None,
        };
        let caller = Carrier::of(CarrierKind::Caller, row("user:corp/alice bot -"));
        assert_eq!(caller.name, "user:corp/alice bot");
        for text in ["user:corp/alice", "bot", "user:corp/alice bot"] {
            assert!(caller.is_of(text), "{text}");
        }
        for text in ["user:corp/ali", "-", "alice"] {
            assert!(!caller.is_of(text), "{text}");
        }
        assert_eq!(Carrier::of(CarrierKind::Store, row("team -")).name, "team -");
    }
}

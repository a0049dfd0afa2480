//! Emergency accesses as they are kept: all of them, those that are open, those that fell.
//!
//! Decides which are over because access was taken from somebody. Refuses to know who may ask and agree. Invariant: one that
//! fell stays so.

use super::Approvals;
use super::break_glass::{BREAK_GLASS, BreakGlass, OPEN};
use crate::config::Config;
use crate::limit;
use crate::outcome::{Failure, Reason, Refusal, Stop};
use crate::policy::Policy;
use crate::shelf::{Row, Section, Version};

impl Approvals {
    /// All of them, newest first, and the store's clock.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn emergencies(&self) -> Result<(Vec<BreakGlass>, i64), Stop> {
        let now_us = self.shelf.clock_us().await?;
        let mut found: Vec<BreakGlass> =
            self.all_of(BREAK_GLASS).await?.iter().filter_map(|row| understood(row).ok()).collect();
        found.sort_by_key(|one| std::cmp::Reverse(one.of.requested_at_us));
        Ok((found, now_us))
    }

    /// One of them, in the version in which it was read.
    ///
    /// # Errors
    /// `target_unknown`, `store_unavailable`.
    pub async fn emergency(&self, id: &str) -> Result<(BreakGlass, Version), Stop> {
        let found = self.shelf.row(BREAK_GLASS, id).await?;
        let found =
            found.ok_or_else(|| Refusal::new(Reason::TargetUnknown).hint("there is no such emergency access"))?;
        Ok((understood(&found)?, found.version))
    }

    /// Those that are open, as they were read.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn open_ones(&self) -> Result<Vec<(BreakGlass, Version)>, Failure> {
        let rows = self.all_of(OPEN).await?;
        Ok(rows.iter().filter_map(|row| Some((understood(row).ok()?, row.version))).collect())
    }

    /// Ends those that are open and do not stand: access that was taken from somebody who has a part in one, and that
    /// they get back, does not bring it back.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn end_fallen(&self, files: (&Config, &Policy)) -> Result<(), Failure> {
        for (one, _) in self.open_ones().await? {
            if one.stands(files, &self.revocations) {
                continue;
            }
            let why = "access was taken from somebody who has a part in it";
            match self.end(&one.of.id, "the gateway", why, None).await {
                // It was over by itself.
                Ok(_) | Err(Stop::Refused(_)) => {}
                Err(Stop::Failed(failure)) => return Err(failure),
            }
        }
        Ok(())
    }

    /// How many wait that somebody has asked for.
    pub(super) async fn asked_by(&self, user: &str, now_us: i64) -> Result<usize, Failure> {
        let (mut waiting, mut after) = (0, None::<String>);
        loop {
            let rows = self.shelf.rows(BREAK_GLASS, Some(user), after.as_deref()).await?;
            let is_asked = |row: &&Row| understood(row).is_ok_and(|one| one.state(now_us) == "asked");
            waiting += rows.iter().filter(is_asked).count();
            match rows.last() {
                Some(last) if rows.len() >= limit::SHELF_ROWS_READ_MAX => after = Some(last.key.clone()),
                _ => return Ok(waiting),
            }
        }
    }

    async fn all_of(&self, section: Section) -> Result<Vec<Row>, Failure> {
        let (mut found, mut after) = (Vec::new(), None::<String>);
        loop {
            let rows = self.shelf.rows(section, None, after.as_deref()).await?;
            let is_last = rows.len() < limit::SHELF_ROWS_READ_MAX;
            after = rows.last().map(|row| row.key.clone());
            found.extend(rows);
            if is_last {
                return Ok(found);
            }
        }
    }
}

fn understood(row: &Row) -> Result<BreakGlass, Failure> {
    let unreadable = |error| Failure::before(Reason::StoreUnavailable, format!("an emergency access: {error}"));
    serde_json::from_str(&row.body).map_err(unreadable)
}

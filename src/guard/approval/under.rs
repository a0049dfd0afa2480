//! What becomes of requests when the mandate is over that they were made under.
//!
//! Decides which of them wait for nobody any more. Refuses to know how mandates end. Invariant: nobody is shown as waiting,
//! and nothing is approved, that could not be called any more.

use std::collections::HashMap;

use super::kept::{Kept, State};
use super::pages::Pages;
use super::{Approvals, LIVE, read};
use crate::config::Config;
use crate::guard::mandate::{MANDATES, Mandate};
use crate::ids::MandateId;
use crate::outcome::{Failure, Stop};

/// Why a request is withdrawn whose mandate is over.
pub(super) const OVER: &str = "the mandate that it was made under is over";

impl Approvals {
    /// Takes back whatever waits, or was approved, under a mandate that is over.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn withdraw_ended(&self, written: &Config) -> Result<(), Failure> {
        let now_us = self.shelf.clock_us().await?;
        let mut known: HashMap<String, bool> = HashMap::new();
        let mut pages = Pages::of(&*self.shelf, LIVE);
        while let Some(page) = pages.next().await? {
            for (kept, version) in page {
                let Some(mandate) = kept.mandate.clone().filter(|_| waits(&kept, now_us)) else { continue };
                if self.known_over(mandate, &mut known, written, now_us).await?
                    && let Err(Stop::Failed(failure)) = self.withdraw_row(kept, version, OVER).await
                {
                    return Err(failure);
                }
            }
        }
        Ok(())
    }

    /// Whether a mandate is over, asked once for all of its requests.
    async fn known_over(
        &self,
        mandate: String,
        known: &mut HashMap<String, bool>,
        written: &Config,
        now_us: i64,
    ) -> Result<bool, Failure> {
        if let Some(over) = known.get(&mandate) {
            return Ok(*over);
        }
        let over = self.is_over(&mandate, written, now_us).await?;
        known.insert(mandate, over);
        Ok(over)
    }

    /// The same request as it is shown: withdrawn where its mandate is over. That is written by whoever ends mandates, and not
    /// by whoever looks.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub(super) async fn shown(
        &self,
        kept: Kept,
        known: &mut HashMap<String, bool>,
        written: &Config,
        now_us: i64,
    ) -> Result<Kept, Failure> {
        let Some(mandate) = kept.mandate.clone().filter(|_| waits(&kept, now_us)) else { return Ok(kept) };
        let over = self.known_over(mandate, known, written, now_us).await?;
        Ok(if over { Kept { withdrawn: true, ..kept } } else { kept })
    }

    /// The same request, withdrawn where its mandate is over.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub(super) async fn unless_over(&self, kept: Kept, written: &Config, now_us: i64) -> Result<Kept, Failure> {
        let Some(mandate) = kept.mandate.as_deref().filter(|_| waits(&kept, now_us)) else { return Ok(kept) };
        if !self.is_over(mandate, written, now_us).await? {
            return Ok(kept);
        }
        let row = self.shelf.row(LIVE, &kept.binding.to_string()).await?;
        if let Some((live, version)) = row.as_ref().map(read).transpose()?.filter(|(live, _)| live.id == kept.id)
            && let Err(Stop::Failed(failure)) = self.withdraw_row(live, version, OVER).await
        {
            return Err(failure);
        }
        Ok(Kept { withdrawn: true, ..kept })
    }

    /// Whether a mandate is over, or one above it, or it was taken back, or it is gone.
    async fn is_over(&self, mandate: &str, written: &Config, now_us: i64) -> Result<bool, Failure> {
        let is_over = |one: &Mandate| one.is_over(now_us) || one.is_taken_back(&self.revocations, written);
        let Some(own) = self.mandate(mandate).await? else { return Ok(true) };
        if is_over(&own) {
            return Ok(true);
        }
        for id in &own.above {
            let above = self.mandate(id.as_str()).await?;
            if above.is_none_or(|above| is_over(&above)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn mandate(&self, id: &str) -> Result<Option<Mandate>, Failure> {
        let Ok(id) = MandateId::new(id) else { return Ok(None) };
        let row = self.shelf.row(MANDATES, id.as_str()).await?;
        Ok(row.and_then(|row| serde_json::from_str(&row.body).ok()))
    }
}

fn waits(kept: &Kept, now_us: i64) -> bool {
    matches!(kept.state(now_us), State::Pending | State::Approved)
}

//! What is over because its time has come: attestations that nobody gave in time, and agents and servers that have expired.
//!
//! Decides that it is told, once. Refuses to know who is stopped by it. Invariant: what the clock has ended is on the record
//! like what persons end, and does not come back where the clock goes back.

use std::time::Duration;

use super::{ATTESTED, Attestation, CLOCK, Due, Lifecycle, agent_key, put, server_key};
use crate::config::Config;
use crate::gateway::Gateway;
use crate::identity;
use crate::limit;
use crate::outcome::{Failure, Stop};
use crate::record::mandated::LifecycleNote;
use crate::shelf::{Change, Changed, Expect, Shelf as _, Tell};

/// Why somebody is stopped whom nobody has attested.
pub(super) const MISSED: &str = "nobody has attested that it is still needed";

/// The name of the row that says that something has expired on that day.
pub(super) fn expired_key(key: &str, day: jiff::civil::Date) -> String {
    format!("expired/{key}/{day}")
}

impl Lifecycle {
    /// Whether it is worth keeping that an owner is still there: not too late, and not just after it was attested.
    fn can_be_confirmed(&self, key: &str, every: Duration, at: i64) -> bool {
        let moment = Duration::from_secs(u64::try_from(at).unwrap_or_default());
        let again_s = i64::try_from(limit::ATTEST_CONFIRMED_AFTER.as_secs()).unwrap_or(i64::MAX);
        let is_fresh = |attested: &Attestation| attested.at.saturating_add(again_s) > at;
        self.due(key, every, moment) != Due::Over && !self.attested(key).is_some_and(is_fresh)
    }
}

impl Gateway {
    /// Tells of an attestation that nobody gave in time, once.
    pub(super) async fn tell_of_missed(&self, key: &str, owner: &str, written: &Config) -> Result<(), Failure> {
        tracing::warn!(key, owner, "its owner has not attested that it is still needed");
        // Where nobody can attest a server, it is served all the same.
        if key.starts_with("server/") && written.admin.is_none() {
            return Ok(());
        }
        let every_s = written.attest_every.as_secs();
        let Some(row) = self.store.row(ATTESTED, key).await? else { return Ok(()) };
        let Ok(attested) = serde_json::from_str::<Attestation>(&row.body) else { return Ok(()) };
        // Told for as long a time, or for a longer one that has passed as well.
        if attested.missed_s.is_some_and(|missed_s| missed_s >= every_s) {
            return Ok(());
        }
        let missed = put(&Attestation { missed_s: Some(every_s), ..attested })?;
        let change = Change::new(ATTESTED, key, Expect::Version(row.version), missed);
        // Where not, somebody has just attested it, or another replica tells.
        if let Changed::Done { epoch, .. } = self.store.change(vec![change], Tell::Everybody).await? {
            self.ended_by_the_clock(key, owner, "suspended", MISSED, epoch).await;
        }
        Ok(())
    }

    /// Tells of agents and servers whose last day is over, once.
    pub(super) async fn tell_of_expired(
        &self,
        written: &Config,
        lifecycle: &Lifecycle,
        at: i64,
    ) -> Result<(), Failure> {
        let agents = written.agents.values().map(|agent| (agent_key(&agent.id), &agent.owner, agent.expires));
        let servers = written.servers.iter().map(|server| (server_key(&server.id), &server.owner, server.expires));
        for (key, owner, expires) in agents.chain(servers) {
            let Some(day) = expires.filter(|day| identity::end_of(*day) <= at) else { continue };
            let told = expired_key(&key, day);
            if lifecycle.attested(&told).is_some() {
                continue;
            }
            let put = put(&Attestation { by: CLOCK.to_owned(), at, missed_s: None })?;
            let change = Change::new(ATTESTED, told, Expect::Absent, put);
            match self.store.change(vec![change], Tell::Everybody).await? {
                Changed::Done { epoch, .. } => {
                    self.ended_by_the_clock(&key, owner, "expired", &format!("its last day was {day}"), epoch).await;
                }
                Changed::Conflict(_) => {}
                Changed::Full(_) => tracing::warn!(
                    key,
                    "its last day is over, and nothing more fits that says so: it comes back if the clock goes back"
                ),
            }
        }
        Ok(())
    }

    /// Attests what this owner answers for, because their issuer says that they are still there. That gives nothing back:
    /// what nobody has attested in time needs a person. Those that were attested a short while ago are left alone.
    ///
    /// # Errors
    /// `store_unavailable`, `record_unavailable`.
    pub async fn confirm_owned(&self, owner: &str, by: &str) -> Result<(), Stop> {
        let (now, lifecycle, at) = (self.snapshot(), self.lifecycle(), self.store.now_s().await?);
        let agents = now.written.agents.values().filter(|agent| agent.owner == owner).map(|agent| agent_key(&agent.id));
        let servers = now.written.servers.iter().filter(|server| server.owner == owner);
        let keys: Vec<String> = agents.chain(servers.map(|server| server_key(&server.id))).collect();
        for key in keys.iter().filter(|key| lifecycle.can_be_confirmed(key, now.written.attest_every, at)) {
            self.attest_owned(key, owner, by).await?;
        }
        Ok(())
    }

    /// Puts it in force and on the record, each also where the other fails: that it was told is written, and nobody does it
    /// again.
    async fn ended_by_the_clock(
        &self,
        key: &str,
        owner: &str,
        event: &'static str,
        note: &str,
        epoch: Option<crate::ids::RevocationEpoch>,
    ) {
        if let Err(failure) = self.take_revocations().await {
            tracing::warn!(%failure, key, "what the clock has ended is taken at the next look at the store");
        }
        let (kind, id) = key.split_once('/').unwrap_or(("agent", key));
        let kind = if kind == "server" { "server" } else { "agent" };
        let told = LifecycleNote { event, kind, id, owner, actor: CLOCK, subject: None, note, epoch };
        if let Err(failure) = self.journal.lived(&told).await {
            tracing::error!(%failure, key, event, "what the clock has ended is not on the record");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attested(at: i64, missed_s: Option<u64>) -> Lifecycle {
        let attestation = Attestation { by: "files".into(), at, missed_s };
        Lifecycle { attested: [("agent/bot".to_owned(), attestation)].into(), ..Lifecycle::default() }
    }

    #[test]
    fn whoever_is_still_there_confirms_what_is_not_too_late_and_not_just_attested() {
        let every = limit::ATTEST_EVERY;
        let again_s = i64::try_from(limit::ATTEST_CONFIRMED_AFTER.as_secs()).unwrap();
        let every_s = i64::try_from(every.as_secs()).unwrap();
        let can = |at| attested(1_000, None).can_be_confirmed("agent/bot", every, at);
        assert_eq!([1_000, 999 + again_s, 1_000 + again_s].map(can), [false, false, true]);
        assert_eq!([999 + every_s, 1_000 + every_s].map(can), [true, false], "it gives nothing back");
    }

    #[test]
    fn what_was_told_to_be_missed_stays_so_unless_the_files_give_it_more_time() {
        let every = limit::ATTEST_EVERY;
        let missed = attested(1_000, Some(every.as_secs()));
        let moment = Duration::from_secs(1_000);
        assert_eq!(missed.due("agent/bot", every, moment), Due::Over, "the clock has gone back");
        assert_eq!(missed.due("agent/bot", every / 2, moment), Due::Over, "less time brings nothing back");
        let agent = crate::ids::AgentId::new("bot").unwrap();
        assert!(missed.missed(&agent, every).is_some() && missed.missed(&agent, every / 2).is_some());
        assert_eq!(missed.due("agent/bot", every * 2, moment), Due::Later);
        assert_eq!(missed.missed(&agent, every * 2), None, "it acts again");
    }
}

//! Decides how refusals are recorded that are no call's: counted per reason and source, or per reason and principal, so
//! that knocking costs the knocker more than it costs us.
//!
//! Refuses to know who knocked beyond the address, and of a caller anything beyond who they are. Invariant: however
//! many come, an interval makes a bounded number of lines, none of them is lost from the count, and strangers never
//! take the place of a caller.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Mutex;

use super::appender::Mark;
use super::batch::lock;
use super::fields::{NoiseFacts, NoiseFields};
use super::journal::Journal;
use super::who::Who;
use crate::ids::PrincipalKey;
use crate::limit;
use crate::outcome::Reason;

/// Counts since the last time they were written.
#[derive(Debug, Default)]
pub(super) struct Noise {
    strangers: Mutex<Table<IpAddr>>,
    callers: Mutex<Table<PrincipalKey>>,
}

#[derive(Debug)]
struct Table<K> {
    /// Without whose it is where there were too many.
    counts: HashMap<(Reason, Option<K>), Count>,
    immediate: usize,
}

impl<K> Default for Table<K> {
    fn default() -> Self {
        Self { counts: HashMap::new(), immediate: 0 }
    }
}

#[derive(Debug, Default)]
struct Count {
    count: u64,
    since: Option<jiff::Timestamp>,
    /// The caller, as the first of them has it.
    who: Option<Who>,
}

impl<K: Eq + Hash> Table<K> {
    /// Counts one; answers since when if it is to be written at once: the first of its kind, as long as there are few.
    fn count(&mut self, reason: Reason, of: K, who: Option<&Who>) -> Option<jiff::Timestamp> {
        let key = (reason, Some(of));
        let fresh = !self.counts.contains_key(&key);
        let full = self.counts.len() >= limit::NOISE_SOURCES_MAX;
        let now = jiff::Timestamp::now();
        if fresh && !full && self.immediate < limit::NOISE_IMMEDIATE_MAX {
            self.immediate += 1;
            self.counts.insert(key, Count { who: who.cloned(), ..Count::default() });
            return Some(now);
        }
        let (key, who) = if fresh && full { ((reason, None), None) } else { (key, who) };
        let count = self.counts.entry(key).or_insert_with(|| Count { who: who.cloned(), ..Count::default() });
        count.count += 1;
        count.since.get_or_insert(now);
        None
    }
}

impl Noise {
    /// Counts one of somebody who was not authenticated; answers a line to write at once.
    fn knock(&self, reason: Reason, source: IpAddr) -> Option<NoiseFacts> {
        let source = network(source);
        let since = lock(&self.strangers).count(reason, source, None)?;
        Some(facts(reason, Some(spelled(Some(source))), 1, since))
    }

    /// Counts one of a caller; answers a line to write at once.
    fn decline(&self, reason: Reason, principal: PrincipalKey, who: &Who) -> Option<NoiseFacts> {
        let since = lock(&self.callers).count(reason, principal, Some(who))?;
        Some(facts(reason, None, 1, since))
    }

    /// Everything that was counted and not yet written, with the caller where it is one's; begins a new interval.
    fn take(&self) -> Vec<(NoiseFacts, Option<Who>)> {
        let strangers = std::mem::take(&mut *lock(&self.strangers)).counts;
        let callers = std::mem::take(&mut *lock(&self.callers)).counts;
        let strangers = strangers.into_iter().filter_map(|((reason, source), count)| {
            Some((facts(reason, Some(spelled(source)), count.count, count.since?), None))
        });
        let callers = callers.into_iter().filter_map(|((reason, principal), count)| {
            let source = principal.is_none().then(|| spelled(None));
            Some((facts(reason, source, count.count, count.since?), count.who))
        });
        let mut lines: Vec<(NoiseFacts, Option<Who>)> = strangers.chain(callers).collect();
        let order = |who: &Option<Who>| who.as_ref().map(|who| who.as_str().to_owned());
        lines.sort_by_cached_key(|(facts, who)| (facts.reason, facts.source.clone(), order(who)));
        lines
    }
}

impl Journal {
    /// Counts a refusal of somebody who was not authenticated. Never waits.
    pub fn knocked(&self, reason: Reason, source: IpAddr) {
        self.metrics().refused(reason);
        if let Some(noise) = self.noise().knock(reason, source) {
            self.tell("noise", None, None, &NoiseFields { noise }, Mark::Plain);
        }
    }

    /// Counts a refusal of somebody who was authenticated, of what is no call and no list. Never waits.
    pub fn declined(&self, (principal, who): (PrincipalKey, &Who), reason: Reason) {
        self.metrics().refused(reason);
        if let Some(noise) = self.noise().decline(reason, principal, who) {
            self.tell("noise", None, Some(who), &NoiseFields { noise }, Mark::Plain);
        }
    }

    /// Writes what was counted.
    pub(super) fn write_noise(&self) {
        for (noise, who) in self.noise().take() {
            self.tell("noise", None, who.as_ref(), &NoiseFields { noise }, Mark::Plain);
        }
    }
}

fn facts(reason: Reason, source: Option<String>, count: u64, since: jiff::Timestamp) -> NoiseFacts {
    NoiseFacts { reason, source, count, since: format!("{since:.6}") }
}

fn spelled(source: Option<IpAddr>) -> String {
    match source {
        None => "other".to_owned(),
        Some(IpAddr::V6(address)) => format!("{address}/64"),
        Some(address) => address.to_string(),
    }
}

/// Whoever has one IPv6 address has at least the 2^64 around it.
fn network(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (!0 << 64))),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Digest;
    use crate::record::event::ActorFacts;

    #[test]
    fn knocking_from_everywhere_makes_a_bounded_number_of_lines_and_loses_no_count() {
        let noise = Noise::default();
        let knocks = limit::NOISE_SOURCES_MAX as u64 * 3;
        let mut written = 0;
        for source in 0..knocks {
            let source = IpAddr::V4(u32::try_from(source).unwrap().into());
            written += noise.knock(Reason::TokenMissing, source).map_or(0, |facts| facts.count);
        }
        assert_eq!(written, limit::NOISE_IMMEDIATE_MAX as u64);
        let lines = noise.take();
        assert!(lines.len() <= limit::NOISE_SOURCES_MAX + 1);
        assert_eq!(written + lines.iter().map(|(facts, _)| facts.count).sum::<u64>(), knocks);
        assert!(noise.take().is_empty());
    }

    #[test]
    fn neighbours_in_one_network_are_one_source() {
        let noise = Noise::default();
        assert!(noise.knock(Reason::TokenMissing, "2001:db8::1".parse().unwrap()).is_some());
        assert!(noise.knock(Reason::TokenMissing, "2001:db8::2".parse().unwrap()).is_none());
        let lines = noise.take();
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0].0.source.as_deref(), Some("2001:db8::/64"));
    }

    #[test]
    fn a_flood_of_callers_is_counted_by_principal_beside_the_strangers_and_loses_no_count() {
        let noise = Noise::default();
        let caller = |number: usize| {
            let name = format!("client-{number}");
            let agent = ActorFacts { id: None, client: Some(&name), proof: "public" };
            (PrincipalKey(Digest::sha256(name.as_bytes())), Who::of(None, Some(agent), &[], None))
        };
        for source in 0..limit::NOISE_SOURCES_MAX * 2 {
            let _ = noise.knock(Reason::TokenMissing, IpAddr::V4(u32::try_from(source).unwrap().into()));
        }
        let (one, who) = caller(0);
        let first = noise.decline(Reason::MessageMalformed, one, &who).unwrap();
        assert_eq!((first.source, first.count), (None, 1));
        for _ in 0..500 {
            assert!(noise.decline(Reason::MessageMalformed, one, &who).is_none(), "one line an interval");
        }
        let many = limit::NOISE_SOURCES_MAX + 5;
        let mut written = 0;
        for number in 1..=many {
            let (principal, who) = caller(number);
            written += usize::from(noise.decline(Reason::SessionUnknown, principal, &who).is_some());
        }
        assert_eq!(written, limit::NOISE_IMMEDIATE_MAX - 1);
        let lines = noise.take();
        let told = |reason| lines.iter().filter(move |(facts, _)| facts.reason == reason);
        let malformed: Vec<_> = told(Reason::MessageMalformed).collect();
        assert_eq!((malformed.len(), malformed[0].0.count), (1, 500));
        assert_eq!(malformed[0].1.as_ref(), Some(&who));
        assert!(told(Reason::SessionUnknown).count() <= limit::NOISE_SOURCES_MAX);
        assert_eq!(told(Reason::SessionUnknown).map(|(facts, _)| facts.count).sum::<u64>(), (many - written) as u64);
        let other: Vec<_> = told(Reason::SessionUnknown).filter(|(_, who)| who.is_none()).collect();
        assert_eq!((other.len(), other[0].0.source.as_deref()), (1, Some("other")));
    }
}

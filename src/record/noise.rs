//! Decides how refusals of nobody in particular are recorded: counted per reason and source, so that
//! knocking costs the knocker more than it costs us.
//!
//! Refuses to know who knocked beyond the address. Invariant: however many come, an interval makes a
//! bounded number of lines, and none of them is lost from the count.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Mutex;

use super::batch::lock;
use super::fields::NoiseFacts;
use crate::limit;
use crate::outcome::Reason;

/// Counts since the last time they were written.
#[derive(Debug, Default)]
pub(super) struct Noise {
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    counts: HashMap<(Reason, Option<IpAddr>), Count>,
    immediate: usize,
}

#[derive(Debug, Default)]
struct Count {
    count: u64,
    since: Option<jiff::Timestamp>,
}

impl Noise {
    /// Counts one; answers a line to write at once for the first of its kind, as long as there are few.
    pub(super) fn count(&self, reason: Reason, source: IpAddr) -> Option<NoiseFacts> {
        let mut table = lock(&self.table);
        let source = network(source);
        let key = (reason, Some(source));
        let fresh = !table.counts.contains_key(&key);
        let full = table.counts.len() >= limit::NOISE_SOURCES_MAX;
        let now = jiff::Timestamp::now();
        if fresh && !full && table.immediate < limit::NOISE_IMMEDIATE_MAX {
            table.immediate += 1;
            table.counts.insert(key, Count::default());
            return Some(facts(key, 1, now));
        }
        let key = if fresh && full { (reason, None) } else { key };
        let count = table.counts.entry(key).or_default();
        count.count += 1;
        count.since.get_or_insert(now);
        None
    }

    /// Everything that was counted and not yet written; begins a new interval.
    pub(super) fn take(&self) -> Vec<NoiseFacts> {
        let table = std::mem::take(&mut *lock(&self.table));
        let mut facts: Vec<NoiseFacts> = table
            .counts
            .into_iter()
            .filter_map(|(key, count)| count.since.map(|since| facts(key, count.count, since)))
            .collect();
        facts.sort_unstable_by(|a, b| (a.reason, &a.source).cmp(&(b.reason, &b.source)));
        facts
    }
}

fn facts((reason, source): (Reason, Option<IpAddr>), count: u64, since: jiff::Timestamp) -> NoiseFacts {
    let source = match source {
        None => "other".to_owned(),
        Some(IpAddr::V6(address)) => format!("{address}/64"),
        Some(address) => address.to_string(),
    };
    NoiseFacts { reason, source, count, since: format!("{since:.6}") }
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

    #[test]
    fn knocking_from_everywhere_makes_a_bounded_number_of_lines_and_loses_no_count() {
        let noise = Noise::default();
        let knocks = limit::NOISE_SOURCES_MAX as u64 * 3;
        let mut written = 0;
        for source in 0..knocks {
            let source = IpAddr::V4(u32::try_from(source).unwrap().into());
            written += noise.count(Reason::TokenMissing, source).map_or(0, |facts| facts.count);
        }
        assert_eq!(written, limit::NOISE_IMMEDIATE_MAX as u64);
        let lines = noise.take();
        assert!(lines.len() <= limit::NOISE_SOURCES_MAX + 1);
        assert_eq!(written + lines.iter().map(|facts| facts.count).sum::<u64>(), knocks);
        assert!(noise.take().is_empty());
    }

    #[test]
    fn neighbours_in_one_network_are_one_source() {
        let noise = Noise::default();
        assert!(noise.count(Reason::TokenMissing, "2001:db8::1".parse().unwrap()).is_some());
        assert!(noise.count(Reason::TokenMissing, "2001:db8::2".parse().unwrap()).is_none());
        let lines = noise.take();
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0].source, "2001:db8::/64");
    }
}

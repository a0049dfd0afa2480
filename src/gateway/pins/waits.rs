//! Which definitions of a server wait for somebody, were told, and are to be kept again.
//!
//! Decides when one that is listed is told and when its row is renewed. Refuses to know the store. Invariant: whatever a
//! server lists, so many of it take a place, and only what takes one is looked at.

use std::collections::{HashMap, HashSet};

use tokio::time::Instant;

use crate::catalog::pins::Pinned;
use crate::ids::DefinitionDigest;
use crate::limit;

/// What waits of one server.
#[derive(Debug, Default)]
pub(super) struct Waits {
    places: HashMap<DefinitionDigest, Place>,
}

#[derive(Debug, Clone)]
struct Place {
    told_at: Instant,
    /// When its row is written again, if it is still listed then.
    renew_at: Instant,
    /// Since when, seconds since 1970; nothing before it was kept.
    at: Option<i64>,
    /// How much of its words is kept.
    bytes: usize,
    /// It was listed no more, since it was told.
    gone: bool,
}

/// One that something has to be done for.
#[derive(Debug)]
pub(super) struct Due {
    pub(super) pinned: Pinned,
    /// Whether it is told, or its row alone is renewed.
    pub(super) tell: bool,
    /// Since when it waits, where that is known.
    pub(super) at: Option<i64>,
    /// How much of its words may be kept.
    pub(super) bytes: usize,
}

impl Waits {
    /// One that the store has, which is good for so long.
    pub(super) fn remember(&mut self, digest: DefinitionDigest, at: i64, bytes: usize, good_until: Instant) {
        let now = Instant::now();
        let left = good_until.saturating_duration_since(now);
        let renew_at = now + left.saturating_sub(limit::PIN_WAITING_LIFE / 2);
        self.places.insert(digest, Place { told_at: now, renew_at, at: Some(at), bytes, gone: false });
    }

    /// What has to be done now that a server listed these, which nobody has accepted, and how many have no place.
    /// `listed` is everything that it lists, where that is known.
    pub(super) fn due(
        &mut self,
        unknown: &[&Pinned],
        listed: Option<&HashSet<DefinitionDigest>>,
        is_decided: impl Fn(DefinitionDigest) -> bool,
        now: Instant,
    ) -> (Vec<Due>, usize) {
        // Whatever was decided waits no more, and is told again should that be taken back.
        self.places.retain(|digest, place| {
            place.gone |= listed.is_some_and(|listed| !listed.contains(digest));
            let is_forgotten = place.gone && now >= place.renew_at + limit::PIN_WAITING_LIFE / 2;
            !is_forgotten && !is_decided(*digest)
        });
        let mut bytes: usize = self.places.values().map(|place| place.bytes).sum();
        let mut due = Vec::new();
        let mut without_place = 0;
        for pinned in unknown {
            let told = self.places.get(&pinned.digest).cloned();
            let is_full = self.places.len() >= limit::PINS_WAITING_MAX;
            let tell = match &told {
                Some(place) => place.gone && now >= place.told_at + limit::PIN_TOLD_AGAIN_AFTER,
                None if is_full => {
                    without_place += 1;
                    continue;
                }
                None => true,
            };
            if !tell && told.as_ref().is_some_and(|place| now < place.renew_at) {
                continue;
            }
            let length = pinned.text.as_bytes().len();
            let had = told.as_ref().map_or(0, |place| place.bytes);
            let fits = bytes - had + length <= limit::PINS_WAITING_BYTES_MAX;
            let kept = if fits { length } else { 0 };
            bytes = bytes - had + kept;
            let place = Place {
                told_at: if tell { now } else { told.as_ref().map_or(now, |place| place.told_at) },
                renew_at: now + limit::PIN_WAITING_LIFE / 2,
                at: told.and_then(|place| place.at),
                bytes: kept,
                gone: false,
            };
            due.push(Due { pinned: (*pinned).clone(), tell, at: place.at, bytes: kept });
            self.places.insert(pinned.digest, place);
        }
        (due, without_place)
    }

    /// They stand in the store since then, or could not be kept and are tried again.
    pub(super) fn kept(&mut self, digests: &[(DefinitionDigest, i64)], done: bool) {
        for (digest, at) in digests {
            let Some(place) = self.places.get_mut(digest) else { continue };
            place.at = Some(*at);
            if !done {
                place.renew_at = Instant::now() + limit::PIN_TOLD_AGAIN_AFTER;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::ids::{Digest, PinKind};
    use crate::wire::{Json, Source};

    fn pinned(name: &str, length: usize) -> Pinned {
        let text = Json::parse(format!("\"{}\"", "x".repeat(length - 2)), Source::Client).unwrap();
        let digest = DefinitionDigest(Digest::sha256(name.as_bytes()));
        Pinned { kind: PinKind::Tool, name: Arc::from(name), digest, text }
    }

    struct Server {
        waits: Waits,
        now: Instant,
    }

    impl Server {
        fn lists(&mut self, pinned: &[&Pinned]) -> (Vec<(String, bool)>, usize) {
            self.lists_decided(pinned, &[])
        }

        fn lists_decided(&mut self, pinned: &[&Pinned], decided: &[&Pinned]) -> (Vec<(String, bool)>, usize) {
            let is_decided = |digest| decided.iter().any(|pinned| pinned.digest == digest);
            let unknown: Vec<_> = pinned.iter().copied().filter(|pinned| !is_decided(pinned.digest)).collect();
            let listed = pinned.iter().map(|pinned| pinned.digest).collect();
            let (due, without) = self.waits.due(&unknown, Some(&listed), is_decided, self.now);
            (due.into_iter().map(|due| (due.pinned.name.to_string(), due.tell)).collect(), without)
        }
    }

    fn server() -> Server {
        Server { waits: Waits::default(), now: Instant::now() }
    }

    #[tokio::test]
    async fn what_is_still_listed_is_renewed_before_its_row_expires_and_told_once() {
        let mut server = server();
        let log = pinned("log", 10);
        assert_eq!(server.lists(&[&log]).0, [("log".to_owned(), true)]);
        assert_eq!(server.lists(&[&log]).0, []);
        server.now += limit::PIN_WAITING_LIFE / 2;
        assert_eq!(server.lists(&[&log]).0, [("log".to_owned(), false)]);
        assert_eq!(server.lists(&[&log]).0, []);
    }

    #[tokio::test]
    async fn what_comes_back_or_is_decided_no_more_is_told_again_but_not_all_the_time() {
        let mut server = server();
        let (log, other) = (pinned("log", 10), pinned("other", 10));
        assert_eq!(server.lists(&[&log]).0.len(), 1);
        assert_eq!(server.lists(&[&other]).0.len(), 1);
        assert_eq!(server.lists(&[&log]).0, [], "it was told just now");
        server.now += limit::PIN_TOLD_AGAIN_AFTER;
        assert_eq!(server.lists(&[&log]).0, [("log".to_owned(), true)]);
        assert_eq!(server.lists_decided(&[&log], &[&log]).0, []);
        assert_eq!(server.lists(&[&log]).0, [("log".to_owned(), true)], "what accepted it was taken back");
    }

    #[tokio::test]
    async fn so_many_bytes_of_words_are_kept_of_a_server() {
        let mut server = server();
        let one = limit::PINS_WAITING_BYTES_MAX / 2;
        let large: Vec<_> = ["a", "b", "c"].map(|name| pinned(name, one)).into();
        let large: Vec<_> = large.iter().collect();
        let (due, _) = server.waits.due(&large, None, |_| false, server.now);
        assert_eq!(due.iter().map(|due| due.bytes).collect::<Vec<_>>(), [one, one, 0]);
        // Whoever renews them gives nothing away.
        server.now += limit::PIN_WAITING_LIFE / 2 + Duration::from_secs(1);
        let (due, _) = server.waits.due(&large, None, |_| false, server.now);
        assert_eq!(due.iter().map(|due| due.bytes).sum::<usize>(), 2 * one);
    }

    #[tokio::test]
    async fn so_many_have_a_place_and_places_that_were_left_long_ago_are_given_again() {
        let mut server = server();
        let many: Vec<_> = (0..=limit::PINS_WAITING_MAX).map(|number| pinned(&number.to_string(), 10)).collect();
        let many: Vec<_> = many.iter().collect();
        let (due, without) = server.lists(&many);
        assert_eq!((due.len(), without), (limit::PINS_WAITING_MAX, 1));
        let log = pinned("log", 10);
        assert_eq!(server.lists(&[&log]), (Vec::new(), 1));
        server.now += limit::PIN_WAITING_LIFE;
        assert_eq!(server.lists(&[&log]), (vec![("log".to_owned(), true)], 0));
    }
}

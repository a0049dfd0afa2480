//! How much may come over a feed, and how often somebody may guess.
//!
//! Invariant: whoever guesses meets a limit of their own, and takes nothing from that of the feed; what is remembered
//! of sources is bounded.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::config::FeedConfig;
use crate::ids::network;
use crate::limit;
use crate::outcome::{Reason, Refusal};

/// A minute is what both are counted in.
const WINDOW: Duration = Duration::from_secs(60);

/// What came lately.
pub(super) struct Rates {
    knocks: moka::sync::Cache<(String, IpAddr), Arc<AtomicU32>>,
    feeds: moka::sync::Cache<String, Arc<Mutex<Window>>>,
}

/// What a feed sent in this minute.
#[derive(Debug)]
struct Window {
    began: tokio::time::Instant,
    count: u32,
}

impl Default for Rates {
    fn default() -> Self {
        Self {
            knocks: moka::sync::Cache::builder()
                .max_capacity(limit::NOISE_SOURCES_MAX as u64)
                .time_to_live(WINDOW)
                .build(),
            feeds: moka::sync::Cache::new(limit::FEEDS_MAX as u64),
        }
    }
}

impl Rates {
    /// Whether somebody has guessed from there too often.
    pub(super) fn is_knocking(&self, feed: &FeedConfig, peer: IpAddr) -> bool {
        let knocks = self.knocks.get(&(feed.name.as_str().to_owned(), network(peer)));
        knocks.is_some_and(|knocks| knocks.load(Ordering::Relaxed) >= limit::FEED_KNOCKS_PER_MINUTE_MAX)
    }

    /// Counts a message that proved nothing.
    pub(super) fn knocked(&self, feed: &FeedConfig, peer: IpAddr) {
        let knocks = self.knocks.get_with((feed.name.as_str().to_owned(), network(peer)), Arc::default);
        knocks.fetch_add(1, Ordering::Relaxed);
    }

    /// Admits one message of a feed whose sender has proven itself.
    ///
    /// # Errors
    /// `rate_limited`.
    pub(super) fn admit(&self, feed: &FeedConfig) -> Result<(), Refusal> {
        let fresh = || Arc::new(Mutex::new(Window { began: tokio::time::Instant::now(), count: 0 }));
        let window = self.feeds.get_with(feed.name.as_str().to_owned(), fresh);
        let mut window = window.lock().unwrap_or_else(PoisonError::into_inner);
        if window.began.elapsed() >= WINDOW {
            *window = Window { began: tokio::time::Instant::now(), count: 0 };
        }
        if window.count >= feed.requests_per_minute {
            return Err(Refusal::new(Reason::RateLimited));
        }
        window.count += 1;
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ids::{IssuerAlias, ServerId};

    /// A feed that hears nothing, with so many messages in a minute.
    pub(in crate::feeds) fn feed(name: &str, requests_per_minute: u32) -> FeedConfig {
        FeedConfig {
            name: ServerId::new(name).unwrap(),
            issuer: IssuerAlias::new("corp").unwrap(),
            ends: crate::config::feed::Ends::Subject,
            requests_per_minute,
            logout: None,
            events: None,
            scim: None,
        }
    }

    #[test]
    fn whoever_guesses_meets_a_limit_and_others_do_not() {
        let rates = Rates::default();
        let (one, neighbour, other) =
            ("2001:db8::1".parse().unwrap(), "2001:db8::2".parse().unwrap(), "192.0.2.1".parse().unwrap());
        let (here, there) = (feed("a", 1), feed("b", 1));
        for _ in 0..limit::FEED_KNOCKS_PER_MINUTE_MAX {
            assert!(!rates.is_knocking(&here, one));
            rates.knocked(&here, one);
        }
        assert!(rates.is_knocking(&here, one) && rates.is_knocking(&here, neighbour));
        assert!(!rates.is_knocking(&here, other) && !rates.is_knocking(&there, one));
        rates.admit(&feed("a", 1)).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_feed_may_send_so_much_in_a_minute() {
        let rates = Rates::default();
        for _ in 0..3 {
            rates.admit(&feed("a", 3)).unwrap();
        }
        assert_eq!(rates.admit(&feed("a", 3)).unwrap_err().reason, Reason::RateLimited);
        rates.admit(&feed("b", 3)).unwrap();
        tokio::time::advance(WINDOW).await;
        rates.admit(&feed("a", 3)).unwrap();
    }
}

//! Tools that fail whoever calls them are closed for a while.
//!
//! Decides when, and for how long. Refuses to know who is told. Invariants: the errors of one account close
//! nothing, however many they are and whichever of its agents made them: no more than half of what it takes counts of any;
//! a tool that is well is watched by nobody, and costs nobody anything; what is closed opens by itself.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::ends::{Ends, share};
use super::places::{Places, Stay};
use crate::config::BreakerConfig;
use crate::limit;

/// Tools of which some calls have failed.
#[derive(Debug)]
pub(super) struct Tools {
    windows: Places<Window>,
    began: Instant,
    /// When the last of those that are closed is open again, milliseconds after the beginning.
    all_open_ms: AtomicU64,
}

/// One of them.
#[derive(Debug, Default)]
struct Window {
    ends: Ends,
    closed_until: Option<Instant>,
    told: Option<Instant>,
}

/// A tool was closed just now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    /// Why.
    pub why: String,
    /// Whether whoever answers for it was not told a short while ago.
    pub is_news: bool,
}

impl Tools {
    pub(super) fn new() -> Self {
        let windows = Places::new(limit::TOOLS_WATCHED_MAX);
        Self { windows, began: Instant::now(), all_open_ms: AtomicU64::new(0) }
    }

    /// For how much longer a tool is closed, if it is. Costs nothing as long as none was.
    pub(super) fn closed(&self, tool: impl FnOnce() -> u64) -> Option<Duration> {
        let all_open_ms = self.all_open_ms.load(Ordering::Relaxed);
        if all_open_ms == 0 {
            return None;
        }
        let now = Instant::now();
        if self.since_began(now) >= all_open_ms {
            return None;
        }
        let until = self.windows.known(tool(), |window| (window.closed_until, Stay::Here))??;
        until.checked_duration_since(now).filter(|left| !left.is_zero())
    }

    /// A call of a tool is over; answers where that closes it. Whoever has never failed is not counted: of a tool that
    /// has, what is not known of its last calls ended well.
    pub(super) fn ended(
        &self,
        tool: impl FnOnce() -> u64,
        caller: impl FnOnce() -> u64,
        is_error: bool,
        config: &BreakerConfig,
    ) -> Option<Closed> {
        if !is_error && self.windows.is_empty() {
            return None;
        }
        let of = usize::try_from(config.tool_errors_of).unwrap_or(usize::MAX);
        if !is_error {
            return self.windows.known(tool(), |window| {
                window.ends.push(0, false, of);
                (None, if window.is_idle(Instant::now()) { Stay::Gone } else { Stay::Here })
            })?;
        }
        let (now, caller) = (Instant::now(), caller());
        self.windows.with(tool(), |window| {
            // What was under way when it was closed says nothing new.
            if window.closed_until.is_some_and(|until| until > now) {
                return None;
            }
            window.ends.push(caller, true, of);
            // One error is never that of two.
            let errors_min = share(config.tool_errors_percent, of).max(2);
            let errors = window.ends.errors();
            if errors < errors_min || window.ends.errors_of_each(errors_min.div_ceil(2)) < errors_min {
                return None;
            }
            window.ends.clear();
            let until = now + config.tool_pause;
            window.closed_until = Some(until);
            self.all_open_ms.fetch_max(self.since_began(until).max(1), Ordering::Relaxed);
            let is_news = window.told.is_none_or(|told| now.duration_since(told) >= limit::TOOL_CLOSED_TOLD_EVERY);
            if is_news {
                window.told = Some(now);
            }
            let seconds = config.tool_pause.as_secs();
            let why = format!(
                "{errors} of the last {of} calls, of several callers, were errors: closed for {seconds} seconds"
            );
            Some(Closed { why, is_news })
        })
    }

    fn since_began(&self, at: Instant) -> u64 {
        u64::try_from(at.duration_since(self.began).as_millis()).unwrap_or(u64::MAX)
    }
}

impl Window {
    /// Whether there is nothing to be remembered of it.
    fn is_idle(&self, now: Instant) -> bool {
        self.ends.errors() == 0
            && self.closed_until.is_none_or(|until| until <= now)
            && self.told.is_none_or(|told| now.duration_since(told) >= limit::TOOL_CLOSED_TOLD_EVERY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(errors_of: u32, pause: Duration) -> BreakerConfig {
        BreakerConfig { tool_errors_of: errors_of, tool_pause: pause, ..BreakerConfig::default() }
    }

    /// Ends of one tool: by whom, and whether it was an error; which of them close it.
    fn run(tools: &Tools, config: &BreakerConfig, ends: impl IntoIterator<Item = (u64, bool)>) -> Vec<usize> {
        let closes = |(caller, error): (u64, bool)| tools.ended(|| 7, || caller, error, config).is_some();
        ends.into_iter().enumerate().filter_map(|(number, end)| closes(end).then_some(number)).collect()
    }

    #[test]
    fn half_of_the_last_twenty_calls_close_a_tool_where_several_callers_failed() {
        let config = config(20, Duration::from_secs(60));
        let tools = Tools::new();
        assert!(run(&tools, &config, (0..9).map(|number| (number % 2, true))).is_empty(), "nine");
        assert_eq!(tools.closed(|| 7), None);
        assert!(run(&tools, &config, [(0, true)]).is_empty(), "six of one and four of another");
        assert_eq!(run(&tools, &config, [(1, true)]), [0], "five of each");
        assert!(tools.closed(|| 7).is_some_and(|left| left <= Duration::from_secs(60)));
        assert_eq!(tools.closed(|| 8), None, "another tool");
        assert!(run(&tools, &config, (0..40).map(|number| (number % 2, true))).is_empty(), "it is closed already");
    }

    #[test]
    fn one_caller_closes_nothing_however_often_they_fail_and_no_success_is_hidden() {
        let config = config(20, Duration::from_secs(60));
        let tools = Tools::new();
        assert!(run(&tools, &config, std::iter::repeat_n((1, true), 1_000)).is_empty());
        // Four of somebody else's errors are too few beside any number of one's.
        assert!(run(&tools, &config, std::iter::repeat_n((2, true), 4)).is_empty());
        let well = Tools::new();
        let mixed = (0..1_000).map(|number| (number, number % 5 < 2));
        assert!(run(&well, &config, mixed).is_empty(), "two of five are fewer than a half");
    }

    #[test]
    fn even_where_one_error_would_do_it_takes_two_callers() {
        let config = BreakerConfig { tool_errors_percent: 1, ..config(1, Duration::from_secs(60)) };
        let tools = Tools::new();
        assert!(run(&tools, &config, std::iter::repeat_n((1, true), 10)).is_empty());
        let config = BreakerConfig { tool_errors_percent: 1, ..self::config(2, Duration::from_secs(60)) };
        assert_eq!(run(&tools, &config, [(1, true), (2, true)]), [1]);
    }

    #[test]
    fn what_is_closed_opens_by_itself_and_is_told_of_once() {
        let config = config(2, Duration::from_millis(1));
        let tools = Tools::new();
        let closes = |caller| tools.ended(|| 7, || caller, true, &config);
        let percent = BreakerConfig { tool_errors_percent: 100, ..config };
        assert_eq!(tools.ended(|| 7, || 1, true, &percent), None);
        let first = tools.ended(|| 7, || 2, true, &percent).unwrap();
        assert!(first.is_news && first.why.starts_with("2 of the last 2 calls"), "{first:?}");
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(tools.closed(|| 7), None);
        assert_eq!(closes(1), None, "counted anew");
        assert!(closes(2).is_some_and(|again| !again.is_news), "its owner knows");
    }

    #[test]
    fn a_tool_that_is_well_again_is_watched_no_more() {
        let config = config(4, Duration::from_secs(60));
        let tools = Tools::new();
        assert!(run(&tools, &config, [(1, true)]).is_empty());
        assert!(!tools.windows.is_empty());
        assert!(run(&tools, &config, std::iter::repeat_n((1, false), 4)).is_empty());
        assert!(tools.windows.is_empty());
    }

    #[test]
    fn so_many_tools_are_watched_and_the_next_one_closes_all_the_same() {
        let config = config(2, Duration::from_secs(60));
        let tools = Tools::new();
        for tool in 0..u64::try_from(limit::TOOLS_WATCHED_MAX).unwrap() + 1_000 {
            // As hashes are: with all their digits.
            tools.ended(|| tool.wrapping_mul(0x9e37_79b9_7f4a_7c15), || 1, true, &config);
        }
        assert!(tools.windows.len() <= limit::TOOLS_WATCHED_MAX);
        assert_eq!(run(&tools, &config, [(1, true), (2, true)]), [1]);
    }
}

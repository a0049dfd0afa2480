//! Fetching slices: one task for each slot at most, which goes on until there is nothing to do.
//!
//! Decides how failures of single lists add up. Invariant: a failed fetch never replaces what was there.

use std::sync::Arc;

use futures_util::future::join4;
use tokio::time::Instant;

use super::slice::{List, Slice, announces};
use super::slot::{Slot, Work};
use super::source::{Access, Facts, Listed, Listing, Source};
use crate::ids::ServerId;
use crate::outcome::{Failure, Reason};
use crate::wire::mcp::Kind;

/// Gives the right to refresh back even when a source panics.
struct Running<C: Fn(bool)> {
    slot: Arc<Slot>,
    changed: C,
    /// Not given back yet.
    held: bool,
}

impl<C: Fn(bool)> Running<C> {
    /// An attempt has ended. Whoever has waited for it is told last: they must find no view that was made before.
    fn ended(&self, news: bool) {
        (self.changed)(news);
        self.slot.tell();
    }
}

impl<C: Fn(bool)> Drop for Running<C> {
    fn drop(&mut self) {
        if self.held {
            self.slot.abandon();
            self.ended(true);
        }
    }
}

/// Refreshes a slot whose right was taken, until it is current, hopeless or retired.
///
/// `changed` is told of every attempt, and whether somebody could see a difference.
pub(super) async fn run<S: Source>(
    source: Arc<S>,
    slot: Arc<Slot>,
    access: Access<S::Caller>,
    changed: impl Fn(bool) + Send + Sync,
) {
    let mut running = Running { slot: Arc::clone(&slot), changed, held: true };
    let retired = slot.shared.retired.clone();
    // A flapping server is not chased.
    if let Some(ended_at) = slot.ended_at() {
        tokio::time::sleep_until(ended_at + slot.shared.pace.changed_pause).await;
    }
    loop {
        let attempt = attempt(&*source, &slot, &access);
        let news = tokio::select! {
            biased;
            () = retired.cancelled() => break,
            news = attempt => news,
        };
        // First: a view that is made from here on has to know when the list is due again.
        let next = slot.end();
        // Where that is never, somebody else may hold the right already.
        running.held = next.is_some();
        running.ended(news);
        let Some(next) = next else { break };
        if !pause(&slot, next, &running.changed).await {
            break;
        }
    }
}

/// Waits for the next attempt; answers `false` if the server is gone.
async fn pause(slot: &Slot, next: Instant, changed: &(impl Fn(bool) + Sync)) -> bool {
    // Items vanish in the middle of a wait, and views should know at once.
    let vanishes_at = slot.vanishes_at().filter(|at| *at > Instant::now() && *at <= next);
    if let Some(vanishes_at) = vanishes_at {
        tokio::select! {
            () = tokio::time::sleep_until(vanishes_at) => changed(true),
            () = slot.wake.notified() => return woken(slot).await,
            () = slot.shared.retired.cancelled() => return false,
        }
    }
    tokio::select! {
        () = tokio::time::sleep_until(next) => true,
        () = slot.wake.notified() => woken(slot).await,
        () = slot.shared.retired.cancelled() => false,
    }
}

async fn woken(slot: &Slot) -> bool {
    if let Some(ended_at) = slot.ended_at() {
        tokio::time::sleep_until(ended_at + slot.shared.pace.changed_pause).await;
    }
    !slot.shared.retired.is_cancelled()
}

/// Fetches once and stores the result; answers whether anybody could see a difference.
async fn attempt<S: Source>(source: &S, slot: &Slot, access: &Access<S::Caller>) -> bool {
    let config = slot.shared.config.load_full();
    let server = config.id.clone();
    let (work, seen, old) = slot.work();
    let fetched = fetch(source, &server, access, work, old.as_deref());
    let result = tokio::time::timeout(slot.shared.pace.refresh_timeout, fetched)
        .await
        .unwrap_or_else(|_| Err(Failure::before(Reason::UpstreamTimeout, "listing took too long")));
    match &result {
        Ok((slice, complete)) => {
            report(slice, old.as_deref());
            // As it is pinned now: the files may have become stricter while it was listed.
            let config = slot.shared.config.load_full();
            source.listed(Listed { server: &config, slice, complete: *complete }).await;
        }
        Err(failure) => {
            tracing::warn!(%server, reason = failure.reason.code(), detail = %failure.detail, "cannot list");
        }
    }
    slot.settle(seen, result.map(|(slice, _)| slice))
}

async fn fetch<S: Source>(
    source: &S,
    server: &ServerId,
    access: &Access<S::Caller>,
    work: Work,
    old: Option<&Slice>,
) -> Result<(Slice, bool), Failure> {
    let (facts, wanted) = match (work, old) {
        (Work::Kinds(kinds), Some(old)) => (Arc::clone(old.shared_facts()), kinds),
        _ => (Arc::new(source.facts(server, access).await?), [true; 4]),
    };
    let [tool, prompt, resource, template] = wanted;
    let one = |kind, wanted| list(source, server, access, &facts, kind, wanted, old);
    let (tools, prompts, resources, templates) = join4(
        one(Kind::Tool, tool),
        one(Kind::Prompt, prompt),
        one(Kind::Resource, resource),
        one(Kind::ResourceTemplate, template),
    )
    .await;
    let fetched = [tools, prompts, resources, templates];
    let tried = || fetched.iter().filter_map(|fetched| fetched.outcome.as_ref());
    if let Some(Err(failure)) = tried().next()
        && tried().all(Result::is_err)
    {
        return Err(failure.clone());
    }
    let upstream_said = fetched.iter().all(|fetched| !fetched.list.own);
    let complete = wanted == [true; 4] && upstream_said && tried().all(Result::is_ok);
    let lists = fetched.map(|fetched| fetched.list);
    Ok((Slice::new(server.clone(), access.context(), facts, lists), complete))
}

/// A list as it will be kept, and how fetching it went where it was tried.
struct Fetched {
    list: Arc<List>,
    outcome: Option<Result<(), Failure>>,
}

async fn list<S: Source>(
    source: &S,
    server: &ServerId,
    access: &Access<S::Caller>,
    facts: &Facts,
    kind: Kind,
    wanted: bool,
    old: Option<&Slice>,
) -> Fetched {
    let kept = || {
        old.and_then(|old| Kind::ALL.iter().zip(old.lists()).find(|(of, _)| **of == kind))
            .map_or_else(|| Arc::new(List::empty()), |(_, list)| Arc::clone(list))
    };
    if !announces(facts, kind) {
        return Fetched { list: Arc::new(List::empty()), outcome: None };
    }
    if !wanted {
        return Fetched { list: kept(), outcome: None };
    }
    let read = match source.list(server, access, kind).await {
        Ok(listing) => read(server.clone(), kind, listing).await,
        Err(failure) => Err(failure),
    };
    match read {
        Ok(list) => Fetched { list: Arc::new(list), outcome: Some(Ok(())) },
        Err(failure) => Fetched { list: Arc::new(kept().failed(failure.reason)), outcome: Some(Err(failure)) },
    }
}

/// Reads a listing off the event loop where it is long: megabytes of schemas take milliseconds.
async fn read(server: ServerId, kind: Kind, listing: Listing) -> Result<List, Failure> {
    if listing.items.len() < 64 {
        return Ok(List::read(&server, kind, &listing));
    }
    let reading = tokio::task::spawn_blocking(move || List::read(&server, kind, &listing));
    reading.await.map_err(|_| Failure::before(Reason::Internal, "reading a list failed"))
}

/// Logs which lists failed and what was left out, once for each list as it changes.
fn report(slice: &Slice, old: Option<&Slice>) {
    for kind in Kind::ALL {
        let list = slice.list(kind);
        if let Some(reason) = list.failure
            && old.and_then(|old| old.list(kind).failure) != Some(reason)
        {
            let (server, list) = (slice.server(), kind.list_method());
            tracing::warn!(%server, list, reason = reason.code(), "cannot list; what was listed before is kept");
        }
        let known = old.map(|old| old.list(kind)).is_some_and(|old| old.dropped == list.dropped);
        if known || list.dropped_count == 0 {
            continue;
        }
        for dropped in &list.dropped {
            let name = dropped.name.escape_debug();
            tracing::warn!(server = %slice.server(), list = kind.list_method(), %name, reason = %dropped.reason, "left out");
        }
        if list.dropped_count > list.dropped.len() {
            tracing::warn!(server = %slice.server(), list = kind.list_method(), count = list.dropped_count, "left out in all");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::super::fake::{Fake, Script, server};
    use super::super::slot::{Pace, Shared};
    use super::*;
    use crate::ids::AuthorizationContext;

    #[tokio::test]
    async fn whoever_waits_for_a_list_is_told_once_no_view_of_before_is_good_any_more() {
        for panics in [false, true] {
            let fake = Arc::new(Fake::default());
            fake.set("git", Script { panics, ..Script::tools(&["log"]) });
            let shared = Arc::new(Shared::new(Arc::new(server("git")), Pace::default(), Arc::default()));
            let slot = Arc::new(Slot::new(shared, AuthorizationContext::Gateway));
            assert!(slot.begin());
            let (seen, looks) = (Arc::<Mutex<Vec<_>>>::default(), Arc::clone(&slot));
            let voids = Arc::clone(&seen);
            let changed = move |_| {
                let looked = looks.look(Instant::now());
                // What is made from here on knows when it is due again.
                voids.lock().unwrap().push((looked.attempts, looked.slice.is_some(), looked.until.is_some()));
            };
            let refresh = tokio::spawn(run(fake, Arc::clone(&slot), Access::Gateway, changed)).await;
            assert_eq!(refresh.is_err(), panics);
            assert_eq!(*seen.lock().unwrap(), [(0, !panics, true)], "{panics}");
            assert_eq!(slot.look(Instant::now()).attempts, 1);
        }
    }
}

//! What is given back at several authorization servers: each in its own time.
//!
//! Decides who waits for whom: nobody for an authorization server that does not answer. Refuses to know what is given
//! back. Invariant: one that hangs costs the others no more than one bounded wait.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;

use crate::limit;

/// How many are taken back at once at each authorization server.
#[derive(Debug, Default)]
pub(super) struct AtOnce(Mutex<HashMap<String, Arc<Semaphore>>>);

impl AtOnce {
    /// The places at that one. Those of one at which nothing is under way are not remembered.
    pub fn at(&self, authority: &str) -> Arc<Semaphore> {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        places.retain(|_, places| Arc::strong_count(places) > 1);
        let new = || Arc::new(Semaphore::new(limit::CREDENTIALS_REVOKED_AT_ONCE_MAX));
        Arc::clone(places.entry(authority.to_owned()).or_insert_with(new))
    }
}

/// One round over everything that is owed, with those that used up their time in it.
#[derive(Debug, Default)]
pub(super) struct Round {
    late: HashSet<String>,
}

impl Round {
    /// Does it for all of these, one after the other at each authorization server and at all of them at once. Whoever
    /// does not come to an end in time is left out of the rest of the round.
    pub async fn each<T, F>(&mut self, due: impl IntoIterator<Item = (String, T)>, one: impl Fn(T) -> F)
    where
        F: Future<Output = ()>,
    {
        let mut places: HashMap<String, Vec<T>> = HashMap::new();
        for (authority, item) in due.into_iter().filter(|(authority, _)| !self.late.contains(authority)) {
            places.entry(authority).or_default().push(item);
        }
        let one = &one;
        let all = places.into_iter().map(|(authority, items)| async move {
            let all_there = async {
                for item in items {
                    one(item).await;
                }
            };
            let ended = tokio::time::timeout(limit::OWED_ROUND_MAX, all_there).await;
            ended.is_err().then_some(authority)
        });
        self.late.extend(futures_util::future::join_all(all).await.into_iter().flatten());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_that_hangs_is_left_out_after_so_long_and_delays_nobody_before() {
        let (began, done) = (tokio::time::Instant::now(), Mutex::new(Vec::new()));
        let done = &done;
        let one = |number: u32| async move {
            if number < 10 {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
            done.lock().unwrap().push((number, began.elapsed().as_secs()));
        };
        let mut round = Round::default();
        let due = [("hangs", 1), ("hangs", 2), ("good", 10), ("good", 11), ("fine", 12)];
        round.each(due.map(|(authority, number)| (authority.to_owned(), number)), one).await;
        assert_eq!(began.elapsed().as_secs(), limit::OWED_ROUND_MAX.as_secs());
        round.each([("hangs".to_owned(), 3), ("good".to_owned(), 13)], one).await;
        let mut done = done.lock().unwrap().clone();
        done.sort_unstable();
        let later = limit::OWED_ROUND_MAX.as_secs() + 1;
        assert_eq!(done, [(10, 1), (11, 2), (12, 1), (13, later)]);
    }

    #[test]
    fn places_are_each_authorization_servers_own_and_kept_while_they_are_taken() {
        let places = AtOnce::default();
        let one = places.at("one");
        let taken = one.try_acquire_many(u32::try_from(limit::CREDENTIALS_REVOKED_AT_ONCE_MAX).unwrap()).unwrap();
        assert_eq!(places.at("one").available_permits(), 0);
        assert_eq!(places.at("two").available_permits(), limit::CREDENTIALS_REVOKED_AT_ONCE_MAX);
        drop(taken);
        drop(one);
        drop(places.at("three"));
        assert_eq!(places.0.lock().unwrap().len(), 1, "nothing is under way at the others");
    }
}

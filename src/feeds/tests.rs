//! What a feed ordered comes to its end, whoever waits for it.

use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::order::Order;
use super::taken::Begun;
use super::*;
use crate::feeds::rate::tests::feed;

/// Revokes nothing before it is let.
#[derive(Default)]
struct Slow {
    done: Mutex<Vec<String>>,
    fails: bool,
    gate: Option<Semaphore>,
}

impl Brake for Slow {
    fn config(&self) -> Arc<Config> {
        Arc::new(crate::identity::fixture::config())
    }

    fn now_s(&self) -> BoxFuture<'_, Result<i64, Failure>> {
        Box::pin(std::future::ready(Ok(1_000)))
    }

    fn revoke(&self, revocation: Revocation) -> BoxFuture<'_, Result<RevocationEpoch, Failure>> {
        Box::pin(async move {
            if let Some(gate) = &self.gate {
                gate.acquire().await.unwrap().forget();
            }
            if self.fails {
                return Err(Failure::before(Reason::StoreUnavailable, "away"));
            }
            self.done.lock().unwrap().push(revocation.mode.as_str().to_owned());
            Ok(RevocationEpoch(1))
        })
    }

    fn confirmed<'a>(&'a self, _: &'a str, _: &'a str) -> BoxFuture<'a, Result<(), Stop>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn left<'a>(&'a self, _: &'a RevocationTarget, actor: &'a str) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(async move {
            self.done.lock().unwrap().push(format!("left by {actor}"));
            Ok(())
        })
    }

    fn is_stopped(&self, _: &str) -> bool {
        false
    }

    fn revocations(&self) -> BoxFuture<'_, Result<Vec<Held>, Failure>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    fn lift_spent<'a>(&'a self, _: &'a [Held]) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn statement<'a>(
        &'a self,
        _: &'a FeedConfig,
        _: StatementKind,
        _: &'a str,
        _: bool,
    ) -> BoxFuture<'a, Result<Statement, Stop>> {
        Box::pin(std::future::ready(Err(Refusal::new(Reason::TokenMalformed).into())))
    }

    fn issuer_of(&self, _: &FeedConfig) -> Option<String> {
        None
    }

    fn reachable(&self, _: &FeedConfig) -> EgressPolicy {
        EgressPolicy::issuer(None, false)
    }

    fn knocked(&self, _: Reason, _: IpAddr) {}

    fn noted<'a>(&'a self, _: &'a AdminNote<'a>) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

fn left() -> Vec<(Order, String)> {
    vec![(Order::Left("olga".to_owned()), "account-disabled".to_owned())]
}

#[tokio::test]
async fn an_order_whose_sender_hung_up_is_carried_out_to_its_end() {
    let slow = Arc::new(Slow { gate: Some(Semaphore::new(0)), ..Slow::default() });
    let feeds = Feeds::new(Arc::clone(&slow) as _);
    let feed = feed("hr", 9);
    let Begun::Now(taking) = feeds.events.begin(&feed, "1") else { panic!("it is new") };
    let waiting = feeds.carry_out(&feed, left(), 900, Some(taking));
    assert!(tokio::time::timeout(Duration::from_millis(50), waiting).await.is_err(), "the sender waits no longer");
    assert!(matches!(feeds.events.begin(&feed, "1"), Begun::UnderWay), "and is not told that it was taken");
    slow.gate.as_ref().unwrap().add_permits(2);
    let all = ["sign_out", "block", "left by feed:hr"];
    while *slow.done.lock().unwrap() != all {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    while !matches!(feeds.events.begin(&feed, "1"), Begun::Before) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn an_order_that_failed_may_come_again() {
    let feeds = Feeds::new(Arc::new(Slow { fails: true, ..Slow::default() }) as _);
    let feed = feed("hr", 9);
    let Begun::Now(taking) = feeds.events.begin(&feed, "1") else { panic!("it is new") };
    assert!(feeds.carry_out(&feed, left(), 900, Some(taking)).await.is_err());
    assert!(matches!(feeds.events.begin(&feed, "1"), Begun::Now(_)));
}

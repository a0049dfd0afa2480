//! Upstream sessions and processes by whom they belong to: made once, bounded, ended when idle.
//!
//! Decides who may share one. Knows nothing of what they are. Invariant: two principals never get the
//! same one unless an administrator wrote `isolation = "shared"`, and one in use is never taken away.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use secrecy::ExposeSecret;
use tokio::sync::{Notify, OnceCell};
use tokio::time::Instant;

use super::Access;
use crate::config::Isolation;
use crate::ids::{AuthorizationContext, Digest, PrincipalKey};
use crate::wire::Askable;

/// Whom a session or process belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    context: AuthorizationContext,
    principal: Option<PrincipalKey>,
    /// What a process was started with and all that hangs on; in a session, which of the gateway's own credentials opened
    /// it: a caller's change too often there, and are the caller's anyway.
    credential: Option<Digest>,
    /// Whose places it takes, where it was started with somebody's credential.
    holder: Option<Digest>,
    /// What was declared when it began, and holds for as long as it lives.
    askable: Askable,
}

impl Key {
    pub(super) fn of(access: &Access, isolation: Isolation, askable: Askable) -> Self {
        let handed = access.credential.as_ref().and_then(|header| header.handed.as_ref());
        let credential = match (access.context, &access.credential) {
            _ if handed.is_some() => handed.map(|handed| handed.key()),
            (AuthorizationContext::Gateway, Some(header)) => {
                let parts = [header.name.as_str().as_bytes(), header.value.expose_secret().as_bytes()];
                Some(Digest::of("bailiwick/upstream-credential/v1", &parts))
            }
            _ => None,
        };
        let (principal, askable) = match isolation {
            Isolation::Principal => (access.principal, askable),
            // What is nobody's in particular can ask nobody.
            Isolation::Shared => (None, Askable::NOTHING),
        };
        let holder = handed.filter(|_| principal.is_some()).map(|handed| handed.holder());
        Self { context: access.context, principal, credential, holder, askable }
    }

    /// Who waits where one of these ends at once: whoever it was started for; nobody, where it is the gateway's own.
    pub(super) fn answerable(&self) -> Option<Digest> {
        self.holder.or(self.principal.map(|principal| principal.0))
    }

    /// Whether it is the gateway's own, or everybody's.
    pub(super) const fn is_nobodys(&self) -> bool {
        self.principal.is_none()
    }
}

/// Everything of one kind that one server has.
#[derive(Debug)]
pub(super) struct Pool<T> {
    slots: Mutex<HashMap<Key, Arc<Slot<T>>>>,
    max: usize,
    /// Of one holder.
    own_max: usize,
}

#[derive(Debug)]
pub(super) struct Slot<T> {
    cell: OnceCell<Arc<T>>,
    users: AtomicUsize,
    used: Mutex<Instant>,
    /// Nobody uses it any more.
    free: Notify,
}

/// One that is in use.
#[derive(Debug)]
pub(super) struct Lease<T> {
    value: Arc<T>,
    user: Option<User<T>>,
}

#[derive(Debug)]
struct User<T>(Arc<Slot<T>>);

impl<T> Drop for User<T> {
    fn drop(&mut self) {
        *self.0.used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        if self.0.users.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.free.notify_one();
        }
    }
}

impl<T> Deref for Lease<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> Lease<T> {
    pub(super) const fn shared(&self) -> &Arc<T> {
        &self.value
    }

    /// The same without its place among those in use: it may be ended meanwhile.
    pub(super) fn standing_by(mut self) -> Self {
        self.user = None;
        self
    }
}

/// All places are taken by ones in use.
#[derive(Debug)]
pub(super) struct PoolFull;

impl<T> Pool<T> {
    pub(super) fn new(max: usize) -> Self {
        Self::with(max, max)
    }

    /// The same with so many of one holder at most.
    pub(super) fn with(max: usize, own_max: usize) -> Self {
        Self { slots: Mutex::new(HashMap::new()), max, own_max }
    }

    /// The place for a key, and what had to make room for it.
    fn place(&self, key: &Key) -> Result<(User<T>, Option<Arc<T>>), PoolFull> {
        let mut slots = self.lock();
        let mut evicted = None;
        if !slots.contains_key(key) {
            let is_own = |other: &Key| key.holder.is_some() && other.holder == key.holder;
            let own_full = slots.keys().filter(|other| is_own(other)).count() >= self.own_max;
            if own_full || slots.len() >= self.max {
                let idle = slots.iter().filter(|(_, slot)| slot.users.load(Ordering::Acquire) == 0);
                // Whoever has as many as one may have makes room among their own.
                let idle = idle.filter(|(other, _)| !own_full || is_own(other));
                let oldest = idle.min_by_key(|(_, slot)| slot.used_at()).map(|(key, _)| key.clone()).ok_or(PoolFull)?;
                evicted = slots.remove(&oldest).and_then(|slot| slot.cell.get().cloned());
            }
        }
        let slot = slots.entry(key.clone()).or_insert_with(|| {
            let (users, used) = (AtomicUsize::new(0), Mutex::new(Instant::now()));
            Arc::new(Slot { cell: OnceCell::new(), users, used, free: Notify::new() })
        });
        slot.users.fetch_add(1, Ordering::AcqRel);
        Ok((User(Arc::clone(slot)), evicted))
    }

    /// The one for a key, made under single flight if there is none; and one that had to make room.
    ///
    /// The outer error is that there is no room, the inner one `make`'s.
    pub(super) async fn lease<E>(
        &self,
        key: &Key,
        make: impl Future<Output = Result<Arc<T>, E>>,
        evict: impl FnOnce(Arc<T>),
    ) -> Result<Result<Lease<T>, E>, PoolFull> {
        let (user, evicted) = self.place(key)?;
        if let Some(evicted) = evicted {
            evict(evicted);
        }
        Ok(match user.0.cell.get_or_try_init(|| make).await {
            Ok(value) => Ok(Lease { value: Arc::clone(value), user: Some(user) }),
            Err(error) => {
                let mut slots = self.lock();
                let slot = Arc::clone(&user.0);
                drop(user);
                // Whoever waited for this attempt makes the next one in the same place, which stays theirs.
                let is_left = slot.users.load(Ordering::Acquire) == 0 && !slot.cell.initialized();
                if is_left && slots.get(key).is_some_and(|held| Arc::ptr_eq(held, &slot)) {
                    slots.remove(key);
                }
                Err(error)
            }
        })
    }

    /// What was declared to the one that this principal used last with these credentials; whatever is asked for them
    /// and declares nothing itself is about that one.
    pub(super) fn latest(&self, key: &Key) -> Option<Askable> {
        key.principal?;
        let slots = self.lock();
        let own = slots.iter().filter(|(other, _)| Key { askable: key.askable, ..(*other).clone() } == *key);
        own.max_by_key(|(_, slot)| slot.used_at()).map(|(other, _)| other.askable)
    }

    /// Forgets this very one, so that the next lease makes another; its place, from which those who have it still go.
    pub(super) fn remove(&self, key: &Key, value: &Arc<T>) -> Option<Arc<Slot<T>>> {
        let mut slots = self.lock();
        let is_it = slots.get(key).is_some_and(|slot| slot.cell.get().is_some_and(|held| Arc::ptr_eq(held, value)));
        if is_it { slots.remove(key) } else { None }
    }

    /// Those of a principal to which that was declared.
    pub(super) fn of(&self, principal: PrincipalKey, declared: impl Fn(Askable) -> bool) -> Vec<Arc<T>> {
        let slots = self.lock();
        let own = slots.iter().filter(|(key, _)| key.principal == Some(principal) && declared(key.askable));
        own.filter_map(|(_, slot)| slot.cell.get().cloned()).collect()
    }

    /// This very one among those of whoever asks, whatever was declared to it, and what that was; none is made for it.
    pub(super) fn lease_this(&self, key: &Key, is_it: impl Fn(&T) -> bool) -> Option<(Askable, Lease<T>)> {
        let slots = self.lock();
        let mut own = slots.iter().filter(|(other, _)| Key { askable: key.askable, ..(*other).clone() } == *key);
        own.find_map(|(other, slot)| {
            let value = Arc::clone(slot.cell.get().filter(|value| is_it(value))?);
            slot.users.fetch_add(1, Ordering::AcqRel);
            Some((other.askable, Lease { value, user: Some(User(Arc::clone(slot))) }))
        })
    }

    /// Whether this very one is anybody's.
    pub(super) fn has(&self, is_it: impl Fn(&T) -> bool) -> bool {
        self.lock().values().any(|slot| slot.cell.get().is_some_and(|value| is_it(value)))
    }

    /// The one for a key, if there is one.
    pub(super) fn held(&self, key: &Key) -> Option<Arc<T>> {
        self.lock().get(key).and_then(|slot| slot.cell.get().cloned())
    }

    /// Takes out those that nobody used for so long.
    pub(super) fn take_idle(&self, age: Duration) -> Vec<Arc<T>> {
        let mut taken = Vec::new();
        self.lock().retain(|_, slot| {
            let keep = slot.users.load(Ordering::Acquire) > 0 || slot.used_at().elapsed() < age;
            if !keep {
                taken.extend(slot.cell.get().cloned());
            }
            keep
        });
        taken
    }

    /// Takes all out.
    pub(super) fn take_all(&self) -> Vec<Arc<T>> {
        self.lock().drain().filter_map(|(_, slot)| slot.cell.get().cloned()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Arc<Slot<T>>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Slot<T> {
    /// Waits until nobody uses it.
    pub(super) async fn idle(&self) {
        while self.users.load(Ordering::Acquire) > 0 {
            self.free.notified().await;
        }
    }

    fn used_at(&self) -> Instant {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delegate::{CredentialHeader, Handed};
    use crate::limit;
    use crate::wire::InputKind;

    fn access(principal: u8, context: AuthorizationContext) -> Access {
        Access { context, principal: Some(PrincipalKey(Digest::sha256(&[principal]))), credential: None }
    }

    async fn lease(pool: &Pool<u32>, key: &Key, value: u32) -> Result<Lease<u32>, PoolFull> {
        Ok(pool.lease(key, async { Ok::<_, ()>(Arc::new(value)) }, |_| {}).await?.unwrap())
    }

    #[test]
    fn two_principals_share_only_what_is_written_as_shared() {
        let (one, two) = (access(1, AuthorizationContext::Gateway), access(2, AuthorizationContext::Gateway));
        assert_ne!(
            Key::of(&one, Isolation::Principal, Askable::NOTHING),
            Key::of(&two, Isolation::Principal, Askable::NOTHING)
        );
        assert_eq!(
            Key::of(&one, Isolation::Shared, Askable::NOTHING),
            Key::of(&two, Isolation::Shared, Askable::NOTHING)
        );
        let own = |n: u8| access(n, AuthorizationContext::Principal(PrincipalKey(Digest::sha256(&[n]))));
        assert_ne!(
            Key::of(&own(1), Isolation::Shared, Askable::NOTHING),
            Key::of(&own(2), Isolation::Shared, Askable::NOTHING)
        );
        let with = |secret: &str| Access {
            credential: Some(CredentialHeader::new(http::header::AUTHORIZATION, secret.to_owned().into())),
            ..access(1, AuthorizationContext::Gateway)
        };
        let declaring = |isolation, kind| Key::of(&one, isolation, Askable::NOTHING.with(kind));
        assert_ne!(declaring(Isolation::Principal, InputKind::Form), declaring(Isolation::Principal, InputKind::Roots));
        assert_eq!(declaring(Isolation::Shared, InputKind::Form), declaring(Isolation::Shared, InputKind::Roots));
        assert_ne!(
            Key::of(&with("a"), Isolation::Shared, Askable::NOTHING),
            Key::of(&with("b"), Isolation::Shared, Askable::NOTHING)
        );
    }

    #[tokio::test]
    async fn one_in_use_is_never_taken_away_and_an_idle_one_makes_room() {
        let pool = Pool::new(2);
        let key = |n| Key::of(&access(n, AuthorizationContext::Gateway), Isolation::Principal, Askable::NOTHING);
        let first = lease(&pool, &key(1), 1).await.unwrap();
        let second = lease(&pool, &key(2), 2).await.unwrap();
        assert!(lease(&pool, &key(3), 3).await.is_err());
        drop(second);
        assert_eq!(*lease(&pool, &key(3), 3).await.unwrap(), 3);
        assert_eq!(*lease(&pool, &key(1), 9).await.unwrap(), 1, "the one in use stayed");
        assert_eq!(pool.take_idle(Duration::ZERO).len(), 1);
        drop(first);
        assert_eq!(pool.take_all().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn one_is_idle_once_nobody_has_used_it_for_so_long_and_one_in_use_never_is() {
        for age in [limit::SESSION_IDLE, limit::PROCESS_IDLE] {
            let pool = Pool::new(4);
            let key = |n| Key::of(&access(n, AuthorizationContext::Gateway), Isolation::Principal, Askable::NOTHING);
            drop(lease(&pool, &key(1), 1).await.unwrap());
            let in_use = lease(&pool, &key(2), 2).await.unwrap();
            tokio::time::advance(age - Duration::from_secs(1)).await;
            assert!(pool.take_idle(age).is_empty());
            // Whoever uses it again begins that anew.
            drop(lease(&pool, &key(3), 3).await.unwrap());
            tokio::time::advance(Duration::from_secs(1)).await;
            assert_eq!(pool.take_idle(age).iter().map(|value| **value).collect::<Vec<_>>(), [1]);
            drop(in_use);
            tokio::time::advance(age - Duration::from_secs(1)).await;
            let mut rest: Vec<u32> = pool.take_idle(age).iter().map(|value| **value).collect();
            rest.sort_unstable();
            assert_eq!(rest, [3]);
            tokio::time::advance(Duration::from_secs(1)).await;
            assert_eq!(pool.take_idle(age).iter().map(|value| **value).collect::<Vec<_>>(), [2]);
        }
    }

    #[tokio::test]
    async fn what_declares_nothing_is_about_the_one_that_its_principal_used_last() {
        let pool = Pool::new(4);
        let key = |n, askable| Key::of(&access(n, AuthorizationContext::Gateway), Isolation::Principal, askable);
        let forms = Askable::NOTHING.with(InputKind::Form);
        drop(lease(&pool, &key(1, Askable::NOTHING), 1).await.unwrap());
        drop(lease(&pool, &key(1, forms), 2).await.unwrap());
        drop(lease(&pool, &key(2, Askable::NOTHING), 3).await.unwrap());
        assert_eq!(pool.latest(&key(1, Askable::NOTHING)), Some(forms));
        assert_eq!(pool.latest(&key(2, Askable::NOTHING)), Some(Askable::NOTHING));
        assert_eq!(pool.latest(&key(3, Askable::NOTHING)), None);
        let nobody = Key::of(&Access::bare(), Isolation::Shared, Askable::NOTHING);
        drop(lease(&pool, &nobody, 4).await.unwrap());
        assert_eq!(pool.latest(&nobody), None, "what is nobody's declares nothing");
    }

    #[tokio::test]
    async fn one_that_is_asked_for_by_itself_is_found_whatever_was_declared_to_it_and_only_by_whose_it_is() {
        let pool = Pool::new(1);
        let key = |n, askable| Key::of(&access(n, AuthorizationContext::Gateway), Isolation::Principal, askable);
        let forms = Askable::NOTHING.with(InputKind::Form);
        drop(lease(&pool, &key(1, forms), 1).await.unwrap());
        assert!(pool.lease_this(&key(1, Askable::NOTHING), |value| *value == 2).is_none(), "another life of it");
        assert!(pool.lease_this(&key(2, forms), |value| *value == 1).is_none(), "another's");
        let (declared, held) = pool.lease_this(&key(1, Askable::NOTHING), |value| *value == 1).unwrap();
        assert_eq!((declared, *held), (forms, 1));
        assert!(lease(&pool, &key(2, forms), 2).await.is_err(), "it is in use");
        drop(held);
        assert_eq!(*lease(&pool, &key(2, forms), 2).await.unwrap(), 2);
        assert!(pool.has(|value| *value == 2) && !pool.has(|value| *value == 1));
    }

    #[tokio::test]
    async fn one_person_takes_only_so_many_places_and_makes_room_among_their_own() {
        let pool = Pool::with(limit::PROCESSES_PER_SERVER_MAX, limit::PROCESSES_PER_HOLDER_MAX);
        let key = |holder: &[u8], secret: u8| {
            let mut header = CredentialHeader::new(http::header::AUTHORIZATION, String::new().into());
            header.handed = Some(Handed::of(&format!("{secret}"), holder, None));
            let access = Access { credential: Some(header), ..access(1, AuthorizationContext::Gateway) };
            Key::of(&access, Isolation::Principal, Askable::NOTHING)
        };
        assert_ne!(key(b"a", 1), key(b"a", 2), "two secrets are two processes");
        let idle = lease(&pool, &key(b"b", 1), 0).await.unwrap().standing_by();
        let mut leases = Vec::new();
        for secret in 0..limit::PROCESSES_PER_HOLDER_MAX {
            leases.push(lease(&pool, &key(b"a", u8::try_from(secret).unwrap()), 1).await.unwrap());
        }
        assert!(lease(&pool, &key(b"a", 99), 2).await.is_err(), "what is idle is somebody else's");
        drop(leases.pop());
        assert_eq!(*lease(&pool, &key(b"a", 99), 2).await.unwrap(), 2);
        assert!(pool.held(&key(b"b", 1)).is_some() && pool.held(&key(b"a", 7)).is_none());
        drop(idle);
    }

    #[tokio::test]
    async fn one_that_is_replaced_is_waited_for_until_nobody_uses_it() {
        let pool = Arc::new(Pool::<u32>::new(2));
        let key = Key::of(&access(1, AuthorizationContext::Gateway), Isolation::Shared, Askable::NOTHING);
        let in_use = lease(&pool, &key, 1).await.unwrap();
        let place = pool.remove(&key, in_use.shared()).unwrap();
        assert_eq!(*lease(&pool, &key, 2).await.unwrap(), 2, "another one is made");
        assert!(tokio::time::timeout(Duration::from_millis(20), place.idle()).await.is_err());
        drop(in_use);
        place.idle().await;
    }

    #[tokio::test]
    async fn what_the_second_one_makes_after_the_first_ones_failure_is_in_its_place() {
        let pool = Pool::<u32>::new(4);
        let key = Key::of(&access(1, AuthorizationContext::Gateway), Isolation::Shared, Askable::NOTHING);
        let fails = Notify::new();
        let first = async {
            let make = async {
                fails.notified().await;
                Err::<Arc<u32>, _>("no")
            };
            pool.lease(&key, make, |_| {}).await.unwrap().unwrap_err()
        };
        let second = async {
            fails.notify_one();
            let make = async {
                // The first one has been told by now.
                tokio::task::yield_now().await;
                Ok::<_, &str>(Arc::new(2))
            };
            *pool.lease(&key, make, |_| {}).await.unwrap().unwrap()
        };
        assert_eq!(tokio::join!(first, second), ("no", 2));
        assert_eq!(pool.held(&key).as_deref(), Some(&2), "or nobody would ever end it");
        let other = Key::of(&access(2, AuthorizationContext::Gateway), Isolation::Principal, Askable::NOTHING);
        let failed = pool.lease(&other, async { Err::<Arc<u32>, _>("no") }, |_| {}).await.unwrap();
        assert!(failed.is_err() && pool.lock().len() == 1, "a failure alone takes no place");
    }

    #[tokio::test]
    async fn many_at_once_make_only_one_and_a_failure_is_tried_again() {
        let pool = Arc::new(Pool::<u32>::new(4));
        let key = Key::of(&access(1, AuthorizationContext::Gateway), Isolation::Shared, Askable::NOTHING);
        let failed = pool.lease(&key, async { Err::<Arc<u32>, _>("no") }, |_| {}).await.unwrap();
        assert_eq!(failed.unwrap_err(), "no");
        let made = Arc::new(AtomicUsize::new(0));
        let tasks: Vec<_> = (0..8)
            .map(|_| {
                let (pool, key, made) = (Arc::clone(&pool), key.clone(), Arc::clone(&made));
                tokio::spawn(async move {
                    let make = async {
                        tokio::task::yield_now().await;
                        made.fetch_add(1, Ordering::SeqCst);
                        Ok::<_, ()>(Arc::new(5))
                    };
                    *pool.lease(&key, make, |_| {}).await.unwrap().unwrap()
                })
            })
            .collect();
        for task in tasks {
            assert_eq!(task.await.unwrap(), 5);
        }
        assert_eq!(made.load(Ordering::SeqCst), 1);
    }
}

//! Upstream sessions and processes by whom they belong to: made once, bounded, ended when idle.
//!
//! Decides who may share one. Knows nothing of what they are. Invariant: two principals never get the
//! same one unless an administrator wrote `isolation = "shared"`, and one in use is never taken away.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use secrecy::ExposeSecret;
use tokio::sync::OnceCell;

use super::Access;
use crate::config::Isolation;
use crate::ids::{AuthorizationContext, Digest, PrincipalKey};
use crate::wire::Askable;

/// Whom a session or process belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    context: AuthorizationContext,
    principal: Option<PrincipalKey>,
    /// Which of the gateway's own credentials opened it; a caller's change too often and are the caller's anyway.
    credential: Option<Digest>,
    /// What was declared when it began, and holds for as long as it lives.
    askable: Askable,
}

impl Key {
    pub(super) fn of(access: &Access, isolation: Isolation, askable: Askable) -> Self {
        let credential = match (access.context, &access.credential) {
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
        Self { context: access.context, principal, credential, askable }
    }
}

/// Everything of one kind that one server has.
#[derive(Debug)]
pub(super) struct Pool<T> {
    slots: Mutex<HashMap<Key, Arc<Slot<T>>>>,
    max: usize,
}

#[derive(Debug)]
struct Slot<T> {
    cell: OnceCell<Arc<T>>,
    users: AtomicUsize,
    used: Mutex<Instant>,
}

/// One that is in use.
#[derive(Debug)]
pub(super) struct Lease<T> {
    value: Arc<T>,
    _user: User<T>,
}

#[derive(Debug)]
struct User<T>(Arc<Slot<T>>);

impl<T> Drop for User<T> {
    fn drop(&mut self) {
        *self.0.used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.0.users.fetch_sub(1, Ordering::AcqRel);
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
}

/// All places are taken by ones in use.
#[derive(Debug)]
pub(super) struct PoolFull;

impl<T> Pool<T> {
    pub(super) fn new(max: usize) -> Self {
        Self { slots: Mutex::new(HashMap::new()), max }
    }

    /// The place for a key, and what had to make room for it.
    fn place(&self, key: &Key) -> Result<(User<T>, Option<Arc<T>>), PoolFull> {
        let mut slots = self.lock();
        let mut evicted = None;
        if !slots.contains_key(key) && slots.len() >= self.max {
            let idle = slots.iter().filter(|(_, slot)| slot.users.load(Ordering::Acquire) == 0);
            let oldest = idle.min_by_key(|(_, slot)| slot.used_at()).map(|(key, _)| key.clone()).ok_or(PoolFull)?;
            evicted = slots.remove(&oldest).and_then(|slot| slot.cell.get().cloned());
        }
        let slot = slots.entry(key.clone()).or_insert_with(|| {
            Arc::new(Slot { cell: OnceCell::new(), users: AtomicUsize::new(0), used: Mutex::new(Instant::now()) })
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
            Ok(value) => Ok(Lease { value: Arc::clone(value), _user: user }),
            Err(error) => {
                let mut slots = self.lock();
                if slots.get(key).is_some_and(|slot| Arc::ptr_eq(slot, &user.0) && !slot.cell.initialized()) {
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

    /// Forgets this very one, so that the next lease makes another.
    pub(super) fn remove(&self, key: &Key, value: &Arc<T>) {
        let mut slots = self.lock();
        if slots.get(key).is_some_and(|slot| slot.cell.get().is_some_and(|held| Arc::ptr_eq(held, value))) {
            slots.remove(key);
        }
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
    fn used_at(&self) -> Instant {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delegate::CredentialHeader;
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

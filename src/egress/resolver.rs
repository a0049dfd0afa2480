//! The resolver that answers only with addresses that may be connected.
//!
//! Decides which of a name's addresses remain. Invariant: a client that uses it connects to exactly
//! what it answered, so a name that resolves differently a moment later (DNS rebinding) gains nothing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use hyper_util::client::legacy::connect::dns::Name;

use super::{AddressClass, EgressError, EgressPolicy};
use crate::limit;

/// The resolver that answers only with addresses that may be connected. Cheap to clone.
#[derive(Debug, Clone)]
pub struct GuardedResolver {
    policy: Arc<EgressPolicy>,
}

impl GuardedResolver {
    /// A resolver under that policy.
    #[must_use]
    pub fn new(policy: EgressPolicy) -> Self {
        Self { policy: Arc::new(policy) }
    }

    /// The addresses of a name that may be connected.
    ///
    /// # Errors
    /// When it does not resolve, or when none of its addresses is allowed.
    pub async fn addresses(&self, host: &str) -> Result<Vec<SocketAddr>, EgressError> {
        self.among(host, tokio::net::lookup_host((host, 0))).await
    }

    /// Those of the addresses that a look-up finds.
    async fn among(
        &self,
        host: &str,
        looking: impl Future<Output = std::io::Result<impl Iterator<Item = SocketAddr>>>,
    ) -> Result<Vec<SocketAddr>, EgressError> {
        let unreachable = |problem: String| EgressError::Unreachable { host: super::bounded(host), problem };
        let found = tokio::time::timeout(limit::RESOLVE_TIMEOUT, looking)
            .await
            .map_err(|_| unreachable("the name did not resolve in time".into()))?
            .map_err(|error| unreachable(error.to_string()))?;
        let mut refused = None;
        let mut allowed = Vec::new();
        for address in found.take(limit::RESOLVED_ADDRESSES_MAX) {
            match self.policy.check(host, AddressClass::of(address.ip())) {
                Ok(()) => allowed.push(address),
                Err(error) => refused = Some(error),
            }
        }
        match (allowed.is_empty(), refused) {
            (false, _) => Ok(allowed),
            (true, Some(error)) => Err(error),
            (true, None) => Err(unreachable("the name has no address".into())),
        }
    }
}

impl tower::Service<Name> for GuardedResolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = EgressError;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), EgressError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let resolver = self.clone();
        Box::pin(async move { Ok(resolver.addresses(name.as_str()).await?.into_iter()) })
    }
}

impl reqwest::dns::Resolve for GuardedResolver {
    fn resolve(&self, name: reqwest::dns::Name) -> reqwest::dns::Resolving {
        let resolver = self.clone();
        Box::pin(async move {
            let addresses: reqwest::dns::Addrs = Box::new(resolver.addresses(name.as_str()).await?.into_iter());
            Ok(addresses)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_of_this_machine_resolves_only_where_that_is_allowed() {
        let refused = GuardedResolver::new(EgressPolicy::public()).addresses("localhost").await;
        assert!(matches!(refused, Err(EgressError::Refused { .. })), "{refused:?}");
        let allowed = GuardedResolver::new(EgressPolicy::server(true)).addresses("localhost").await.unwrap();
        assert!(allowed.iter().all(|address| address.ip().is_loopback()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_server_that_says_nothing_is_waited_for_so_long() {
        let resolver = GuardedResolver::new(EgressPolicy::public());
        let began = tokio::time::Instant::now();
        let silent = std::future::pending::<std::io::Result<std::vec::IntoIter<SocketAddr>>>();
        let error = resolver.among("example.com", silent).await.unwrap_err();
        assert!(error.to_string().contains("did not resolve in time"), "{error}");
        let took = began.elapsed();
        assert!(took >= limit::RESOLVE_TIMEOUT && took < 2 * limit::RESOLVE_TIMEOUT, "{took:?}");
    }

    #[tokio::test]
    async fn of_a_name_with_addresses_without_end_only_the_first_are_looked_at() {
        let resolver = GuardedResolver::new(EgressPolicy::public());
        let last = u16::try_from(limit::RESOLVED_ADDRESSES_MAX).unwrap();
        let looked_at = std::cell::Cell::new(0);
        let endless = (0_u16..).map(|number| {
            looked_at.set(looked_at.get() + 1);
            // Loopback, which is refused, but for the last that is looked at and those behind it.
            SocketAddr::from(([if number < last - 1 { 127 } else { 9 }, 9, 9, 9], number))
        });
        let found = resolver.among("example.com", std::future::ready(Ok(endless))).await.unwrap();
        assert_eq!(found, [SocketAddr::from(([9, 9, 9, 9], last - 1))]);
        assert_eq!(looked_at.get(), limit::RESOLVED_ADDRESSES_MAX);
    }

    #[tokio::test]
    async fn a_number_that_spells_loopback_is_refused_as_what_it_resolves_to() {
        let answer = GuardedResolver::new(EgressPolicy::public()).addresses("2130706433").await;
        assert!(answer.is_err(), "{answer:?}");
    }
}

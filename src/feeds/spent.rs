//! Sign-outs that refuse nothing any more: every token from before them has expired.
//!
//! Decides which ones. A feed that works makes some every day, and room for revocations is bounded. Invariant: only what
//! a feed ordered is lifted, never a block, and nothing while a token that it refuses could still be accepted.

use super::Feeds;
use crate::config::{Config, IssuerConfig};
use crate::identity::revoked::{Held, RevocationMode, RevocationTarget};
use crate::limit;

impl Feeds {
    /// Lifts some of them; what remains is looked at the next time.
    pub(super) async fn lift_spent(&self) {
        let config = self.brake.config();
        let (held, now) = match (self.brake.revocations().await, self.brake.now_s().await) {
            (Ok(held), Ok(now)) => (held, now),
            (Err(failure), _) | (_, Err(failure)) => {
                return tracing::warn!(%failure, "what is spent could not be looked for");
            }
        };
        let spent = held.into_iter().filter(|held| is_spent(&config, held, now));
        let spent: Vec<_> = spent.take(limit::FEED_SPENT_LIFTED_MAX).collect();
        if !spent.is_empty()
            && let Err(failure) = self.brake.lift_spent(&spent).await
        {
            tracing::warn!(%failure, "what is spent could not be lifted");
        }
    }
}

fn is_spent(config: &Config, held: &Held, now: i64) -> bool {
    let (RevocationTarget::Subject(alias, _) | RevocationTarget::SessionOf(alias, _)) = &held.revocation.target else {
        return false;
    };
    let RevocationMode::SignOut { issued_before } = held.revocation.mode else { return false };
    if !held.revocation.actor.starts_with("feed:") {
        return false;
    }
    let issuer = config.issuers.iter().find(|issuer| issuer.alias == *alias);
    issuer.and_then(|issuer| longest(issuer)).is_some_and(|longest| issued_before.saturating_add(longest) < now)
}

/// For how long after its issue a token, or a console session that began with it, may still be accepted; nothing where
/// tokens need not say when that was.
fn longest(issuer: &IssuerConfig) -> Option<i64> {
    if issuer.optional_claims.iter().any(|claim| claim == "iat") {
        return None;
    }
    let token = issuer.token_life_max.saturating_add(issuer.leeway.saturating_mul(2));
    let longest = token.max(limit::CONSOLE_SESSION_AGE_MAX).saturating_add(limit::SIGN_OUT_SKEW);
    i64::try_from(longest.as_secs()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::fixture;
    use crate::identity::revoked::Revocation;
    use crate::ids::{IssuerAlias, RevocationEpoch};

    fn held(target: RevocationTarget, mode: RevocationMode, actor: &str) -> Held {
        let revocation = Revocation { target, mode, actor: actor.into(), note: String::new(), at: 0 };
        Held { since: RevocationEpoch(1), revocation }
    }

    #[test]
    fn only_a_sign_out_of_a_feed_is_spent_and_only_once_nothing_from_before_it_is_accepted() {
        let config = fixture::config();
        let alias = IssuerAlias::new("corp").unwrap();
        let of = |name: &str| RevocationTarget::Subject(alias.clone(), name.into());
        let until = RevocationMode::SignOut { issued_before: 1_000 };
        let life = longest(&fixture::issuer_config()).unwrap();
        let spent = |held: &Held, now| is_spent(&config, held, now);
        let ours = held(of("ann"), until, "feed:corp");
        assert!(!spent(&ours, 1_000 + life) && spent(&ours, 1_001 + life));
        let session = RevocationTarget::SessionOf(alias.clone(), "s".into());
        assert!(spent(&held(session, until, "feed:corp"), 1_001 + life));
        for other in [
            held(of("ann"), until, "user:corp/admin"),
            held(of("ann"), RevocationMode::Block, "feed:corp"),
            held(RevocationTarget::Owner("user:corp/ann".into()), RevocationMode::Block, "feed:corp"),
            held(RevocationTarget::Subject(IssuerAlias::new("gone").unwrap(), "ann".into()), until, "feed:corp"),
        ] {
            assert!(!spent(&other, i64::MAX), "{other:?}");
        }
        let unsure = IssuerConfig { optional_claims: vec!["iat".into()], ..fixture::issuer_config() };
        assert_eq!(longest(&unsure), None);
    }
}

//! A token that is only asked about: what it says, and no trace of it.

use super::*;
use crate::ids::Digest;

#[tokio::test]
async fn a_token_that_is_asked_about_is_told_and_not_remembered_whether_it_is_good_or_not() {
    let signer = Signer::new("one");
    let idp = Idp::start(vec![signer.jwk()]).await;
    let room = room(&config_at(&idp.url));
    let (good, expired) = (claims(&idp.url), with(claims(&idp.url), json!({ "iat": 1_000, "exp": 2_000 })));
    let (good, expired) = (signer.token(&good), signer.token(&expired));
    let revision = room.identity.settings.load().revision;
    let remembers = |token: &str| {
        let (digest, now) = (Digest::sha256(token.as_bytes()), now_s());
        let cache = &room.identity.cache;
        cache.verified(&digest, revision, now).is_some() || cache.refused(&digest, revision, now).is_some()
    };
    let bearer = room.identity.bearer(&good, &Resource::Gateway).await.unwrap();
    assert_eq!(bearer.persona.user.unwrap().as_str(), "user:corp/alice");
    let refused = room.identity.bearer(&expired, &Resource::Gateway).await.unwrap_err();
    assert_eq!(refused.reason(), Reason::TokenExpired);
    assert!(!remembers(&good) && !remembers(&expired));
    assert!(!room.identity.has_seen(&Presented::Bearer(&good).into()));
    // Whoever comes with one is remembered.
    room.ask(&good).await.unwrap();
    assert_eq!(room.ask(&expired).await.unwrap_err(), Reason::TokenExpired);
    assert!(remembers(&good) && remembers(&expired));
}

//! What haste costs: whoever is told to slow down is told so slowly.
//!
//! A caller over its limits could ask again at once, and every refusal takes time from the others: the token is looked
//! at, the body is read, a record is written. Decides how long such an answer is held. Refuses to know who asked and
//! why they were refused. Invariant: so many answers are held and no more, and nobody else waits for one.

use axum::body::Body;
use http::{Response, StatusCode};
use tokio::sync::Semaphore;

use crate::limit;

/// The answers that are held now.
#[derive(Debug)]
pub(super) struct Haste {
    places: Semaphore,
}

impl Default for Haste {
    fn default() -> Self {
        Self { places: Semaphore::new(limit::HASTY_ANSWERS_HELD_MAX) }
    }
}

impl Haste {
    /// The same response, a little later if it says 429. Cancel-safe: a client that goes frees its place.
    pub async fn slowed(&self, response: Response<Body>) -> Response<Body> {
        if response.status() == StatusCode::TOO_MANY_REQUESTS
            // With every place taken there are so many connections that waiting would only keep more of them open.
            && let Ok(_place) = self.places.try_acquire()
        {
            tokio::time::sleep(limit::HASTY_ANSWER_HOLD).await;
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(status: StatusCode) -> Response<Body> {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = status;
        response
    }

    #[tokio::test(start_paused = true)]
    async fn only_an_answer_to_haste_is_held_and_only_so_many_are() {
        let haste = std::sync::Arc::new(Haste::default());
        let took = async |status| {
            let began = tokio::time::Instant::now();
            assert_eq!(haste.slowed(with(status)).await.status(), status);
            began.elapsed()
        };
        assert_eq!(took(StatusCode::OK).await.as_millis(), 0);
        assert_eq!(took(StatusCode::UNAUTHORIZED).await.as_millis(), 0);
        assert!(took(StatusCode::TOO_MANY_REQUESTS).await >= limit::HASTY_ANSWER_HOLD);
        let held: Vec<_> = (0..limit::HASTY_ANSWERS_HELD_MAX)
            .map(|_| {
                let haste = std::sync::Arc::clone(&haste);
                tokio::spawn(async move { haste.slowed(with(StatusCode::TOO_MANY_REQUESTS)).await })
            })
            .collect();
        while haste.places.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(took(StatusCode::TOO_MANY_REQUESTS).await.as_millis(), 0, "one too many is not held");
        for one in held {
            one.await.unwrap();
        }
        assert!(took(StatusCode::TOO_MANY_REQUESTS).await >= limit::HASTY_ANSWER_HOLD, "the places are free again");
    }
}

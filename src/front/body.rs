//! The body of a request, bounded in bytes and time.
//!
//! Invariant: what is kept of a body is counted for its sender as it comes; of one that is too large nothing is kept, and
//! its sender is told why.

use bytes::{Buf as _, Bytes};
use http_body_util::BodyExt as _;

use super::memory::Held;
use crate::limit;
use crate::outcome::{Reason, Refusal};

/// The whole body, bounded in bytes and time.
pub(super) async fn read<B>(mut body: B, held: &Held) -> Result<Vec<u8>, Refusal>
where
    B: http_body::Body<Data = Bytes> + Send + Unpin,
{
    let expected = body.size_hint().lower();
    if expected > limit::REQUEST_BYTES_MAX as u64 {
        discard(&mut body).await;
        return Err(Refusal::new(Reason::BodyTooLarge));
    }
    let collect = async {
        let reserved = usize::try_from(expected).unwrap_or(0).min(limit::BODY_RESERVED_BYTES_MAX);
        let mut bytes: Vec<u8> = Vec::with_capacity(reserved);
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else {
                return Err(Refusal::new(Reason::RequestInvalid).hint("the body ended too early"));
            };
            let Ok(data) = frame.into_data() else { continue };
            if bytes.len() + data.remaining() > limit::REQUEST_BYTES_MAX {
                discard(&mut body).await;
                return Err(Refusal::new(Reason::BodyTooLarge));
            }
            if let Err(refusal) = held.more(data.remaining()) {
                drop(bytes);
                discard(&mut body).await;
                return Err(refusal);
            }
            bytes.extend_from_slice(&data);
        }
        Ok(bytes)
    };
    match tokio::time::timeout(limit::BODY_READ_TIMEOUT, collect).await {
        Ok(result) => result,
        Err(_) => Err(Refusal::new(Reason::RequestInvalid).hint("the body did not arrive in time")),
    }
}

/// Takes in some more of a body that is too large and keeps none of it: a client that is still writing when the
/// connection closes never reads why.
async fn discard<B>(body: &mut B)
where
    B: http_body::Body<Data = Bytes> + Send + Unpin,
{
    let some = async {
        let mut left = limit::BODY_DISCARDED_BYTES_MAX;
        while let Some(Ok(frame)) = body.frame().await {
            let length = frame.data_ref().map_or(0, Bytes::len);
            left = left.saturating_sub(length);
            if left == 0 {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(limit::BODY_DISCARD_TIMEOUT, some).await;
}

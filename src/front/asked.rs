//! What other replicas ask about the record: no requests of clients, and no way leads there from where clients come in.
//!
//! Decides who is listened to. Refuses to know what is asked and answered. Invariant: of whoever does not show that it is a
//! replica nothing is read, and it is told what anybody is told of a path that is none.

use std::net::IpAddr;

use axum::body::Body;
use bytes::Bytes;
use http::{Method as Verb, Request as HttpRequest, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};

use super::pipeline::Pipeline;
use super::{Front, answer, headers};
use crate::gateway::whole::PROOF;
use crate::limit;
use crate::outcome::{Reason, Stop};

impl<P: Pipeline> Front<P> {
    /// Answers a question about the record.
    pub(super) async fn asked_by_replica<B>(&self, request: HttpRequest<B>, peer: IpAddr) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (parts, body) = request.into_parts();
        let proof = headers::single(&parts.headers, PROOF.as_str()).ok().flatten();
        let proven =
            proof.filter(|_| parts.method == Verb::POST).and_then(|proof| self.pipeline.asked_by_replica(proof));
        let Some(proven) = proven else {
            self.pipeline.refused_unauthenticated(Reason::RequestInvalid, peer);
            return answer::text(StatusCode::NOT_FOUND, "not found\n");
        };
        let read = Limited::new(body, limit::RECORD_QUESTION_BYTES_MAX).collect();
        let Ok(Ok(body)) = tokio::time::timeout(limit::BODY_READ_TIMEOUT, read).await else {
            return answer::text(StatusCode::BAD_REQUEST, "what is asked is too long, or did not come\n");
        };
        match self.pipeline.tell_replica(&proven, &body.to_bytes()).await {
            Ok(told) => answer::document(StatusCode::OK, told),
            Err(Stop::Refused(refusal)) => {
                answer::text(StatusCode::BAD_REQUEST, format!("{} ({})\n", refusal.hint, refusal.reason.code()))
            }
            Err(Stop::Failed(failure)) => answer::text(
                StatusCode::SERVICE_UNAVAILABLE,
                format!("{} ({})\n", failure.detail, failure.reason.code()),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::fixture::Scripted;
    use super::*;
    use crate::ids::ReplicaId;
    use crate::wire::handle::Sealer;

    async fn asked(bytes: usize) -> StatusCode {
        let sealer = Arc::new(Sealer::new([&[1_u8; 32][..]]).unwrap());
        let front = Front::new(Arc::new(Scripted::new([])), sealer, ReplicaId::new());
        let body = http_body_util::Full::new(Bytes::from(vec![b' '; bytes]));
        let request = HttpRequest::post("/replica/record").header(PROOF, "of a replica").body(body).unwrap();
        front.asked_by_replica(request, IpAddr::from([10, 0, 0, 1])).await.status()
    }

    #[tokio::test]
    async fn a_question_is_as_long_as_it_may_be_and_not_longer() {
        assert_eq!(asked(limit::RECORD_QUESTION_BYTES_MAX).await, StatusCode::OK);
        assert_eq!(asked(limit::RECORD_QUESTION_BYTES_MAX + 1).await, StatusCode::BAD_REQUEST);
    }
}

//! That a question about the record comes from a replica: a certificate alone does not say so.
//!
//! Decides whether a question is one of a replica's, to this one, of now. Refuses to know what is asked. Invariant: a
//! question is believed from whoever has the keys that all replicas seal with, for the replica that it was sealed for, and
//! for the body that it was sealed with.

use serde::{Deserialize, Serialize};

use crate::ids::{Digest, PrincipalKey, ReplicaId};
use crate::limit;
use crate::wire::handle::Sealer;

/// Nothing else is sealed for this.
const PURPOSE: &str = "question about the record";

/// Who wants to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asker {
    /// As the record names them: `host:UID`, `user:...`.
    pub name: String,
    /// `host`, `user` or `agent`.
    pub kind: String,
}

/// What is sealed of a question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Sealed {
    by: String,
    asker: Asker,
    /// When, microseconds since 1970 by the store's clock.
    at_us: i64,
    body: Digest,
}

/// A question that a replica asks, before its body was read.
#[derive(Debug)]
pub struct Proven {
    /// Which replica asks.
    pub by: String,
    /// Who wants to know.
    pub asker: Asker,
    body: Digest,
}

impl Proven {
    /// Whether it was sealed with this body.
    #[must_use]
    pub fn is_of(&self, body: &[u8]) -> bool {
        self.body == Digest::sha256(body)
    }

    /// One for a test.
    #[cfg(test)]
    pub(crate) fn of_test() -> Self {
        let asker = Asker { name: "host:0".to_owned(), kind: "host".to_owned() };
        Self { by: ReplicaId::new().to_string(), asker, body: Digest::sha256(b"") }
    }
}

/// Seals a question for one replica; nothing where that cannot be done.
pub(super) fn seal(
    sealer: &Sealer,
    (by, to): (ReplicaId, ReplicaId),
    asker: &Asker,
    now_us: i64,
    body: &[u8],
) -> Option<String> {
    let sealed = Sealed { by: by.to_string(), asker: asker.clone(), at_us: now_us, body: Digest::sha256(body) };
    let content = serde_json::to_vec(&sealed).ok()?;
    sealer.seal(PURPOSE, addressee(to), &content).ok()
}

/// What a replica asks this one now, if it is that.
pub(super) fn open(sealer: &Sealer, own: ReplicaId, now_us: i64, proof: &str) -> Option<Proven> {
    let content = sealer.open(PURPOSE, addressee(own), proof)?;
    let Sealed { by, asker, at_us, body } = serde_json::from_slice(&content).ok()?;
    let life_us = u64::try_from(limit::RECORD_QUESTION_LIFE.as_micros()).unwrap_or_default();
    (now_us.abs_diff(at_us) <= life_us).then_some(Proven { by, asker, body })
}

fn addressee(replica: ReplicaId) -> PrincipalKey {
    PrincipalKey(Digest::of("bailiwick/replica", &[replica.to_string().as_bytes()]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_believed_from_whoever_has_the_keys_here_now_and_with_its_body() {
        let sealer = Sealer::new([&[1_u8; 32][..]]).unwrap();
        let (here, there) = (ReplicaId::new(), ReplicaId::new());
        let asker = Asker { name: "host:0".to_owned(), kind: "host".to_owned() };
        let now_us = 1_700_000_000_000_000;
        let proof = seal(&sealer, (here, there), &asker, now_us, b"{}").unwrap();
        let proven = open(&sealer, there, now_us, &proof).unwrap();
        assert_eq!((&proven.by, &proven.asker), (&here.to_string(), &asker));
        assert!(proven.is_of(b"{}") && !proven.is_of(b"{ }"));

        let life_us = i64::try_from(limit::RECORD_QUESTION_LIFE.as_micros()).unwrap();
        for (late, is_good) in [(life_us, true), (-life_us, true), (life_us + 1, false), (-life_us - 1, false)] {
            assert_eq!(open(&sealer, there, now_us + late, &proof).is_some(), is_good, "{late}");
        }
        assert!(open(&sealer, here, now_us, &proof).is_none(), "it was for the other one");
        let stranger = Sealer::new([&[2_u8; 32][..]]).unwrap();
        assert!(open(&stranger, there, now_us, &proof).is_none());
        let forged = seal(&stranger, (here, there), &asker, now_us, b"{}").unwrap();
        assert!(open(&sealer, there, now_us, &forged).is_none());
        let handle = sealer.seal("mandate", addressee(there), b"{}").unwrap();
        assert!(open(&sealer, there, now_us, &handle).is_none(), "a handle of another kind is none");
    }
}

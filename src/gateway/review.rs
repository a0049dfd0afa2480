//! Reviews: whether what the policy grants is still needed, and what becomes of grants that nobody answers for.
//!
//! Decides which grants end: those that somebody ends, and at the deadline those that nobody attested. Refuses to know
//! who may say so. Invariant: a grant that has ended allows nothing at any replica, whatever the files say, until
//! somebody restores it; a review that nobody closes is closed at its deadline.

mod again;
mod rows;

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Gateway, Snapshot};
use crate::evidence::{GrantUse, Usage};
use crate::ids::{PolicyRevision, ServerId};
use crate::inversion::{self, Control};
use crate::limit;
use crate::outcome::{Failure, Reason, Refusal, Stop};
use crate::policy::{GrantId, Policy, Sources, Strictness, World};
use crate::record::journal;
use crate::shelf::{Action, Change, Changed, Expect, Row, Shelf, Tell};
pub(super) use again::told_again;
use rows::{Answers, all, ending, key, put, read};
pub(super) use rows::{ENDED, GRANTS, REVIEWS};

/// One review.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Review {
    /// Its name.
    pub id: String,
    /// Who opened it.
    pub opened_by: String,
    /// When.
    pub opened_at: Timestamp,
    /// Since when use was counted.
    pub since: Timestamp,
    /// How far back the record of the replica that counted goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_record: Option<Timestamp>,
    /// Acts and rules that it names and that did not fit into what was counted.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub not_kept: u64,
    /// Since when all replicas that have the store in common, and were there in that time, tell each other what they use;
    /// nothing where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub others_known_since: Option<Timestamp>,
    /// Replicas that lived when it was opened and did not tell.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub silent_replicas: Vec<String>,
    /// Until when grants can be attested; what is not ends then.
    pub deadline: Timestamp,
    /// The policy whose grants it has.
    pub revision: PolicyRevision,
    /// Who closed it, and when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed: Option<Said>,
}

/// Who said so, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    /// Who: `user:...`, `host:UID`, or `deadline`.
    pub by: String,
    /// When.
    pub at: Timestamp,
}

/// What became of a grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// Nobody has answered yet.
    Open,
    /// Somebody says that it is still needed.
    Attested,
    /// It allows nothing any more.
    Ended,
}

/// One grant of a review.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReviewedGrant {
    /// The grant, and whether it was used.
    #[serde(flatten)]
    pub usage: GrantUse,
    /// Who answers for the server that it is about.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub owner: String,
    /// What became of it.
    pub answer: Answer,
    /// Who said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub said: Option<Said>,
}

/// A review with its grants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReviewReport {
    /// The review.
    #[serde(flatten)]
    pub review: Review,
    /// Every grant, in the order of the files.
    pub grants: Vec<ReviewedGrant>,
}

/// Which grants are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// These.
    Named(Vec<GrantId>),
    /// All that nobody has answered for yet.
    Open,
}

impl Review {
    /// What is not known of the use at other replicas, in sentences for whoever decides by it; nothing where all is.
    #[must_use]
    pub fn unknown(&self) -> Option<String> {
        let since = self.others_known_since.filter(|known| *known > self.since).map(|known| {
            let known = known.strftime("%F %T");
            format!("What other replicas used before {known} is not known: it looks unused here.")
        });
        let silent = (!self.silent_replicas.is_empty()).then(|| {
            let names = self.silent_replicas.join(", ");
            format!("What these replicas use is not known at all: {names}.")
        });
        let all: Vec<String> = since.into_iter().chain(silent).collect();
        (!all.is_empty()).then(|| all.join(" "))
    }

    /// From when on nobody needs to be told of it any more.
    fn gone_us(&self) -> Option<i64> {
        let kept = i64::try_from(limit::REVIEW_KEPT.as_micros()).unwrap_or(i64::MAX);
        Some(self.deadline.as_microsecond().saturating_add(kept))
    }
}

impl Snapshot {
    /// The same without grants that have ended.
    ///
    /// # Errors
    /// A policy that cannot be built without them: then it is not served.
    pub fn with_ended(self, ended: &BTreeSet<GrantId>, strictness: Strictness) -> Result<Self, Failure> {
        if ended.is_empty() || inversion::is_off(Control::Reviews) {
            return Ok(Self { policy: Arc::clone(&self.written_policy), ..self });
        }
        let sources = Sources::from_files(self.files.policy_files()).of_set(self.files.revision());
        let built = Policy::build_without(&sources, &World::of(&self.written, strictness), ended);
        let problem = |mistakes: Vec<crate::policy::Mistake>| {
            let first = mistakes.first().map(ToString::to_string).unwrap_or_default();
            Failure::before(Reason::PolicyUnavailable, format!("without the grants that have ended: {first}"))
        };
        Ok(Self { policy: Arc::new(built.map_err(problem)?.policy), ..self })
    }
}

/// Every grant that has ended.
///
/// # Errors
/// `store_unavailable`, also for a row that is not understood: nothing comes back to life because of it.
pub async fn ended(shelf: &dyn Shelf) -> Result<BTreeSet<GrantId>, Failure> {
    let mut ended = BTreeSet::new();
    for row in all(shelf, ENDED, None).await? {
        ended.insert(row.key.parse().map_err(|problem: String| Failure::before(Reason::StoreUnavailable, problem))?);
    }
    Ok(ended)
}

impl Gateway {
    /// Opens a review of every grant: reads the record since then, and writes down what it says.
    ///
    /// # Errors
    /// When the record or the store cannot be read, or there is no room.
    pub async fn open_review(&self, actor: &str, since: Timestamp, deadline: Timestamp) -> Result<Review, Stop> {
        let (at, policy) = (self.store_now().await?, Arc::clone(&self.snapshot().policy));
        let (oldest_record, not_kept, grants) = self.grants_since(&policy, since, at).await?;
        let told = self.uses_told(since).await?.unwrap_or_default();
        let grants = told.added_to(grants, since);
        let review = Review {
            id: ulid::Ulid::generate().to_string().to_ascii_lowercase(),
            opened_by: actor.to_owned(),
            opened_at: at,
            since,
            oldest_record,
            not_kept,
            others_known_since: told.since,
            silent_replicas: told.silent.iter().map(ToString::to_string).collect(),
            deadline,
            revision: policy.revision(),
            closed: None,
        };
        let mut rows = self.grant_rows(&review, grants)?;
        // The review itself comes last: one that is there is whole.
        rows.push(put(REVIEWS, review.id.clone(), Expect::Absent, "", &review, review.gone_us())?);
        let mut batches = rows.chunks(limit::SHELF_CHANGES_MAX).enumerate();
        let last = rows.chunks(limit::SHELF_CHANGES_MAX).len();
        let failed = loop {
            let Some((number, batch)) = batches.next() else {
                self.take_soon(&review.id).await;
                return Ok(review);
            };
            // That there is one is told: a store that has forgotten it is older than the record.
            let tell = if number + 1 == last { Tell::Everybody } else { Tell::Nobody };
            if let Err(stop) = self.change_rows(batch.to_vec(), tell).await {
                break (number, stop);
            }
        };
        // What nobody will ever see again leaves room for whoever tries once more.
        for batch in rows.chunks(limit::SHELF_CHANGES_MAX).take(failed.0 + 1) {
            let gone = |change: &Change| Change { expect: Expect::Anything, action: Action::Remove, ..change.clone() };
            if let Err(stop) = self.change_rows(batch.iter().map(gone).collect(), Tell::Nobody).await {
                tracing::warn!(?stop, "parts of a review that was not opened are left; they go by themselves");
            }
        }
        Err(failed.1)
    }

    /// Every grant of the policy, and what the record says of its use since then; and how far back that goes.
    pub(super) async fn grants_since(
        &self,
        policy: &Arc<Policy>,
        since: Timestamp,
        at: Timestamp,
    ) -> Result<(Option<Timestamp>, u64, Vec<GrantUse>), Failure> {
        let (journal, policy) = (journal::directory(&self.snapshot().config.gateway.state), Arc::clone(policy));
        let read = tokio::task::spawn_blocking(move || {
            let usage = Usage::read(&journal, since, at)?;
            let grants = usage.of_grants(&policy);
            Ok::<_, std::io::Error>((usage.oldest, usage.not_kept, grants))
        });
        let unreadable = |problem: String| Failure::before(Reason::RecordUnavailable, problem);
        read.await.map_err(|error| unreadable(error.to_string()))?.map_err(|error| unreadable(error.to_string()))
    }

    /// The rows of the grants of a review of which nobody has said anything yet.
    fn grant_rows(&self, review: &Review, grants: Vec<GrantUse>) -> Result<Vec<Change>, Failure> {
        let now = self.snapshot();
        let row = |(number, usage): (usize, GrantUse)| {
            let server = usage.grant.object.split_once('/').and_then(|(server, _)| ServerId::new(server).ok());
            let owner = server.and_then(|server| now.written.server(&server).map(|server| server.owner.clone()));
            let key = key(&review.id, number, &usage.grant.id);
            let grant = ReviewedGrant { usage, owner: owner.unwrap_or_default(), answer: Answer::Open, said: None };
            put(GRANTS, key, Expect::Absent, &review.id, &grant, review.gone_us())
        };
        grants.into_iter().enumerate().map(row).collect()
    }

    /// Every review, oldest first.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn reviews(&self) -> Result<Vec<Review>, Failure> {
        all(self.store(), REVIEWS, None).await?.iter().map(read).collect()
    }

    /// One review with its grants.
    ///
    /// # Errors
    /// `target_unknown`; `store_unavailable`.
    pub async fn review(&self, id: &str) -> Result<ReviewReport, Stop> {
        let (_, review) = self.find_review(id).await?;
        let rows = all(self.store(), GRANTS, Some(id)).await?;
        Ok(ReviewReport { review, grants: rows.iter().map(read).collect::<Result<_, _>>()? })
    }

    /// Says that grants are still needed. Answers how many.
    ///
    /// # Errors
    /// `target_unknown` for a review that is not there or is over, and for a grant that it does not have or that has
    /// ended; `store_unavailable`.
    pub async fn attest(&self, id: &str, which: &Which, actor: &str) -> Result<usize, Stop> {
        let answers = self.answers(id, which, Answer::Attested, actor).await?;
        let count = answers.len();
        let changes: Vec<Change> = answers.into_values().flatten().collect();
        for batch in changes.chunks(limit::SHELF_CHANGES_MAX) {
            self.change_rows(batch.to_vec(), Tell::Nobody).await?;
        }
        Ok(count)
    }

    /// Ends grants of a review. Answers how many.
    ///
    /// # Errors
    /// As [`Gateway::attest`].
    pub async fn end_grants(&self, id: &str, which: &Which, actor: &str) -> Result<usize, Stop> {
        let answers = self.answers(id, which, Answer::Ended, actor).await?;
        let count = answers.len();
        let said = Said { by: actor.to_owned(), at: self.store_now().await? };
        let mut done = Ok(());
        for batch in ending(id, answers, &said)? {
            done = self.change_rows(batch, Tell::Everybody).await;
            if done.is_err() {
                break;
            }
        }
        // What has ended has ended here as well, also where somebody was faster with the rest.
        self.take_ended().await?;
        done.map(|()| count)
    }

    /// Ends what nobody has attested, and closes the review. Answers how many grants ended.
    ///
    /// # Errors
    /// As [`Gateway::attest`]; `record_unavailable` for one that came back without its grants, which stays open.
    pub async fn close_review(&self, id: &str, actor: &str) -> Result<usize, Stop> {
        // One that is closed is so for good: what was not there then would stay granted.
        self.complete_review(&self.find_review(id).await?.1).await?;
        let mut count = 0;
        for tries in 1..=limit::SHELF_TRIES_MAX {
            match self.end_grants(id, &Which::Open, actor).await {
                Ok(ended) => {
                    count += ended;
                    break;
                }
                // Somebody has just attested something, and the rest is open still.
                Err(stop) if stop.reason() == Reason::TargetUnknown && tries < limit::SHELF_TRIES_MAX => {}
                Err(stop) => return Err(stop),
            }
        }
        let (row, mut review) = self.find_review(id).await?;
        review.closed = Some(Said { by: actor.to_owned(), at: self.store_now().await? });
        let change = put(REVIEWS, id.to_owned(), Expect::Version(row.version), "", &review, review.gone_us())?;
        // A store that has forgotten this would close it once more, and end what was attested.
        self.change_rows(vec![change], Tell::Everybody).await?;
        self.take_soon(id).await;
        Ok(count)
    }

    /// What is written is done, and told as done; what of it is not in force here yet is taken with the next look.
    async fn take_soon(&self, review: &str) {
        if let Err(failure) = self.take_revocations().await {
            tracing::warn!(%failure, review, "it is done; what it changes is taken at the next look at the store");
        }
    }

    /// Lets a grant that has ended allow again. Answers whether it had ended.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn restore_grant(&self, grant: &GrantId) -> Result<bool, Stop> {
        if self.store().row(ENDED, grant.as_str()).await?.is_none() {
            return Ok(false);
        }
        let change = Change::new(ENDED, grant.as_str(), Expect::Anything, Action::Remove);
        self.change_rows(vec![change], Tell::Everybody).await?;
        self.take_ended().await?;
        Ok(true)
    }

    /// Closes every review whose deadline has passed; to be called now and then.
    pub async fn close_overdue_reviews(&self) {
        let due = async {
            let now = self.store_now().await?;
            Ok::<_, Failure>((now, self.reviews().await?))
        };
        let (now, reviews) = match due.await {
            Ok(due) => due,
            Err(failure) => return tracing::warn!(%failure, "whether a review is over cannot be seen"),
        };
        self.complete_restored_reviews(&reviews).await;
        for review in reviews.iter().filter(|review| review.closed.is_none() && review.deadline <= now) {
            match self.close_review(&review.id, "deadline").await {
                Ok(count) => tracing::warn!(review = review.id, ended = count, "a review is over: grants have ended"),
                Err(stop) => tracing::error!(review = review.id, ?stop, "a review is over, and could not be closed"),
            }
        }
    }

    /// Serves the policy without the grants that have ended, as the store says it.
    ///
    /// # Errors
    /// `store_unavailable`; `policy_unavailable`. What was in force stays so.
    pub async fn take_ended(&self) -> Result<(), Failure> {
        let _one = self.reloader.one_at_a_time.lock().await;
        let ended = ended(self.store()).await?;
        if **self.ended.load() == ended {
            return Ok(());
        }
        let next = self.left_of(Snapshot::clone(&self.snapshot()), ended.clone()).await?;
        self.ended.store(Arc::new(ended));
        self.put(Some(next));
        self.put_next().await;
        self.take_revocations().await
    }

    /// A snapshot without the grants that have ended.
    pub(super) async fn left_of(&self, snapshot: Snapshot, ended: BTreeSet<GrantId>) -> Result<Snapshot, Failure> {
        let strictness = self.reloader.strictness();
        tokio::task::spawn_blocking(move || snapshot.with_ended(&ended, strictness))
            .await
            .unwrap_or_else(|error| Err(Failure::before(Reason::PolicyUnavailable, error.to_string())))
    }

    /// What has to be written so that grants have this answer, by grant: one that is written twice is one grant, and both
    /// of its rows are answered.
    async fn answers(&self, id: &str, which: &Which, answer: Answer, actor: &str) -> Result<Answers, Stop> {
        let unknown = |hint: String| Stop::from(Refusal::new(Reason::TargetUnknown).hint(hint));
        let (_, review) = self.find_review(id).await?;
        let at = self.store_now().await?;
        if review.closed.is_some() || (answer == Answer::Attested && review.deadline <= at) {
            return Err(unknown("this review is over: open another one, or restore the grant".to_owned()));
        }
        let rows = all(self.store(), GRANTS, Some(id)).await?;
        let grants = rows.iter().map(read).collect::<Result<Vec<ReviewedGrant>, _>>()?;
        let had = |answer: Answer| grants.iter().filter(move |grant| grant.answer == answer);
        let attested: BTreeSet<&GrantId> = had(Answer::Attested).map(|grant| &grant.usage.grant.id).collect();
        if let Which::Named(named) = which
            && let Some(missing) = named.iter().find(|named| grants.iter().all(|grant| grant.usage.grant.id != **named))
        {
            return Err(unknown(format!("this review has no grant {missing}")));
        }
        let mut answers = Answers::new();
        for (row, mut grant) in rows.iter().zip(grants.clone()) {
            let id_of = grant.usage.grant.id.clone();
            let meant = match which {
                Which::Named(named) => named.contains(&id_of),
                // What somebody attested has no open row, wherever else it is written.
                Which::Open => {
                    grant.answer == Answer::Open && (answer == Answer::Attested || !attested.contains(&id_of))
                }
            };
            if !meant || grant.answer == answer {
                continue;
            }
            if grant.answer == Answer::Ended {
                return Err(unknown(format!("grant {id_of} has ended: restore it instead")));
            }
            grant.answer = answer;
            grant.said = Some(Said { by: actor.to_owned(), at });
            let expect = Expect::Version(row.version);
            answers.entry(id_of).or_default().push(put(GRANTS, row.key.clone(), expect, id, &grant, review.gone_us())?);
        }
        Ok(answers)
    }

    async fn find_review(&self, id: &str) -> Result<(Row, Review), Stop> {
        let row = self.store().row(REVIEWS, id).await?;
        let row = row.ok_or_else(|| Refusal::new(Reason::TargetUnknown).hint("there is no such review"))?;
        let review = read(&row)?;
        Ok((row, review))
    }

    async fn store_now(&self) -> Result<Timestamp, Failure> {
        let now = self.store().clock_us().await?;
        Timestamp::from_microsecond(now).map_err(|error| Failure::before(Reason::StoreUnavailable, error.to_string()))
    }

    async fn change_rows(&self, changes: Vec<Change>, tell: Tell) -> Result<(), Stop> {
        match self.store().change(changes, tell).await? {
            Changed::Done { .. } => Ok(()),
            Changed::Conflict(_) => {
                let hint = "somebody else has just answered: look at the review again";
                Err(Refusal::new(Reason::TargetUnknown).hint(hint).into())
            }
            Changed::Full(_) => Err(Failure::before(Reason::StoreUnavailable, "no more reviews fit").into()),
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
const fn is_zero(count: &u64) -> bool {
    *count == 0
}

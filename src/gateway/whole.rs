//! What all replicas have on their records, put together by the one that is asked.
//!
//! Decides which replicas are asked, for how long, and how their answers become one. Refuses to know what records mean, and
//! who may look: that was decided by whoever asks here. Invariants: a replica that did not answer is named, one that does not
//! run among them; a question changes nothing at a replica but that its record tells of it; and nobody is told anything who
//! has no keys of the replicas.

mod proof;
mod question;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{HeaderName, HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use self::question::{Answer, Question, World, first};
use super::Gateway;
use crate::egress::peer::PeerClient;
pub use crate::evidence::{Simulation, Suggested};
use crate::ids::{PolicyRevision, ReplicaId};
use crate::limit;
use crate::outcome::{Failure, Reason, Refusal, Stop};
use crate::policy::AdminOperation;
use crate::record::event::AdminNote;
use crate::record::journal;
pub use crate::record::related::Root;
use crate::record::related::{Lines, Related, merged};
pub use proof::{Asker, Proven};

/// Where replicas ask each other, at `[cluster]` and nowhere else.
pub const PATH: &str = "/replica/record";
/// By what a question shows that it comes from a replica.
pub const PROOF: HeaderName = HeaderName::from_static("bailiwick-question");

/// Readings of the record in this process, for whoever asks here or at another replica.
static READINGS: Semaphore = Semaphore::const_new(limit::RECORD_READINGS_MAX);

/// A replica, and why its record is not part of what is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heard {
    /// Which.
    pub replica: String,
    /// What was in the way; nothing where its record is part of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// What the records say together, and whose records these are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Whole<T> {
    /// What they say.
    #[serde(flatten)]
    pub told: T,
    /// Every replica that is known, this one first.
    pub replicas: Vec<Heard>,
}

/// What has an id, with its lines where that is one thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// What has it; the first few.
    pub roots: Vec<Root>,
    /// Every line that belongs to it, each as it stands in its journal.
    pub records: Vec<String>,
    /// There were more of them than fitted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cut: bool,
}

/// Another replica: its name, and where it is reached or why it is not.
type Other = (ReplicaId, Result<String, String>);
/// Policy files by their names.
type NextPolicies = BTreeMap<String, String>;
/// What replicas answered.
type Answers = Vec<(ReplicaId, Result<Answer, String>)>;

impl Gateway {
    /// Lets other replicas be asked; the first to say how is followed.
    pub fn asks(&self, peers: Arc<PeerClient>) {
        let _before = self.peers.set(peers);
    }

    /// The rows that would have been enough for what was done at any replica.
    ///
    /// # Errors
    /// `record_unavailable`, where this replica's own cannot be read; `store_unavailable`.
    pub async fn suggest(
        &self,
        asker: &Asker,
        (since, until): (Timestamp, Timestamp),
        agent: Option<String>,
    ) -> Result<Whole<Suggested>, Stop> {
        let others = self.others(Some(since)).await?;
        let question = Question::Suggest { since, until, agent };
        let told = |answer| if let Answer::Suggested(told) = answer { Ok(told) } else { Err(other_question()) };
        self.put_together(asker, question, others, told, Suggested::with).await
    }

    /// What the next policies here would decide otherwise of what is on any replica's record.
    ///
    /// # Errors
    /// `target_unknown` where there are none, `parameters_invalid` where they are others than those or would not be served;
    /// as [`Gateway::suggest`].
    pub async fn simulate(
        &self,
        asker: &Asker,
        (since, until): (Timestamp, Timestamp),
        revision: Option<PolicyRevision>,
    ) -> Result<Whole<Simulation>, Stop> {
        let (policies, meant) = self.next_policies(revision).await?;
        let others = self.others(Some(since)).await?;
        let question = Question::Simulate { since, until, policies };
        let told = move |answer| match answer {
            Answer::Simulated(told) if told.revision == meant => Ok(told),
            Answer::Simulated(_) => {
                Err("it serves another servers.toml, beside which these policies mean others".to_owned())
            }
            _ => Err(other_question()),
        };
        self.put_together(asker, question, others, told, Simulation::with).await
    }

    /// What any replica's record has about one call, mandate or approval.
    ///
    /// # Errors
    /// As [`Gateway::suggest`].
    pub async fn show(&self, asker: &Asker, id: &str) -> Result<Whole<Shown>, Stop> {
        let deadline = Instant::now() + limit::RECORD_ASKED_TIMEOUT;
        let (own, others) = (self.standing.replica(), self.others(None).await?);
        let found = self.ask(asker, &Question::Find { id: id.to_owned() }, &others, deadline).await?;
        let (mut roots, mut problems) = (BTreeSet::new(), BTreeMap::new());
        for (replica, answer) in found {
            match answer {
                Ok(Answer::Found { roots: more }) => roots.extend(more),
                Ok(_) => drop(problems.insert(replica, other_question())),
                Err(problem) => drop(problems.insert(replica, problem)),
            }
        }
        let mut shown = Shown { roots: roots.into_iter().collect(), records: Vec::new(), cut: false };
        if let [root] = shown.roots.as_slice() {
            let ask = |due: Vec<ReplicaId>, related: Related| {
                let others: Vec<Other> = others.iter().filter(|(other, _)| due.contains(other)).cloned().collect();
                let question = Question::Lines { related };
                async move {
                    if due.contains(&own) {
                        self.ask(asker, &question, &others, deadline).await
                    } else {
                        Ok(self.ask_others(asker, &question, &others, deadline).await)
                    }
                }
            };
            let asked: Vec<ReplicaId> = std::iter::once(own)
                .chain(others.iter().map(|(other, _)| *other))
                .filter(|replica| !problems.contains_key(replica))
                .collect();
            let (lines, more) = rounds(asked, Related::of(root), ask).await?;
            problems.extend(more);
            shown.cut = lines.iter().any(|lines| lines.cut);
            let all = merged(lines.into_iter().map(|lines| lines.lines).collect());
            shown.records = all.into_iter().map(|(line, _)| line).collect();
            shown.cut |= cut(&mut shown.records, limit::RECORD_TOLD_BYTES_MAX);
        }
        let replicas = self.heard(&others, &problems);
        Ok(Whole { told: shown, replicas })
    }

    /// Who asks about the record of this replica, where it is one of the others.
    #[must_use]
    pub fn asked_by_replica(&self, proof: &str) -> Option<Proven> {
        proof::open(&self.sealer, self.standing.replica(), self.standing.now_us(), proof)
    }

    /// Answers another replica, and tells that on the record.
    ///
    /// # Errors
    /// `record_unavailable`; `parameters_invalid` of what is no question.
    pub async fn tell_replica(&self, proven: &Proven, body: &[u8]) -> Result<Vec<u8>, Stop> {
        let invalid = |hint: String| Stop::from(Refusal::new(Reason::ParametersInvalid).hint(hint));
        if !proven.is_of(body) {
            return Err(invalid("that is not what was asked".to_owned()));
        }
        let question: Question = serde_json::from_slice(body).map_err(|error| invalid(error.to_string()))?;
        let about = format!("{}, asked at replica {}", question.about(), proven.by);
        let answer = self.own_answer(question).await?;
        let operation = AdminOperation::Logs;
        let note = AdminNote {
            operation: operation.name(),
            object: operation.object(),
            actor: &proven.asker.name,
            actor_kind: match proven.asker.kind.as_str() {
                "host" => "host",
                "user" => "user",
                _ => "agent",
            },
            brakes: false,
            client: None,
            outcome: "done",
            reason: None,
            rule: None,
            about: &about,
            detail: "",
        };
        self.journal.administered(&note, None).await?;
        let answer =
            serde_json::to_vec(&answer).map_err(|error| Failure::before(Reason::Internal, error.to_string()))?;
        Ok(answer)
    }

    /// The policies of `policies.next/` as texts, and their revision beside the servers.toml that is served.
    async fn next_policies(&self, revision: Option<PolicyRevision>) -> Result<(NextPolicies, PolicyRevision), Stop> {
        let invalid = |hint: String| Stop::from(Refusal::new(Reason::ParametersInvalid).hint(hint));
        let files = self.reloader.files().clone();
        let read = tokio::task::spawn_blocking(move || files.read_next()).await;
        let read = read.map_err(|error| Failure::before(Reason::Internal, error.to_string()))?;
        let Some(next) = read.map_err(|mistakes| invalid(first(&mistakes)))? else {
            let hint = "there are no next policies: write policies.next beside policies";
            return Err(Refusal::new(Reason::TargetUnknown).hint(hint).into());
        };
        let policies = next.loaded.files.policy_files();
        // The servers.toml that is served may not be the one that is written.
        let meant = self.snapshot().files.with_policies(policies.clone()).revision();
        if revision.is_some_and(|revision| revision != meant) {
            let hint = "the gateway has other next policies, or has not loaded servers.toml as it is: name its files with \
                        --config, or reload first";
            return Err(invalid(hint.to_owned()));
        }
        let text = |(name, bytes): (String, Vec<u8>)| String::from_utf8(bytes).ok().map(|text| (name, text));
        Ok((policies.into_iter().filter_map(text).collect(), meant))
    }

    /// Asks everybody, and puts together what they say.
    async fn put_together<T>(
        &self,
        asker: &Asker,
        question: Question,
        others: Vec<Other>,
        told: impl Fn(Answer) -> Result<T, String>,
        with: impl Fn(T, T) -> T,
    ) -> Result<Whole<T>, Stop> {
        let deadline = Instant::now() + limit::RECORD_ASKED_TIMEOUT;
        let (mut whole, mut problems) = (None, BTreeMap::new());
        for (replica, answer) in self.ask(asker, &question, &others, deadline).await? {
            match answer.and_then(&told) {
                Ok(told) => {
                    whole = Some(match whole {
                        None => told,
                        Some(whole) => with(whole, told),
                    });
                }
                Err(problem) => drop(problems.insert(replica, problem)),
            }
        }
        let told = whole.ok_or_else(|| Failure::before(Reason::RecordUnavailable, "no record could be read"))?;
        Ok(Whole { told, replicas: self.heard(&others, &problems) })
    }

    /// Whose records are part of what is told, this replica first.
    fn heard(&self, others: &[Other], problems: &BTreeMap<ReplicaId, String>) -> Vec<Heard> {
        let all = std::iter::once(self.standing.replica()).chain(others.iter().map(|(other, _)| *other));
        let heard =
            |replica| Heard { replica: ReplicaId::to_string(&replica), problem: problems.get(&replica).cloned() };
        all.map(heard).collect()
    }

    /// The other replicas; of those that do not run any more, only such as were heard of since then.
    async fn others(&self, since: Option<Timestamp>) -> Result<Vec<Other>, Failure> {
        let own = self.standing.replica();
        let members = self.standing.members();
        let living = members.iter().filter(|member| member.replica != own).map(|member| {
            let address = member.advertise.clone();
            (member.replica, address.ok_or_else(|| "it has no [cluster], where it could be asked".to_owned()))
        });
        let mut others: Vec<Other> = living.collect();
        let since_us = since.map_or(i64::MIN, Timestamp::as_microsecond);
        for (replica, seen_us) in self.store.gone().await? {
            let is_known = replica == own || others.iter().any(|(other, _)| *other == replica);
            if !is_known && seen_us >= since_us {
                let seen = Timestamp::from_microsecond(seen_us).unwrap_or(Timestamp::MIN).strftime("%F %T");
                others.push((replica, Err(format!("it does not run, and was heard of last at {seen}"))));
            }
        }
        Ok(others)
    }

    /// Asks this replica and these others at the same time.
    async fn ask(
        &self,
        asker: &Asker,
        question: &Question,
        others: &[Other],
        deadline: Instant,
    ) -> Result<Answers, Failure> {
        let (own, mut answers) =
            tokio::join!(self.own_answer(question.clone()), self.ask_others(asker, question, others, deadline));
        answers.insert(0, (self.standing.replica(), Ok(own?)));
        Ok(answers)
    }

    async fn ask_others(&self, asker: &Asker, question: &Question, others: &[Other], deadline: Instant) -> Answers {
        let body = match serde_json::to_vec(question) {
            Ok(body) if body.len() <= limit::RECORD_QUESTION_BYTES_MAX => Bytes::from(body),
            Ok(_) => return none_asked(others, "what is asked, with the next policies, is too long to be sent to it"),
            Err(_) => return none_asked(others, "what is asked cannot be sent to it"),
        };
        let ask = |replica, address| self.ask_one(asker, replica, address, body.clone());
        gathered(others.to_vec(), deadline, ask).await
    }

    async fn ask_one(&self, asker: &Asker, to: ReplicaId, address: String, body: Bytes) -> Result<Answer, String> {
        let peers =
            self.peers.get().ok_or_else(|| "there is no [cluster] here, over which it could be asked".to_owned())?;
        let between = (self.standing.replica(), to);
        let proof = proof::seal(&self.sealer, between, asker, self.standing.now_us(), &body);
        let proof = proof.and_then(|proof| HeaderValue::from_str(&proof).ok());
        let proof = proof.ok_or_else(|| "what is asked cannot be sealed".to_owned())?;
        let request = Request::post(format!("https://{address}{PATH}")).header(PROOF, proof).body(Full::new(body));
        let request = request.map_err(|error| format!("its address is none: {error}"))?;
        let response = peers.request(request).await.map_err(|error| error.to_string())?;
        let status = response.status();
        let read = Limited::new(response.into_body(), limit::RECORD_TOLD_BYTES_MAX.saturating_mul(2)).collect().await;
        let body = read.map_err(|error| format!("its answer was not read: {error}"))?.to_bytes();
        match status {
            StatusCode::OK => serde_json::from_slice(&body)
                .map_err(|_| "its answer is not understood: is it another version?".to_owned()),
            StatusCode::NOT_FOUND => {
                Err("it does not answer such questions: it is of an earlier version, or has other keys".to_owned())
            }
            _ => Err(format!("it answered {}: {:.300}", status.as_u16(), String::from_utf8_lossy(&body))),
        }
    }

    /// What the record here says.
    async fn own_answer(&self, question: Question) -> Result<Answer, Failure> {
        let unreadable = |problem: String| Failure::before(Reason::RecordUnavailable, problem);
        let place = READINGS.acquire().await.map_err(|error| unreadable(error.to_string()))?;
        let directory = journal::directory(&self.config().gateway.state);
        let files = Arc::clone(&self.snapshot().files);
        let world = World { files, overrides: self.reloader.files().overrides.clone() };
        let reading = move || {
            // Until it is read, also where whoever asked has given up.
            let _held = place;
            question.answer(&directory, &world)
        };
        let answered = tokio::task::spawn_blocking(reading).await;
        answered.map_err(|error| unreadable(error.to_string()))?.map_err(unreadable)
    }
}

/// Asks these, so many at once; whoever has not answered by then has that as its problem.
async fn gathered<F: Future<Output = Result<Answer, String>>>(
    others: Vec<Other>,
    deadline: Instant,
    ask: impl Fn(ReplicaId, String) -> F,
) -> Answers {
    let asked = others.into_iter().map(|(replica, address)| {
        let ask = &ask;
        async move {
            let answer = match address {
                Err(problem) => Err(problem),
                Ok(address) => timeout_at(deadline, ask(replica, address))
                    .await
                    .unwrap_or_else(|_| Err("it did not answer in time".to_owned())),
            };
            (replica, answer)
        }
    });
    stream::iter(asked).buffered(limit::RECORD_ASKED_AT_ONCE_MAX).collect().await
}

/// Asks for lines until nobody finds more that belongs to it, or so often.
async fn rounds<F: Future<Output = Result<Answers, Failure>>>(
    asked: Vec<ReplicaId>,
    mut related: Related,
    ask: impl Fn(Vec<ReplicaId>, Related) -> F,
) -> Result<(Vec<Lines>, BTreeMap<ReplicaId, String>), Failure> {
    let mut problems = BTreeMap::new();
    let mut known: BTreeMap<ReplicaId, (Lines, Related)> = BTreeMap::new();
    for _ in 0..limit::RECORD_ROUNDS_MAX {
        let knows = |replica: &ReplicaId| known.get(replica).is_some_and(|(_, own)| own.is_no_less_than(&related));
        let due = asked.iter().filter(|replica| !problems.contains_key(*replica) && !knows(replica));
        let due: Vec<ReplicaId> = due.copied().collect();
        if due.is_empty() {
            break;
        }
        for (replica, answer) in ask(due, related.clone()).await? {
            match answer {
                Ok(Answer::Lines { lines, related: own }) => {
                    known.insert(replica, (lines, own));
                }
                // What it told before is kept.
                Ok(_) => drop(problems.insert(replica, other_question())),
                Err(problem) => drop(problems.insert(replica, problem)),
            }
        }
        for (_, own) in known.values() {
            related.join(own);
        }
    }
    Ok((known.into_values().map(|(lines, _)| lines).collect(), problems))
}

/// Leaves so many bytes of them; answers whether that is less.
fn cut(records: &mut Vec<String>, bytes_max: usize) -> bool {
    let mut left = bytes_max;
    let fit = records.iter().take_while(|line| {
        let rest = left.checked_sub(line.len());
        left = rest.unwrap_or_default();
        rest.is_some()
    });
    let count = fit.count();
    let is_less = count < records.len();
    records.truncate(count);
    is_less
}

fn none_asked(others: &[Other], problem: &str) -> Answers {
    others.iter().map(|(replica, _)| (*replica, Err(problem.to_owned()))).collect()
}

fn other_question() -> String {
    "it answered another question: is it another version?".to_owned()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn found() -> Answer {
        Answer::Found { roots: BTreeSet::new() }
    }

    fn others(count: usize) -> Vec<Other> {
        (0..count).map(|_| (ReplicaId::new(), Ok("localhost:1".to_owned()))).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_does_not_answer_in_time_is_named_and_holds_up_nobody_else() {
        let mut others = others(2);
        others.push((ReplicaId::new(), Err("it does not run".to_owned())));
        let began = Instant::now();
        let silent = others[0].0;
        let answers = gathered(others.clone(), began + limit::RECORD_ASKED_TIMEOUT, |replica, _| async move {
            if replica == silent {
                std::future::pending::<()>().await;
            }
            Ok(found())
        })
        .await;
        let took = began.elapsed();
        assert!(took >= limit::RECORD_ASKED_TIMEOUT && took < limit::RECORD_ASKED_TIMEOUT * 2, "{took:?}");
        assert_eq!(answers[0], (silent, Err("it did not answer in time".to_owned())));
        assert_eq!(answers[1], (others[1].0, Ok(found())));
        assert_eq!(answers[2], (others[2].0, Err("it does not run".to_owned())));
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_are_asked_at_once() {
        let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let deadline = Instant::now() + limit::RECORD_ASKED_TIMEOUT;
        let ask = |_, _| async {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            now.fetch_sub(1, Ordering::SeqCst);
            Ok(found())
        };
        let answers = gathered(others(limit::RECORD_ASKED_AT_ONCE_MAX + 1), deadline, ask).await;
        assert!(answers.iter().all(|(_, answer)| answer.is_ok()));
        assert_eq!(most.into_inner(), limit::RECORD_ASKED_AT_ONCE_MAX);
    }

    /// A record that knows this much and no more.
    fn knowing(names: &[&str]) -> Related {
        let mut related = Related::of(&Root::Call("call".to_owned()));
        for name in names {
            related.join(&Related::of(&Root::Mandate((*name).to_owned())));
        }
        related
    }

    #[tokio::test]
    async fn whoever_knows_all_is_not_asked_again_and_whoever_fails_keeps_what_it_told() {
        let [first, second] = [ReplicaId::new(), ReplicaId::new()];
        let asked = std::sync::Mutex::new(Vec::new());
        let line = |text: &str| Lines { lines: vec![text.to_owned()], cut: false };
        let ask = |due: Vec<ReplicaId>, related: Related| {
            let knows_more = related.is_no_less_than(&knowing(&["task"]));
            asked.lock().unwrap().push(due.len());
            let answer = move |replica: ReplicaId| {
                let mut own = related.clone();
                if replica == second {
                    own.join(&knowing(&["task"]));
                } else if knows_more {
                    return (replica, Err("it stopped".to_owned()));
                }
                (replica, Ok(Answer::Lines { lines: line("a line"), related: own }))
            };
            std::future::ready(Ok(due.into_iter().map(answer).collect::<Answers>()))
        };
        let (lines, problems) = rounds(vec![first, second], knowing(&[]), ask).await.unwrap();
        assert_eq!(*asked.lock().unwrap(), [2, 1], "the second had nothing to learn");
        assert_eq!((lines.len(), problems.get(&first).map(String::as_str)), (2, Some("it stopped")));
    }

    #[tokio::test]
    async fn replicas_that_always_find_more_are_asked_so_often() {
        let asked = AtomicUsize::new(0);
        let ask = |due: Vec<ReplicaId>, mut related: Related| {
            let round = asked.fetch_add(1, Ordering::SeqCst);
            let both = due.into_iter().enumerate().map(|(place, replica)| {
                related.join(&knowing(&[&format!("{round} {place}")]));
                (replica, Ok(Answer::Lines { lines: Lines::default(), related: related.clone() }))
            });
            std::future::ready(Ok(both.collect::<Answers>()))
        };
        rounds(vec![ReplicaId::new(), ReplicaId::new()], knowing(&[]), ask).await.unwrap();
        assert_eq!(asked.into_inner(), limit::RECORD_ROUNDS_MAX);
    }

    #[test]
    fn so_many_bytes_are_told_and_that_there_were_more_is_said() {
        let lines = |bytes: usize| vec!["x".repeat(bytes / 2), "y".repeat(bytes - bytes / 2)];
        let most = limit::RECORD_TOLD_BYTES_MAX;
        let (mut whole, mut more) = (lines(most), lines(most + 1));
        assert!(!cut(&mut whole, most) && whole.len() == 2);
        assert!(cut(&mut more, most) && more.len() == 1);
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_read_the_record_at_once_and_others_wait() {
        let held = READINGS.acquire_many(u32::try_from(limit::RECORD_READINGS_MAX).unwrap()).await.unwrap();
        assert!(tokio::time::timeout(limit::RECORD_ASKED_TIMEOUT, READINGS.acquire()).await.is_err());
        drop(held);
        assert!(READINGS.acquire().await.is_ok());
    }
}

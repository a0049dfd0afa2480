//! How the call of a task ended, kept until the task is over.
//!
//! Decides how much of it is kept. Invariants: it is sealed, and in pieces that fit; what cannot be kept is said to be lost,
//! and no task waits for it.

use super::{CONTENT, Own, Stage, TASKS, end_of, put, shown};
use crate::gateway::Gateway;
use crate::ids::PrincipalKey;
use crate::limit;
use crate::outcome::{Failure, Outcome, Reason, Stop};
use crate::shelf::{Action, Change, Changed, Expect, Section, Shelf as _, Tell};

/// How calls ended, in pieces.
const ENDS: Section = Section { name: "approval-task-end", rows_max: limit::APPROVALS_KEPT_MAX };

/// Keeps how a call ended. What cannot be kept is lost to its task, which then says so: the call was made all the same.
pub(super) async fn keep(gateway: &Gateway, principal: PrincipalKey, key: &str, own: Own, end: &(String, String)) {
    let lost = Own { stage: Stage::Ended(0), ..own.clone() };
    match kept(gateway, principal, key, own, end).await {
        Ok(Changed::Done { .. }) => return,
        Ok(changed) => tracing::error!(?changed, "how a call ended that was approved does not fit"),
        Err(stop) => tracing::error!(%stop, "how a call ended that was approved is not kept for its task"),
    }
    let put = put(&lost, principal, key, Expect::Anything);
    if let Err(failure) = gateway.store().change(vec![put], Tell::Nobody).await {
        tracing::error!(%failure, "that it ended is not kept either");
    }
}

/// Keeps an end in pieces that fit.
async fn kept(
    gateway: &Gateway,
    principal: PrincipalKey,
    key: &str,
    mut own: Own,
    end: &(String, String),
) -> Result<Changed, Stop> {
    let internal = |detail: String| Stop::from(Failure::after(Reason::Internal, detail));
    let owner = principal.0.to_string();
    let mut sealed = sealed_end(gateway, principal, end).map_err(internal)?;
    let count = |sealed: &str| sealed.len().div_ceil(limit::APPROVAL_TASK_PIECE_BYTES);
    if count(&sealed) > limit::APPROVAL_TASK_PIECES_MAX || !has_room(gateway, &owner, count(&sealed)).await? {
        let large = Outcome::Failed(Failure::after(Reason::UpstreamGarbage, "too large to keep"));
        sealed = sealed_end(gateway, principal, &end_of(&large)).map_err(internal)?;
    }
    let pieces = sealed.as_bytes().chunks(limit::APPROVAL_TASK_PIECE_BYTES);
    let pieces = pieces.filter_map(|piece| std::str::from_utf8(piece).ok());
    let mut changes: Vec<Change> = pieces
        .enumerate()
        .map(|(number, piece)| {
            let put = Action::Put { owner: owner.clone(), body: piece.to_owned(), expires_at_us: Some(own.until_us) };
            Change::new(ENDS, format!("{key}/{number}"), Expect::Anything, put)
        })
        .collect();
    own.stage = Stage::Ended(changes.len());
    changes.push(put(&own, principal, key, Expect::Anything));
    Ok(gateway.store().change(changes, Tell::Nobody).await?)
}

fn sealed_end(gateway: &Gateway, principal: PrincipalKey, end: &(String, String)) -> Result<String, String> {
    let content = serde_json::to_vec(end).map_err(|error| error.to_string())?;
    gateway.sealer().seal(CONTENT, principal, &content).map_err(|error| error.to_string())
}

/// Whether so many pieces more are not too many of one principal: there is room for those of others.
async fn has_room(gateway: &Gateway, owner: &str, more: usize) -> Result<bool, Failure> {
    let tasks = gateway.store().rows(TASKS, Some(owner), None).await?;
    let stages = tasks.iter().filter_map(|row| serde_json::from_str::<Own>(&row.body).ok());
    let kept: usize = stages.map(|own| if let Stage::Ended(pieces) = own.stage { pieces } else { 0 }).sum();
    Ok(kept.saturating_add(more) <= limit::APPROVAL_TASK_PIECES_PER_PRINCIPAL_MAX)
}

/// The task with the end that was kept of it.
pub(super) async fn read(
    gateway: &Gateway,
    principal: PrincipalKey,
    (id, key): (&str, &str),
    (own, pieces): (&Own, usize),
) -> Result<Outcome, Stop> {
    let mut sealed = String::new();
    for number in 0..pieces.min(limit::APPROVAL_TASK_PIECES_MAX) {
        let piece = gateway.store().row(ENDS, &format!("{key}/{number}")).await?;
        sealed.push_str(&piece.map(|row| row.body).unwrap_or_default());
    }
    let content = gateway.sealer().open_within(CONTENT, principal, &sealed, usize::MAX);
    let end = content.and_then(|content| serde_json::from_slice::<(String, String)>(&content).ok());
    let lost = || end_of(&Outcome::Failed(Failure::after(Reason::Internal, "how it ended is not readable any more")));
    Ok(shown(own, id, &end.unwrap_or_else(lost)))
}

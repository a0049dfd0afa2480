//! Reviews in the API: opening, reading, answering, closing them, and restoring what ended.
//!
//! Decides what makes a sensible order and how much it weighs. Refuses to know what a grant is worth. Invariant: to say
//! that something is still needed is to give it anew, and weighs like that.

use axum::Json;
use axum::response::{IntoResponse as _, Response};
use futures_util::future::BoxFuture;
use http::header::CONTENT_TYPE;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::desk::{Done, Order, Understood};
use super::handlers::{Taken, json, query};
use crate::gateway::review::{Review, ReviewReport, Which};
use crate::limit;
use crate::outcome::{Reason, Refusal, Stop};
use crate::policy::{GrantId, Weight};

/// What the gateway does with reviews; part of what it does for its operators.
pub trait Reviews: Send + Sync {
    /// Opens one.
    fn open(&self, actor: String, since: Timestamp, deadline: Timestamp) -> BoxFuture<'_, Result<Review, Stop>>;
    /// All of them.
    fn all(&self) -> BoxFuture<'_, Result<Vec<Review>, Stop>>;
    /// One with its grants.
    fn one(&self, id: String) -> BoxFuture<'_, Result<ReviewReport, Stop>>;
    /// Grants are still needed.
    fn attest(&self, id: String, which: Which, actor: String) -> BoxFuture<'_, Result<usize, Stop>>;
    /// Grants are not needed.
    fn end(&self, id: String, which: Which, actor: String) -> BoxFuture<'_, Result<usize, Stop>>;
    /// What nobody answered for is not needed.
    fn close(&self, id: String, actor: String) -> BoxFuture<'_, Result<usize, Stop>>;
    /// A grant that has ended is needed after all.
    fn restore(&self, grant: GrantId) -> BoxFuture<'_, Result<bool, Stop>>;
}

/// `POST /reviews`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReviewOrder {
    /// So many days back use is counted.
    #[serde(default = "ninety")]
    pub since_days: u16,
    /// So many days from now grants can be attested.
    #[serde(default = "fourteen")]
    pub deadline_days: u16,
}

/// `POST /reviews/{id}/attest` and `/end`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnswerOrder {
    /// Which grants.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub grants: Vec<GrantId>,
    /// All that nobody has answered for yet.
    #[serde(default)]
    pub all: bool,
}

/// How many grants it concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answered {
    /// So many.
    pub grants: usize,
}

const fn ninety() -> u16 {
    90
}

const fn fourteen() -> u16 {
    14
}

fn invalid(hint: &'static str) -> Refusal {
    Refusal::new(Reason::ParametersInvalid).hint(hint)
}

/// `GET /reviews`.
pub(super) fn list(order: Order) -> Taken {
    let act = async move { Ok(Done::with(Json(order.operations.reviews()?.all().await?).into_response())) };
    Ok(Understood { weight: Weight::Look, about: String::new(), act: Box::pin(act) })
}

/// `GET /reviews/{id}`: as JSON, or with `?format=csv` as a table.
pub(super) fn show(order: Order) -> Taken {
    let id = named(&order)?;
    let [format] = query(&order, ["format"])?;
    let csv = match format.as_deref() {
        None | Some("json") => false,
        Some("csv") => true,
        Some(_) => return Err(invalid("the format is json or csv")),
    };
    let about = format!("review {id}");
    let act = async move {
        let report = order.operations.reviews()?.one(id).await?;
        let response = if csv { table(&report) } else { Json(report).into_response() };
        Ok(Done::with(response))
    };
    Ok(Understood { weight: Weight::Look, about, act: Box::pin(act) })
}

/// `POST /reviews`.
pub(super) fn open(order: Order) -> Taken {
    let asked: ReviewOrder = json(&order)?;
    let most = limit::REVIEW_OPEN_MAX.as_secs() / (24 * 3600);
    if asked.since_days == 0 || asked.deadline_days == 0 || u64::from(asked.deadline_days) > most {
        return Err(invalid("write since_days of at least 1, and deadline_days of 1 to 90"));
    }
    let about = format!("use since {} days, answers within {}", asked.since_days, asked.deadline_days);
    let act = async move {
        let now = Timestamp::from_second(order.operations.now_s().await?).unwrap_or_default();
        let days = |days: u16| SignedDuration::from_hours(i64::from(days) * 24);
        let since = now.checked_sub(days(asked.since_days)).unwrap_or(Timestamp::MIN);
        let deadline = now.checked_add(days(asked.deadline_days)).unwrap_or(Timestamp::MAX);
        let review = order.operations.reviews()?.open(order.actor.name(), since, deadline).await?;
        let detail = format!("review {}", review.id);
        Ok(Done { detail, ..Done::with(Json(review).into_response()) })
    };
    Ok(Understood { weight: Weight::Brake, about, act: Box::pin(act) })
}

/// `POST /reviews/{id}/attest`.
pub(super) fn attest(order: Order) -> Taken {
    answered(order, Weight::Loosen, "attest", |reviews, id, which, actor| reviews.attest(id, which, actor))
}

/// `POST /reviews/{id}/end`.
pub(super) fn end(order: Order) -> Taken {
    answered(order, Weight::Brake, "end", |reviews, id, which, actor| reviews.end(id, which, actor))
}

/// `POST /reviews/{id}/close`.
pub(super) fn close(order: Order) -> Taken {
    let id = named(&order)?;
    let about = format!("close review {id}");
    let act = async move {
        let grants = order.operations.reviews()?.close(id, order.actor.name()).await?;
        Ok(Done {
            detail: format!("{grants} grants have ended"),
            ..Done::with(Json(Answered { grants }).into_response())
        })
    };
    Ok(Understood { weight: Weight::Brake, about, act: Box::pin(act) })
}

/// `POST /grants/{id}/restore`.
pub(super) fn restore(order: Order) -> Taken {
    let grant: GrantId =
        named(&order)?.parse().map_err(|hint: String| Refusal::new(Reason::ParametersInvalid).hint(hint))?;
    let about = format!("restore grant {grant}");
    let act = async move {
        if !order.operations.reviews()?.restore(grant).await? {
            return Err(Refusal::new(Reason::TargetUnknown).hint("that grant has not ended").into());
        }
        Ok(Done::with(Json(Answered { grants: 1 }).into_response()))
    };
    Ok(Understood { weight: Weight::Loosen, about, act: Box::pin(act) })
}

type Answers = fn(&dyn Reviews, String, Which, String) -> BoxFuture<'_, Result<usize, Stop>>;

fn answered(order: Order, weight: Weight, verb: &'static str, answer: Answers) -> Taken {
    let id = named(&order)?;
    let AnswerOrder { grants, all } = json(&order)?;
    let which = match (grants.is_empty(), all) {
        (true, true) => Which::Open,
        (false, false) => Which::Named(grants),
        _ => return Err(invalid("name the grants, or write all = true")),
    };
    let meant = match &which {
        Which::Open => "all that is open".to_owned(),
        Which::Named(grants) => grants.iter().map(GrantId::as_str).collect::<Vec<_>>().join(" "),
    };
    let about = format!("{verb} in review {id}: {meant}");
    let act = async move {
        let grants = answer(order.operations.reviews()?, id, which, order.actor.name()).await?;
        Ok(Done { detail: format!("{grants} grants"), ..Done::with(Json(Answered { grants }).into_response()) })
    };
    Ok(Understood { weight, about, act: Box::pin(act) })
}

fn named(order: &Order) -> Result<String, Refusal> {
    let plain = |name: &&str| (1..=64).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
    order.name.as_deref().filter(plain).map(str::to_owned).ok_or_else(|| invalid("name it by its letters and digits"))
}

/// Comma-separated values (RFC 4180). A cell that a spreadsheet would calculate begins with an apostrophe.
fn table(report: &ReviewReport) -> Response {
    let mut text = String::from(
        "grant,place,subject,environment,object,action,condition,owner,used,last_used,confidence,answer,by,at,\
         since,oldest_record,not_kept\r\n",
    );
    for reviewed in &report.grants {
        let grant = &reviewed.usage.grant;
        let confidence = serde_json::to_string(&reviewed.usage.confidence).unwrap_or_default();
        let answer = serde_json::to_string(&reviewed.answer).unwrap_or_default();
        let cells = [
            grant.id.to_string(),
            grant.place.clone(),
            grant.subject.clone(),
            grant.environment.clone(),
            grant.object.clone(),
            grant.action.clone(),
            grant.condition.clone().unwrap_or_default(),
            reviewed.owner.clone(),
            reviewed.usage.used.map_or(0, |used| used.count).to_string(),
            reviewed.usage.used.map_or_else(String::new, |used| used.last.to_string()),
            confidence.trim_matches('"').to_owned(),
            answer.trim_matches('"').to_owned(),
            reviewed.said.as_ref().map_or_else(String::new, |said| said.by.clone()),
            reviewed.said.as_ref().map_or_else(String::new, |said| said.at.to_string()),
            report.review.since.to_string(),
            report.review.oldest_record.map_or_else(String::new, |oldest| oldest.to_string()),
            report.review.not_kept.to_string(),
        ];
        text.push_str(&cells.map(|cell| quoted(&cell)).join(","));
        text.push_str("\r\n");
    }
    ([(CONTENT_TYPE, "text/csv; charset=utf-8; header=present")], text).into_response()
}

fn quoted(cell: &str) -> String {
    let calculated = cell.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let cell = if calculated { format!("'{cell}") } else { cell.to_owned() };
    if cell.contains([',', '"', '\r', '\n']) { format!("\"{}\"", cell.replace('"', "\"\"")) } else { cell }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_text_for_whoever_opens_it() {
        for (cell, expected) in [
            ("plain", "plain"),
            ("a,b", "\"a,b\""),
            ("say \"no\"", "\"say \"\"no\"\"\""),
            ("=1+1", "'=1+1"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("-2,3", "\"'-2,3\""),
        ] {
            assert_eq!(quoted(cell), expected);
        }
    }
}

//! Accounts that people linked, as administrators ask for them: `GET /vault`, `POST /vault/revoke`.
//!
//! Decides what makes a sensible order. Refuses to know what an account holds. Invariant: nothing secret is told.

use axum::Json;
use axum::response::IntoResponse as _;
use serde::{Deserialize, Serialize};

use super::desk::{Done, Order, Understood};
use super::handlers::json;
use crate::gateway::accounts::{Linked, Removed};
use crate::ids::ServerId;
use crate::limit;
use crate::outcome::{Reason, Refusal};
use crate::policy::Weight;

/// The answer to `GET /vault`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkedAccounts {
    /// All accounts.
    pub accounts: Vec<Linked>,
}

/// `POST /vault/revoke`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnlinkOrder {
    /// Whose: `user:ISSUER/SUB`.
    pub owner: String,
    /// At which server.
    pub server: String,
}

/// `GET /vault`.
pub(super) fn list(order: Order) -> Result<Understood, Refusal> {
    let act = async move {
        let accounts = order.operations.accounts(None).await?;
        Ok(Done::with(Json(LinkedAccounts { accounts }).into_response()))
    };
    Ok(Understood { weight: Weight::Look, about: String::new(), act: Box::pin(act) })
}

/// `POST /vault/revoke`.
pub(super) fn revoke(order: Order) -> Result<Understood, Refusal> {
    let UnlinkOrder { owner, server } = json(&order)?;
    let invalid = |hint: String| Refusal::new(Reason::ParametersInvalid).hint(hint);
    if owner.len() > limit::REVOCATION_VALUE_BYTES_MAX || !owner.starts_with("user:") {
        return Err(invalid("name the owner as `bailiwick vault list` does: user:ISSUER/SUB".to_owned()));
    }
    let server = ServerId::new(&server).map_err(|error| invalid(error.to_string()))?;
    let about = format!("the account of {owner} at {server}");
    let act = async move {
        let removed: Option<Removed> = order.operations.unlink(&owner, &server).await?;
        let Some(removed) = removed else {
            let hint = "they have linked no account there; look at the vault again";
            return Err(Refusal::new(Reason::TargetUnknown).hint(hint).into());
        };
        let detail = format!("at its authorization server: {}", removed.upstream);
        Ok(Done { detail, ..Done::with(Json(removed).into_response()) })
    };
    Ok(Understood { weight: Weight::Brake, about, act: Box::pin(act) })
}

//! What administrators ask of the records of all replicas.

use futures_util::future::BoxFuture;
use jiff::Timestamp;

use crate::control::records::{Asker, Records, Shown, Simulation, Suggested, Whole};
use crate::gateway::Gateway;
use crate::ids::PolicyRevision;
use crate::outcome::Stop;

impl Records for Gateway {
    fn suggest(
        &self,
        by: Asker,
        window: (Timestamp, Timestamp),
        agent: Option<String>,
    ) -> BoxFuture<'_, Result<Whole<Suggested>, Stop>> {
        Box::pin(async move { Self::suggest(self, &by, window, agent).await })
    }

    fn simulate(
        &self,
        by: Asker,
        window: (Timestamp, Timestamp),
        revision: Option<PolicyRevision>,
    ) -> BoxFuture<'_, Result<Whole<Simulation>, Stop>> {
        Box::pin(async move { Self::simulate(self, &by, window, revision).await })
    }

    fn show(&self, by: Asker, id: String) -> BoxFuture<'_, Result<Whole<Shown>, Stop>> {
        Box::pin(async move { Self::show(self, &by, &id).await })
    }
}

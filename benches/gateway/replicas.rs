//! Several replicas with one store against one, on one machine: what the store costs, and what it does not.

use crate::Result;
use crate::load::{Ask, Load, Row, drive};
use crate::parts::{WARM_UP, heading, print_row, through};
use crate::upstream::ECHO;
use crate::world::{Setup, World};

#[path = "../../tests/support/postgres.rs"]
#[expect(clippy::unwrap_used, reason = "what it stands for is a test's")]
pub mod postgres;

/// Calls through one replica and through three, each with its share of the connections.
pub async fn replicas(world: &World, duration: std::time::Duration) -> Result<()> {
    for count in [1, 3] {
        let Some(database) = postgres::Database::fresh().await else { return Ok(()) };
        let store = Some((database.url(), postgres::PASSWORD));
        let gateways = world.replicas(&Setup { durability: "os", store, ..Setup::default() }, count).await?;
        heading(&format!("tools/call, governed, {count} with one store, `os` (CPU of all gateways)"), "");
        for connections in [18, 66] {
            let loads = |time| -> Vec<Load> {
                let call = || Ask::Call(format!("s0__{ECHO}"));
                gateways.iter().map(|gateway| through(gateway, connections / count, time, call())).collect()
            };
            futures_util::future::try_join_all(loads(WARM_UP).into_iter().map(drive)).await?;
            let cpu = || gateways.iter().map(|gateway| gateway.process.cpu()).sum::<Result<std::time::Duration>>();
            let start = cpu()?;
            let rows = futures_util::future::try_join_all(loads(duration).into_iter().map(drive)).await?;
            let cpu = cpu()?.saturating_sub(start);
            // They ran at the same time.
            let elapsed = rows.iter().map(|row| row.elapsed).max().unwrap_or_default();
            let mut all = Row::of_all(rows);
            all.elapsed = elapsed;
            print_row(&connections.to_string(), &all, cpu);
        }
    }
    Ok(())
}

// Only authentication says who calls.

use std::sync::Arc;

use bailiwick::identity::caller::Verified;
use bailiwick::identity::{Caller, Elevation};
use bailiwick::ids::RevocationEpoch;

type By = Option<Arc<Verified>>;

pub fn forge(verified: Arc<Verified>, by: By, epoch: RevocationEpoch, elevation: Option<Arc<Elevation>>) -> Caller {
    Caller { verified, by, epoch, elevation } //~ E0451 private
}

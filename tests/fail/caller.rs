// Only authentication says who calls.

use std::sync::Arc;

use bailiwick::identity::Caller;
use bailiwick::identity::caller::Verified;
use bailiwick::ids::RevocationEpoch;

pub fn forge(verified: Arc<Verified>, by: Option<Arc<Verified>>, epoch: RevocationEpoch) -> Caller {
    Caller { verified, by, epoch } //~ E0451 private
}

// Nobody moves a caller past a revocation.

use bailiwick::identity::Caller;
use bailiwick::ids::RevocationEpoch;

pub fn newer(mut caller: Caller, epoch: RevocationEpoch) -> Caller {
    caller.epoch = epoch; //~ E0616 field `epoch`
    caller
}

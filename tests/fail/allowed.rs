// What everyone may do with proofs: read them, hand them on, end an entry once.

use bailiwick::catalog::Target;
use bailiwick::identity::Caller;
use bailiwick::outcome::Outcome;
use bailiwick::record::{Entry, Evidence};

pub fn look(caller: &Caller, target: &Target) -> String {
    format!("{:?} {}", caller.principal(), target.name())
}

pub fn end<P: Evidence>(entry: Entry<P>, outcome: &Outcome) {
    entry.close(outcome);
}

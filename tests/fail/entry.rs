// Only the record says that an intent is durable, and it says so of one proof.

use bailiwick::record::{Entry, Evidence};

pub fn other<P: Evidence>(mut entry: Entry<P>, proof: P) -> Entry<P> {
    entry.proof = proof; //~ E0616 field `proof`
    entry
}

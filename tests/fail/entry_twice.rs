// A call ends once.

use bailiwick::outcome::Outcome;
use bailiwick::record::{Entry, Evidence};

pub fn twice<P: Evidence>(entry: Entry<P>, outcome: &Outcome) {
    entry.close(outcome);
    entry.close(outcome); //~ E0382 use of moved value: `entry`
}

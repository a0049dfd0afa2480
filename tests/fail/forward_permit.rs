// What was only permitted, cleared or granted has no intent on the record, and cannot be forwarded.

use bailiwick::delegate::Grant;
use bailiwick::guard::Cleared;
use bailiwick::policy::Permit;
use bailiwick::upstream::Upstreams;

pub fn permitted(upstreams: &Upstreams, permit: &mut Permit) {
    upstreams.forward(permit); //~ E0308 mismatched types
}

pub fn cleared(upstreams: &Upstreams, cleared: &mut Cleared) {
    upstreams.forward(cleared); //~ E0308 mismatched types
}

pub fn granted(upstreams: &Upstreams, grant: &mut Grant) {
    upstreams.forward(grant); //~ E0308 mismatched types
}

// Only the policy permits.

use bailiwick::catalog::Target;
use bailiwick::identity::Caller;
use bailiwick::policy::Permit;

pub fn forge(caller: Caller, target: Target, other: Permit) -> Permit {
    Permit { caller, target, ..other } //~ E0451 private
}

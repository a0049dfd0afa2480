// Only the guard says that everything which a call needs is reserved.

use bailiwick::guard::Cleared;
use bailiwick::policy::Permit;

pub fn forge(permit: Permit, other: Cleared) -> Cleared {
    Cleared { permit, ..other } //~ E0451 private
}

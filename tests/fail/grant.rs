// Only the delegate says which credential a cleared call gets.

use bailiwick::delegate::Grant;
use bailiwick::guard::Cleared;

pub fn forge(cleared: Cleared, other: Grant) -> Grant {
    Grant { cleared, ..other } //~ E0451 private
}

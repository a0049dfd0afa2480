// Only the delegate says which credential a cleared call gets.

use bailiwick::delegate::Grant;
use bailiwick::guard::Cleared;

pub fn forge(cleared: Cleared) -> Grant {
    Grant(cleared) //~ E0423 private
}

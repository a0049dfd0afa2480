// Only the catalog says what a name means.

use std::sync::Arc;

use bailiwick::catalog::Target;

pub fn rename(target: Target) -> Target {
    Target { name: Arc::from("delete_everything"), ..target } //~ E0451 private
}

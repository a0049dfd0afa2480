//! Whether a process descends from this one.
//!
//! A stdio server runs as our own user, which is all that a Unix socket tells. Decides by asking who started whom.
//! Refuses to know what a process without a sandbox does to hide that: it can have others start one, and end its
//! supervisor. Invariant: where it cannot be told, the answer is yes.

/// More generations than there are between a server and whatever it starts; a longer chain is hiding something.
#[cfg(target_os = "linux")]
const GENERATIONS_MAX: usize = 64;

/// Whether that process was started by this one, or by one that was. Orphans count: they are their supervisor's.
#[cfg(target_os = "linux")]
pub(super) fn is_descendant(process: i32) -> bool {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    let mut process = process;
    for generation in 0..GENERATIONS_MAX {
        if process == own {
            return generation > 0;
        }
        // Nobody started the first process, and of one outside our namespace only that much is seen.
        if process <= 1 {
            return false;
        }
        let Some(parent) = parent_of(process) else { return true };
        process = parent;
    }
    true
}

#[cfg(target_os = "linux")]
fn parent_of(process: i32) -> Option<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name stands in parentheses and may contain anything, so read from its end.
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Elsewhere the kernel does not tell who started whom.
#[cfg(not(target_os = "linux"))]
pub(super) fn is_descendant(_process: i32) -> bool {
    false
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_child_and_a_process_that_is_gone_descend_from_us_and_we_and_our_parent_do_not() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let process = i32::try_from(child.id()).unwrap();
        assert!(is_descendant(process));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(is_descendant(process), "nobody can tell any more");
        assert!(!is_descendant(rustix::process::getpid().as_raw_nonzero().get()));
        let parent = rustix::process::getppid().map_or(0, |parent| parent.as_raw_nonzero().get());
        assert!(!is_descendant(parent) && !is_descendant(0));
    }
}

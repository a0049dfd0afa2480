//! What the gateway's process asks of the system for itself, before anything else.
//!
//! Decides nothing about calls. Invariant: nobody else looks into this process, where the system can see to that.

/// Settles the process: nobody looks into it, it holds no more memory than it uses, and randomness is at hand.
///
/// # Errors
/// What the system says, where it cannot keep others out.
pub(super) fn settle() -> Result<(), rustix::io::Errno> {
    // The first random number takes 20 ms: the library measures the jitter of the processor first. That is done while
    // files are read, and not when somebody waits for a key or a session.
    std::thread::spawn(|| aws_lc_rs::rand::fill(&mut [0]));
    keep_to_ourselves()
}

/// Nobody of our user, no child least of all, may read our memory, our environment or our open files, and nothing
/// of them lands in a core file.
#[cfg(target_os = "linux")]
fn keep_to_ourselves() -> Result<(), rustix::io::Errno> {
    use rustix::process::{DumpableBehavior, set_dumpable_behavior};
    // What a gateway holds is small and spread out: a page of 2 MB is held for a few KB. At rest that were 20 MB more.
    // It is no reason not to start.
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        tracing::debug!(%error, "huge pages stay");
    }
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
}

/// Elsewhere it takes root, or a debugger's entitlement, to look into another process.
#[cfg(not(target_os = "linux"))]
fn keep_to_ourselves() -> Result<(), rustix::io::Errno> {
    Ok(())
}

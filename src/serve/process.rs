//! What the gateway's process asks of the system for itself, before anything else.
//!
//! Decides nothing about calls. Invariant: nobody else looks into this process, where the system can see to that.

/// Draws the first random number, beside whatever else is done: it takes 20 ms, since the library measures the jitter of
/// the processor first. So nobody waits for it who needs a key or a session.
pub(super) fn draw_early() {
    std::thread::spawn(|| aws_lc_rs::rand::fill(&mut [0]));
}

/// Asks for small pages of memory, before much of it is used. What a gateway holds is small and spread out: a page of
/// 2 MB would be held for a few KB. At rest that were 20 MB more, and 6 where the start has begun. It is no reason not to
/// start where the system has none.
#[cfg(target_os = "linux")]
pub(crate) fn hold_little() {
    let _kept = rustix::thread::disable_transparent_huge_pages(true);
}

/// Elsewhere the system does not do so by itself.
#[cfg(not(target_os = "linux"))]
pub(crate) const fn hold_little() {}

/// Nobody of our user, no child least of all, may read our memory, our environment or our open files, and nothing
/// of them lands in a core file.
///
/// # Errors
/// What the system says, where it cannot keep others out.
#[cfg(target_os = "linux")]
pub(super) fn keep_to_ourselves() -> Result<(), rustix::io::Errno> {
    use rustix::process::{DumpableBehavior, set_dumpable_behavior};
    make_for_ourselves();
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
}

/// Whatever file is made from now on is ours alone, also one that a library makes.
fn make_for_ourselves() {
    let _before = rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
}

/// Elsewhere it takes root, or a debugger's entitlement, to look into another process.
#[cfg(not(target_os = "linux"))]
pub(super) fn keep_to_ourselves() -> Result<(), rustix::io::Errno> {
    make_for_ourselves();
    Ok(())
}

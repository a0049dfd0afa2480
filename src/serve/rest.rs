//! What only the start needed goes back to the system once the gateway is at rest.
//!
//! Decides when, once; never what anybody may do. Invariant: only memory goes that nobody holds any more, and pages of
//! the program that are, byte for byte, what stands in its file: whatever is needed again is read again.

use std::io;

use tokio_util::sync::CancellationToken;

use crate::limit;

/// Waits until the start is over, and gives back what it needed; unless everything stops before.
pub(super) async fn after_start(stopping: CancellationToken) {
    if stopping.run_until_cancelled(tokio::time::sleep(limit::START_OVER_AFTER)).await.is_some() {
        give_back();
    }
}

/// Reading files, making keys and tables and connecting leave free blocks with the allocator, and half of the program
/// in memory. The next call costs a few hundred page faults more, less than a millisecond in all.
fn give_back() {
    collect();
    match forget_code() {
        Ok(bytes) => tracing::debug!(bytes, "pages of the program that only the start needed are given back"),
        Err(error) => tracing::debug!(%error, "the pages of the program stay"),
    }
}

/// Gives back blocks that are free.
#[expect(unsafe_code, reason = "the allocator has no safe wrapper for it; it moves nothing that anybody holds")]
fn collect() {
    // SAFETY: it takes no pointer and may be called from any thread at any time; it frees what is free already.
    unsafe { libmimalloc_sys::mi_collect(true) }
}

/// Forgets the pages of the program's own code; how many bytes of it were in memory.
///
/// # Errors
/// Where the system does not say where the code is, or some of it was changed in memory (a debugger does that).
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "no safe wrapper can know that a mapping is the unchanged image of its file")]
fn forget_code() -> io::Result<u64> {
    use rustix::mm::{Advice, madvise};
    let code = Mapping::around(&std::fs::read_to_string("/proc/self/smaps")?, forget_code as *const () as usize)
        .ok_or_else(|| io::Error::other("the code is in no mapping of its own, or was changed"))?;
    // SAFETY: the mapping is private, has a file, cannot be written to, and none of its pages was changed: what is
    // dropped is read from the same file when it is needed next, with the same bytes. No Rust object lives in it.
    unsafe {
        madvise(std::ptr::with_exposed_provenance_mut(code.start), code.end - code.start, Advice::LinuxDontNeed)
    }?;
    Ok(code.resident_bytes)
}

#[cfg(not(target_os = "linux"))]
fn forget_code() -> io::Result<u64> {
    Err(io::Error::from(io::ErrorKind::Unsupported))
}

/// A piece of the program's file in memory, unchanged.
#[derive(Debug, PartialEq, Eq)]
struct Mapping {
    start: usize,
    end: usize,
    resident_bytes: u64,
}

impl Mapping {
    /// The mapping that holds an address, as `smaps` tells of it; none where it can be written to, has no file, or has
    /// a page that is not its file's.
    fn around(smaps: &str, address: usize) -> Option<Self> {
        let mut lines = smaps.lines();
        let (start, end) = lines.by_ref().find_map(|line| {
            let mut words = line.split_whitespace();
            let (start, end) = words.next()?.split_once('-')?;
            let (start, end) = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
            let is_code = words.next() == Some("r-xp") && words.nth(3).is_some_and(|path| path.starts_with('/'));
            (is_code && (start..end).contains(&address)).then_some((start, end))
        })?;
        let about = |name: &str| {
            let of_this = lines.clone().take_while(|line| line.split_whitespace().next().is_some_and(is_label));
            let line = of_this.into_iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok())
        };
        // A page that was changed in memory is a copy, and no longer its file's.
        (about("Anonymous") == Some(0)).then_some(Self { start, end, resident_bytes: about("Rss")? * 1024 })
    }
}

/// Whether a line tells of the mapping above it.
fn is_label(word: &str) -> bool {
    word.ends_with(':')
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "\
555500000000-555500010000 r--p 00000000 fe:00 12 /usr/bin/bailiwick
Rss:                  64 kB
Private_Dirty:         4 kB
Anonymous:             4 kB
555500010000-555500090000 r-xp 00010000 fe:00 12 /usr/bin/bailiwick
Size:                512 kB
Rss:                 300 kB
Anonymous:             0 kB
VmFlags: rd ex mr mw me
555500090000-5555000a0000 rw-p 00000000 00:00 0
Rss:                  64 kB
Private_Dirty:        64 kB
Anonymous:            64 kB
";

    #[test]
    fn only_the_unchanged_code_of_a_file_is_forgotten() {
        let code = Mapping { start: 0x5555_0001_0000, end: 0x5555_0009_0000, resident_bytes: 300 * 1024 };
        assert_eq!(Mapping::around(SMAPS, 0x5555_0001_2345), Some(code));
        assert_eq!(Mapping::around(SMAPS, 0x5555_0000_0000), None, "relocated data is nowhere else");
        assert_eq!(Mapping::around(SMAPS, 0x5555_0009_0010), None, "nor is what the program holds");
        assert_eq!(Mapping::around(SMAPS, 0x1000), None);
        let changed = SMAPS.replace("Anonymous:             0 kB", "Anonymous:             4 kB");
        assert_eq!(Mapping::around(&changed, 0x5555_0001_2345), None, "a debugger changed it");
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_given_back_before_the_start_is_over_and_a_stop_waits_for_none_of_it() {
        let began = tokio::time::Instant::now();
        after_start(CancellationToken::new()).await;
        assert_eq!(began.elapsed(), limit::START_OVER_AFTER);
        let stopping = CancellationToken::new();
        stopping.cancel();
        let began = tokio::time::Instant::now();
        after_start(stopping).await;
        assert!(began.elapsed().is_zero());
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_program_goes_on_without_what_was_given_back() {
        let resident = || {
            let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
            Mapping::around(&smaps, forget_code as *const () as usize).unwrap().resident_bytes
        };
        // Something that uses code all over the place before and after.
        let work = || serde_json::from_str::<toml::Value>(r#"{"a":[1,2.5,"x"]}"#).unwrap().to_string();
        let before = (work(), resident());
        give_back();
        let after = resident();
        assert!(after < before.1, "{after} bytes of code in memory after {}", before.1);
        assert_eq!(work(), before.0);
    }
}

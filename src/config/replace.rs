//! Replaces a file that somebody may be reading.
//!
//! Decides how: beside it, onto the disk, then into its place. Invariant: whoever opens the name finds the old
//! content or the new one, whole; after a crash too.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Replaces or makes a file with this content and mode.
///
/// # Errors
/// When it cannot be written; what was there stays.
pub fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let name = path.file_name().ok_or_else(|| io::Error::other("a file needs a name"))?.to_string_lossy();
    // Readers of directories of ours pass over names that begin with a dot.
    let fresh = path.with_file_name(format!(".{name}.{}", std::process::id()));
    let written = write(&fresh, content, mode).and_then(|()| std::fs::rename(&fresh, path));
    if written.is_err() {
        // It may be a secret; what cannot be removed was not written.
        let _ = std::fs::remove_file(&fresh);
    }
    written?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}

fn write(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_is_replaced_is_whole_and_leaves_nothing_beside_it() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("seal");
        for content in ["one", "two"] {
            replace(&path, content.as_bytes(), 0o600).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
        }
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 1);
        std::fs::create_dir(place.path().join("taken")).unwrap();
        assert!(replace(&place.path().join("taken"), b"x", 0o600).is_err());
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 2, "what failed leaves nothing");
    }
}

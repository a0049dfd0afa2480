//! How far an export has come: the number of the last record that was acknowledged, and its digest.
//!
//! Invariant: the file is replaced as a whole, after the acknowledgement; a record that was taken back by a crash and
//! written anew is told from the one that was sent.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::config::replace::replace;
use crate::ids::Digest;
use crate::record::read_text;

/// A cursor is a number and a digest.
const BYTES_MAX: u64 = 4096;

/// How far an export has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    last: u64,
    digest: Option<Digest>,
}

impl Cursor {
    /// After that record.
    pub const fn after(last: u64, digest: Digest) -> Self {
        Self { last, digest: Some(digest) }
    }

    /// Before that record, whatever stands there.
    pub const fn before(next: u64) -> Self {
        Self { last: next.saturating_sub(1), digest: None }
    }

    /// The last record that was acknowledged; 0 where none was.
    pub const fn last(self) -> u64 {
        self.last
    }

    /// Whether that is the record that was acknowledged last.
    pub fn is_of(self, digest: Digest) -> bool {
        self.digest.is_none_or(|own| own == digest)
    }

    /// Reads it; `None` where there is none yet.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(path: &Path) -> io::Result<Option<Self>> {
        match read_text(path, BYTES_MAX) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            text => serde_json::from_str(&text?).map(Some).map_err(io::Error::other),
        }
    }

    /// Keeps it; it is on the disk afterwards.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(self, path: &Path) -> io::Result<()> {
        if let Some(directory) = path.parent() {
            use std::os::unix::fs::DirBuilderExt as _;
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        }
        replace(path, &serde_json::to_vec(&self)?, 0o600)
    }
}

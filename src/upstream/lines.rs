//! Lines of bounded length out of a stream of bytes.
//!
//! Knows nothing of what they say. Invariant: memory stays within the bound, however long a line is.

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Reads lines of bounded length.
pub(super) struct Lines<R> {
    from: R,
    buffer: BytesMut,
    /// So far no line ends.
    searched: usize,
    bytes_max: usize,
    /// The rest of a line that was too long is passed over.
    skipping: bool,
}

/// One line without its end.
pub(super) struct Line {
    pub(super) bytes: Vec<u8>,
    /// It was too long; this is its beginning.
    pub(super) cut: bool,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    pub(super) fn new(from: R, bytes_max: usize) -> Self {
        Self { from, buffer: BytesMut::new(), searched: 0, bytes_max, skipping: false }
    }

    /// The next line without its end; a line that is too long comes once, cut off.
    pub(super) async fn next(&mut self) -> std::io::Result<Option<Line>> {
        loop {
            let end = self.buffer.get(self.searched..).and_then(|rest| memchr::memchr(b'\n', rest));
            if let Some(end) = end {
                let line = self.buffer.split_to(self.searched + end + 1);
                self.searched = 0;
                if std::mem::take(&mut self.skipping) {
                    continue;
                }
                let bytes = line.get(..line.len() - 1).unwrap_or_default().to_vec();
                return Ok(Some(Line { bytes, cut: false }));
            }
            self.searched = self.buffer.len();
            if self.searched > self.bytes_max {
                let mut bytes = std::mem::take(&mut self.buffer).to_vec();
                self.searched = 0;
                if std::mem::replace(&mut self.skipping, true) {
                    continue;
                }
                bytes.truncate(self.bytes_max);
                return Ok(Some(Line { bytes, cut: true }));
            }
            if self.from.read_buf(&mut self.buffer).await? == 0 {
                let rest = std::mem::take(&mut self.buffer).to_vec();
                self.searched = 0;
                let some = !rest.is_empty() && !self.skipping;
                return Ok(some.then_some(Line { bytes: rest, cut: false }));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_read_however_they_are_split_and_a_long_one_is_cut() {
        let text = format!("one\n\n{}\ntwo\r\nrest", "x".repeat(10_000));
        let mut lines = Lines::new(text.as_bytes(), 100);
        let mut seen = Vec::new();
        while let Some(line) = lines.next().await.unwrap() {
            seen.push((String::from_utf8(line.bytes).unwrap(), line.cut));
        }
        let seen: Vec<_> = seen.iter().map(|(text, cut)| (text.as_str(), *cut)).collect();
        let long = "x".repeat(100);
        assert_eq!(seen, [("one", false), ("", false), (long.as_str(), true), ("two\r", false), ("rest", false)]);
    }
}

//! Reads bounded lines: a longer one is skipped to its end, and says so.

use tokio::io::{AsyncBufRead, AsyncBufReadExt as _};

/// A line was longer than allowed; the next one can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooLong;

/// The next line without its end; `None` when the input has ended.
pub(super) async fn next(
    input: &mut (impl AsyncBufRead + Unpin),
    bytes_max: usize,
) -> std::io::Result<Option<Result<Vec<u8>, TooLong>>> {
    let mut line = Vec::new();
    let mut too_long = false;
    let mut some = false;
    loop {
        let available = input.fill_buf().await?;
        if available.is_empty() {
            let last = if too_long { Err(TooLong) } else { Ok(line) };
            return Ok(some.then_some(last));
        }
        some = true;
        let end = memchr::memchr(b'\n', available);
        let part = available.get(..end.unwrap_or(available.len())).unwrap_or_default();
        if line.len() + part.len() > bytes_max {
            too_long = true;
            line = Vec::new();
        }
        if !too_long {
            line.extend_from_slice(part);
        }
        let used = part.len() + usize::from(end.is_some());
        input.consume(used);
        if end.is_some() {
            return Ok(Some(if too_long { Err(TooLong) } else { Ok(line) }));
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::BufReader;

    use super::*;

    #[tokio::test]
    async fn a_line_that_is_too_long_costs_itself_only() {
        for capacity in [1, 3, 64] {
            let mut input = BufReader::with_capacity(capacity, &b"one\n123456\n12345\n\nlast"[..]);
            let mut lines = Vec::new();
            while let Some(line) = next(&mut input, 5).await.unwrap() {
                lines.push(line.map(|line| String::from_utf8(line).unwrap()));
            }
            let text = |text: &str| Ok(text.to_owned());
            assert_eq!(lines, [text("one"), Err(TooLong), text("12345"), text(""), text("last")], "{capacity}");
        }
    }
}

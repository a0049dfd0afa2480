//! Reads Rust source the way the rooms test needs it: what is left when comments, strings and tests are gone.

use super::is_word;

/// Source text without comments, string contents and test modules; lines keep their numbers.
pub fn code(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out: Vec<u8> = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let after_word = at > 0 && is_word(bytes[at - 1]);
        let length = if rest.starts_with(b"//") {
            rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len())
        } else if rest.starts_with(b"/*") {
            block_comment(rest)
        } else if !after_word && raw_string(rest).is_some() {
            raw_string(rest).unwrap()
        } else if rest[0] == b'"' {
            quoted(rest)
        } else if rest[0] == b'\'' {
            character(rest)
        } else {
            0
        };
        if length == 0 {
            out.push(bytes[at]);
            at += 1;
        } else {
            out.extend(rest[..length].iter().filter(|byte| **byte == b'\n'));
            at += length;
        }
    }
    let code = String::from_utf8(out).unwrap();
    // A test module stands last in its file; a single item under `cfg(test)` does not end the code.
    match code.find("#[cfg(test)]\nmod ") {
        Some(tests) if code[tests..].lines().nth(1).is_some_and(|line| line.ends_with('{')) => code[..tests].to_owned(),
        _ => code,
    }
}

fn block_comment(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        if rest[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                break;
            }
        } else {
            at += 1;
        }
    }
    at
}

fn raw_string(rest: &[u8]) -> Option<usize> {
    let prefix = if rest.starts_with(b"br") { 2 } else { 1 };
    if !(rest.starts_with(b"r") || rest.starts_with(b"br")) {
        return None;
    }
    let hashes = rest[prefix..].iter().take_while(|byte| **byte == b'#').count();
    if rest.get(prefix + hashes) != Some(&b'"') {
        return None;
    }
    let mut end = vec![b'"'];
    end.extend(std::iter::repeat_n(b'#', hashes));
    let body = &rest[prefix + hashes + 1..];
    let length = body.windows(end.len()).position(|window| window == end).unwrap_or(body.len());
    Some(prefix + hashes + 1 + length + end.len())
}

fn quoted(rest: &[u8]) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != b'"' {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

/// The length of a character literal; 0 for a lifetime.
fn character(rest: &[u8]) -> usize {
    match rest {
        [_, b'\\', ..] => rest.iter().skip(3).position(|byte| *byte == b'\'').map_or(0, |end| end + 4),
        [_, _, b'\'', ..] => 3,
        // A character of several bytes.
        [_, first, ..] if *first >= 0x80 => {
            rest.iter().skip(1).position(|byte| *byte == b'\'').map_or(0, |end| end + 2)
        }
        _ => 0,
    }
}

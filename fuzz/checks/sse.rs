//! However a stream of events is cut into chunks, the same events come out, and none is larger than the bound.
//!
//! The first byte says how many cuts there are; each takes one byte more.

use bailiwick::wire::sse::{Event, Reader};

const BYTES_MAX: usize = 512;

/// Panics where something that must hold does not.
pub fn check(data: &[u8]) {
    let Some((count, rest)) = data.split_first() else { return };
    let (cuts, stream) = rest.split_at(usize::from(*count % 16).min(rest.len()));
    let whole = read([stream]);
    let bytes = read(stream.chunks(1));
    assert_eq!(whole, bytes, "byte by byte reads differently");

    let mut chunks = Vec::new();
    let mut left = stream;
    for cut in cuts {
        let (chunk, after) = left.split_at(usize::from(*cut).min(left.len()));
        chunks.push(chunk);
        left = after;
    }
    chunks.push(left);
    assert_eq!(whole, read(chunks), "cut at {cuts:?} it reads differently");

    for event in &whole.0 {
        assert!(event.data.len() <= BYTES_MAX, "an event is larger than the bound");
        assert!(!event.data.contains(&b'\r'), "a carriage return is a line end");
    }
}

fn read<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Event>, bool) {
    let mut reader = Reader::new(BYTES_MAX);
    let mut events = Vec::new();
    for chunk in chunks {
        if reader.push(chunk, &mut |event| events.push(event)).is_err() {
            return (events, false);
        }
    }
    (events, true)
}

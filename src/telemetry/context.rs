//! Which trace a request belongs to, in the words of W3C Trace Context (`traceparent`).
//!
//! Decides which texts are one. Invariant: what is not understood begins a trace of its own, and is never passed on as
//! if it were ours.

use crate::limit;

/// The header, and the key in `_meta`.
pub const HEADER: &str = "traceparent";

/// A trace, and the span in it that comes before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context {
    /// The trace.
    pub trace: [u8; 16],
    /// The span before; nothing where the trace begins here.
    pub parent: Option<[u8; 8]>,
}

impl Context {
    /// A trace that begins here.
    #[must_use]
    pub fn fresh() -> Self {
        let mut trace = [0; 16];
        fill(&mut trace);
        Self { trace, parent: None }
    }

    /// Reads a `traceparent`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > limit::TRACEPARENT_BYTES_MAX {
            return None;
        }
        let mut parts = text.split('-');
        let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        // A version to come may have more behind; ours has not.
        let whole = version != "00" || parts.next().is_none();
        if version.len() != 2 || version == "ff" || flags.len() != 2 || !whole {
            return None;
        }
        let (trace, parent) = (hex::<16>(trace)?, hex::<8>(parent)?);
        let _flags = (hex::<1>(version)?, hex::<1>(flags)?);
        (trace != [0; 16] && parent != [0; 8]).then_some(Self { trace, parent: Some(parent) })
    }

    /// What goes with a request that is sent on under that span.
    #[must_use]
    pub fn traceparent(&self, span: [u8; 8]) -> String {
        format!("00-{}-{}-01", spelled(&self.trace), spelled(&span))
    }

    /// Whether it is among so many of a hundred. All spans of a trace are, or none is.
    #[must_use]
    pub fn is_sampled(&self, percent: u32) -> bool {
        let [.., a, b, c, d] = self.trace;
        u64::from(u32::from_be_bytes([a, b, c, d])) * 100 < u64::from(percent) << 32
    }
}

/// A fresh span.
pub(super) fn span() -> [u8; 8] {
    let mut span = [0; 8];
    fill(&mut span);
    span
}

fn fill(bytes: &mut [u8]) {
    // Without randomness it is no trace that anybody could find; zero is never one.
    if aws_lc_rs::rand::fill(bytes).is_err() || bytes.iter().all(|byte| *byte == 0) {
        bytes.fill(1);
    }
}

/// Lower-case hexadecimal digits.
pub(super) fn spelled(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    data_encoding::HEXLOWER.decode(text.as_bytes()).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn only_what_w3c_calls_one_is_a_traceparent() {
        let context = Context::parse(GOOD).unwrap();
        assert_eq!(context.traceparent(context.parent.unwrap()), GOOD);
        assert!(Context::parse(&GOOD.replace("00-", "01-")).is_some(), "a version to come");
        assert!(Context::parse(&format!("01{}-more", &GOOD[2..])).is_some());
        let long = format!("01{}-{}", &GOOD[2..], "x".repeat(limit::TRACEPARENT_BYTES_MAX));
        for bad in [
            "",
            "00",
            &GOOD.to_ascii_uppercase(),
            &GOOD.replace("00-4", "ff-4"),
            &format!("{GOOD}-more"),
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
            &long,
        ] {
            assert!(Context::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_hundred_of_a_hundred_is_all_and_none_is_none() {
        let contexts: Vec<Context> = (0..2_000).map(|_| Context::fresh()).collect();
        let sampled = |percent| contexts.iter().filter(|context| context.is_sampled(percent)).count();
        assert_eq!((sampled(0), sampled(100)), (0, contexts.len()));
        assert!((100..700).contains(&sampled(20)), "{}", sampled(20));
        let most = Context { trace: [0xff; 16], parent: None };
        assert!(most.is_sampled(100) && !most.is_sampled(99));
    }
}

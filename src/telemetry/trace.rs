//! W3C trace contexts: who asked for what, across clients, gateway, runner and apps.

/// The header that carries a trace context.
pub const TRACEPARENT: &str = "traceparent";

/// Checks a trace context as a client or a peer sent it, and gives its trace id.
///
/// `None` for what the standard tells to ignore: another length in version 00, capitals, version ff, ids that are all
/// zero. Later versions may be longer.
#[must_use]
pub fn trace_id(traceparent: &str) -> Option<&str> {
    let mut parts = traceparent.splitn(4, '-');
    let (version, trace, span, rest) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let flags = rest.get(..2)?;
    let longer = rest.len() > 2;
    let is_whole = !longer || (version != "00" && rest.as_bytes()[2] == b'-');
    let are_hex = is_hex(version, 2) && is_hex(trace, 32) && is_hex(span, 16) && is_hex(flags, 2);
    let are_set = version != "ff" && trace.bytes().any(|byte| byte != b'0') && span.bytes().any(|byte| byte != b'0');
    (is_whole && are_hex && are_set).then_some(trace)
}

/// A trace context, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Context {
    /// Never 0.
    pub(super) trace: u128,
    /// Never 0.
    pub(super) span: u64,
    /// Somebody wants to see what becomes of this request.
    pub(super) sampled: bool,
}

/// Reads a trace context, as [`trace_id`] does.
pub(super) fn context(traceparent: &str) -> Option<Context> {
    let trace = u128::from_str_radix(trace_id(traceparent)?, 16).ok()?;
    let mut rest = traceparent.split('-').skip(2);
    let span = u64::from_str_radix(rest.next()?, 16).ok()?;
    let flags = u8::from_str_radix(rest.next()?, 16).ok()?;
    Some(Context { trace, span, sampled: flags & 1 == 1 })
}

/// A new trace context, not sampled; the random numbers become its ids.
#[must_use]
pub fn new_traceparent(trace: u128, span: u64) -> String {
    let mut text = *b"00-................................-................-00";
    write_hex(&mut text[3..35], &trace.max(1).to_be_bytes());
    write_hex(&mut text[36..52], &span.max(1).to_be_bytes());
    String::from_utf8(text.to_vec()).expect("only digits and letters are written")
}

/// By hand, since every request gets one: the formatter takes several times as long.
fn write_hex(text: &mut [u8], bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (digits, byte) in text.chunks_exact_mut(2).zip(bytes) {
        digits[0] = DIGITS[usize::from(byte >> 4)];
        digits[1] = DIGITS[usize::from(byte & 15)];
    }
}

fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_is_taken_as_the_standard_says() {
        let (trace, span) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
        let read = Context { trace: 0x4bf92f3577b34da6a3ce929d0e0e4736, span: 0x00f067aa0ba902b7, sampled: true };
        assert_eq!(context(&format!("00-{trace}-{span}-01")), Some(read));
        assert_eq!(context(&format!("00-{trace}-{span}-02")), Some(Context { sampled: false, ..read }));
        for good in [format!("00-{trace}-{span}-01"), format!("cc-{trace}-{span}-01-more")] {
            assert_eq!(trace_id(&good), Some(trace), "{good}");
        }
        for bad in [
            String::new(),
            format!("00-{trace}-{span}"),
            format!("00-{trace}-{span}-01-more"),
            format!("cc-{trace}-{span}-01more"),
            format!("ff-{trace}-{span}-01"),
            format!("00-{}-{span}-01", trace.to_uppercase()),
            format!("00-{}-{span}-01", "0".repeat(32)),
            format!("00-{trace}-{}-01", "0".repeat(16)),
            format!("00-{trace}-{span}-0"),
            format!("00-{trace}-{span}-é1"),
        ] {
            assert_eq!(trace_id(&bad), None, "{bad}");
        }
    }

    #[test]
    fn a_new_context_is_one() {
        assert_eq!(trace_id(&new_traceparent(0, 0)), Some("00000000000000000000000000000001"));
        assert_eq!(trace_id(&new_traceparent(u128::MAX, u64::MAX)), Some(&*"f".repeat(32)));
    }
}

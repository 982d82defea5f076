//! Durations as people write them.

use std::time::Duration;

/// Parses `250ms`, `30s`, `5m` or `1h`.
///
/// # Errors
/// What was expected instead.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split(text);
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60 * 1000,
        "h" => 60 * 60 * 1000,
        "" if !number.is_empty() => {
            return Err(format!("expected a unit: {number}ms, {number}s, {number}m or {number}h"));
        }
        _ => return Err(DURATION.to_owned()),
    };
    let number: u64 = number.parse().map_err(|_| DURATION.to_owned())?;
    number.checked_mul(milliseconds).map(Duration::from_millis).ok_or_else(|| "expected a shorter duration".to_owned())
}

/// Writes a duration the way [`duration`] reads it, in the largest unit that fits evenly.
pub(crate) fn duration_text(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    match milliseconds {
        0 => "0s".to_owned(),
        m if m % 3_600_000 == 0 => format!("{}h", m / 3_600_000),
        m if m % 60_000 == 0 => format!("{}m", m / 60_000),
        m if m % 1000 == 0 => format!("{}s", m / 1000),
        m => format!("{m}ms"),
    }
}

/// A number of requests in a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many; at least 1.
    pub count: u32,
    /// In how long.
    pub per: Duration,
}

/// Parses `10000/1m`.
///
/// # Errors
/// What was expected instead.
pub(crate) fn rate(text: &str) -> Result<Rate, String> {
    let (count, per) = text.split_once('/').ok_or(RATE)?;
    let count = count.parse().ok().filter(|count| *count > 0).ok_or(RATE)?;
    let per = duration(per).map_err(|_| RATE)?;
    if per.is_zero() || per > Duration::from_hours(1) {
        return Err("expected a time of at most 1h after the slash".to_owned());
    }
    Ok(Rate { count, per })
}

/// Parses `64KiB`, `20MiB` or `1GiB` into bytes.
///
/// # Errors
/// What was expected instead.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text);
    let bytes: u64 = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "" if !number.is_empty() => {
            return Err(format!("expected a unit: {number}B, {number}KiB, {number}MiB or {number}GiB"));
        }
        _ => return Err(SIZE.to_owned()),
    };
    let number: u64 = number.parse().map_err(|_| SIZE.to_owned())?;
    number.checked_mul(bytes).ok_or_else(|| "expected a smaller size".to_owned())
}

fn split(text: &str) -> (&str, &str) {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    text.split_at(digits)
}

const RATE: &str = "expected a number of requests in a time, like 10000/1m or 50/1s, or off";
const SIZE: &str = "expected a size like 64KiB, 20MiB or 1GiB";
const DURATION: &str = "expected a duration like 250ms, 30s or 5m";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_number_and_a_unit() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(duration("2h"), Ok(Duration::from_secs(7200)));
        assert_eq!(duration("0s"), Ok(Duration::ZERO));
        for wrong in ["", "s", "5x", "-5s", "1.5s", "5 s", "5S", "ms5", "99999999999999999999s", "٣s"] {
            assert!(duration(wrong).is_err(), "{wrong:?}");
        }
        assert_eq!(duration("30"), Err("expected a unit: 30ms, 30s, 30m or 30h".to_owned()));
        assert_eq!(duration("18446744073709551615h"), Err("expected a shorter duration".to_owned()));
    }

    #[test]
    fn a_rate_is_a_number_in_a_time() {
        assert_eq!(rate("10000/1m"), Ok(Rate { count: 10_000, per: Duration::from_secs(60) }));
        assert_eq!(rate("1/250ms"), Ok(Rate { count: 1, per: Duration::from_millis(250) }));
        for wrong in ["", "10", "/1s", "0/1s", "-1/1s", "10/", "10/0s", "10/2h", "10/s", "10 / 1s", "4294967296/1s"] {
            assert!(rate(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_size_has_a_unit() {
        assert_eq!(["0B", "64KiB", "20MiB", "1GiB"].map(size), [Ok(0), Ok(64 << 10), Ok(20 << 20), Ok(1 << 30)]);
        for wrong in ["", "5", "5K", "KiB", "-1B", "1.5MiB", "99999999999999999999B", "99999999999GiB"] {
            assert!(size(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_written_duration_reads_back() {
        for text in ["250ms", "30s", "90s", "5m", "3h", "0s"] {
            assert_eq!(duration_text(duration(text).unwrap()), text);
        }
    }
}

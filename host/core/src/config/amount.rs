//! Numbers, amounts and durations as people and Helm write them.
//!
//! Amounts follow Kubernetes' `resource.Quantity`: a decimal number with `Ki`, `Mi`, …, with `k`, `M`, …, `m`, or an exponent.
//! Helm's `toYaml` writes large whole numbers as `1e+10`; that is the same number.

use std::time::Duration;

const SUFFIXES: [(&str, u128); 13] = [
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
    ("Pi", 1 << 50),
    ("Ei", 1 << 60),
    ("k", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
    ("P", 1_000_000_000_000_000),
    ("E", 1_000_000_000_000_000_000),
    ("", 1),
];

/// Reads a whole amount, such as `64Mi`, `10G`, `1e+10` or `10000000000`.
///
/// # Errors
/// What is wrong with it, and how to write it.
pub fn whole(text: &str) -> Result<u64, String> {
    refuse_ambiguous_number(text)?;
    if let Some(milli) = text.strip_suffix('m') {
        let (digits, scale) = decimal(milli).ok_or_else(|| malformed(text))?;
        return exact(digits, 1, scale + 3).ok_or_else(|| format!("{text} is no whole amount"));
    }
    let (number, factor) = SUFFIXES
        .iter()
        .find_map(|(suffix, factor)| Some((text.strip_suffix(suffix)?, *factor)))
        .filter(|(number, _)| !number.is_empty())
        .ok_or_else(|| malformed(text))?;
    let (digits, scale) = decimal(number).ok_or_else(|| malformed(text))?;
    exact(digits, factor, scale).ok_or_else(|| format!("{text} is no whole amount between 0 and {}", u64::MAX))
}

/// Reads an amount of thousandths, such as CPUs: `250m` is 250, `1` is 1,000, `0.5` is 500.
///
/// # Errors
/// What is wrong with it, and how to write it.
pub fn thousandths(text: &str) -> Result<u64, String> {
    match text.strip_suffix('m') {
        Some(milli) => whole(milli),
        None => {
            refuse_ambiguous_number(text)?;
            let (digits, scale) = decimal(text).ok_or_else(|| malformed(text))?;
            exact(digits, 1_000, scale).ok_or_else(|| format!("{text} is no whole number of thousandths"))
        }
    }
}

/// Reads a number of seconds, such as `30` or `0.5`.
///
/// # Errors
/// What is wrong with it, and how to write it.
pub fn seconds(text: &str) -> Result<Duration, String> {
    refuse_ambiguous_number(text)?;
    if let Ok(duration) = duration(text) {
        return Err(format!(
            "{text} has a unit; a key that ends in Seconds takes a number: {}",
            duration.as_secs_f64()
        ));
    }
    let number: f64 = text.parse().map_err(|_| format!("`{text}` is no number of seconds"))?;
    Duration::try_from_secs_f64(number).map_err(|_| format!("{text} is no time that can be waited"))
}

/// Reads a duration with units, such as `30s`, `5m`, `1h30m` or `500ms`.
///
/// # Errors
/// What is wrong with it, and how to write it.
pub fn duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("`{text}` is no duration: write it like 30s, 5m, 1h30m or 500ms");
    if text.parse::<f64>().is_ok_and(f64::is_finite) {
        return Err(format!("{text} has no unit: write {text}s, {text}m or {text}h"));
    }
    let mut rest = text;
    let mut total = Duration::ZERO;
    let mut last_unit = f64::INFINITY;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
        let (number, tail) = rest.split_at(digits);
        let unit_length = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_length);
        let seconds = match unit {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3_600.0,
            "d" => 86_400.0,
            _ => return Err(bad()),
        };
        // From the largest unit to the smallest, each once: anything else is a slip.
        if seconds >= last_unit {
            return Err(bad());
        }
        last_unit = seconds;
        let number: f64 = number.parse().map_err(|_| bad())?;
        total += Duration::try_from_secs_f64(number * seconds).map_err(|_| bad())?;
        rest = tail;
    }
    if text.is_empty() { Err(bad()) } else { Ok(total) }
}

/// Refuses what YAML 1.1 and 1.2 read as different numbers.
fn refuse_ambiguous_number(text: &str) -> Result<(), String> {
    let digits = text.trim_start_matches(['+', '-']);
    let plain = text.replace('_', "");
    if text.contains('_') && plain.parse::<f64>().is_ok() {
        return Err(format!("{text} is a number to some tools and text to others: write {plain}"));
    }
    if digits.len() > 1 && digits.starts_with('0') && digits.bytes().all(|c| c.is_ascii_digit()) {
        let trimmed = digits.trim_start_matches('0');
        let trimmed = if trimmed.is_empty() { "0" } else { trimmed };
        return Err(format!("{text} is octal to some tools and decimal to others: write {trimmed}"));
    }
    if digits.starts_with("0o") || digits.starts_with("0x") || digits.starts_with("0b") {
        return Err(format!("{text}: write it in decimal"));
    }
    if digits.contains(':')
        && digits.split(':').all(|part| !part.is_empty() && part.bytes().all(|c| c.is_ascii_digit()))
    {
        let value = digits.split(':').try_fold(0_u64, |sum, part| sum.checked_mul(60)?.checked_add(part.parse().ok()?));
        let written = value.map_or_else(String::new, |value| format!(": write {value}"));
        return Err(format!("{text} counts in sixties to some tools and is text to others{written}"));
    }
    Ok(())
}

/// A decimal number as digits and the number of those behind the point, any exponent taken in.
fn decimal(text: &str) -> Option<(u128, i32)> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok().filter(|e| e.abs() <= 40)?),
        None => (text, 0),
    };
    let (before, after) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let before = before.strip_prefix('+').unwrap_or(before);
    let all: String = [before, after].concat();
    if all.is_empty() || all.len() > 30 || !all.bytes().all(|c| c.is_ascii_digit()) {
        return None;
    }
    Some((all.parse().ok()?, i32::try_from(after.len()).ok()? - exponent))
}

/// `digits` × `factor` / 10^`scale`, if that is a whole number that fits.
fn exact(digits: u128, factor: u128, scale: i32) -> Option<u64> {
    let product = digits.checked_mul(factor)?;
    let power = 10_u128.checked_pow(scale.unsigned_abs())?;
    let value =
        if scale < 0 { product.checked_mul(power)? } else { (product % power == 0).then(|| product / power)? };
    u64::try_from(value).ok()
}

fn malformed(text: &str) -> String {
    format!("`{text}` is no amount: write it like 1000, 64Mi, 10G or 1e+10")
}

/// Writes bytes as the shortest exact amount.
pub fn show_bytes(bytes: u64) -> String {
    for (suffix, shift) in [("Gi", 30), ("Mi", 20), ("Ki", 10)] {
        if bytes != 0 && bytes.is_multiple_of(1 << shift) {
            return format!("{}{suffix}", bytes >> shift);
        }
    }
    bytes.to_string()
}

/// Writes a duration as one would in the configuration.
pub fn show_duration(duration: Duration) -> String {
    let ms = duration.as_millis();
    let mut text = String::new();
    let mut rest = ms;
    for (unit, size) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)] {
        if rest >= size {
            text.push_str(&format!("{}{unit}", rest / size));
            rest %= size;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop here")]
    use super::*;

    #[test]
    fn one_amount_has_many_spellings() {
        for text in ["10000000000", "1e+10", "1e10", "10G", "10000M", "1E+10", "10.0G", "10000000000000m"] {
            assert_eq!(whole(text), Ok(10_000_000_000), "{text}");
        }
        assert_eq!(whole("64Mi"), Ok(64 << 20));
        assert_eq!(whole("0.5Gi"), Ok(512 << 20));
        assert_eq!(whole("1e+06"), Ok(1_000_000));
        assert_eq!(whole("2E"), Ok(2_000_000_000_000_000_000));
        for bad in ["", "Mi", "1.5", "250m", "-1", "1e400", "ten", "64MB", "99E"] {
            assert!(whole(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_two_yamls_read_differently_is_refused_with_the_right_spelling() {
        for (text, right) in [
            ("0100", "write 100"),
            ("1_000", "write 1000"),
            ("1:30", "write 90"),
            ("0o17", "decimal"),
            ("000", "write 0"),
        ] {
            let why = whole(text).unwrap_err();
            assert!(why.contains(right), "{why}");
            assert!(seconds(text).unwrap_err().contains(right));
        }
    }

    #[test]
    fn cpus_are_counted_in_thousandths() {
        assert_eq!(thousandths("250m"), Ok(250));
        assert_eq!(thousandths("1"), Ok(1_000));
        assert_eq!(thousandths("0.5"), Ok(500));
        assert_eq!(thousandths("2.25"), Ok(2_250));
        for bad in ["", "m", "half", "-1", "0.0001", "1.5m", "250mi"] {
            assert!(thousandths(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_have_units_and_seconds_have_none() {
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert!(duration("30").unwrap_err().contains("30s"));
        assert!(seconds("30s").unwrap_err().contains("number: 30"));
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for bad in ["", "s", "1x", "1m1h", "1m1m", "-1s", "1..2s", "NaN", "inf"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
        for bad in ["", "-1", "NaN", "inf", "1e300"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
        assert_eq!(show_duration(Duration::from_millis(5_430_500)), "1h30m30s500ms");
        assert_eq!((show_bytes(64 << 20), show_bytes(1000)), ("64Mi".to_owned(), "1000".to_owned()));
    }
}

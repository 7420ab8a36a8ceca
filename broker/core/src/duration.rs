//! Durations as Knative's manifests write them: ISO 8601, without months and years, whose length varies.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

const NANOSECONDS_PER_SECOND: u128 = 1_000_000_000;

/// The designators in the order in which they must come, with their seconds and whether they follow the `T`.
const UNITS: [(char, bool, u128); 5] =
    [('W', false, 604_800), ('D', false, 86_400), ('H', true, 3_600), ('M', true, 60), ('S', true, 1)];

/// Why a text is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a duration: {reason}")]
pub struct InvalidDuration {
    text: String,
    reason: String,
}

impl InvalidDuration {
    fn new(text: &str, reason: impl Into<String>) -> Self {
        let text = text.chars().take(64).collect();
        Self { text, reason: reason.into() }
    }
}

/// Reads an ISO 8601 duration such as `PT0.2S`, `PT5M` or `P1DT2H`.
///
/// Weeks, days, hours, minutes and seconds, in that order, each at most once; the last one may have a
/// fraction. Digits beyond the nanosecond are cut off.
pub fn parse(text: &str) -> Result<Duration, InvalidDuration> {
    let invalid = |reason: &str| InvalidDuration::new(text, reason);
    let Some(rest) = text.strip_prefix('P') else {
        return Err(match suggestion(text) {
            Some(suggested) => InvalidDuration::new(text, format!("write `{suggested}` (ISO 8601)")),
            None if text.starts_with('-') => invalid("it must not be negative"),
            None => invalid("write it as ISO 8601, such as `PT0.2S`, `PT5M` or `P1DT2H`"),
        });
    };
    let (date, time) = match rest.split_once('T') {
        Some((_, "")) => return Err(invalid("nothing follows the `T`")),
        Some((date, time)) => (date, time),
        None => (rest, ""),
    };
    if date.is_empty() && time.is_empty() {
        return Err(invalid("it names no time: write `PT0S` for none"));
    }
    let mut units = UNITS.as_slice();
    let mut nanoseconds: u128 = 0;
    let mut fraction_seen = false;
    for (part, after_t) in [(date, false), (time, true)] {
        let mut part = part;
        while !part.is_empty() {
            if fraction_seen {
                return Err(invalid("only the last number may have a fraction"));
            }
            let end = part
                .find(|c: char| !c.is_ascii_digit() && c != '.' && c != ',')
                .ok_or_else(|| invalid("the last number has no unit: append one of W, D, H, M, S"))?;
            let (number, unit) = part.split_at(end);
            let unit = unit.chars().next().expect("find gave the position of a character");
            part = &part[end + unit.len_utf8()..];
            if !after_t && matches!(unit, 'Y' | 'M') {
                return Err(invalid("years and months have no fixed length: write days (`D`)"));
            }
            let at = units.iter().position(|(name, time, _)| *name == unit && *time == after_t).ok_or_else(
                || {
                    if !after_t && matches!(unit, 'H' | 'S') {
                        invalid("hours, minutes and seconds follow a `T`, as in `PT5S`")
                    } else {
                        invalid("its units are W, D, and after a `T` H, M, S, in this order and each once")
                    }
                },
            )?;
            let seconds = units[at].2;
            units = &units[at + 1..];
            let (value, fraction) = nanoseconds_of(number, seconds)
                .ok_or_else(|| invalid("each unit follows a number such as `5` or `0.2`"))?;
            fraction_seen = fraction;
            nanoseconds = nanoseconds.checked_add(value).ok_or_else(|| invalid("it is too long"))?;
        }
    }
    let seconds =
        u64::try_from(nanoseconds / NANOSECONDS_PER_SECOND).map_err(|_| invalid("it is too long"))?;
    let remainder =
        u32::try_from(nanoseconds % NANOSECONDS_PER_SECOND).expect("less than a second of nanoseconds");
    Ok(Duration::new(seconds, remainder))
}

/// A number of units in nanoseconds, saturating, and whether it had a fraction.
fn nanoseconds_of(number: &str, unit_seconds: u128) -> Option<(u128, bool)> {
    let (whole, fraction) = match number.split_once(['.', ',']) {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (number, None),
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !fraction.is_none_or(digits) {
        return None;
    }
    let unit = unit_seconds * NANOSECONDS_PER_SECOND;
    let whole = whole
        .bytes()
        .fold(0u128, |sum, digit| sum.saturating_mul(10).saturating_add(u128::from(digit - b'0')));
    let mut nanoseconds = whole.saturating_mul(unit);
    let mut scale = unit;
    for digit in fraction.unwrap_or_default().bytes() {
        // A week has fewer than 2^60 nanoseconds, so the product is far from the limit.
        nanoseconds = nanoseconds.saturating_add(u128::from(digit - b'0') * scale / 10);
        scale /= 10;
    }
    Some((nanoseconds, fraction.is_some()))
}

/// What someone who wrote `10s`, `1h30m`, `250ms`, `5` or `pt5s` most likely meant.
fn suggestion(text: &str) -> Option<String> {
    let text = text.trim();
    let upper = text.to_ascii_uppercase();
    if upper.starts_with('P') && upper != text && parse(&upper).is_ok() {
        return Some(upper);
    }
    if !text.is_empty() && text.len() <= 9 && text.bytes().all(|b| b.is_ascii_digit()) {
        return Some(format!("PT{text}S"));
    }
    if let Some(number) = text.strip_suffix("ms").and_then(|number| number.trim().parse::<u32>().ok()) {
        return Some(format(Duration::from_millis(u64::from(number))));
    }
    if let Some(days) = text.strip_suffix('d').and_then(|number| number.trim().parse::<u32>().ok()) {
        return Some(format!("P{days}D"));
    }
    let candidate = format!("PT{upper}");
    parse(&candidate).is_ok().then_some(candidate)
}

/// Writes a duration so that [`parse`] reads the same one, with no unit longer than a day.
pub fn format(duration: Duration) -> String {
    use fmt::Write as _;

    let seconds = duration.as_secs();
    let (days, hours, minutes, seconds) =
        (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    let nanoseconds = duration.subsec_nanos();
    let mut text = String::from("P");
    let mut unit = |value: u64, name: char, prefix: &str| {
        if value > 0 {
            write!(text, "{prefix}{value}{name}").expect("writing to a String does not fail");
        }
        value > 0
    };
    unit(days, 'D', "");
    let mut time = unit(hours, 'H', "T");
    time |= unit(minutes, 'M', if time { "" } else { "T" });
    let prefix = if time { "" } else { "T" };
    if nanoseconds > 0 {
        let fraction = format!("{nanoseconds:09}");
        let fraction = fraction.trim_end_matches('0');
        write!(text, "{prefix}{seconds}.{fraction}S").expect("writing to a String does not fail");
    } else if seconds > 0 || text == "P" {
        write!(text, "{prefix}{seconds}S").expect("writing to a String does not fail");
    }
    text
}

/// A duration in a component's settings, read and written as ISO 8601.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IsoDuration(
    /// The duration itself.
    pub Duration,
);

impl<'de> Deserialize<'de> for IsoDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        parse(&text).map(Self).map_err(serde::de::Error::custom)
    }
}

impl Serialize for IsoDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format(self.0))
    }
}

impl fmt::Display for IsoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&format(self.0))
    }
}

impl schemars::JsonSchema for IsoDuration {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "An ISO 8601 duration without years and months, such as `PT0.2S`, `PT5M` or `P1DT2H`.",
            "pattern": "^P(?!$)([0-9]+([.,][0-9]+)?W)?([0-9]+([.,][0-9]+)?D)?(T(?=[0-9])([0-9]+([.,][0-9]+)?H)?([0-9]+([.,][0-9]+)?M)?([0-9]+([.,][0-9]+)?S)?)?$",
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_what_knative_accepts() {
        for (text, expected) in [
            ("PT0.2S", Duration::from_millis(200)),
            ("PT0,2S", Duration::from_millis(200)),
            ("PT0S", Duration::ZERO),
            ("P0D", Duration::ZERO),
            ("PT5M", Duration::from_secs(300)),
            ("P1DT2H", Duration::from_secs(93_600)),
            ("P1W", Duration::from_secs(604_800)),
            ("PT1.5H", Duration::from_secs(5_400)),
            ("PT1H30M10S", Duration::from_secs(5_410)),
            ("PT0.000000001S", Duration::from_nanos(1)),
            ("PT0.0000000019S", Duration::from_nanos(1)),
            ("PT28800S", Duration::from_secs(28_800)),
        ] {
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn refuses_with_a_reason_that_helps() {
        for (text, hint) in [
            ("10s", "`PT10S`"),
            ("1h30m", "`PT1H30M`"),
            ("250ms", "`PT0.25S`"),
            ("3d", "`P3D`"),
            ("5", "`PT5S`"),
            ("pt5s", "`PT5S`"),
            ("", "ISO 8601"),
            ("soon", "ISO 8601"),
            ("-PT5S", "negative"),
            ("P", "no time"),
            ("PT", "nothing follows"),
            ("P1DT", "nothing follows"),
            ("P5S", "follow a `T`"),
            ("P1M", "no fixed length"),
            ("P1Y", "no fixed length"),
            ("PT5", "no unit"),
            ("PTS", "follows a number"),
            ("PT1.S", "follows a number"),
            ("PT.5S", "follows a number"),
            ("PT1S1M", "in this order"),
            ("PT1S1S", "in this order"),
            ("PT0.5H1M", "only the last"),
            ("P0.5DT1M", "only the last"),
            ("PT99999999999999999999999S", "too long"),
            ("PT5é", "units are"),
        ] {
            let reason = parse(text).expect_err(text).to_string();
            assert!(reason.contains(hint), "{text}: {reason}");
        }
    }

    proptest! {
        #[test]
        fn formats_what_it_reads(seconds in 0..u64::MAX, nanoseconds in 0..1_000_000_000u32) {
            let duration = Duration::new(seconds, nanoseconds);
            prop_assert_eq!(parse(&format(duration)), Ok(duration));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "P?T?[0-9.,]{0,40}[WDHMSTé]?\\PC{0,8}") {
            if let Ok(duration) = parse(&text) {
                prop_assert_eq!(parse(&format(duration)), Ok(duration));
            }
        }
    }
}

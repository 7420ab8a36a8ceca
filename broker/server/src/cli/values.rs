//! Values of flags: sizes, durations, levels, name and value pairs.

use std::time::Duration;

use tracing_subscriber::filter::Targets;
use waypost_core::manifest::ResourceName;
use waypost_core::size::{self, InvalidSize};

/// The least size limit of an event: every event of 64 KiB must pass (section 6 of the norm), its envelope included.
const LEAST_EVENT_BYTES: usize = 80 * 1024;

/// Reads `512`, `64KiB`, `8MiB` or `1GiB`.
pub(crate) fn bytes(text: &str) -> Result<usize, String> {
    let bytes = size::parse(text).map_err(|invalid| invalid.to_string())?;
    usize::try_from(bytes).map_err(|_| InvalidSize::TooLarge.to_string())
}

/// Reads the size limit of an event.
pub(crate) fn event_bytes(text: &str) -> Result<usize, String> {
    match bytes(text)? {
        size if size < LEAST_EVENT_BYTES => {
            Err("the limit must be at least 80KiB, so that every event of 64 KiB passes".to_owned())
        }
        size => Ok(size),
    }
}

/// The least size limit of the data directory: room for a few segments and the reserve.
const LEAST_LOG_BYTES: usize = 16 * 1024 * 1024;

/// Reads the size limit of the data directory.
pub(crate) fn log_bytes(text: &str) -> Result<u64, String> {
    match bytes(text)? {
        size if size < LEAST_LOG_BYTES => Err("the limit must be at least 16MiB".to_owned()),
        size => Ok(size as u64),
    }
}

/// Reads `NAMESPACE/NAME`.
pub(crate) fn resource_name(text: &str) -> Result<ResourceName, String> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
            Ok(ResourceName::new(namespace, name))
        }
        _ => Err("write NAMESPACE/NAME, such as default/orders".to_owned()),
    }
}

/// Reads `500ms`, `30s`, `2m`, `1h` or `7d`; nothing shorter than a millisecond.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wanted = || "write a duration such as 500ms, 30s, 2m, 1h or 7d".to_owned();
    let digits = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let milliseconds: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wanted()),
    };
    let number: u64 = number.parse().map_err(|_| wanted())?;
    match number.checked_mul(milliseconds) {
        Some(0) => Err("the duration must be above 0".to_owned()),
        Some(milliseconds) if milliseconds <= LONGEST_MILLISECONDS => Ok(Duration::from_millis(milliseconds)),
        _ => Err("the duration must not be longer than a year".to_owned()),
    }
}

const LONGEST_MILLISECONDS: u64 = 365 * 24 * 3_600_000;

/// Reads what is logged.
pub(crate) fn log_filter(text: &str) -> Result<Targets, String> {
    let wanted = "write error, warn, info or debug, or a list such as info,waypost_engine=debug";
    // A word alone would be taken for the name of a target whose every line is logged.
    if text
        .split(',')
        .any(|part| !part.contains('=') && !LEVELS.contains(&part.to_ascii_lowercase().as_str()))
    {
        return Err(wanted.to_owned());
    }
    text.parse().map_err(|_| wanted.to_owned())
}

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Reads a count above 0.
pub(crate) fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count) if (1..=tokio::sync::Semaphore::MAX_PERMITS).contains(&count) => Ok(count),
        _ => Err("write a whole number from 1 on".to_owned()),
    }
}

/// Reads `name=value`; the value may be empty and may hold further `=`.
pub(crate) fn extension(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, _)) if CONTEXT_ATTRIBUTES.contains(&name) => {
            Err(format!("`{name}` is no extension: it has a flag of its own, or is set by the data"))
        }
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write an extension as NAME=VALUE".to_owned()),
    }
}

/// What an extension cannot be named.
const CONTEXT_ATTRIBUTES: [&str; 8] =
    ["id", "source", "type", "specversion", "subject", "time", "datacontenttype", "dataschema"];

#[cfg(test)]
mod tests {
    #[test]
    fn extensions() {
        assert_eq!(extension("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        for wrong in ["a", "=b", "", "type=x", "id=1"] {
            assert!(extension(wrong).is_err(), "{wrong}");
        }
    }

    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(bytes("512"), Ok(512));
        assert_eq!(bytes("64KiB"), Ok(65_536));
        assert_eq!(bytes("8M"), Ok(8 << 20));
        for wrong in
            ["", "KiB", "-1", "1.5MiB", "1kb", "0", "99999999999999999999", "18446744073709551615GiB"]
        {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
        assert!(event_bytes("64KiB").is_err());
        assert_eq!(event_bytes("80KiB"), Ok(81_920));
    }

    #[test]
    fn durations() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for wrong in ["", "5", "s", "1.5s", "-1s", "0s", "9999999h", "18446744073709551615h", "PT5S"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn levels() {
        assert!(log_filter("info").is_ok());
        assert!(log_filter("WARN,waypost=debug").is_ok());
        for wrong in ["", "loud", "info,", "waypost=loud"] {
            assert!(log_filter(wrong).is_err(), "{wrong}");
        }
    }
}

//! Sizes in bytes, as people write them.

/// Why a text is no size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSize {
    /// It is not a number and a unit.
    #[error("write a size such as 512KiB, 8MiB or 1GiB")]
    Syntax,
    /// It is nothing.
    #[error("the size must be above 0")]
    Zero,
    /// It is more than can be counted.
    #[error("the size is beyond what this machine can count")]
    TooLarge,
}

/// Reads `512`, `64KiB`, `8MiB`, `1GiB` or `2TiB`; never 0.
pub fn parse(text: &str) -> Result<u64, InvalidSize> {
    let digits = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim() {
        "" | "B" => 1,
        "KiB" | "Ki" | "K" => 1 << 10,
        "MiB" | "Mi" | "M" => 1 << 20,
        "GiB" | "Gi" | "G" => 1 << 30,
        "TiB" | "Ti" | "T" => 1 << 40,
        _ => return Err(InvalidSize::Syntax),
    };
    let number: u64 = number.parse().map_err(|_| match number {
        "" => InvalidSize::Syntax,
        _ => InvalidSize::TooLarge,
    })?;
    match number.checked_mul(factor) {
        Some(0) => Err(InvalidSize::Zero),
        Some(bytes) => Ok(bytes),
        None => Err(InvalidSize::TooLarge),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_their_units() {
        for (text, bytes) in [
            ("1", 1),
            ("512B", 512),
            ("64KiB", 65_536),
            ("8 Mi", 8 << 20),
            ("1G", 1 << 30),
            ("2TiB", 2 << 40),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
        for text in ["", "KiB", "1KB", "-1", "1.5GiB", "1 2"] {
            assert_eq!(parse(text), Err(InvalidSize::Syntax), "{text}");
        }
        assert_eq!(parse("0KiB"), Err(InvalidSize::Zero));
        assert_eq!(parse("99999999TiB"), Err(InvalidSize::TooLarge));
        assert_eq!(parse("99999999999999999999999"), Err(InvalidSize::TooLarge));
    }
}

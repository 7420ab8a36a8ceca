//! Names of attributes that manifests set.

/// Whether an attribute of this name can be set.
pub(crate) fn check_name(name: &str) -> Result<(), String> {
    if name == "specversion" {
        return Err("the version of an event stays what it is: leave `specversion` away".to_owned());
    }
    let allowed = |one: char| one.is_ascii_lowercase() || one.is_ascii_digit();
    if name.is_empty() || !name.chars().all(allowed) {
        return Err(format!("`{name}` is no name of an attribute: lower-case letters and digits"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::check_name;

    #[test]
    fn names_are_those_of_the_norm() {
        for name in ["type", "subject", "a1", "traceparent"] {
            assert_eq!(check_name(name), Ok(()), "{name}");
        }
        for name in ["", "Type", "a-b", "a.b", "ä", "specversion"] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }
}

//! The bearer token of the admin API.

use std::fmt;
use std::hint::black_box;
use std::path::Path;

use http::HeaderMap;
use http::header::{AUTHORIZATION, HeaderValue};
use waypost_core::codes;

use crate::failure::Failure;

/// The environment variable that holds the token itself.
pub(crate) const TOKEN_VARIABLE: &str = "WAYPOST_ADMIN_TOKEN";

/// A token that callers must know. It is never printed.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct AdminToken(String);

impl AdminToken {
    /// The token of a file or else of the environment, where there is one.
    pub(crate) fn load(file: Option<&Path>) -> Result<Option<Self>, Failure> {
        let Some(file) = file else {
            return match std::env::var(TOKEN_VARIABLE) {
                Ok(token) => Self::new(&token).map(Some).map_err(|reason| unusable(TOKEN_VARIABLE, reason)),
                Err(std::env::VarError::NotPresent) => Ok(None),
                Err(std::env::VarError::NotUnicode(_)) => Err(unusable(TOKEN_VARIABLE, "it is not text")),
            };
        };
        let name = file.display().to_string();
        let text = std::fs::read_to_string(file).map_err(|error| unusable(&name, &error.to_string()))?;
        Self::new(&text).map(Some).map_err(|reason| unusable(&name, reason))
    }

    /// A token, without the white space around it.
    pub(crate) fn new(text: &str) -> Result<Self, &'static str> {
        match text.trim() {
            "" => Err("it is empty"),
            token if token.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(Self(token.to_owned())),
            _ => Err("a token has only visible ASCII characters and no blanks"),
        }
    }

    /// The header that shows the token.
    pub(crate) fn header(&self) -> HeaderValue {
        let mut value =
            HeaderValue::try_from(format!("Bearer {}", self.0)).expect("a token is visible ASCII");
        value.set_sensitive(true);
        value
    }

    /// Whether a request shows the token. The time that this takes tells nothing of the token but its length.
    pub(crate) fn admits(&self, headers: &HeaderMap) -> bool {
        let Some((scheme, shown)) = headers
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split_once(' '))
        else {
            return false;
        };
        scheme.eq_ignore_ascii_case("Bearer") && same(shown.trim().as_bytes(), self.0.as_bytes())
    }
}

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

fn unusable(origin: &str, reason: &str) -> Failure {
    Failure::new(
        codes::ADMIN_TOKEN_UNUSABLE,
        format!("the admin token of {origin} cannot be used: {reason}; write one line with the token"),
    )
}

/// Compares without stopping at the first difference.
fn same(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len()
        && black_box(
            one.iter().zip(other).fold(0, |difference, (one, other)| difference | black_box(one ^ other)),
        ) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn only_the_token_is_admitted() {
        let token = AdminToken::new("s3cret\n").unwrap();
        assert!(token.admits(&shown("Bearer s3cret")));
        assert!(token.admits(&shown("bearer s3cret")));
        assert!(token.admits(&HeaderMap::from_iter([(AUTHORIZATION, token.header())])));
        for wrong in
            ["Bearer s3cre", "Bearer s3cret2", "Bearer S3cret", "Basic s3cret", "s3cret", "Bearer", ""]
        {
            assert!(!token.admits(&shown(wrong)), "{wrong}");
        }
        assert!(!token.admits(&HeaderMap::new()));
        assert_eq!(format!("{token:?}"), "***");
    }

    #[test]
    fn a_token_is_one_visible_word() {
        for wrong in ["", " \n", "two words", "ü", "line\nline"] {
            assert!(AdminToken::new(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_token_file_that_is_not_there_is_told() {
        let failure = AdminToken::load(Some(Path::new("/does/not/exist"))).unwrap_err();
        assert_eq!(failure.code, codes::ADMIN_TOKEN_UNUSABLE);
    }
}

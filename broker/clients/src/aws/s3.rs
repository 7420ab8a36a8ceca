//! The calls of S3 that a writer of objects needs.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode};

use super::{AwsClient, AwsRequest};
use crate::problem::{Problem, ProblemKind};

/// How long a look at a bucket or an object may take.
const PATIENCE: Duration = Duration::from_secs(8);

/// The longest key, in bytes.
pub const MOST_KEY: usize = 1024;

/// A bucket, and how its objects are addressed.
#[derive(Debug)]
pub struct Bucket {
    client: AwsClient,
    name: String,
    path_style: Option<bool>,
}

/// What came of a write that keeps what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// The object was written.
    Written,
    /// There was one, which stays.
    Kept,
}

impl Bucket {
    /// A bucket of this name. `path_style` says whether its name stands in the path or in the name of the host; where
    /// nothing is said, only AWS itself is asked by the name of the host, and for names without a dot.
    pub fn new(client: AwsClient, name: String, path_style: Option<bool>) -> Self {
        Self { client, name, path_style }
    }

    /// Whether this can be the name of a bucket.
    pub fn is_name(name: &str) -> bool {
        let named = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        (3..=255).contains(&name.len()) && name.bytes().all(named) && !name.starts_with(['.', '-'])
    }

    /// Reaches the bucket and changes nothing. Needs the right to list it.
    ///
    /// # Errors
    /// Why S3 does not serve us.
    pub async fn probe(&self) -> Result<(), Problem> {
        let url = format!("{}?list-type=2&max-keys=1", self.url("").await?);
        let answer = self.client.send_raw(self.request(Method::GET, url, Vec::new(), Bytes::new(), PATIENCE)).await?;
        if answer.status.is_success() {
            return Ok(());
        }
        Err(self.explained(self.client.problem_of(&answer), answer.status))
    }

    /// Writes an object as a whole. With `If-None-Match` among the headers an object that is there stays.
    ///
    /// # Errors
    /// Why it was not written, or is not known to have been.
    pub async fn put(
        &self,
        key: &str,
        headers: Vec<(HeaderName, HeaderValue)>,
        body: Bytes,
        patience: Duration,
    ) -> Result<Put, Problem> {
        let conditional = headers.iter().any(|(name, _)| *name == http::header::IF_NONE_MATCH);
        let url = self.url(key).await?;
        let answer = self.client.send_raw(self.request(Method::PUT, url, headers, body, patience)).await?;
        if answer.status.is_success() {
            return Ok(Put::Written);
        }
        if conditional && answer.status == StatusCode::PRECONDITION_FAILED {
            return Ok(Put::Kept);
        }
        Err(self.explained(self.client.problem_of(&answer), answer.status))
    }

    /// The text of a header of an object; none where the object does not have it or is not there any more.
    ///
    /// # Errors
    /// Why S3 does not say.
    pub async fn header(&self, key: &str, name: &HeaderName) -> Result<Option<String>, Problem> {
        let url = self.url(key).await?;
        let answer =
            self.client.send_raw(self.request(Method::HEAD, url, Vec::new(), Bytes::new(), PATIENCE)).await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        if !answer.status.is_success() {
            return Err(self.explained(self.client.problem_of(&answer), answer.status));
        }
        Ok(answer.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned))
    }

    /// A redirection without a code tells of the wrong region.
    fn explained(&self, problem: Problem, status: StatusCode) -> Problem {
        if !status.is_redirection() {
            return problem;
        }
        let detail = format!("S3: the bucket `{}` is in another region; correct `region`", self.name);
        Problem::new(ProblemKind::Settings, detail)
    }

    async fn url(&self, key: &str) -> Result<String, Problem> {
        let place = self.client.place().await?;
        let path_style = self.path_style.unwrap_or(!place.is_aws || self.name.contains('.'));
        let key = encode(key);
        Ok(match place.endpoint.split_once("://") {
            Some((scheme, rest)) if !path_style => format!("{scheme}://{}.{rest}/{key}", self.name),
            _ if key.is_empty() => format!("{}/{}", place.endpoint, self.name),
            _ => format!("{}/{}/{key}", place.endpoint, self.name),
        })
    }

    fn request(
        &self,
        method: Method,
        url: String,
        headers: Vec<(HeaderName, HeaderValue)>,
        body: Bytes,
        patience: Duration,
    ) -> AwsRequest {
        AwsRequest { method, url, headers, body, patience }
    }
}

/// A key within a URL: all but unreserved characters and slashes is encoded.
fn encode(key: &str) -> String {
    let mut encoded = String::with_capacity(key.len());
    for byte in key.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'/') {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_encoded_but_for_its_slashes() {
        assert_eq!(encode("a/b c+d:é%2F~.json"), "a/b%20c%2Bd%3A%C3%A9%252F~.json");
    }

    #[test]
    fn names_of_buckets() {
        for (name, is) in [("orders", true), ("my.bucket-1", true), ("ab", false), ("a/b", false), ("-ab", false)] {
            assert_eq!(Bucket::is_name(name), is, "{name}");
        }
    }
}

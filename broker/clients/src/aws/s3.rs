//! The calls of S3 that a writer of objects needs.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode};

use super::{AwsAnswer, AwsClient, AwsPlace, AwsRequest};
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
        let probe = Call { query: "?list-type=2&max-keys=1", ..Call::of(Method::GET, "") };
        let answer = self.send(&probe).await?;
        if answer.status.is_success() { Ok(()) } else { Err(self.problem(&answer)) }
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
        let put = Call { headers, body, patience, ..Call::of(Method::PUT, key) };
        let answer = self.send(&put).await?;
        if answer.status.is_success() {
            return Ok(Put::Written);
        }
        if conditional && answer.status == StatusCode::PRECONDITION_FAILED {
            return Ok(Put::Kept);
        }
        Err(self.problem(&answer))
    }

    /// The text of a header of an object; none where the object does not have it or is not there any more.
    ///
    /// # Errors
    /// Why S3 does not say.
    pub async fn header(&self, key: &str, name: &HeaderName) -> Result<Option<String>, Problem> {
        let answer = self.send(&Call::of(Method::HEAD, key)).await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        if !answer.status.is_success() {
            return Err(self.problem(&answer));
        }
        Ok(answer.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned))
    }

    /// Sends a request, and to the bucket's own region where S3 names that.
    async fn send(&self, call: &Call<'_>) -> Result<AwsAnswer, Problem> {
        let place = self.client.place().await?;
        let answer = self.client.send_raw(self.request(&place, call)).await?;
        let region = answer.headers.get("x-amz-bucket-region").and_then(|region| region.to_str().ok());
        match region {
            Some(region) if !answer.status.is_success() && place.is_aws && region != place.region => {
                self.client.move_to(region);
                self.client.send_raw(self.request(&self.client.place().await?, call)).await
            }
            _ => Ok(answer),
        }
    }

    /// What an answer means; a redirection without a code tells of the wrong region.
    fn problem(&self, answer: &AwsAnswer) -> Problem {
        if !answer.status.is_redirection() {
            return self.client.problem_of(answer);
        }
        let detail = format!("S3: the bucket `{}` is in another region; correct `region`", self.name);
        Problem::new(ProblemKind::Settings, detail)
    }

    fn request(&self, place: &AwsPlace, call: &Call<'_>) -> AwsRequest {
        let url = format!("{}{}", self.url(place, call.key), call.query);
        let (method, headers, body) = (call.method.clone(), call.headers.clone(), call.body.clone());
        AwsRequest { method, url, headers, body, patience: call.patience }
    }

    fn url(&self, place: &AwsPlace, key: &str) -> String {
        let path_style = self.path_style.unwrap_or(!place.is_aws || self.name.contains('.'));
        let key = encode(key);
        match place.endpoint.split_once("://") {
            Some((scheme, rest)) if !path_style => format!("{scheme}://{}.{rest}/{key}", self.name),
            _ if key.is_empty() => format!("{}/{}", place.endpoint, self.name),
            _ => format!("{}/{}/{key}", place.endpoint, self.name),
        }
    }
}

/// A call, wherever the bucket is.
struct Call<'k> {
    method: Method,
    key: &'k str,
    query: &'static str,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Bytes,
    patience: Duration,
}

impl<'k> Call<'k> {
    fn of(method: Method, key: &'k str) -> Self {
        Self { method, key, query: "", headers: Vec::new(), body: Bytes::new(), patience: PATIENCE }
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
    use waypost_core::manifest::{ResourceName, Secrets};
    use waypost_core::sink::ComponentContext;

    use super::super::{AwsConnection, AwsService};
    use super::*;

    #[test]
    fn a_key_is_encoded_but_for_its_slashes() {
        assert_eq!(encode("a/b c+d:é%2F~.json"), "a/b%20c%2Bd%3A%C3%A9%252F~.json");
    }

    #[test]
    fn a_bucket_stands_in_the_host_at_aws_and_in_the_path_elsewhere() {
        let aws = AwsPlace {
            region: "r".to_owned(),
            endpoint: "https://s3.r.amazonaws.com".to_owned(),
            is_aws: true,
        };
        let other = AwsPlace { endpoint: "http://localhost:9000".to_owned(), is_aws: false, ..aws.clone() };
        for (place, name, path_style, url) in [
            (&aws, "orders", None, "https://orders.s3.r.amazonaws.com/a%20b"),
            (&aws, "my.orders", None, "https://s3.r.amazonaws.com/my.orders/a%20b"),
            (&aws, "orders", Some(true), "https://s3.r.amazonaws.com/orders/a%20b"),
            (&other, "orders", None, "http://localhost:9000/orders/a%20b"),
            (&other, "orders", Some(false), "http://orders.localhost:9000/a%20b"),
        ] {
            let connection = AwsConnection {
                region: None,
                endpoint: None,
                credentials: None,
                assume_role: None,
                tls: None,
            };
            let context = ComponentContext { name: ResourceName::new("n", "x"), secrets: Secrets::default() };
            let client = connection.client(AwsService::S3, &context).unwrap();
            assert_eq!(Bucket::new(client, name.to_owned(), path_style).url(place, "a b"), url);
        }
    }

    #[test]
    fn names_of_buckets() {
        for (name, is) in
            [("orders", true), ("my.bucket-1", true), ("ab", false), ("a/b", false), ("-ab", false)]
        {
            assert_eq!(Bucket::is_name(name), is, "{name}");
        }
    }
}

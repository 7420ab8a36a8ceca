//! What an answer of AWS that is no success means.

use http::{HeaderMap, StatusCode};
use serde::Deserialize;

use super::AwsService;
use crate::problem::{Problem, ProblemKind};

/// What an answer that is no success means: its code decides where it is known, else its status.
pub(super) fn classify(service: AwsService, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Problem {
    let (code, message) = told(headers, body);
    let kind = code.as_deref().and_then(kind_of_code).unwrap_or_else(|| kind_of_status(status));
    let name = match service {
        AwsService::Sqs => "SQS",
        AwsService::S3 => "S3",
    };
    let said = match (&code, message) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        (Some(code), None) => code.clone(),
        (None, _) => format!("status {status}"),
    };
    let said = said.trim_end_matches('.');
    Problem::new(kind, format!("{name}: {said}{}", advice(service, kind)))
}

/// The code and the message of an error, as JSON or as XML.
fn told(headers: &HeaderMap, body: &[u8]) -> (Option<String>, Option<String>) {
    #[derive(Deserialize)]
    struct Fault {
        #[serde(rename = "__type")]
        code: Option<String>,
        #[serde(alias = "Message")]
        message: Option<String>,
    }
    // The name that a service of the older protocol knows the error by.
    let query = headers.get("x-amzn-query-error").and_then(|value| value.to_str().ok());
    let query = query.and_then(|value| value.split(';').next()).map(str::to_owned);
    if let Ok(fault) = serde_json::from_slice::<Fault>(body) {
        let code = fault.code.map(|code| code.rsplit('#').next().unwrap_or_default().to_owned());
        return (code.or(query), fault.message);
    }
    let text = String::from_utf8_lossy(body);
    (element(&text, "Code").or(query), element(&text, "Message"))
}

/// The text of the first element of this name.
fn element(xml: &str, name: &str) -> Option<String> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once(&format!("</{name}>"))?;
    Some(text.to_owned())
}

fn kind_of_code(code: &str) -> Option<ProblemKind> {
    let code = code.strip_suffix("Exception").unwrap_or(code);
    let code = code.strip_prefix("AWS.SimpleQueueService.").unwrap_or(code);
    Some(match code {
        "AccessDenied"
        | "AccountProblem"
        | "AllAccessDisabled"
        | "ExpiredToken"
        | "IncompleteSignature"
        | "InvalidAccessKeyId"
        | "InvalidClientTokenId"
        | "InvalidSecurity"
        | "InvalidSignature"
        | "InvalidToken"
        | "KMS.AccessDenied"
        | "KmsAccessDenied"
        | "MissingAuthenticationToken"
        | "MissingSecurityHeader"
        | "NotAuthorized"
        | "NotSignedUp"
        | "OptInRequired"
        | "RequestExpired"
        | "RequestTimeTooSkewed"
        | "SignatureDoesNotMatch"
        | "UnrecognizedClient" => ProblemKind::Unauthorized,
        "NoSuchBucket" | "NonExistentQueue" | "QueueDoesNotExist" | "ResourceNotFound" => ProblemKind::Absent,
        "AuthorizationHeaderMalformed"
        | "IllegalLocationConstraint"
        | "InvalidAddress"
        | "InvalidBucketName"
        | "InvalidBucketState"
        | "InvalidStorageClass"
        | "KMS.Disabled"
        | "KMS.InvalidKeyUsage"
        | "KMS.InvalidState"
        | "KMS.NotFound"
        | "KMS.OptInRequired"
        | "KmsDisabled"
        | "KmsInvalidKeyUsage"
        | "KmsInvalidState"
        | "KmsNotFound"
        | "KmsOptInRequired"
        | "NotImplemented"
        | "PermanentRedirect"
        | "TemporaryRedirect"
        | "UnsupportedOperation" => ProblemKind::Settings,
        "KmsThrottled"
        | "OverLimit"
        | "RequestLimitExceeded"
        | "RequestThrottled"
        | "ServiceUnavailable"
        | "SlowDown"
        | "Throttling"
        | "TooManyRequests" => ProblemKind::Overloaded,
        "ConditionalRequestConflict"
        | "InternalError"
        | "InternalFailure"
        | "OperationAborted"
        | "QueueDeletedRecently"
        | "RequestTimeout" => ProblemKind::Unavailable,
        "EntityTooLarge"
        | "InvalidMessageContents"
        | "KeyTooLong"
        | "KeyTooLongError"
        | "MetadataTooLarge"
        | "PreconditionFailed" => ProblemKind::Refused,
        _ => return None,
    })
}

fn kind_of_status(status: StatusCode) -> ProblemKind {
    match status.as_u16() {
        401 | 403 => ProblemKind::Unauthorized,
        404 => ProblemKind::Absent,
        429 | 503 => ProblemKind::Overloaded,
        408 | 409 | 500.. => ProblemKind::Unavailable,
        300..=399 => ProblemKind::Settings,
        _ => ProblemKind::Refused,
    }
}

fn advice(service: AwsService, kind: ProblemKind) -> &'static str {
    match (kind, service) {
        (ProblemKind::Unauthorized, AwsService::Sqs) => {
            "; check the credentials, the clock, and the rights to receive, delete and change the visibility of messages"
        }
        (ProblemKind::Unauthorized, AwsService::S3) => {
            "; check the credentials, the clock, and the rights `s3:PutObject` and `s3:ListBucket`"
        }
        (ProblemKind::Absent, AwsService::Sqs) => "; create the queue, or correct `queue` and `region`",
        (ProblemKind::Absent, AwsService::S3) => "; create the bucket, or correct `bucket` and `region`",
        (ProblemKind::Settings, _) => "; correct the settings, `region` among them",
        (ProblemKind::Unavailable | ProblemKind::Overloaded | ProblemKind::Refused, _) => "",
    }
}

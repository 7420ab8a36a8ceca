//! The source of SQS and the sink of S3 against ElasticMQ and s3s-fs, written and read by other clients than ours.

use std::time::Duration;

use serde_json::{Value, json};
use waypost_tests::process::Waypost;

mod s3;
mod sqs;

/// Keys that a server which checks none takes.
fn keys() -> Value {
    json!({"accessKeyId": {"value": "AKIDEXAMPLE"}, "secretAccessKey": {"value": "example-secret"}})
}

async fn ready(waypost: &Waypost, kind: &str, name: &str) {
    let ready = tokio::time::timeout(Duration::from_secs(40), async {
        while waypost.resource(kind, name).await["ready"] != true {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    if ready.await.is_err() {
        panic!("it does not get ready: {}", waypost.resource(kind, name).await);
    }
}

/// Waits until a resource is not ready, with this code, which may take ten seconds. Returns the sentence.
async fn not_ready(waypost: &Waypost, kind: &str, name: &str, code: &str) -> String {
    let told = tokio::time::timeout(Duration::from_secs(10), async {
        loop {
            let row = waypost.resource(kind, name).await;
            if row["ready"] == false && row["reason"] == code {
                return row["message"].as_str().unwrap_or_default().to_owned();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let Ok(message) = told.await else {
        panic!("not told within ten seconds: {}", waypost.resource(kind, name).await)
    };
    assert!(message.len() > 20, "a sentence: {message}");
    message
}

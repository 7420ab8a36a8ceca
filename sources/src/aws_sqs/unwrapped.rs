//! What other services of AWS put into the body of a message.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;
use serde_json::Value;
use waypost_clients::aws::sqs::Message;
use waypost_core::event::AttributeValue;

use super::Wrapping;
use super::message::{Draft, attribute_name};

/// What the body holds once it is unwrapped; nothing where it is not wrapped in anything.
///
/// # Errors
/// A sentence that says what the body is not.
pub(super) fn unwrap(wrappings: &[Wrapping], arn: &str, message: &Message) -> Result<Vec<Draft>, String> {
    let mut body = message.body.clone().unwrap_or_default();
    let mut drafts = Vec::new();
    for wrapping in wrappings {
        match wrapping {
            Wrapping::Sns => {
                let envelope: Value = parse(&body)?;
                body = envelope["Message"].as_str().ok_or("the body is no envelope of SNS")?.to_owned();
                drafts = vec![notification(&envelope, &body, arn, message)];
            }
            Wrapping::S3 => drafts = records(&body, message)?,
            Wrapping::EventBridge => drafts = vec![event(&body, arn, message)?],
        }
    }
    Ok(drafts)
}

fn parse(body: &str) -> Result<Value, String> {
    serde_json::from_str(body).map_err(|_| "the body is not JSON".to_owned())
}

fn text(value: &Value) -> Option<String> {
    value.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}

fn notification(envelope: &Value, data: &str, arn: &str, message: &Message) -> Draft {
    let attributes = envelope["MessageAttributes"].as_object().into_iter().flatten();
    let attributes = attributes.filter_map(|(name, attribute)| {
        let value = attribute["Value"].as_str().filter(|_| attribute["Type"] != "Binary")?;
        Some((attribute_name("snsmsg", name)?, AttributeValue::from(value)))
    });
    Draft {
        id: text(&envelope["MessageId"]).unwrap_or_else(|| message.message_id.clone()),
        source: text(&envelope["TopicArn"]).unwrap_or_else(|| arn.to_owned()),
        event_type: "com.amazon.sns.notification".to_owned(),
        subject: text(&envelope["Subject"]),
        time: text(&envelope["Timestamp"]),
        attributes: attributes.collect(),
        data: data.to_owned(),
    }
}

/// One event for each record of a notification of S3. What S3 sends where it is told to notify is an event too.
fn records(body: &str, message: &Message) -> Result<Vec<Draft>, String> {
    let notification = parse(body)?;
    if notification["Event"] == "s3:TestEvent" {
        let bucket = notification["Bucket"].as_str().unwrap_or("unknown");
        return Ok(vec![Draft {
            id: message.message_id.clone(),
            source: format!("arn:aws:s3:::{bucket}"),
            event_type: "com.amazon.s3.testevent".to_owned(),
            subject: None,
            time: text(&notification["Time"]),
            attributes: Vec::new(),
            data: body.to_owned(),
        }]);
    }
    let records = notification["Records"].as_array().ok_or("the body is no notification of S3")?;
    (0..).zip(records).map(|(index, record)| of_record(index, record, message)).collect()
}

fn of_record(index: usize, record: &Value, message: &Message) -> Result<Draft, String> {
    let name = record["eventName"].as_str().ok_or("a record of the body has no `eventName`")?;
    let (bucket, object) = (&record["s3"]["bucket"], &record["s3"]["object"]);
    let source = text(&bucket["arn"]).ok_or("a record of the body has no bucket")?;
    let key = object["key"].as_str().ok_or("a record of the body has no object")?;
    // With the object's own order a notification that S3 repeats in another message is recognisable.
    let id = match object["sequencer"].as_str() {
        Some(sequencer) => {
            format!("{}/{key}/{sequencer}/{name}", bucket["name"].as_str().unwrap_or_default())
        }
        None => format!("{}/{index}", message.message_id),
    };
    let kind = name.split(':').next().unwrap_or(name).to_ascii_lowercase();
    Ok(Draft {
        id,
        source,
        event_type: format!("com.amazon.s3.{kind}"),
        subject: Some(decoded(key)),
        time: text(&record["eventTime"]),
        attributes: Vec::new(),
        data: record.to_string(),
    })
}

/// A key of an object as it is: S3 tells it in the encoding of forms.
fn decoded(key: &str) -> String {
    let spaced = key.replace('+', " ");
    percent_decode_str(&spaced).decode_utf8().map_or_else(|_| key.to_owned(), Cow::into_owned)
}

fn event(body: &str, arn: &str, message: &Message) -> Result<Draft, String> {
    let event = parse(body)?;
    let (source, detail_type) = (event["source"].as_str(), event["detail-type"].as_str());
    let (Some(source), Some(detail_type), Some(_)) = (source, detail_type, event.get("detail")) else {
        return Err("the body is no event of EventBridge".to_owned());
    };
    let resource = event["resources"].as_array().and_then(|resources| resources.first()).and_then(text);
    Ok(Draft {
        id: text(&event["id"]).unwrap_or_else(|| message.message_id.clone()),
        source: arn.to_owned(),
        event_type: "com.amazon.events.event".to_owned(),
        subject: resource,
        time: text(&event["time"]),
        attributes: vec![
            ("awseventssource".to_owned(), source.into()),
            ("awseventsdetailtype".to_owned(), detail_type.into()),
        ],
        data: body.to_owned(),
    })
}

//! Events of sources that are larger than an event may be.
//!
//! Upstream will give such an event again and again, so that it must not stop its source; nor may it be lost without a
//! word. A small event that tells of it goes into the log in its place.

use serde_json::json;
use waypost_core::{Event, codes};

/// The `type` of the event that tells of one that is too large.
pub(super) const TOO_LARGE_TYPE: &str = "dev.waypost.source.event.toolarge";

/// What is kept of an attribute that is told of.
const MOST_TOLD: usize = 1024;

/// The event that goes into the log in place of one that is larger than `limit`; none for one that is not. It has the
/// `id`, `source`, `subject` and `time` of the other, as far as they are short, and tells its `type` and size.
pub(super) fn in_place_of(event: &Event, limit: usize) -> Option<Event> {
    let size = event.size();
    if size <= limit {
        return None;
    }
    let short = |text: &str| text.len() <= MOST_TOLD;
    let cut = |text: &str| text.chars().take(MOST_TOLD / 4).collect::<String>();
    let told = json!({
        "code": codes::EVENT_TOO_LARGE.id(),
        "message": format!(
            "an event of {size} bytes was not taken, since one may have {limit}: keep large data elsewhere and send a \
             link to it, or raise --max-event-bytes"
        ),
        "type": cut(event.event_type()),
        "size": size,
        "limit": limit,
    });
    let id = if short(event.id()) { event.id().to_owned() } else { cut(event.id()) };
    let source = if short(event.source()) { event.source() } else { "/waypost/source" };
    let mut builder = Event::builder(id, source, TOO_LARGE_TYPE);
    for name in ["subject", "time", "partitionkey"] {
        if let Some(value) = event.attribute(name).filter(|value| short(value.text)) {
            builder = builder.attribute(name, value);
        }
    }
    builder.data_content_type("application/json").json_data(told.to_string()).build().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_is_left_alone() {
        let event = Event::builder("1", "/s", "t").data(vec![b'x'; 100]).build().unwrap();
        assert_eq!(in_place_of(&event, event.size()), None);
        assert!(in_place_of(&event, event.size() - 1).is_some());
    }

    #[test]
    fn what_is_too_large_is_told_under_its_own_id() {
        let event =
            Event::builder("topic/0/7", "/s", "order.placed").subject("a").data(vec![b'x'; 5_000]).build();
        let event = event.unwrap();
        let told = in_place_of(&event, 1_000).unwrap();
        assert_eq!((told.id(), told.source(), told.event_type()), ("topic/0/7", "/s", TOO_LARGE_TYPE));
        assert_eq!(told.attribute("subject").map(|value| value.text), Some("a"));
        let data: serde_json::Value = serde_json::from_slice(told.data_bytes().unwrap()).unwrap();
        assert_eq!(
            (&data["code"], &data["type"], &data["size"]),
            (&json!("E0653"), &json!("order.placed"), &json!(event.size()))
        );
    }

    #[test]
    fn long_attributes_are_not_repeated() {
        let long = "é".repeat(3_000);
        let event = Event::builder(&*long, format!("/{}", "s".repeat(3_000)), &*long)
            .subject(&*long)
            .build()
            .unwrap();
        let told = in_place_of(&event, 2_000).unwrap();
        assert!(told.size() < 2_000, "{}", told.size());
        assert_eq!((told.source(), told.attribute("subject")), ("/waypost/source", None));
    }
}

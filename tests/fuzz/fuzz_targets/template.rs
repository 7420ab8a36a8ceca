//! A template is read or refused. What is read says the same of an event each time, text that is masked stands for itself,
//! and a template over requests is read the same way.
//!
//! Input: the template, a blank line, attributes, a blank line, data.
#![no_main]

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method};
use libfuzzer_sys::fuzz_target;
use waypost_core::receive::Posted;
use waypost_core::template::{RequestTemplate, Template};
use waypost_fuzz::{event, parts};

fuzz_target!(|input: &str| {
    let [text, attributes, data] = parts(input);
    let event = event(attributes, data);
    if let Ok(template) = Template::parse(text) {
        assert_eq!(template.text(), text);
        let rendered = template.render(&event);
        assert_eq!(rendered, template.render(&event));
        assert!(!template.is_constant() || rendered.is_ok());
    }
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_str(attributes) {
        headers.insert("x-a", value);
    }
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    let posted = Posted::new(
        Method::POST,
        format!("/{attributes}"),
        attributes.to_owned(),
        headers,
        Bytes::copy_from_slice(data.as_bytes()),
    );
    if let Ok(template) = RequestTemplate::parse(text) {
        assert_eq!(template.text(), text);
        let rendered = template.render(&posted);
        assert_eq!(rendered, template.render(&posted));
        assert!(!template.is_constant() || rendered.is_ok());
    }
    let masked = text.replace("${", "$${");
    let template = Template::parse(&masked).expect("it has no places");
    assert!(template.is_constant());
    assert_eq!(template.render(&event).as_deref(), Ok(text));
    let template = RequestTemplate::parse(&masked).expect("it has no places");
    assert_eq!(template.render(&posted).as_deref(), Ok(text));
});

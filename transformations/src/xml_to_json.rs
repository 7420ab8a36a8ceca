//! `xmlToJson`: XML data as JSON, by the mapping of TriggerMesh's `XMLToJSONTransformation`.
//!
//! Nothing outside of the data is ever read: a document type may stand there, but one that declares anything is refused,
//! and with it external entities and those that grow as they are expanded.

use std::collections::HashMap;
use std::sync::Arc;

use quick_xml::XmlVersion;
use quick_xml::events::{BytesRef, BytesStart, Event};
use quick_xml::reader::Reader;
use schemars::JsonSchema;
use serde::Deserialize;
use waypost_core::manifest::FieldProblem;
use waypost_core::transformation::json::{Json, MAX_DEPTH, Object, Text};
use waypost_core::transformation::{
    Document, Outputs, Run, Transformation, TransformationConfig, TransformationError,
};

use crate::position::Position;

/// Makes JSON of data that is XML, whatever its content type; the result is `application/json`.
///
/// An element becomes a member with its name; one that stands there several times becomes an array. Text alone becomes a
/// string, and `#content` beside attributes or children. An attribute becomes a member whose name begins with `-`. All
/// values are strings; prefixes are dropped.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct XmlToJsonConfig {}

impl TransformationConfig for XmlToJsonConfig {
    const TYPE: &'static str = "xmlToJson";

    fn compile(&self) -> Result<Arc<dyn Transformation>, Vec<FieldProblem>> {
        Ok(Arc::new(XmlToJson))
    }
}

#[derive(Debug)]
struct XmlToJson;

impl Transformation for XmlToJson {
    fn apply(&self, mut document: Document, run: &mut Run) -> Result<Outputs, TransformationError> {
        let data = document.bytes().unwrap_or_default();
        run.spend(data.len() as u64 / 16)?;
        run.make(2 * data.len())?;
        let text = std::str::from_utf8(&data)
            .map_err(|_| TransformationError::new("the data is not XML in UTF-8: convert it before"))?;
        let json = convert(text, run)?;
        document.set_json(json);
        document.set_attribute("datacontenttype", "application/json");
        Ok(document.into())
    }
}

/// An element that was opened.
struct Element {
    name: Text,
    /// Attributes and children, each name with all of its values.
    members: Vec<(Text, Vec<Json>)>,
    /// Where a name is in the members, once there are many.
    places: HashMap<Text, usize>,
    text: String,
}

/// From so many members on their names are looked up by a map.
const MANY_MEMBERS: usize = 16;

impl Element {
    fn new(name: Text) -> Self {
        Self { name, members: Vec::new(), places: HashMap::new(), text: String::new() }
    }

    fn add(&mut self, name: Text, value: Json) {
        let known = if self.members.len() < MANY_MEMBERS {
            self.members.iter().position(|(known, _)| *known == name)
        } else {
            if self.places.is_empty() {
                let names = self.members.iter().enumerate();
                self.places = names.map(|(place, (name, _))| (name.clone(), place)).collect();
            }
            self.places.get(&name).copied()
        };
        match known {
            Some(place) => self.members[place].1.push(value),
            None => {
                if !self.places.is_empty() {
                    self.places.insert(name.clone(), self.members.len());
                }
                self.members.push((name, vec![value]));
            }
        }
    }

    fn into_json(self) -> Json {
        let text = self.text.trim_matches(|one: char| one.is_whitespace() || one.is_control());
        if self.members.is_empty() {
            return text.into();
        }
        let content = (!text.is_empty()).then(|| (Text::from("#content"), Json::from(text)));
        let members = self.members.into_iter().map(|(name, mut values)| match values.pop() {
            Some(only) if values.is_empty() => (name, only),
            last => {
                values.extend(last);
                (name, Json::Array(values))
            }
        });
        Json::Object(content.into_iter().chain(members).collect())
    }
}

fn convert(text: &str, run: &mut Run) -> Result<Json, TransformationError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = Reader::from_str(text);
    reader.config_mut().check_end_names = true;
    let mut version = XmlVersion::Implicit1_0;
    let mut open: Vec<Element> = Vec::new();
    let mut root: Option<Object> = None;
    loop {
        let before = offset(reader.buffer_position());
        let at = |reason: String| refused(&reason, text, before);
        let event = reader.read_event().map_err(|error| {
            refused(&format!("the data is not XML: {error}"), text, offset(reader.error_position()))
        })?;
        let closed = match event {
            Event::Start(start) => {
                begin(&mut open, root.is_some(), &start, version).map_err(at)?;
                account(open.last(), run)?;
                None
            }
            Event::Empty(start) => {
                begin(&mut open, root.is_some(), &start, version).map_err(at)?;
                account(open.last(), run)?;
                open.pop()
            }
            Event::End(_) => open.pop(),
            Event::Text(part) => {
                write(&mut open, &part.xml_content(version)).map_err(at)?;
                None
            }
            Event::CData(part) => {
                if open.is_empty() {
                    return Err(at(
                        "the data is not XML: there is text outside of the root element".to_owned()
                    ));
                }
                write(&mut open, &part.xml_content(version)).map_err(at)?;
                None
            }
            Event::GeneralRef(reference) => {
                let one = referred(&reference).map_err(at)?;
                write(&mut open, one.encode_utf8(&mut [0; 4])).map_err(at)?;
                None
            }
            Event::Decl(declaration) => {
                version = declaration
                    .xml_version()
                    .map_err(|error| at(format!("the declaration of XML is not valid: {error}")))?;
                if let Some(encoding) = declaration.encoding() {
                    let encoding = encoding
                        .map_err(|error| at(format!("the declaration of XML is not valid: {error}")))?;
                    if !encoding.eq_ignore_ascii_case("utf-8") && !encoding.eq_ignore_ascii_case("us-ascii") {
                        return Err(at(format!(
                            "the data is XML in `{encoding}`: convert it to UTF-8 before"
                        )));
                    }
                }
                None
            }
            Event::DocType(declared) => {
                if declared.contains('[') || declared.contains("<!") {
                    return Err(at(
                        "the document type declares entities or markup, which is refused".to_owned()
                    ));
                }
                None
            }
            Event::Comment(_) | Event::PI(_) => None,
            Event::Eof => break,
        };
        if let Some(element) = closed {
            let name = element.name.clone();
            let value = element.into_json();
            match open.last_mut() {
                Some(parent) => parent.add(name, value),
                None => root = Some([(name, value)].into_iter().collect()),
            }
        }
    }
    match (root, open.last()) {
        (_, Some(element)) => {
            Err(refused(&format!("the data is not XML: `{}` is not closed", element.name), text, text.len()))
        }
        (Some(root), None) => Ok(Json::Object(root)),
        (None, None) => Err(TransformationError::new("the data is not XML: it has no element")),
    }
}

/// Opens an element, its attributes with it.
fn begin(
    open: &mut Vec<Element>,
    ended: bool,
    start: &BytesStart<'_>,
    version: XmlVersion,
) -> Result<(), String> {
    if open.is_empty() && ended {
        return Err("the data is not XML: there is a second root element".to_owned());
    }
    // The root is within an object of its own.
    if open.len() + 2 > MAX_DEPTH {
        return Err(format!("the data is nested deeper than {} elements", MAX_DEPTH - 1));
    }
    let mut element = Element::new(local_part(start.name().into_inner()).into());
    for attribute in start.attributes() {
        let attribute = attribute.map_err(|error| format!("the data is not XML: {error}"))?;
        let value =
            attribute.normalized_value(version).map_err(|error| format!("the data is not XML: {error}"))?;
        let name = local_part(attribute.key.into_inner());
        element.add(format!("-{name}").into(), Json::from(&*value));
    }
    open.push(element);
    Ok(())
}

/// Takes the steps and the memory of an element that was opened; its text was paid for with the data.
fn account(element: Option<&Element>, run: &mut Run) -> Result<(), TransformationError> {
    let attributes = element.map_or(0, |element| element.members.len());
    run.spend(1 + attributes as u64)?;
    run.make((1 + attributes) * size_of::<(Text, Vec<Json>, Element)>())
}

fn write(open: &mut [Element], text: &str) -> Result<(), String> {
    match open.last_mut() {
        Some(element) => element.text.push_str(text),
        None if text.trim().is_empty() => {}
        None => return Err("the data is not XML: there is text outside of the root element".to_owned()),
    }
    Ok(())
}

/// The character of a reference: one of the five that XML knows, or a number.
fn referred(reference: &BytesRef<'_>) -> Result<char, String> {
    if let Some(one) =
        reference.resolve_char_ref().map_err(|error| format!("the data is not XML: {error}"))?
    {
        return Ok(one);
    }
    match &*reference.xml10_content() {
        "lt" => Ok('<'),
        "gt" => Ok('>'),
        "amp" => Ok('&'),
        "apos" => Ok('\''),
        "quot" => Ok('"'),
        other => Err(format!("the data is not XML: there is no entity `{other}`")),
    }
}

/// A name without its prefix.
fn local_part(name: &str) -> &str {
    name.split_once(':').map_or(name, |(_, local)| local)
}

fn offset(position: u64) -> usize {
    usize::try_from(position).unwrap_or(usize::MAX)
}

fn refused(reason: &str, text: &str, offset: usize) -> TransformationError {
    TransformationError::new(format!("{reason}{}", Position::of_offset(text, offset)))
}

#[cfg(test)]
mod suite;

//! `jsonpath`: selects, projects or splits data by queries of RFC 9535.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;
use waypost_core::manifest::FieldProblem;
use waypost_core::transformation::json::{Json, Query, Text};
use waypost_core::transformation::{
    Discard, Document, MAX_OUTPUTS, Outputs, Run, Transformation, TransformationConfig, TransformationError,
};

/// Makes new data of parts of the data, which must be JSON. Exactly one of `select`, `project` and `split` is given.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct JsonPath {
    /// The query whose value becomes the data: of one that names a single place (`$.order.total`) the value there, of
    /// any other an array of all values. An event in which it selects nothing is dropped (`filtered`).
    select: Option<String>,
    /// The members of an object that becomes the data, each by a query: of one that names a single place the value
    /// there, and no member where there is none; of any other an array of all values.
    project: Option<BTreeMap<String, String>>,
    /// Makes an event of each part.
    split: Option<Split>,
}

/// Makes an event of each value that a query selects; where it names a single place with an array, of each element. Its
/// id is `<id>-<number>`, counted from 0. Of no value nothing is made, and the event counts as dropped (`filtered`).
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Split {
    /// The query.
    path: String,
    /// The `type` of the new events, that of the event by default.
    #[serde(rename = "type")]
    event_type: Option<String>,
    /// The `source` of the new events, that of the event by default.
    source: Option<String>,
    /// Extension attributes that the new events get.
    #[serde(default)]
    extensions: BTreeMap<String, String>,
    /// Whether the new events have nothing of the event but `datacontenttype`, and type and source where they are not
    /// given here.
    #[serde(default)]
    drop_attributes: bool,
    /// Whether the new events say where they come from: `splitparentid` is the id of the event, `splitindex` the number,
    /// `splitcount` how many there are.
    #[serde(default = "yes")]
    mark: bool,
}

fn yes() -> bool {
    true
}

impl TransformationConfig for JsonPath {
    const TYPE: &'static str = "jsonpath";

    fn compile(&self) -> Result<Arc<dyn Transformation>, Vec<FieldProblem>> {
        match (&self.select, &self.project, &self.split) {
            (Some(select), None, None) => Ok(Arc::new(Compiled::Select(query("select", select)?))),
            (None, Some(members), None) => {
                let read = |(name, text): (&String, &String)| {
                    Ok((Text::from(name.as_str()), query(&format!("project.{name}"), text)?))
                };
                let members: Result<_, Vec<FieldProblem>> = members.iter().map(read).collect();
                Ok(Arc::new(Compiled::Project(members?)))
            }
            (None, None, Some(split)) => {
                let query = query("split.path", &split.path)?;
                Ok(Arc::new(Compiled::Split(query, Box::new(split.clone()))))
            }
            _ => {
                let message = "write exactly one of `select`, `project` and `split`".to_owned();
                Err(vec![FieldProblem { path: String::new(), message }])
            }
        }
    }
}

fn query(path: &str, text: &str) -> Result<Query, Vec<FieldProblem>> {
    Query::parse(text).map_err(|error| {
        let message = format!("{} (at character {})", error.message, error.offset + 1);
        vec![FieldProblem { path: path.to_owned(), message }]
    })
}

#[derive(Debug)]
enum Compiled {
    Select(Query),
    Project(Vec<(Text, Query)>),
    Split(Query, Box<Split>),
}

impl Transformation for Compiled {
    fn apply(&self, mut document: Document, run: &mut Run) -> Result<Outputs, TransformationError> {
        if let Self::Split(query, split) = self
            && let Some(parts) = document.parts(query)?
        {
            if parts.is_empty() {
                return Ok(Outputs::Nothing(Discard::Filtered));
            }
            check_count(parts.len())?;
            run.spend(1 + parts.len() as u64)?;
            document.remove_data();
            return Ok(Outputs::Several(split.events(&document, parts, Document::set_part)));
        }
        let Some(data) = document.json()? else {
            return match self {
                Self::Project(_) => {
                    document.set_json(Json::Object(Default::default()));
                    Ok(document.into())
                }
                Self::Select(_) | Self::Split(..) => Ok(Outputs::Nothing(Discard::Filtered)),
            };
        };
        match self {
            Self::Select(query) => match value(query, data, run)? {
                Some(value) => {
                    document.set_json(value);
                    Ok(document.into())
                }
                None => Ok(Outputs::Nothing(Discard::Filtered)),
            },
            Self::Project(members) => {
                let mut object = Vec::with_capacity(members.len());
                for (name, query) in members {
                    match value(query, data, run)? {
                        Some(value) => object.push((name.clone(), value)),
                        None if query.is_singular() => {}
                        None => object.push((name.clone(), Json::Array(Vec::new()))),
                    }
                }
                document.set_json(Json::Object(object.into_iter().collect()));
                Ok(document.into())
            }
            Self::Split(query, split) => {
                let selected = query.select(data, run)?;
                let parts: Vec<Json> = match selected.as_slice() {
                    [Json::Array(elements)] if query.is_singular() => owned(elements.iter(), run)?,
                    values => owned(values.iter().copied(), run)?,
                };
                if parts.is_empty() {
                    return Ok(Outputs::Nothing(Discard::Filtered));
                }
                document.remove_data();
                Ok(Outputs::Several(split.events(&document, parts, Document::set_json)))
            }
        }
    }
}

/// What a query makes of data; nothing where it selects nothing.
fn value(query: &Query, data: &Json, run: &mut Run) -> Result<Option<Json>, TransformationError> {
    let selected = query.select(data, run)?;
    if query.is_singular() {
        let Some(value) = selected.first() else { return Ok(None) };
        run.make(value.weight())?;
        return Ok(Some((*value).clone()));
    }
    if selected.is_empty() {
        return Ok(None);
    }
    for value in &selected {
        run.make(value.weight())?;
    }
    Ok(Some(Json::Array(selected.into_iter().cloned().collect())))
}

fn owned<'j>(
    values: impl ExactSizeIterator<Item = &'j Json>,
    run: &mut Run,
) -> Result<Vec<Json>, TransformationError> {
    check_count(values.len())?;
    values
        .map(|value| {
            run.make(value.weight())?;
            Ok(value.clone())
        })
        .collect()
}

fn check_count(parts: usize) -> Result<(), TransformationError> {
    if parts > MAX_OUTPUTS {
        return Err(TransformationError::limit(format!(
            "it splits the data into {parts} parts, and {MAX_OUTPUTS} events may be made of one"
        )));
    }
    Ok(())
}

/// The attributes of the norm that an event keeps when the others are dropped.
const KEPT: [&str; 4] = ["id", "source", "type", "datacontenttype"];

impl Split {
    /// `document` is without data.
    fn events<P>(&self, document: &Document, parts: Vec<P>, set: impl Fn(&mut Document, P)) -> Vec<Document> {
        let mut model = document.clone();
        if self.drop_attributes {
            let others: Vec<String> = model
                .attributes()
                .filter(|(name, _)| !KEPT.contains(name))
                .map(|(name, _)| name.to_owned())
                .collect();
            others.iter().for_each(|name| model.remove_attribute(name));
        }
        for (name, value) in [("type", &self.event_type), ("source", &self.source)] {
            if let Some(value) = value {
                model.set_attribute(name, value.as_str());
            }
        }
        for (name, value) in &self.extensions {
            model.set_attribute(name.as_str(), value.as_str());
        }
        if self.mark {
            model.set_attribute("splitparentid", document.attribute("id").unwrap_or_default());
            model.set_attribute("splitcount", count(parts.len()));
        }
        // What all have in common is checked and written once. What is wrong with it is told of the first of them.
        if let Ok(common) = model.to_event() {
            model = Document::new(&common);
        }
        let index = Text::from("splitindex");
        let event = |(number, part): (usize, P)| {
            let mut event = model.clone();
            if self.mark {
                event.set_attribute(index.clone(), count(number));
            }
            set(&mut event, part);
            event
        };
        parts.into_iter().enumerate().map(event).collect()
    }
}

/// A number of parts, of which there are never more than [`MAX_OUTPUTS`].
fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod suite;

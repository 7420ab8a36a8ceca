//! Operations on attributes.

use waypost_core::transformation::json::{Json, Object, Text};
use waypost_core::transformation::{Document, Run, TransformationError};

use super::operation::{At, Parsed, Step};
use super::path::Path;
use super::value::{Variables, as_text};

/// A place among the attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Attribute {
    /// One attribute, of the norm or an extension.
    One(Text),
    /// All extensions.
    Extensions,
    /// All attributes.
    All,
}

/// The attributes that the norm defines, of either version.
const CORE: [&str; 10] = [
    "id",
    "source",
    "specversion",
    "type",
    "datacontenttype",
    "dataschema",
    "schemaurl",
    "datacontentencoding",
    "subject",
    "time",
];

impl At for Attribute {
    fn parse(text: &str, separator: &str) -> Result<Self, String> {
        let path = Path::parse(text, separator)?;
        let names: Vec<String> = path
            .names()
            .ok_or_else(|| format!("`{text}` has an index, and attributes have no elements"))?
            .into_iter()
            .map(str::to_ascii_lowercase)
            .collect();
        match names.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            [] => Ok(Self::All),
            ["extensions"] => Ok(Self::Extensions),
            ["extensions", name] | [name] => {
                if name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
                    && *name != "data"
                {
                    Ok(Self::One((*name).into()))
                } else {
                    Err(format!("`{name}` is no name of an attribute: it has letters and digits only"))
                }
            }
            _ => Err(format!("`{text}` is no attribute: write its name, or `extensions.NAME`")),
        }
    }

    fn check_source(&self, _text: &str) -> Result<(), String> {
        Ok(())
    }
}

impl Attribute {
    /// What is there, as JSON.
    fn read(&self, document: &Document) -> Option<Json> {
        match self {
            Self::One(name) => document.attribute(name).map(Json::from),
            Self::Extensions => Some(all(document, |name| !CORE.contains(&name)).into()),
            Self::All => Some(all(document, |_| true).into()),
        }
    }
}

fn all(document: &Document, wanted: impl Fn(&str) -> bool) -> Object {
    let attributes = document.attributes().filter(|(name, _)| wanted(name));
    attributes.map(|(name, value)| (Text::from(name), Json::from(value.text))).collect()
}

impl Step<Attribute> {
    /// Applies `store` or `parse`. An attribute stays text: what is parsed is for variables.
    pub(super) fn apply_first(
        &self,
        document: &Document,
        parsed: &mut Parsed,
        variables: &mut Variables,
        run: &mut Run,
    ) -> Result<(), TransformationError> {
        match self {
            Self::Store { variable, from } => {
                let earlier = match from {
                    Attribute::One(name) => parsed.iter().rev().find(|(known, _)| known == name),
                    Attribute::Extensions | Attribute::All => None,
                };
                let value = match earlier {
                    Some((_, value)) => Some(value.clone()),
                    None => from.read(document),
                };
                run.make(value.as_ref().map_or(0, Json::weight))?;
                variables[*variable] = value;
                Ok(())
            }
            Self::Parse { at: Attribute::One(name) } => {
                let failed = |reason| TransformationError::new(reason).at(format!("attribute {name}"));
                let text =
                    document.attribute(name).ok_or_else(|| failed("there is nothing to parse".to_owned()))?;
                run.make(text.len() * 2)?;
                let value = Json::read(text).map_err(|error| failed(error.to_string()))?;
                parsed.push((name.clone(), value));
                Ok(())
            }
            Self::Parse { .. } => Err(TransformationError::new("one attribute is parsed at a time")),
            Self::Add { .. } | Self::Delete { .. } | Self::Shift { .. } => Ok(()),
        }
    }

    /// Applies a step that changes attributes. They are checked when the transformation ends.
    pub(super) fn apply(
        &self,
        document: &mut Document,
        variables: &Variables,
        run: &mut Run,
    ) -> Result<(), TransformationError> {
        match self {
            Self::Add { to, value } => {
                let value = value.expand(variables, run)?;
                add(document, to, &value)
            }
            Self::Delete { at, only } => {
                let gone: Vec<String> = document
                    .attributes()
                    .filter(|(name, value)| {
                        let here = match at {
                            Some(Attribute::One(one)) => **one == **name,
                            Some(Attribute::Extensions) => !CORE.contains(name),
                            Some(Attribute::All) => false,
                            None => true,
                        };
                        here && only
                            .as_ref()
                            .is_none_or(|only| only.holds(&Json::from(value.text), variables))
                    })
                    .map(|(name, _)| name.to_owned())
                    .collect();
                gone.iter().for_each(|name| document.remove_attribute(name));
                Ok(())
            }
            Self::Shift { from, to, only } => {
                let Some(value) = from.read(document) else { return Ok(()) };
                if only.as_ref().is_some_and(|only| !only.holds(&value, variables)) {
                    return Ok(());
                }
                let Attribute::One(name) = from else {
                    return Err(TransformationError::new("one attribute is moved at a time"));
                };
                document.remove_attribute(name);
                add(document, to, &value)
            }
            Self::Store { .. } | Self::Parse { .. } => Ok(()),
        }
    }
}

fn add(document: &mut Document, to: &Attribute, value: &Json) -> Result<(), TransformationError> {
    match (to, value) {
        (_, Json::Null) => Ok(()),
        (Attribute::One(name), value) => {
            document.set_attribute(name.clone(), &*as_text(value));
            Ok(())
        }
        (Attribute::Extensions | Attribute::All, Json::Object(members)) => {
            for (name, value) in members.iter().filter(|(_, value)| **value != Json::Null) {
                document.set_attribute(name.to_ascii_lowercase(), &*as_text(value));
            }
            Ok(())
        }
        (Attribute::Extensions | Attribute::All, value) => Err(TransformationError::new(format!(
            "attributes are added from an object, and this is {}",
            value.kind()
        ))),
    }
}

//! `cel`: an expression of CEL for each attribute and for the data, by what filters of that dialect are made of.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;
use waypost_core::event::{AttributeType, AttributeValue, declares_json};
use waypost_core::filter::cel::Expression;
use waypost_core::filter::{Candidate, MAX_STEPS};
use waypost_core::manifest::FieldProblem;
use waypost_core::transformation::json::Json;
use waypost_core::transformation::{
    Document, Outputs, Run, Transformation, TransformationConfig, TransformationError,
};

use crate::attribute;

/// Sets attributes and the data to what expressions of CEL yield.
///
/// Expressions see the event as it came in, as filters of the dialect `cel` do: each attribute as a variable of its name,
/// and JSON data as `data`. What has no expression stays as it is.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CelConfig {
    /// An expression for each attribute to set. `null` takes the attribute away.
    #[serde(default)]
    attributes: BTreeMap<String, String>,
    /// An expression for the data, which becomes JSON.
    data: Option<String>,
}

impl TransformationConfig for CelConfig {
    const TYPE: &'static str = "cel";

    fn compile(&self) -> Result<Arc<dyn Transformation>, Vec<FieldProblem>> {
        let mut problems = Vec::new();
        if self.attributes.is_empty() && self.data.is_none() {
            let message = "there is no expression: write `attributes`, `data` or both".to_owned();
            problems.push(FieldProblem { path: String::new(), message });
        }
        let mut parse = |path: String, text: &str| match Expression::parse(text) {
            Ok(expression) => Some(expression),
            Err(error) => {
                problems.push(FieldProblem { path, message: error.to_string() });
                None
            }
        };
        let mut attributes = Vec::new();
        for (name, text) in &self.attributes {
            if let Some(expression) = parse(format!("attributes.{name}"), text) {
                attributes.push((name.clone(), expression));
            }
        }
        let data = self.data.as_ref().and_then(|text| parse("data".to_owned(), text));
        for name in self.attributes.keys() {
            if let Err(message) = attribute::check_name(name) {
                problems.push(FieldProblem { path: format!("attributes.{name}"), message });
            }
        }
        if problems.is_empty() { Ok(Arc::new(Cel { attributes, data })) } else { Err(problems) }
    }
}

#[derive(Debug)]
struct Cel {
    attributes: Vec<(String, Expression)>,
    data: Option<Expression>,
}

impl Transformation for Cel {
    fn apply(&self, mut document: Document, run: &mut Run) -> Result<Outputs, TransformationError> {
        let event = document.clone().into_event()?;
        let candidate = Candidate::new(&event);
        let mut value = |expression: &Expression, place: &dyn Fn() -> String| {
            candidate.begin();
            // Charged as much as one may take: what it took is not told.
            run.spend(u64::from(MAX_STEPS) / 100)?;
            let value = expression.value(&candidate).map_err(|_| {
                let reason = format!("the expression needs more than {MAX_STEPS} steps for this event");
                TransformationError::limit(reason).at(place())
            })?;
            value.map_err(|error| {
                TransformationError::new(format!("the expression fails: {error}")).at(place())
            })
        };
        for (name, expression) in &self.attributes {
            let place = || format!("attributes.{name}");
            match value(expression, &place)? {
                Json::Null => document.remove_attribute(name),
                json => document.set_attribute(
                    name.as_str(),
                    attribute_of(&json).ok_or_else(|| {
                        let reason = format!("{} cannot be an attribute", json.kind());
                        TransformationError::new(reason).at(place())
                    })?,
                ),
            }
        }
        if let Some(expression) = &self.data {
            let data = value(expression, &|| "data".to_owned())?;
            run.make(data.weight())?;
            document.set_json(data);
            if !document.attribute("datacontenttype").is_some_and(declares_json) {
                document.set_attribute("datacontenttype", "application/json");
            }
        }
        Ok(document.into())
    }
}

/// A value as that of an attribute: a number that is an Integer of the norm as one, a Boolean as one, other numbers and
/// strings as strings.
fn attribute_of(json: &Json) -> Option<AttributeValue> {
    Some(match json {
        Json::Text(text) => (&**text).into(),
        Json::Bool(truth) => (*truth).into(),
        Json::Number(number) if number.text().parse::<i32>().is_ok() => {
            AttributeValue::new(number.text(), AttributeType::Integer)
        }
        Json::Number(number) => number.text().into(),
        Json::Null | Json::Array(_) | Json::Object(_) | Json::Unread(_) => return None,
    })
}

#[cfg(test)]
mod suite;

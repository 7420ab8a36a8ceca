//! `filter`: lets events pass or drops them, by the filters of triggers.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use waypost_core::filter::{Candidate, Filter as Compiled};
use waypost_core::manifest::{FieldProblem, read_filter};
use waypost_core::transformation::{
    Discard, Document, Outputs, Run, Transformation, TransformationConfig, TransformationError,
};

/// Lets an event pass that all filters take, and drops any other (`filtered`).
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Filter {
    /// Filters as those of a native Trigger, such as `{cel: "data.total > 100"}`.
    filters: Vec<Value>,
}

impl TransformationConfig for Filter {
    const TYPE: &'static str = "filter";

    fn compile(&self) -> Result<Arc<dyn Transformation>, Vec<FieldProblem>> {
        let mut problems = Vec::new();
        let mut filters = Vec::with_capacity(self.filters.len());
        for (number, written) in self.filters.iter().enumerate() {
            let path = format!("filters[{number}]");
            if written.as_object().is_some_and(serde_json::Map::is_empty) {
                let message = "it is empty: name a dialect, such as `exact`".to_owned();
                problems.push(FieldProblem { path, message });
                continue;
            }
            match read_filter(written.clone()) {
                Ok(filter) => filters.push(filter),
                Err(unreadable) => problems.push(FieldProblem { path, message: unreadable.to_string() }),
            }
        }
        if self.filters.is_empty() {
            let message = "write at least one filter".to_owned();
            problems.push(FieldProblem { path: "filters".to_owned(), message });
        }
        if problems.is_empty() { Ok(Arc::new(Filters(filters))) } else { Err(problems) }
    }
}

#[derive(Debug)]
struct Filters(Vec<Compiled>);

impl Transformation for Filters {
    fn apply(&self, document: Document, _run: &mut Run) -> Result<Outputs, TransformationError> {
        let event = document.to_event()?;
        let candidate = Candidate::new(&event);
        for filter in &self.0 {
            match filter.matches(&candidate) {
                Ok(true) => {}
                Ok(false) => return Ok(Outputs::Nothing(Discard::Filtered)),
                Err(_) => return Err(TransformationError::limit("the filter takes more steps than it may")),
            }
        }
        Ok(document.into())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use waypost_core::Event;
    use waypost_core::transformation::{Chain, Moment, OnError, Step, Transformed};

    use super::*;

    fn compile(spec: &Value) -> Result<Chain, Vec<FieldProblem>> {
        let config: Filter = serde_json::from_value(spec.clone()).unwrap();
        let transformation = config.compile()?;
        Ok(Chain::new(vec![Step { name: "filter".to_owned(), transformation, on_error: OnError::Fail }]))
    }

    fn passes(spec: &Value, data: &str) -> bool {
        let event = Event::builder("1", "/s", "order").json_data(data.to_owned()).build().unwrap();
        match compile(spec).unwrap().apply(&event, Moment { arrived_nanoseconds: 0 }).unwrap() {
            Transformed::Events(events) => {
                assert_eq!(events, [event]);
                true
            }
            Transformed::Nothing(why) => {
                assert_eq!(why, Discard::Filtered);
                false
            }
        }
    }

    #[test]
    fn events_pass_that_all_filters_take() {
        let spec = json!({"filters": [{"exact": {"type": "order"}}, {"cel": "data.n > 1"}]});
        assert!(passes(&spec, r#"{"n":2}"#));
        assert!(!passes(&spec, r#"{"n":1}"#));
        assert!(!passes(&spec, "{}"));
        assert!(!passes(&json!({"filters": [{"exact": {"type": "x"}}]}), "{}"));
    }

    /// What TriggerMesh's expressions become.
    #[test]
    fn a_member_that_is_not_there_has_the_zero_value() {
        let translated = |expression: &str| {
            let cel = waypost_core::manifest::filter_expression(expression).unwrap();
            json!({"filters": [{"cel": cel}]})
        };
        for (expression, data, expected) in [
            ("$n.(int64) < 30", "{}", true),
            ("$n.(int64) < 30", r#"{"n":30}"#, false),
            ("$n.(int64) == 2", r#"{"n":2.5}"#, true),
            ("$user.age.(int64) > 18 && $kind.(string) == \"x\"", r#"{"user":{"age":19},"kind":"x"}"#, true),
            ("$user.age.(int64) > 18 && $kind.(string) == \"x\"", r#"{"user":{},"kind":"x"}"#, false),
            ("$user.age.(int64) == 0", r#"{"user":{}}"#, true),
            ("$ok.(bool)", r#"{"ok":true}"#, true),
            ("$ok.(bool)", "{}", false),
            ("!$ok.(bool)", "{}", true),
            ("$p.(double) >= 1.5", r#"{"p":1.5}"#, true),
            ("$u.(uint64) == 7u", r#"{"u":7}"#, true),
            ("$a.b.(string) == '' && $a_b.(string) == 'y'", r#"{"a_b":"y"}"#, true),
            ("$s.(string) == \"$n.(int64)\"", r#"{"s":"$n.(int64)"}"#, true),
        ] {
            assert_eq!(passes(&translated(expression), data), expected, "{expression} {data}");
        }
    }

    #[test]
    fn bad_filters_are_refused_with_their_place() {
        for (spec, place) in [
            (json!({"filters": []}), "filters"),
            (json!({"filters": [{}]}), "filters[0]"),
            (json!({"filters": [{"exact": {"type": "x"}}, {"cel": "a +"}]}), "filters[1]"),
            (json!({"filters": [{"nope": {}}]}), "filters[0]"),
        ] {
            assert_eq!(compile(&spec).unwrap_err()[0].path, place, "{spec}");
        }
    }
}

//! What is wrong with a filter that is valid: it can never match, or nobody can say what it costs.

use std::collections::BTreeMap;

use super::candidate::Candidate;
use super::{Filter, cel, cesql};
use crate::codes::{self, Code};
use crate::event::{Event, MAX_NAME_BYTES};

/// Something to look at in a filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Doubt {
    /// No event can match; the sentence says why.
    #[error("no event can match the filter: {0}")]
    NeverMatches(String),
    /// The data of an event decides how much an evaluation costs.
    #[error("what `{0}` costs depends on the data of the event")]
    Unbounded(String),
}

impl Doubt {
    /// The code of doubts of this kind.
    pub fn code(&self) -> Code {
        match self {
            Self::NeverMatches(_) => codes::FILTER_NEVER_MATCHES,
            Self::Unbounded(_) => codes::FILTER_UNBOUNDED,
        }
    }

    /// What to do about it.
    pub fn help(&self) -> &'static str {
        match self {
            Self::NeverMatches(_) => "correct the filter, or remove the trigger",
            Self::Unbounded(_) => {
                "ask about single places of the data; an event for which it costs too much is not matched"
            }
        }
    }
}

/// The attributes that every event has.
const REQUIRED: [&str; 4] = ["specversion", "id", "source", "type"];

/// The longest text that is repeated in a doubt, in characters.
const EXCERPT: usize = 64;

/// What is doubtful. Nothing is a proof that there are events which match.
pub(super) fn of(filter: &Filter) -> Vec<Doubt> {
    let mut doubts = Vec::new();
    doubts.extend(contradiction(filter, &Facts::default()).err().map(Doubt::NeverMatches));
    unbounded(filter, &mut doubts);
    doubts
}

fn unbounded(filter: &Filter, doubts: &mut Vec<Doubt>) {
    match filter {
        Filter::All(filters) | Filter::Any(filters) => {
            filters.iter().for_each(|filter| unbounded(filter, doubts));
        }
        Filter::Not(negated) => unbounded(negated, doubts),
        Filter::Cel(expression) if expression.loops() => {
            doubts.push(Doubt::Unbounded(excerpt(expression.text())));
        }
        Filter::Jsonpath(query) if query.visits_much() => {
            doubts.push(Doubt::Unbounded(excerpt(query.text())));
        }
        _ => {}
    }
}

/// What must be true of an event so far.
#[derive(Debug, Clone, Default)]
struct Facts<'f> {
    attributes: BTreeMap<String, Attribute>,
    /// Filters that must not match.
    not: Vec<&'f Filter>,
    /// Filters that must match.
    must: Vec<&'f Filter>,
}

#[derive(Debug, Clone, Default)]
struct Attribute {
    exact: Option<String>,
    prefix: String,
    suffix: String,
}

/// What is known when the filter matches as well, or why it cannot.
fn contradiction<'f>(filter: &'f Filter, facts: &Facts<'f>) -> Result<Facts<'f>, String> {
    let mut facts = facts.clone();
    facts.add(filter)?;
    facts.check_negations()?;
    Ok(facts)
}

impl<'f> Facts<'f> {
    fn add(&mut self, filter: &'f Filter) -> Result<(), String> {
        match filter {
            Filter::All(filters) => {
                // What is certain first, so that each alternative is judged by it.
                let (alternatives, certain): (Vec<_>, Vec<_>) =
                    filters.iter().partition(|filter| matches!(filter, Filter::Any(_)));
                return certain.into_iter().chain(alternatives).try_for_each(|filter| self.add(filter));
            }
            Filter::Any(filters) => {
                let mut reasons = filters.iter().map(|filter| contradiction(filter, self).err());
                let first = reasons.next().flatten();
                return match first {
                    Some(reason) if reasons.all(|reason| reason.is_some()) => Err(reason),
                    _ => Ok(()),
                };
            }
            Filter::Not(negated) => {
                self.not.push(negated);
                return Ok(());
            }
            _ => {}
        }
        self.must.push(filter);
        self.learn(filter)
    }

    /// Takes what the filter says about attributes. What an expression implies is taken as well.
    fn learn(&mut self, filter: &Filter) -> Result<(), String> {
        match filter {
            Filter::Exact(clauses) => {
                clauses.iter().try_for_each(|clause| self.exact(clause.attribute(), clause.value()))
            }
            Filter::Prefix(clauses) => {
                clauses.iter().try_for_each(|clause| self.prefix(clause.attribute(), clause.value()))
            }
            Filter::Suffix(clauses) => {
                clauses.iter().try_for_each(|clause| self.suffix(clause.attribute(), clause.value()))
            }
            Filter::Like(clauses) => clauses.iter().try_for_each(|clause| {
                let (name, pattern) = (clause.attribute(), clause.pattern());
                match pattern.exact() {
                    Some(value) => self.exact(name, value),
                    None => {
                        self.prefix(name, pattern.prefix()).and_then(|()| self.suffix(name, pattern.suffix()))
                    }
                }
            }),
            Filter::Present(name) => self.attribute(name).map(drop),
            Filter::Cesql(expression) => match constant(expression) {
                true => Err(format!("`{}` is never true", excerpt(expression.text()))),
                false => self.learn(&expression.implied()),
            },
            Filter::Cel(expression) => match constant_in_cel(expression) {
                true => Err(format!("`{}` is never true", excerpt(expression.text()))),
                false => self.learn(&expression.implied()),
            },
            // What an expression implies may hold these as well.
            Filter::All(filters) => filters.iter().try_for_each(|filter| self.learn(filter)),
            Filter::Any(filters) => {
                let mut reasons = filters.iter().map(|filter| self.clone().learn(filter).err());
                match reasons.next().flatten() {
                    Some(reason) if reasons.all(|reason| reason.is_some()) => Err(reason),
                    _ => Ok(()),
                }
            }
            Filter::Everything | Filter::Not(_) | Filter::Jsonpath(_) => Ok(()),
        }
    }

    fn attribute(&mut self, name: &str) -> Result<&mut Attribute, String> {
        if name.len() > MAX_NAME_BYTES {
            return Err(format!("the name `{}` is longer than an attribute may have", excerpt(name)));
        }
        if name == "data" {
            return Err("no attribute has the name `data`; use `cel` or `jsonpath` for the data".to_owned());
        }
        Ok(self.attributes.entry(name.to_owned()).or_default())
    }

    fn exact(&mut self, name: &str, value: &str) -> Result<(), String> {
        if name == "specversion" && !["1.0", "0.3"].contains(&value) {
            return Err(format!("`specversion` is `1.0` or `0.3`, never `{}`", excerpt(value)));
        }
        let attribute = self.attribute(name)?;
        if let Some(other) = attribute.exact.as_ref().filter(|other| *other != value) {
            return Err(format!("`{name}` cannot be both `{}` and `{}`", excerpt(other), excerpt(value)));
        }
        attribute.exact = Some(value.to_owned());
        attribute.check(name)
    }

    fn prefix(&mut self, name: &str, prefix: &str) -> Result<(), String> {
        let attribute = self.attribute(name)?;
        if !attribute.prefix.starts_with(prefix) && !prefix.starts_with(&attribute.prefix) {
            let both = (excerpt(&attribute.prefix), excerpt(prefix));
            return Err(format!("`{name}` cannot start with both `{}` and `{}`", both.0, both.1));
        }
        if prefix.len() > attribute.prefix.len() {
            prefix.clone_into(&mut attribute.prefix);
        }
        attribute.check(name)
    }

    fn suffix(&mut self, name: &str, suffix: &str) -> Result<(), String> {
        let attribute = self.attribute(name)?;
        if !attribute.suffix.ends_with(suffix) && !suffix.ends_with(&attribute.suffix) {
            let both = (excerpt(&attribute.suffix), excerpt(suffix));
            return Err(format!("`{name}` cannot end with both `{}` and `{}`", both.0, both.1));
        }
        if suffix.len() > attribute.suffix.len() {
            suffix.clone_into(&mut attribute.suffix);
        }
        attribute.check(name)
    }

    /// What must not match, but matches whenever the rest does.
    fn check_negations(&self) -> Result<(), String> {
        for negated in &self.not {
            let always = match negated {
                Filter::Everything => true,
                Filter::Present(name) => {
                    REQUIRED.contains(&name.as_str()) || self.attributes.contains_key(name.as_str())
                }
                Filter::Exact(clauses) => clauses.iter().all(|clause| {
                    self.attributes
                        .get(clause.attribute().as_str())
                        .is_some_and(|attribute| attribute.exact.as_deref() == Some(clause.value()))
                }),
                Filter::Prefix(clauses) => clauses.iter().all(|clause| {
                    self.attributes.get(clause.attribute().as_str()).is_some_and(|attribute| {
                        attribute.exact.as_ref().unwrap_or(&attribute.prefix).starts_with(clause.value())
                    })
                }),
                Filter::Suffix(clauses) => clauses.iter().all(|clause| {
                    self.attributes.get(clause.attribute().as_str()).is_some_and(|attribute| {
                        attribute.exact.as_ref().unwrap_or(&attribute.suffix).ends_with(clause.value())
                    })
                }),
                other => self.must.contains(other),
            };
            if always {
                let text = serde_json::to_string(negated).expect("filters are maps and strings");
                return Err(format!("whatever else it asks for, `not` excludes it: {}", excerpt(&text)));
            }
        }
        Ok(())
    }
}

impl Attribute {
    /// Whether the only value has the prefix and the suffix.
    fn check(&self, name: &str) -> Result<(), String> {
        let Some(value) = &self.exact else { return Ok(()) };
        if !value.starts_with(&self.prefix) {
            return Err(format!(
                "`{name}` cannot be `{}` and start with `{}`",
                excerpt(value),
                excerpt(&self.prefix)
            ));
        }
        if !value.ends_with(&self.suffix) {
            return Err(format!(
                "`{name}` cannot be `{}` and end with `{}`",
                excerpt(value),
                excerpt(&self.suffix)
            ));
        }
        Ok(())
    }
}

/// Whether the expression asks about nothing of an event and is not true.
fn constant(expression: &cesql::Expression) -> bool {
    !expression.asks()
        && any_event().is_some_and(|event| expression.holds(&Candidate::new(&event)) == Ok(false))
}

fn constant_in_cel(expression: &cel::Expression) -> bool {
    !expression.asks()
        && any_event().is_some_and(|event| expression.holds(&Candidate::new(&event)) == Ok(false))
}

fn any_event() -> Option<Event> {
    Event::builder("1", "/", "t").build().ok()
}

fn excerpt(text: &str) -> String {
    match text.char_indices().nth(EXCERPT) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn read(filter: serde_json::Value) -> Filter {
        crate::manifest::read_filter(filter).unwrap()
    }

    fn never(filter: serde_json::Value) -> Option<String> {
        let doubts = read(filter).doubts();
        doubts.into_iter().find_map(|doubt| match doubt {
            Doubt::NeverMatches(reason) => Some(reason),
            Doubt::Unbounded(_) => None,
        })
    }

    #[test]
    fn what_contradicts_itself_never_matches() {
        for (filter, reason) in [
            (json!({"all": [{"exact": {"type": "a"}}, {"exact": {"type": "b"}}]}), "both `a` and `b`"),
            (json!({"all": [{"prefix": {"type": "a"}}, {"exact": {"type": "b"}}]}), "start with `a`"),
            (json!({"all": [{"exact": {"type": "b"}}, {"suffix": {"type": "a"}}]}), "end with `a`"),
            (
                json!({"all": [{"prefix": {"type": "ab"}}, {"like": {"type": "b%"}}]}),
                "start with both `ab` and `b`",
            ),
            (
                json!({"all": [{"suffix": {"type": "ab"}}, {"like": {"type": "%c"}}]}),
                "end with both `ab` and `c`",
            ),
            (json!({"all": [{"cesql": "a = 'b'"}, {"not": {"cesql": "a = 'b'"}}]}), "`not` excludes it"),
            (
                json!({"all": [{"exact": {"type": "ab"}}, {"not": {"prefix": {"type": "a"}}}]}),
                "`not` excludes it",
            ),
            (json!({"not": {}}), "`not` excludes it"),
            (json!({"not": {"present": "source"}}), "`not` excludes it"),
            (json!({"exact": {"specversion": "2.0"}}), "`specversion` is"),
            (json!({"exact": {"data": "x"}}), "the name `data`"),
            (json!({"cesql": "type = 'a' AND type = 'b'"}), "both `a` and `b`"),
            (json!({"cesql": "1 = 2"}), "`1 = 2` is never true"),
            (json!({"cesql": "NONE()"}), "is never true"),
            (json!({"cel": "1 == 2"}), "is never true"),
            (json!({"cel": "type == 'a' && type == 'b'"}), "both `a` and `b`"),
            (
                json!({"all": [{"any": [{"exact": {"type": "a"}}, {"exact": {"type": "b"}}]}, {"exact": {"type": "c"}}]}),
                "both `c` and `a`",
            ),
        ] {
            let told = never(filter.clone());
            assert!(told.as_ref().is_some_and(|told| told.contains(reason)), "{filter}: {told:?}");
        }
    }

    #[test]
    fn what_may_match_is_not_doubted() {
        for filter in [
            json!({}),
            json!({"all": [{"prefix": {"type": "a"}}, {"prefix": {"type": "ab"}}, {"exact": {"type": "abc"}}]}),
            json!({"any": [{"exact": {"type": "a"}}, {"exact": {"type": "b"}}]}),
            json!({"not": {"all": [{"exact": {"type": "a"}}, {"exact": {"type": "b"}}]}}),
            json!({"all": [{"exact": {"type": "a"}}, {"not": {"exact": {"type": "b"}}}]}),
            json!({"cesql": "TRUE"}),
            json!({"cesql": "type = 'a' OR type = 'b'"}),
            json!({"cel": "data.total > 5"}),
            json!({"jsonpath": "$.total"}),
        ] {
            assert_eq!(read(filter.clone()).doubts(), [], "{filter}");
        }
    }

    #[test]
    fn what_costs_as_much_as_the_data_wants_is_told() {
        for (filter, text) in [
            (json!({"not": {"cel": "data.items.exists(item, item.count > 1)"}}), "data.items"),
            (json!({"all": [{"jsonpath": "$..total"}, {"exact": {"type": "a"}}]}), "$..total"),
        ] {
            let doubts = read(filter).doubts();
            assert!(
                matches!(doubts.as_slice(), [Doubt::Unbounded(told)] if told.contains(text)),
                "{doubts:?}"
            );
            assert_eq!(doubts[0].code(), codes::FILTER_UNBOUNDED);
        }
    }

    proptest! {
        #[test]
        fn what_matches_an_event_is_not_said_to_match_none(
            filter in crate::filter::generated::filters(),
            event in cesql::generated::events(),
        ) {
            if filter.matches_event(&event) {
                let never = filter.doubts().into_iter().find(|doubt| matches!(doubt, Doubt::NeverMatches(_)));
                prop_assert_eq!(never, None);
            }
        }
    }
}

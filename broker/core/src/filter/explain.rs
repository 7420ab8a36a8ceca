//! Why a filter takes an event or does not: the reference evaluator as a tree.
//!
//! Every clause is evaluated, also where an earlier one has decided, so that all that is missing can be told and the
//! nearest misses be found. The verdict of the whole is always that of [`Filter::matches`].

use std::fmt;

use serde::Serialize;

use super::candidate::{BudgetSpent, Candidate};
use super::cesql::tree::{Kind, Node};
use super::{Clause, Clauses, Filter, cel, cesql, jsonpath};

/// The longest value that is repeated in an explanation, in characters.
const EXCERPT: usize = 256;

/// The most sub-expressions of one expression that are told.
pub const MAX_SUB_EXPRESSIONS: usize = 256;

/// What became of one condition. Serialises in lowerCamelCase, without what is not there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// The condition: as the user wrote it for an expression, as it is recorded for all others, and `all`, `any` or `not`
    /// for what combines others.
    pub predicate: String,
    /// What the event must have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
    /// What the event has; nothing where it has none, or where there are parts that tell it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actual: Option<String>,
    /// What it came to.
    pub verdict: Verdict,
    /// Why it is no match, in a sentence; nothing where the parts tell it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What it is made of.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub clauses: Vec<Explanation>,
}

/// What a condition came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// It holds.
    Match,
    /// It does not hold.
    NoMatch,
    /// It could not be evaluated to the end, so that it does not hold.
    Error,
    /// A part of an expression that has a value which is neither true nor false.
    Value,
    /// A part of an expression that need not be evaluated.
    NotEvaluated,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Match => "match",
            Self::NoMatch => "no match",
            Self::Error => "error",
            Self::Value => "value",
            Self::NotEvaluated => "not evaluated",
        })
    }
}

impl Explanation {
    /// Explains what [`Filter::matches`] says of the event. Starts the steps of the candidate anew for each clause.
    pub fn new(filter: &Filter, candidate: &Candidate<'_>) -> Self {
        let spent = filter.matches(candidate).err();
        let mut explanation = explain(filter, candidate);
        if let Some(spent) = spent {
            explanation.verdict = Verdict::Error;
            explanation.reason = Some(spent.to_string());
        }
        explanation
    }

    /// Whether the event is taken.
    pub fn matched(&self) -> bool {
        self.verdict == Verdict::Match
    }

    /// The sentence that decided that the event is not taken; nothing where it is.
    pub fn reason(&self) -> Option<String> {
        if self.matched() {
            return None;
        }
        if let Some(reason) = &self.reason {
            return Some(reason.clone());
        }
        let mut failing: Vec<_> = self.clauses.iter().filter(|clause| !clause.matched()).collect();
        if self.predicate == ANY {
            failing.sort_by_key(|clause| clause.distance());
            let nearest = failing.first()?.reason()?;
            return Some(match failing.len() {
                1 => nearest,
                count => format!("none of {count} alternatives matches, the nearest since {nearest}"),
            });
        }
        failing.first()?.reason()
    }

    /// How many necessary clauses do not hold: 0 for a match. The smallest are the nearest misses.
    pub fn distance(&self) -> usize {
        if self.matched() {
            return 0;
        }
        let failing = self.clauses.iter().filter(|clause| !clause.matched()).map(Self::distance);
        match self.predicate.as_str() {
            ALL => failing.sum::<usize>().max(1),
            ANY => failing.min().unwrap_or(1),
            _ => 1,
        }
    }
}

const ALL: &str = "all";
const ANY: &str = "any";
const NOT: &str = "not";

fn explain(filter: &Filter, candidate: &Candidate<'_>) -> Explanation {
    match filter {
        Filter::Everything => leaf("{}".to_owned(), Verdict::Match),
        Filter::Exact(clauses) => compared(filter, clauses, candidate, Filter::Exact, "is not"),
        Filter::Prefix(clauses) => {
            compared(filter, clauses, candidate, Filter::Prefix, "does not start with")
        }
        Filter::Suffix(clauses) => compared(filter, clauses, candidate, Filter::Suffix, "does not end with"),
        Filter::Like(clauses) => compared(filter, clauses, candidate, Filter::Like, "is not like"),
        Filter::Present(name) => {
            let actual = candidate.event().attribute(name);
            let reason = actual.is_none().then(|| missing(name));
            Explanation {
                expected: Some("any value".to_owned()),
                actual: actual.map(|value| excerpt(value.text)),
                reason,
                ..leaf(written(filter), verdict(actual.is_some()))
            }
        }
        Filter::Cesql(expression) => of_cesql(expression, candidate),
        Filter::Cel(expression) => of_cel(expression, candidate),
        Filter::Jsonpath(query) => of_jsonpath(query, candidate),
        Filter::All(filters) => {
            let clauses: Vec<_> = filters.iter().map(|filter| explain(filter, candidate)).collect();
            let holds = clauses.iter().all(Explanation::matched);
            Explanation { clauses, ..leaf(ALL.to_owned(), verdict(holds)) }
        }
        Filter::Any(filters) => {
            let clauses: Vec<_> = filters.iter().map(|filter| explain(filter, candidate)).collect();
            let holds = clauses.iter().any(Explanation::matched);
            Explanation { clauses, ..leaf(ANY.to_owned(), verdict(holds)) }
        }
        Filter::Not(negated) => {
            let inner = explain(negated, candidate);
            let reason = inner
                .matched()
                .then(|| format!("what is under `not` matches: {}", excerpt(&written(negated))));
            let verdict = verdict(!inner.matched());
            Explanation { reason, clauses: vec![inner], ..leaf(NOT.to_owned(), verdict) }
        }
    }
}

fn leaf(predicate: String, verdict: Verdict) -> Explanation {
    Explanation { predicate, expected: None, actual: None, verdict, reason: None, clauses: Vec::new() }
}

fn verdict(holds: bool) -> Verdict {
    if holds { Verdict::Match } else { Verdict::NoMatch }
}

/// The filter as it is recorded.
fn written(filter: &Filter) -> String {
    serde_json::to_string(filter).expect("filters are maps and strings")
}

fn excerpt(text: &str) -> String {
    match text.char_indices().nth(EXCERPT) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn missing(name: &str) -> String {
    format!("the event has no attribute `{name}`")
}

/// The value of an expected attribute, as text.
trait Expected {
    fn text(&self) -> &str;
}

impl Expected for Clause {
    fn text(&self) -> &str {
        self.value()
    }
}

impl Expected for Clause<super::like::Pattern> {
    fn text(&self) -> &str {
        self.pattern().text()
    }
}

/// Comparisons of attributes: one by itself, several as parts.
fn compared<V: Clone>(
    filter: &Filter,
    clauses: &Clauses<V>,
    candidate: &Candidate<'_>,
    dialect: fn(Clauses<V>) -> Filter,
    differs: &str,
) -> Explanation
where
    Clause<V>: Expected,
{
    let [clause] = &**clauses else {
        let alone = |clause: &Clause<V>| {
            let one = Clauses::new(vec![clause.clone()]).expect("one clause is not too many");
            explain(&dialect(one), candidate)
        };
        let clauses: Vec<_> = clauses.iter().map(alone).collect();
        let holds = clauses.iter().all(Explanation::matched);
        return Explanation { clauses, ..leaf(ALL.to_owned(), verdict(holds)) };
    };
    candidate.begin();
    let holds = filter.holds(candidate);
    let name = clause.attribute();
    let actual = candidate.event().attribute(name).map(|value| excerpt(value.text));
    let reason = match (holds, &actual) {
        (Ok(true), _) => None,
        (Err(spent), _) => Some(spent.to_string()),
        (Ok(false), None) => Some(missing(name)),
        (Ok(false), Some(actual)) => {
            Some(format!("`{name}` is `{actual}`, which {differs} `{}`", excerpt(clause.text())))
        }
    };
    Explanation {
        expected: Some(excerpt(clause.text())),
        actual,
        reason,
        ..leaf(written(filter), holds.map_or(Verdict::Error, verdict))
    }
}

fn of_jsonpath(query: &jsonpath::Query, candidate: &Candidate<'_>) -> Explanation {
    candidate.begin();
    let (verdict, reason) = match (query.selects(candidate), candidate.data()) {
        (Err(spent), _) => (Verdict::Error, Some(spent.to_string())),
        (Ok(true), _) => (Verdict::Match, None),
        (Ok(false), Err(no_data)) => (Verdict::NoMatch, Some(no_data.to_string())),
        (Ok(false), Ok(_)) => {
            (Verdict::NoMatch, Some(format!("`{}` selects nothing of the data", excerpt(query.text()))))
        }
    };
    let expected = Some("selects at least one node of the data".to_owned());
    Explanation { expected, reason, ..leaf(query.text().to_owned(), verdict) }
}

fn of_cel(expression: &cel::Expression, candidate: &Candidate<'_>) -> Explanation {
    candidate.begin();
    let (verdict, actual, reason) = match expression.evaluate(candidate) {
        Err(spent) => (Verdict::Error, None, Some(spent.to_string())),
        Ok(cel::Outcome::Boolean(true)) => (Verdict::Match, Some("true".to_owned()), None),
        Ok(cel::Outcome::Boolean(false)) => {
            let reason = format!("the expression `{}` is false", excerpt(expression.text()));
            (Verdict::NoMatch, Some("false".to_owned()), Some(reason))
        }
        Ok(cel::Outcome::NotBoolean(of)) => {
            let reason =
                format!("the expression yields a value of type {of}, which is neither true nor false");
            (Verdict::NoMatch, Some(of), Some(reason))
        }
        Ok(cel::Outcome::Failed(error)) => {
            (Verdict::Error, None, Some(format!("the expression cannot be evaluated: {error}")))
        }
    };
    let expected = Some("true".to_owned());
    Explanation { expected, actual, reason, ..leaf(expression.text().to_owned(), verdict) }
}

fn of_cesql(expression: &cesql::Expression, candidate: &Candidate<'_>) -> Explanation {
    candidate.begin();
    let holds = expression.holds(candidate);
    // The complete evaluation goes on after an error, and may need more steps for it.
    candidate.begin();
    let traced = expression.trace(candidate);
    let (actual, clauses, reason) = match (&traced, holds) {
        (Ok((evaluation, trace)), _) => {
            let mut tree = Tree { expression, trace, errors: &evaluation.errors, left: MAX_SUB_EXPRESSIONS };
            let clauses = tree.parts(expression.root());
            (Some(excerpt(&evaluation.value.to_string())), clauses, reason_of(expression, evaluation))
        }
        (Err(spent), _) => (None, Vec::new(), Some(spent.to_string())),
    };
    let failed = traced.as_ref().map_or(true, |(evaluation, _)| !evaluation.errors.is_empty());
    let verdict = match holds {
        Ok(true) => Verdict::Match,
        Ok(false) if !failed => Verdict::NoMatch,
        Ok(false) | Err(BudgetSpent) => Verdict::Error,
    };
    let reason = reason.filter(|_| verdict != Verdict::Match);
    let expected = Some("true".to_owned());
    Explanation { expected, actual, reason, clauses, ..leaf(expression.text().to_owned(), verdict) }
}

fn reason_of(expression: &cesql::Expression, evaluation: &cesql::Evaluation) -> Option<String> {
    let text = excerpt(expression.text());
    Some(match evaluation.errors.as_slice() {
        [] => format!("the expression `{text}` is {}", excerpt(&evaluation.value.to_string())),
        [error, ..] => {
            let at = excerpt(&expression.text()[error.span()]);
            format!("the expression cannot be evaluated: {error}, in `{at}`")
        }
    })
}

/// Tells what the sub-expressions came to.
struct Tree<'t> {
    expression: &'t cesql::Expression,
    trace: &'t cesql::Trace,
    errors: &'t [cesql::Error],
    left: usize,
}

impl Tree<'_> {
    /// The sub-expressions of a node that are no literals.
    fn parts(&mut self, node: &Node) -> Vec<Explanation> {
        let mut parts = Vec::new();
        for part in node.parts().into_iter().filter(|part| !matches!(part.kind, Kind::Literal(_))) {
            if self.left == 0 {
                break;
            }
            self.left -= 1;
            parts.push(self.part(part));
        }
        parts
    }

    fn part(&mut self, node: &Node) -> Explanation {
        let predicate = excerpt(node.text(self.expression.text()));
        let Some(value) = &self.trace[node.number as usize] else {
            return leaf(predicate, Verdict::NotEvaluated);
        };
        let error = self.errors.iter().find(|error| error.node == node.number);
        let verdict = match (error, value) {
            (Some(_), _) => Verdict::Error,
            (None, cesql::Value::Boolean(truth)) => verdict(*truth),
            (None, _) => Verdict::Value,
        };
        Explanation {
            actual: Some(value.to_string()),
            reason: error.map(ToString::to_string),
            clauses: self.parts(node),
            ..leaf(predicate, verdict)
        }
    }
}

#[cfg(test)]
mod suite;

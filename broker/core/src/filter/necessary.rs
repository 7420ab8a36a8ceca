//! What an expression requires, in terms of the plain dialects.

use super::like::Pattern;
use super::{AttributeName, Clause, Clauses, Filter};

/// A condition that is necessary for something else.
#[derive(Debug)]
pub(super) enum Necessary {
    Nothing,
    Is(Filter),
    All(Vec<Necessary>),
    Any(Vec<Necessary>),
}

impl Necessary {
    /// The condition as a filter; [`Filter::Everything`] where nothing is left of it, or it is beyond the limits.
    pub(super) fn into_filter(self) -> Filter {
        let combined = match self {
            Self::Nothing => return Filter::Everything,
            Self::Is(filter) => return filter,
            Self::All(parts) => {
                let filters = parts.into_iter().map(Self::into_filter);
                Filter::all(filters.filter(|filter| *filter != Filter::Everything).collect())
            }
            Self::Any(parts) => {
                let filters: Vec<_> = parts.into_iter().map(Self::into_filter).collect();
                if filters.contains(&Filter::Everything) {
                    return Filter::Everything;
                }
                Filter::any(filters)
            }
        };
        combined.unwrap_or(Filter::Everything)
    }
}

pub(super) fn present(name: &str) -> Necessary {
    AttributeName::new(name).map_or(Necessary::Nothing, |name| Necessary::Is(Filter::Present(name)))
}

pub(super) fn equals(name: &str, text: &str) -> Necessary {
    compared(name, text, Filter::Exact)
}

pub(super) fn starts_with(name: &str, text: &str) -> Necessary {
    compared(name, text, Filter::Prefix)
}

pub(super) fn ends_with(name: &str, text: &str) -> Necessary {
    compared(name, text, Filter::Suffix)
}

pub(super) fn fits(name: &str, pattern: &Pattern) -> Necessary {
    let clause = Clause::like(name, pattern.clone()).and_then(|clause| Clauses::new(vec![clause]));
    clause.map_or_else(|_| present(name), |clauses| Necessary::Is(Filter::Like(clauses)))
}

fn compared(name: &str, text: &str, dialect: fn(Clauses) -> Filter) -> Necessary {
    let clause = Clause::new(name, text).and_then(|clause| Clauses::new(vec![clause]));
    clause.map_or_else(|_| present(name), |clauses| Necessary::Is(dialect(clauses)))
}

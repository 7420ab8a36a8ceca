//! What is valid and most likely not meant.

use super::functions;
use super::parse::place;
use super::tree::{Chain, Kind, Node};
use crate::codes::{self, Code};
use crate::manifest::nearest;

/// Something to look at in an expression that is valid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{doubt}, at line {line}, column {column} of the expression")]
pub struct Warning {
    doubt: Doubt,
    line: usize,
    column: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Doubt {
    #[error("{0} and {1} stand beside each other without parentheses")]
    Mixed(&'static str, &'static str),
    #[error("there is no function `{0}`")]
    UnknownFunction(String),
    #[error("`{name}` takes {takes}, not {given}")]
    Arity { name: String, takes: String, given: usize },
    #[error("NOT negates only the value after it, before {0} is applied")]
    Not(&'static str),
}

impl Warning {
    /// The code of every warning of this kind.
    pub fn code(&self) -> Code {
        codes::EXPRESSION_DOUBTFUL
    }

    /// The line in the expression, from 1.
    pub fn line(&self) -> usize {
        self.line
    }

    /// The column in the line, in characters from 1.
    pub fn column(&self) -> usize {
        self.column
    }

    /// What to do about it.
    pub fn help(&self) -> String {
        match &self.doubt {
            Doubt::Mixed(..) => {
                "they apply from left to right here, and from the right in some implementations: write parentheses"
                    .to_owned()
            }
            Doubt::UnknownFunction(name) => match nearest(name, functions::names()) {
                Some(near) => format!("did you mean `{near}`? As it stands the expression matches no event"),
                None => "as it stands the expression matches no event that reaches it".to_owned(),
            },
            Doubt::Arity { .. } => "as it stands the expression matches no event that reaches it".to_owned(),
            Doubt::Not(_) => "write `NOT (…)` around the whole comparison".to_owned(),
        }
    }
}

pub(super) fn of(root: &Node, text: &str) -> Vec<Warning> {
    let mut warnings = Vec::new();
    walk(root, text, &mut warnings);
    warnings
}

fn walk(node: &Node, text: &str, warnings: &mut Vec<Warning>) {
    let mut warn = |at: &Node, doubt| {
        let (line, column) = place(text, at.span.start as usize);
        warnings.push(Warning { doubt, line, column });
    };
    match &node.kind {
        Kind::Logic(Chain { rest, .. }) => {
            let other = rest.iter().find(|(operator, _)| *operator != rest[0].0);
            if let Some((other, _)) = other {
                warn(node, Doubt::Mixed(rest[0].0.keyword(), other.keyword()));
            }
        }
        Kind::Call { name, function: None, arguments } => warn(node, call(name, arguments.len())),
        Kind::Comparison(Chain { first, .. }) if negates(first, node) => {
            warn(node, Doubt::Not("the comparison"));
        }
        Kind::Like { value, .. } if negates(value, node) => warn(node, Doubt::Not("LIKE")),
        Kind::In { value, .. } if negates(value, node) => warn(node, Doubt::Not("IN")),
        _ => {}
    }
    for part in node.parts() {
        walk(part, text, warnings);
    }
}

/// Whether the first operand is a NOT that has no parentheses around it.
fn negates(first: &Node, whole: &Node) -> bool {
    matches!(first.kind, Kind::Not(_)) && first.span.start == whole.span.start
}

fn call(name: &str, given: usize) -> Doubt {
    let Some((least, most)) = functions::parameters(name) else {
        return Doubt::UnknownFunction(name.to_owned());
    };
    let takes = match (least, most) {
        (1, 1) => "1 argument".to_owned(),
        (least, most) if least == most => format!("{least} arguments"),
        (least, usize::MAX) => format!("at least {least}"),
        (least, most) => format!("{least} to {most} arguments"),
    };
    Doubt::Arity { name: name.to_owned(), takes, given }
}

//! What must be true of an event for an expression to match it.

use super::tree::{Chain, ComparisonOperator, Kind, LogicOperator, Node};
use super::value::{Type, Value};
use crate::filter::Filter;
use crate::filter::necessary::{Necessary, equals, fits, present};

/// A filter that matches whenever the expression yields true without an error.
///
/// An expression without an error has evaluated every operand but those that AND and OR passed over, and each of those
/// that were evaluated found its attributes.
pub(super) fn of(root: &Node) -> Filter {
    truth(root).into_filter()
}

/// What is necessary for the node to be true.
fn truth(node: &Node) -> Necessary {
    match &node.kind {
        Kind::Exists(name) => present(name),
        Kind::Like { value, negated: false, pattern } => match attribute(value) {
            Some(name) => fits(name, pattern),
            None => evaluated(node),
        },
        Kind::In { value, negated: false, set } => in_set(value, set),
        Kind::Comparison(chain) => comparison(chain).unwrap_or_else(|| evaluated(node)),
        Kind::Logic(chain) => logic(chain),
        _ => evaluated(node),
    }
}

/// What is necessary for the node to be evaluated without an error, whatever its value.
fn evaluated(node: &Node) -> Necessary {
    match &node.kind {
        Kind::Literal(_) | Kind::Exists(_) => Necessary::Nothing,
        Kind::Attribute(name) => present(name),
        // Only the first operand is sure to be evaluated.
        Kind::Logic(chain) => evaluated(&chain.first),
        // What follows an element that is equal is not.
        Kind::In { value, set, .. } => {
            Necessary::All(std::iter::once(&**value).chain(set.first()).map(evaluated).collect())
        }
        _ => Necessary::All(node.parts().into_iter().map(evaluated).collect()),
    }
}

fn logic(chain: &Chain<LogicOperator>) -> Necessary {
    let mut so_far = truth(&chain.first);
    // What must hold for the value so far to be there at all, true or false.
    let mut there = evaluated(&chain.first);
    for (operator, node) in &chain.rest {
        so_far = match (operator, so_far) {
            (LogicOperator::And, Necessary::All(mut parts)) => {
                parts.push(truth(node));
                Necessary::All(parts)
            }
            (LogicOperator::And, left) => Necessary::All(vec![left, truth(node)]),
            (LogicOperator::Or, Necessary::Any(mut parts)) => {
                parts.push(truth(node));
                Necessary::Any(parts)
            }
            (LogicOperator::Or, left) => Necessary::Any(vec![left, truth(node)]),
            (LogicOperator::Xor, _) => {
                let left = std::mem::replace(&mut there, Necessary::Nothing);
                Necessary::All(vec![left, evaluated(node)])
            }
        };
    }
    so_far
}

fn in_set(value: &Node, set: &[Node]) -> Necessary {
    let equal = |element: &Node| match (attribute(value), &element.kind) {
        // The elements are cast to the type of the value, which the wire decides.
        (Some(name), Kind::Literal(literal)) => same_under_every_type(name, literal),
        _ => Necessary::All(vec![evaluated(value)]),
    };
    Necessary::Any(set.iter().map(equal).collect())
}

fn comparison(chain: &Chain<ComparisonOperator>) -> Option<Necessary> {
    let [(ComparisonOperator::Equal, right)] = &*chain.rest else { return None };
    if let (Some(name), Kind::Literal(literal)) = (attribute(&chain.first), &right.kind) {
        // The left operand is cast to the type of the right one: to text, there is one way to be equal.
        return Some(match literal {
            Value::String(text) => equals(name, text),
            _ => present(name),
        });
    }
    if let (Kind::Literal(literal), Some(name)) = (&chain.first.kind, attribute(right)) {
        return Some(same_under_every_type(name, literal));
    }
    None
}

/// What is necessary for an attribute of any type to equal a literal that is cast to that type.
fn same_under_every_type(name: &str, literal: &Value<'_>) -> Necessary {
    let text = literal.clone().into_text();
    let value = Value::String(text.clone());
    let number = value.as_integer().is_none_or(|number| number.to_string() == text);
    let truth = value.as_boolean().is_none_or(|truth| truth.to_string() == text);
    match literal.type_of() {
        // `1` equals a Boolean that is true, whose text is another one.
        Type::String if number && truth => equals(name, &text),
        _ => present(name),
    }
}

fn attribute(node: &Node) -> Option<&str> {
    match &node.kind {
        Kind::Attribute(name) => Some(name),
        _ => None,
    }
}

//! What must be true of an event for an expression to yield true.

use ::cel::common::ast::{CallExpr, Expr, IdedExpr, LiteralValue};

use super::presence;
use crate::filter::Filter;
use crate::filter::necessary::{Necessary, ends_with, equals, present, starts_with};

/// A filter that matches whenever the expression yields true.
pub(super) fn of(root: &IdedExpr) -> Filter {
    truth(root).into_filter()
}

fn truth(node: &IdedExpr) -> Necessary {
    match &node.expr {
        Expr::Ident(_) => attribute(node).map_or(Necessary::Nothing, |name| equals(name, "true")),
        Expr::Select(select) if select.test => match &select.operand.expr {
            Expr::Ident(map) if map == presence::VARIABLE && select.field != "data" => present(&select.field),
            _ => Necessary::Nothing,
        },
        Expr::Call(call) => called(call),
        _ => Necessary::Nothing,
    }
}

fn called(call: &CallExpr) -> Necessary {
    let target = call.target.as_deref();
    match (call.func_name.as_str(), target, call.args.as_slice()) {
        ("_&&_", None, parts) => Necessary::All(parts.iter().map(truth).collect()),
        ("_||_", None, parts) => Necessary::Any(parts.iter().map(truth).collect()),
        ("_==_", None, [one, other]) => match (attribute(one), attribute(other)) {
            (Some(name), None) => is(name, other),
            (None, Some(name)) => is(name, one),
            _ => Necessary::Nothing,
        },
        ("@in", None, [value, set]) => match (attribute(value), &set.expr) {
            (Some(name), Expr::List(list)) => {
                Necessary::Any(list.elements.iter().map(|element| is(name, element)).collect())
            }
            _ => Necessary::Nothing,
        },
        ("startsWith", Some(target), [start]) => compared(target, start, starts_with),
        ("endsWith", Some(target), [end]) => compared(target, end, ends_with),
        _ => Necessary::Nothing,
    }
}

/// What is necessary for an attribute to equal a literal: values of other types are never equal, and the text of numbers
/// and Booleans is canonical.
fn is(name: &str, literal: &IdedExpr) -> Necessary {
    match &literal.expr {
        Expr::Literal(LiteralValue::String(text)) => equals(name, text.inner()),
        Expr::Literal(LiteralValue::Int(number)) => equals(name, &number.inner().to_string()),
        Expr::Literal(LiteralValue::Boolean(truth)) => equals(name, &truth.inner().to_string()),
        _ => Necessary::Nothing,
    }
}

fn compared(target: &IdedExpr, text: &IdedExpr, necessary: fn(&str, &str) -> Necessary) -> Necessary {
    match (attribute(target), &text.expr) {
        (Some(name), Expr::Literal(LiteralValue::String(text))) => necessary(name, text.inner()),
        _ => Necessary::Nothing,
    }
}

/// The attribute that the node is the value of. There are no other variables outside of loops.
fn attribute(node: &IdedExpr) -> Option<&str> {
    match &node.expr {
        Expr::Ident(name) if name != "data" && name != presence::VARIABLE => Some(name),
        _ => None,
    }
}

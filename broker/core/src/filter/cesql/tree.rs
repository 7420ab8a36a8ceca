//! What an expression is, parsed.

use std::ops::Range;

use super::functions::Function;
use super::value::Value;
use crate::filter::like::Pattern;

/// A sub-expression. The depth of a tree is bounded by [`super::MAX_DEPTH`]: operators of one level stand in one node,
/// however many there are.
#[derive(Debug)]
pub(crate) struct Node {
    /// Its place in the order in which the nodes were read, from 0; a node comes after its parts.
    pub(crate) number: u32,
    /// Where it stands in the text, in bytes, without parentheses around it.
    pub(crate) span: Range<u32>,
    pub(crate) kind: Kind,
}

#[derive(Debug)]
pub(crate) enum Kind {
    Literal(Value<'static>),
    /// The value of an attribute; the name is in lower case.
    Attribute(Box<str>),
    /// `EXISTS name`
    Exists(Box<str>),
    Not(Box<Node>),
    Negative(Box<Node>),
    Like {
        value: Box<Node>,
        negated: bool,
        pattern: Pattern,
    },
    In {
        value: Box<Node>,
        negated: bool,
        set: Box<[Node]>,
    },
    /// `*`, `/`, `%`, or `+` and `-`: one level to a node.
    Arithmetic(Chain<ArithmeticOperator>),
    Comparison(Chain<ComparisonOperator>),
    Logic(Chain<LogicOperator>),
    Call {
        /// As it was written.
        name: Box<str>,
        /// None where there is no such function with so many parameters.
        function: Option<Function>,
        arguments: Box<[Node]>,
    },
}

/// Operators of one level, applied from left to right.
#[derive(Debug)]
pub(crate) struct Chain<O> {
    pub(crate) first: Box<Node>,
    /// At least one.
    pub(crate) rest: Box<[(O, Node)]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ArithmeticOperator {
    Multiply,
    Divide,
    Modulo,
    Add,
    Subtract,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ComparisonOperator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogicOperator {
    And,
    Or,
    Xor,
}

impl LogicOperator {
    pub(crate) const fn keyword(self) -> &'static str {
        match self {
            Self::And => "AND",
            Self::Or => "OR",
            Self::Xor => "XOR",
        }
    }
}

impl Node {
    /// The part of the text that the node was read from.
    pub(crate) fn text<'t>(&self, text: &'t str) -> &'t str {
        &text[self.span.start as usize..self.span.end as usize]
    }

    /// Whether an attribute is named in it.
    pub(crate) fn asks(&self) -> bool {
        matches!(self.kind, Kind::Attribute(_) | Kind::Exists(_)) || self.parts().into_iter().any(Self::asks)
    }

    /// The sub-expressions, in the order of the text.
    pub(crate) fn parts(&self) -> Vec<&Node> {
        fn chain<O>(chain: &Chain<O>) -> Vec<&Node> {
            std::iter::once(&*chain.first).chain(chain.rest.iter().map(|(_, node)| node)).collect()
        }
        match &self.kind {
            Kind::Literal(_) | Kind::Attribute(_) | Kind::Exists(_) => Vec::new(),
            Kind::Not(operand) | Kind::Negative(operand) => vec![operand],
            Kind::Like { value, .. } => vec![value],
            Kind::In { value, set, .. } => std::iter::once(&**value).chain(set).collect(),
            Kind::Arithmetic(operators) => chain(operators),
            Kind::Comparison(operators) => chain(operators),
            Kind::Logic(operators) => chain(operators),
            Kind::Call { arguments, .. } => arguments.iter().collect(),
        }
    }
}

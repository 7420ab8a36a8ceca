//! What an evaluation may cost, estimated from the tree and the data before it begins.
//!
//! Every node of the tree is a step, and so is every part of text and of lists that it compares, copies or searches.
//! Where a node names a place in the data, its size is the one of what is there; where it names an element of a loop, that
//! of the largest element. A loop costs as much as its body, as often as there are elements.

use std::ops::ControlFlow;

use ::cel::common::ast::{CallExpr, ComprehensionExpr, Expr, IdedExpr, LiteralValue};
use serde_json::Value as Json;

use super::{of_entry, order, parts};
use crate::filter::candidate::{BYTES_PER_STEP, BudgetSpent, Candidate, MAX_STEPS};

/// What a value takes besides its text, in bytes.
const BYTES_OF_A_VALUE: u64 = 16;

/// How much of an element is copied in one step of a loop.
const COPIED_BYTES_PER_STEP: u64 = 16;

/// What it takes to compile the pattern of `matches`, which is done for each call.
const STEPS_OF_A_PATTERN: u64 = 500;

/// Takes the steps of the estimate from the candidate.
pub(super) fn charge(
    root: &IdedExpr,
    candidate: &Candidate<'_>,
    reads_data: bool,
) -> Result<(), BudgetSpent> {
    let data = if reads_data { candidate.data().ok() } else { None };
    if reads_data && let Ok(text) = candidate.json_text() {
        // It is made a value of CEL.
        candidate.spend(u32::try_from(text.len() / COPIED_BYTES_PER_STEP as usize).unwrap_or(u32::MAX))?;
    }
    let mut estimate = Estimate { candidate, data, variables: Vec::new(), steps: 0 };
    match estimate.node(root) {
        ControlFlow::Continue(_) => candidate.spend(u32::try_from(estimate.steps).unwrap_or(u32::MAX)),
        ControlFlow::Break(()) => candidate.spend(u32::MAX),
    }
}

/// What is known about the size of a value.
#[derive(Debug, Clone, Copy, Default)]
struct Bound<'d> {
    /// The value itself, where it is a place in the data.
    json: Option<&'d Json>,
    /// All of its text and values.
    bytes: u64,
    /// The most bytes of an element of it.
    part: u64,
    /// The number of elements of it, or of any value in it.
    elements: u64,
}

impl<'d> Bound<'d> {
    fn of(json: &'d Json) -> Self {
        let (children, own) = match json {
            Json::Array(items) => (items.iter().map(Self::of).reduce(Self::and), items.len()),
            Json::Object(members) => {
                let names: u64 = members.keys().map(|name| name.len() as u64).sum();
                let children = members.values().map(Self::of).reduce(Self::and);
                (
                    Some(children.unwrap_or_default().and(Self { bytes: names, ..Self::default() })),
                    members.len(),
                )
            }
            Json::String(text) => (Some(Self { bytes: text.len() as u64, ..Self::default() }), 0),
            _ => (None, 0),
        };
        let children = children.unwrap_or_default();
        Self {
            json: Some(json),
            bytes: children.bytes + BYTES_OF_A_VALUE,
            part: children.bytes,
            elements: children.elements.max(own as u64),
        }
    }

    /// Both, as parts of one value.
    fn and(self, other: Self) -> Self {
        Self {
            json: None,
            bytes: self.bytes.saturating_add(other.bytes),
            part: self.part.max(other.part),
            elements: self.elements.max(other.elements),
        }
    }

    /// Either of the two.
    fn or(self, other: Self) -> Self {
        Self {
            json: None,
            bytes: self.bytes.max(other.bytes),
            part: self.part.max(other.part),
            elements: self.elements.max(other.elements),
        }
    }

    /// The bound of each element, and how many there are.
    fn element(self) -> (Self, u64) {
        match self.json {
            Some(Json::Array(items)) => {
                (items.iter().map(Self::of).reduce(Self::or).unwrap_or_default(), items.len() as u64)
            }
            // A loop over a map is one over its keys.
            Some(Json::Object(members)) => (Self { json: None, ..self }, members.len() as u64),
            Some(_) => (Self::default(), 0),
            None => (Self { bytes: self.part, ..self }, self.elements),
        }
    }

    fn member(self, name: &str) -> Self {
        match self.json {
            Some(json) => json.get(name).map(Self::at).unwrap_or_default(),
            None => self,
        }
    }

    /// A place that is not measured before something needs it.
    fn at(json: &'d Json) -> Self {
        Self { json: Some(json), ..Self::default() }
    }
}

struct Estimate<'c, 'e> {
    candidate: &'c Candidate<'e>,
    data: Option<&'c Json>,
    /// The variables of the loops around the node.
    variables: Vec<(&'c str, Bound<'c>)>,
    steps: u64,
}

impl<'c> Estimate<'c, '_> {
    /// Adds steps, and ends the estimate where there are too many anyway.
    fn add(&mut self, steps: u64) -> ControlFlow<()> {
        self.steps = self.steps.saturating_add(steps);
        if self.steps > u64::from(MAX_STEPS) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn node(&mut self, node: &'c IdedExpr) -> ControlFlow<(), Bound<'c>> {
        self.add(1)?;
        ControlFlow::Continue(match &node.expr {
            Expr::Unspecified => Bound::default(),
            Expr::Literal(LiteralValue::String(text)) => {
                Bound { bytes: text.inner().len() as u64, ..Bound::default() }
            }
            Expr::Literal(LiteralValue::Bytes(bytes)) => {
                Bound { bytes: bytes.inner().len() as u64, ..Bound::default() }
            }
            Expr::Literal(_) => Bound { bytes: BYTES_OF_A_VALUE, ..Bound::default() },
            Expr::Ident(name) => self.variable(name)?,
            Expr::Select(select) => {
                let of = self.node(&select.operand)?;
                if select.test { Bound::default() } else { of.member(&select.field) }
            }
            Expr::Call(call) => self.call(call)?,
            Expr::List(list) => self.all(list.elements.iter(), list.elements.len())?,
            Expr::Map(map) => {
                self.all(map.entries.iter().flat_map(|entry| of_entry(&entry.expr)), map.entries.len())?
            }
            Expr::Struct(_) => self.all(parts(node), 0)?,
            Expr::Comprehension(comprehension) => self.comprehension(comprehension)?,
        })
    }

    fn variable(&mut self, name: &str) -> ControlFlow<(), Bound<'c>> {
        if let Some((_, bound)) = self.variables.iter().rev().find(|(known, _)| *known == name) {
            return ControlFlow::Continue(*bound);
        }
        let event = self.candidate.event();
        if let Some(data) = self.data.filter(|_| name == "data") {
            return ControlFlow::Continue(Bound::at(data));
        }
        // A name of the map of all attributes, or one of them, is looked for among all.
        self.add(event.attribute_count() as u64)?;
        let text = event.attribute(name).map_or(0, |value| value.text.len());
        ControlFlow::Continue(Bound { bytes: text as u64, ..Bound::default() })
    }

    /// Values that are parts of one.
    fn all(
        &mut self,
        nodes: impl IntoIterator<Item = &'c IdedExpr>,
        elements: usize,
    ) -> ControlFlow<(), Bound<'c>> {
        let mut whole = Bound { elements: elements as u64, ..Bound::default() };
        for node in nodes {
            let bound = self.node(node)?;
            let bound = self.measured(bound)?;
            whole = whole.and(bound);
            whole.bytes = whole.bytes.saturating_add(BYTES_OF_A_VALUE);
            whole.part = whole.part.max(bound.bytes);
        }
        ControlFlow::Continue(whole)
    }

    /// The bound with the size of the place.
    fn measured(&mut self, bound: Bound<'c>) -> ControlFlow<(), Bound<'c>> {
        let Some(json) = bound.json.filter(|_| bound.bytes == 0) else { return ControlFlow::Continue(bound) };
        let measured = Bound::of(json);
        self.add(measured.bytes / BYTES_PER_STEP as u64)?;
        ControlFlow::Continue(measured)
    }

    fn call(&mut self, call: &'c CallExpr) -> ControlFlow<(), Bound<'c>> {
        let operands: Vec<_> = call.target.iter().map(|target| &**target).chain(&call.args).collect();
        if let ("_[_]", [of, index]) = (call.func_name.as_str(), operands.as_slice()) {
            let bound = self.node(of)?;
            self.node(index)?;
            return ControlFlow::Continue(match (&index.expr, bound.json) {
                (Expr::Literal(LiteralValue::String(name)), _) => bound.member(name.inner()),
                (Expr::Literal(LiteralValue::Int(place)), Some(Json::Array(items))) => {
                    let item = usize::try_from(*place.inner()).ok().and_then(|place| items.get(place));
                    item.map(Bound::at).unwrap_or_default()
                }
                (_, Some(_)) => self.measured(bound)?.element().0,
                (_, None) => bound.element().0,
            });
        }
        if let (order::FUNCTION, [range]) = (call.func_name.as_str(), operands.as_slice()) {
            let range = self.node(range)?;
            let range = self.measured(range)?;
            if !matches!(range.json, Some(Json::Array(_))) {
                let count = range.element().1;
                self.add(count.saturating_mul(u64::from(count.checked_ilog2().unwrap_or(0))))?;
            }
            return ControlFlow::Continue(range);
        }
        let mut whole = Bound::default();
        for operand in &operands {
            let bound = self.node(operand)?;
            whole = whole.and(self.measured(bound)?);
        }
        match call.func_name.as_str() {
            "_&&_" | "_||_" | "!_" | "@not_strictly_false" => return ControlFlow::Continue(Bound::default()),
            "_?_:_" => return ControlFlow::Continue(whole),
            "matches" => self.add(STEPS_OF_A_PATTERN)?,
            _ => {}
        }
        self.add(whole.bytes / BYTES_PER_STEP as u64)?;
        whole.elements = whole.elements.saturating_mul(operands.len() as u64);
        ControlFlow::Continue(whole)
    }

    fn comprehension(&mut self, of: &'c ComprehensionExpr) -> ControlFlow<(), Bound<'c>> {
        let range = self.node(&of.iter_range)?;
        let range = self.measured(range)?;
        let (element, count) = range.element();
        let before = self.variables.len();
        let init = self.node(&of.accu_init)?;
        // Elements are appended in place, so that what was gathered is not copied for each.
        self.variables.push((of.accu_var.as_str(), init));
        self.variables.push((of.iter_var.as_str(), element));
        if let Some(second) = &of.iter_var2 {
            self.variables.push((second.as_str(), element));
        }
        let start = self.steps;
        self.add(2 + element.bytes / COPIED_BYTES_PER_STEP)?;
        self.node(&of.loop_cond)?;
        let step = self.node(&of.loop_step)?;
        let body = self.steps - start;
        // The body was counted once, which also stands for a loop over nothing.
        self.add(body.saturating_mul(count.saturating_sub(1)))?;
        self.variables.truncate(before);
        let gathered = Bound {
            json: None,
            bytes: step.bytes.saturating_mul(count),
            part: step.part,
            elements: step.elements.max(count),
        };
        self.variables.push((of.accu_var.as_str(), gathered));
        let result = self.node(&of.result)?;
        self.variables.truncate(before);
        ControlFlow::Continue(result)
    }
}

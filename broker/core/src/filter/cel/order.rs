//! Loops over maps, made to have an order: the crate's maps have none, and another at each evaluation, so that
//! `data.map(key, key)[0] == 'a'` would match or not by chance. A match list that was lost is made anew from the events
//! and must come out as it was, so that every loop is over the keys in their order: of strings that of their code points.

use ::cel::common::ast::{CallExpr, EntryExpr, Expr, IdedExpr};
use ::cel::common::types::{CelList, CelMap, CelMapKey, DYN_TYPE};
use ::cel::common::value::{CowVal, Val};
use ::cel::{Env, ExecutionError};

/// The function around what a loop is over. No expression can be written that has this name.
pub(super) const FUNCTION: &str = "@in_order";

/// Makes the function known.
pub(super) fn declare(environment: &mut Env) {
    environment
        .add_overload(FUNCTION, FUNCTION, vec![DYN_TYPE], in_order)
        .expect("no other function can have this name");
}

/// The keys of a map; anything else as it is.
fn in_order<'b, 'v>(mut arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let range = arguments.pop().ok_or(ExecutionError::InvalidArgumentCount { expected: 1, actual: 0 })?;
    let Some(map) = range.downcast_ref::<CelMap<'_>>() else { return Ok(range) };
    let mut keys: Vec<_> = map.inner().keys().cloned().collect();
    keys.sort_unstable();
    Ok(CowVal::owned(CelList::from(keys.into_iter().map(boxed).collect::<Vec<_>>())))
}

fn boxed<'v>(key: CelMapKey<'v>) -> Box<dyn Val + 'v> {
    match key {
        CelMapKey::Bool(key) => Box::new(key),
        CelMapKey::Int(key) => Box::new(key),
        CelMapKey::String(key) => Box::new(key),
        CelMapKey::UInt(key) => Box::new(key),
    }
}

/// Puts the function around what each loop of the expression is over, where that may be a map. The text's length and the
/// parser bound the depth.
pub(super) fn put(expression: &mut IdedExpr) {
    if let Expr::Comprehension(of) = &mut expression.expr {
        // Loops yield lists and truths.
        if !matches!(of.iter_range.expr, Expr::List(_) | Expr::Comprehension(_)) {
            let range = std::mem::take(&mut of.iter_range);
            let call = CallExpr { func_name: FUNCTION.to_owned(), target: None, args: vec![range] };
            of.iter_range = IdedExpr { id: 0, expr: Expr::Call(call) };
        }
    }
    match &mut expression.expr {
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => {}
        Expr::Call(call) => {
            call.target.iter_mut().for_each(|target| put(target));
            call.args.iter_mut().for_each(put);
        }
        Expr::Comprehension(of) => {
            [&mut of.iter_range, &mut of.accu_init, &mut of.loop_cond, &mut of.loop_step, &mut of.result]
                .into_iter()
                .for_each(put);
        }
        Expr::List(list) => list.elements.iter_mut().for_each(put),
        Expr::Map(map) => map.entries.iter_mut().for_each(|entry| put_into(&mut entry.expr)),
        Expr::Struct(of) => of.entries.iter_mut().for_each(|entry| put_into(&mut entry.expr)),
        Expr::Select(select) => put(&mut select.operand),
    }
}

fn put_into(entry: &mut EntryExpr) {
    match entry {
        EntryExpr::StructField(field) => put(&mut field.value),
        EntryExpr::MapEntry(entry) => {
            put(&mut entry.key);
            put(&mut entry.value);
        }
    }
}

//! Which values are equal, and which comes first: as jq says, each look counted.

use std::cmp::Ordering;

use jaq_json::{Map, Val};

use super::{Value, own_bytes};
use crate::meter::step;

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        equal(&self.val, &other.val)
    }
}

impl Eq for Value {}

fn equal(one: &Val, other: &Val) -> bool {
    step(1);
    match (one, other) {
        (Val::Arr(one), Val::Arr(other)) => {
            one.len() == other.len() && one.iter().zip(other.iter()).all(|(one, other)| equal(one, other))
        }
        (Val::Obj(one), Val::Obj(other)) => {
            one.len() == other.len()
                && one.iter().all(|(name, one)| other.get(name).is_some_and(|other| equal(one, other)))
        }
        (Val::Arr(_) | Val::Obj(_), _) | (_, Val::Arr(_) | Val::Obj(_)) => false,
        _ => {
            step(u64::from(own_bytes(one).min(own_bytes(other)) / 256));
            one == other
        }
    }
}

impl PartialOrd for Value {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Value {
    fn cmp(&self, other: &Self) -> Ordering {
        order(&self.val, &other.val)
    }
}

fn order(one: &Val, other: &Val) -> Ordering {
    step(1);
    match (one, other) {
        (Val::Arr(one), Val::Arr(other)) => {
            let mut pairs = one.iter().zip(other.iter()).map(|(one, other)| order(one, other));
            pairs.find(|order| order.is_ne()).unwrap_or_else(|| one.len().cmp(&other.len()))
        }
        (Val::Obj(one), Val::Obj(other)) => {
            let sorted = |members: &Map| {
                step(members.len() as u64);
                let mut names: Vec<Val> = members.keys().cloned().collect();
                names.sort();
                names
            };
            let (names, others) = (sorted(one), sorted(other));
            names.cmp(&others).then_with(|| {
                let null = Val::Null;
                let value = |members: &Map, name: &Val| members.get(name).unwrap_or(&null).clone();
                let mut orders = names.iter().map(|name| order(&value(one, name), &value(other, name)));
                orders.find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
            })
        }
        // Null, false, true, numbers, strings, arrays, objects: the crate looks at the kind first.
        _ => {
            step(u64::from(own_bytes(one).min(own_bytes(other)) / 256));
            one.cmp(other)
        }
    }
}

//! The values of jq: those of the crate, with a bound of their size and depth.
//!
//! Values share their parts, so that a few steps could make one whose text is beyond all memory, or so deep that
//! dropping it overruns the stack. Each value therefore carries an upper bound of both, which is enough to tell in most
//! cases that it is small; where it is not, the value is measured.

mod arithmetic;
mod comparison;

use std::cell::Cell;
use std::fmt;
use std::ops::Range;

use jaq_core::path::Opt;
use jaq_core::{Error, Exn, ValR, ValX};
use jaq_json::{Map, Num, Rc, Val};
use waypost_core::transformation::json::MAX_DEPTH;

use crate::meter::{Stop, make, step, stop};

/// The largest value, in bytes of its text and places.
pub(super) const MAX_VALUE_BYTES: u32 = 16 * 1024 * 1024;

/// The deepest value, in levels of arrays and objects: that of data.
pub(super) const MAX_VALUE_DEPTH: u16 = MAX_DEPTH as u16;

/// The longest array that an assignment fills up with nulls.
const MAX_FILLED: usize = 100_000;

/// What a place in an array or object counts for.
const PLACE: u32 = 16;

/// A value with the bounds.
#[derive(Debug, Clone)]
pub(super) struct Value {
    val: Val,
    bytes: u32,
    depth: u16,
}

type Result<T = Value, E = Error<Value>> = std::result::Result<T, E>;

impl Value {
    /// A value as the crate has it. Measures it.
    pub(super) fn measured(val: Val) -> Self {
        let mut measure = Measure { bytes: 0 };
        let depth = measure.depth(&val, 0);
        Self { val, bytes: measure.bytes, depth }
    }

    /// A value that was measured as it was made.
    pub(super) fn bounded(val: Val, bytes: u32, depth: u16) -> Self {
        Self { val, bytes, depth }
    }

    /// The value as the crate has it.
    pub(super) fn val(&self) -> &Val {
        &self.val
    }

    pub(super) fn into_val(self) -> Val {
        self.val
    }

    /// A string.
    pub(super) fn text(text: impl Into<bytes::Bytes>) -> Self {
        Self::plain(Val::utf8_str(text))
    }

    /// No array or object, and of any size: a text that was just made.
    fn made(val: Val) -> Self {
        let value = Self::plain(val);
        make(value.bytes as usize);
        value
    }

    /// No array or object.
    fn plain(val: Val) -> Self {
        let bytes = PLACE.saturating_add(own_bytes(&val));
        if bytes > MAX_VALUE_BYTES {
            stop(Stop::Value("larger than 16 MiB"));
        }
        Self { val, bytes, depth: 0 }
    }

    /// An array or object of which a bound is known.
    fn whole(val: Val, bytes: u32, depth: u16) -> Self {
        if bytes <= MAX_VALUE_BYTES && depth <= MAX_VALUE_DEPTH {
            Self { val, bytes, depth }
        } else {
            Self::measured(val)
        }
    }

    /// What changing it in place costs where it is shared, and so copied.
    fn change(&self) {
        match &self.val {
            Val::Arr(items) if Rc::strong_count(items) > 1 => copy(items.len(), 16),
            Val::Obj(members) if Rc::strong_count(members) > 1 => copy(members.len(), 48),
            Val::TStr(text) | Val::BStr(text) if !text.is_unique() => make(text.len()),
            _ => {}
        }
    }

    /// What appending it to another costs.
    fn append(&self) {
        match &self.val {
            Val::Arr(items) => copy(items.len(), 16),
            Val::Obj(members) => copy(members.len(), 48),
            Val::TStr(text) | Val::BStr(text) => make(text.len()),
            _ => {}
        }
    }

    /// What a look at all of it costs.
    pub(super) fn look_at_all(&self) {
        step(u64::from(self.bytes / 64));
    }

    /// Without its bounds being looser than they need to be.
    fn tight(self) -> Self {
        if self.depth == 0 { self } else { Self::measured(self.val) }
    }

    /// The length of a string in characters, the absolute value of a number, the count of places.
    pub(super) fn length(&self) -> Result {
        Ok(match &self.val {
            Val::Null => 0_usize.into(),
            Val::TStr(text) => {
                step(text.len() as u64 / 64);
                String::from_utf8_lossy(text).chars().count().into()
            }
            Val::BStr(bytes) => bytes.len().into(),
            Val::Arr(items) => items.len().into(),
            Val::Obj(members) => members.len().into(),
            Val::Num(_) if self < &Self::from(0_isize) => return -self.clone(),
            Val::Num(_) => self.clone(),
            Val::Bool(_) => return Err(Error::str(format!("{self} has no length"))),
        })
    }

    /// Whether there is such a place.
    pub(super) fn has(&self, key: &Self) -> Result<bool> {
        Ok(match (&self.val, &key.val) {
            (Val::Obj(members), Val::TStr(_)) => members.contains_key(&key.val),
            (Val::Arr(items), Val::Num(Num::Int(place))) => {
                usize::try_from(*place).is_ok_and(|place| place < items.len())
            }
            _ => return Err(Error::index(self.clone(), key.clone())),
        })
    }

    fn index_of(val: Val, index: &Val) -> Result<Val, jaq_json::Error> {
        jaq_core::ValT::index(val, index)
    }
}

/// A part of what has these bounds.
fn part(val: Val, bytes: u32, depth: u16) -> Value {
    match val {
        Val::Arr(_) | Val::Obj(_) => Value { val, bytes, depth: depth.saturating_sub(1).max(1) },
        val => Value { bytes: PLACE.saturating_add(own_bytes(&val)), val, depth: 0 },
    }
}

fn copy(places: usize, bytes: usize) {
    step(places as u64 / 4);
    make(places.saturating_mul(bytes));
}

fn own_bytes(val: &Val) -> u32 {
    match val {
        Val::TStr(text) | Val::BStr(text) => u32::try_from(text.len()).unwrap_or(u32::MAX),
        Val::Num(Num::BigInt(number)) => u32::try_from(number.bits() / 3).unwrap_or(u32::MAX),
        Val::Num(Num::Dec(text)) => u32::try_from(text.len()).unwrap_or(u32::MAX),
        _ => 0,
    }
}

/// Measures values exactly, and ends the program where one is too large or too deep.
struct Measure {
    bytes: u32,
}

impl Measure {
    fn depth(&mut self, val: &Val, above: u16) -> u16 {
        if above >= MAX_VALUE_DEPTH && matches!(val, Val::Arr(_) | Val::Obj(_)) {
            stop(Stop::Value("nested deeper than data may be"));
        }
        self.bytes = self.bytes.saturating_add(PLACE).saturating_add(own_bytes(val));
        if self.bytes > MAX_VALUE_BYTES {
            stop(Stop::Value("larger than 16 MiB"));
        }
        match val {
            Val::Arr(items) => {
                step(1 + items.len() as u64 / 8);
                1 + items.iter().map(|item| self.depth(item, above + 1)).max().unwrap_or(0)
            }
            Val::Obj(members) => {
                step(1 + members.len() as u64 / 4);
                let below = members.iter().map(|(name, value)| {
                    self.bytes = self.bytes.saturating_add(PLACE).saturating_add(own_bytes(name));
                    self.depth(value, above + 1)
                });
                1 + below.max().unwrap_or(0)
            }
            _ => 0,
        }
    }
}

/// An error of the crate as one of ours.
fn ours(error: jaq_json::Error) -> Error<Value> {
    Error::new(Value::measured(error.into_val()))
}

/// Applies an operation of the crate.
fn plainly(result: std::result::Result<Val, jaq_json::Error>) -> Result<Val> {
    result.map_err(ours)
}

impl jaq_core::ValT for Value {
    fn from_num(text: &str) -> ValR<Self> {
        plainly(Val::from_num(text)).map(Self::plain)
    }

    fn from_map<I: IntoIterator<Item = (Self, Self)>>(members: I) -> ValR<Self> {
        let (mut bytes, mut depth, mut map) = (PLACE, 0, Map::default());
        for (name, value) in members {
            step(1);
            make(48);
            if !matches!(name.val, Val::TStr(_)) {
                return Err(Error::str(format!("object keys must be strings, not {}", excerpt(&name))));
            }
            bytes = bytes.saturating_add(name.bytes).saturating_add(value.bytes);
            depth = depth.max(value.depth);
            map.insert(name.val, value.val);
        }
        Ok(Self::whole(Val::obj(map), bytes, depth + 1))
    }

    fn key_values(self) -> jaq_core::box_iter::BoxIter<'static, ValR<(Self, Self), Self>> {
        self.change();
        let (bytes, depth) = (self.bytes, self.depth);
        Box::new(jaq_core::ValT::key_values(self.val).map(move |pair| {
            step(1);
            let (key, value) = pair.map_err(ours)?;
            Ok((part(key, bytes, depth), part(value, bytes, depth)))
        }))
    }

    fn values(self) -> Box<dyn Iterator<Item = ValR<Self>>> {
        self.change();
        let (bytes, depth) = (self.bytes, self.depth);
        Box::new(jaq_core::ValT::values(self.val).map(move |value| {
            step(1);
            Ok(part(value.map_err(ours)?, bytes, depth))
        }))
    }

    fn index(self, index: &Self) -> ValR<Self> {
        if let (Val::Arr(items), Val::Arr(_)) = (&self.val, &index.val) {
            self.look_at_all();
            copy(items.len(), 16);
        }
        let (bytes, depth) = (self.bytes, self.depth);
        // As jq has it, a place between two is the one before it.
        let found = match (&self.val, &index.val) {
            (Val::Obj(_), other) if !matches!(other, Val::TStr(_)) => {
                return Err(Error::index(self, index.clone()));
            }
            (Val::Arr(_), Val::Num(Num::Float(_) | Num::Dec(_))) => {
                let place = jaq_std::ValT::as_f64(&index.val).unwrap_or(f64::NAN).floor();
                Self::index_of(self.val, &Val::from(place as isize))
            }
            _ => Self::index_of(self.val, &index.val),
        };
        let found = plainly(found)?;
        // Places of another array are new.
        Ok(if matches!(index.val, Val::Arr(_)) {
            Self::measured(found)
        } else {
            // A slice is as deep as what it is of.
            let depth = if matches!(index.val, Val::Obj(_)) { depth.saturating_add(1) } else { depth };
            part(found, bytes, depth)
        })
    }

    fn range(self, range: Range<Option<&Self>>) -> ValR<Self> {
        match &self.val {
            Val::Null => return Ok(self),
            Val::Arr(items) => copy(items.len(), 16),
            Val::TStr(text) => step(text.len() as u64 / 64),
            _ => {}
        }
        let (bytes, depth) = (self.bytes, self.depth);
        let bounds = range.start.map(Self::val)..range.end.map(Self::val);
        Ok(part(plainly(jaq_core::ValT::range(self.val, bounds))?, bytes, depth.saturating_add(1)))
    }

    fn map_values<'a, I: Iterator<Item = ValX<'a, Self>>>(
        self,
        opt: Opt,
        f: impl Fn(Self) -> I,
    ) -> ValX<'a, Self> {
        self.change();
        let (bytes, depth) = (self.bytes, self.depth);
        match self.val {
            Val::Arr(items) => {
                let items = Rc::try_unwrap(items).unwrap_or_else(|items| (*items).clone());
                items.into_iter().flat_map(|item| f(part(item, bytes, depth))).collect()
            }
            Val::Obj(members) => {
                let members = Rc::try_unwrap(members).unwrap_or_else(|members| (*members).clone());
                let pairs = members.into_iter().filter_map(|(name, value)| {
                    let value = f(part(value, bytes, depth)).next()?;
                    Some(value.map(|value| (Self::plain(name), value)))
                });
                let pairs: Vec<_> = pairs.collect::<std::result::Result<_, Exn<'a, Self>>>()?;
                Ok(Self::from_map(pairs)?)
            }
            val => {
                let value = Self { val, bytes, depth };
                opt.fail(value, |value| Exn::from(Error::typ(value, "iterable (array or object)")))
            }
        }
    }

    fn map_index<'a, I: Iterator<Item = ValX<'a, Self>>>(
        mut self,
        index: &Self,
        opt: Opt,
        f: impl Fn(Self) -> I,
    ) -> ValX<'a, Self> {
        if let (Val::Null | Val::Arr(_), Val::Obj(of)) = (&self.val, &index.val) {
            let bound = |name| of.get(&Val::utf8_str(name)).cloned().map(Self::measured);
            let (start, end) = (bound("start"), bound("end"));
            return self.map_range(start.as_ref()..end.as_ref(), opt, f);
        }
        self.change();
        let (bytes, depth) = (self.bytes, self.depth);
        let added = Cell::new((0_u32, 0_u16));
        let changed = |value: Option<Self>| {
            value.map(|value| {
                added.set((value.bytes.saturating_add(index.bytes), value.depth));
                value.val
            })
        };
        match (&mut self.val, &index.val) {
            // As jq has it, null becomes what the assignment needs.
            (Val::Null, Val::TStr(_)) => match changed(f(Self::from_null()).next().transpose()?) {
                Some(value) => self.val = Val::obj([(index.val.clone(), value)].into_iter().collect()),
                None => return Ok(self),
            },
            (Val::Obj(members), Val::TStr(_)) => {
                let members = Rc::make_mut(members);
                match members.get_mut(&index.val) {
                    Some(place) => {
                        let value = part(std::mem::take(place), bytes, depth);
                        match changed(f(value).next().transpose()?) {
                            Some(value) => *place = value,
                            None => drop(members.shift_remove(&index.val)),
                        }
                    }
                    None => {
                        if let Some(value) = changed(f(Self::from_null()).next().transpose()?) {
                            make(48);
                            members.insert(index.val.clone(), value);
                        }
                    }
                }
            }
            (val @ (Val::Null | Val::Arr(_)), Val::Num(number)) => {
                let mut none = Rc::default();
                let missing = matches!(val, Val::Null);
                let items = if let Val::Arr(items) = val { items } else { &mut none };
                // As jq has it, a place between two is the one before it.
                let whole = number.as_isize().or_else(|| {
                    let place = jaq_std::ValT::as_f64(&index.val)?.floor();
                    // A float that is out of range becomes the closest number in it.
                    place.is_finite().then_some(place as isize)
                });
                let place = whole.and_then(|place| match place {
                    0.. => usize::try_from(place).ok(),
                    _ => items.len().checked_sub(place.unsigned_abs()),
                });
                let Some(place) = place else {
                    return opt.fail(self, |_| Exn::from(Error::str("the index is outside of the array")));
                };
                if place > MAX_FILLED && place >= items.len() {
                    stop(Stop::Value("filled up with more than 100,000 nulls"));
                }
                let items_mut = Rc::make_mut(items);
                if place < items_mut.len() {
                    let value = part(std::mem::take(&mut items_mut[place]), bytes, depth);
                    match changed(f(value).next().transpose()?) {
                        Some(value) => items_mut[place] = value,
                        None => drop(items_mut.remove(place)),
                    }
                } else if let Some(value) = changed(f(Self::from_null()).next().transpose()?) {
                    let count = place + 1 - items_mut.len();
                    copy(count, 16);
                    let more = u32::try_from(count).unwrap_or(u32::MAX).saturating_mul(PLACE);
                    let (bytes, depth) = added.get();
                    added.set((bytes.saturating_add(more), depth));
                    items_mut.resize(place, Val::Null);
                    items_mut.push(value);
                } else {
                    return Ok(self);
                }
                if missing {
                    self.val = Val::Arr(none);
                }
            }
            _ => {
                return opt.fail(self, |value| Exn::from(Error::index(value, index.clone())));
            }
        }
        let (more, below) = added.get();
        Ok(Self::whole(self.val, bytes.saturating_add(more), depth.max(below + 1)))
    }

    fn map_range<'a, I: Iterator<Item = ValX<'a, Self>>>(
        self,
        range: Range<Option<&Self>>,
        opt: Opt,
        f: impl Fn(Self) -> I,
    ) -> ValX<'a, Self> {
        self.change();
        let val = if matches!(self.val, Val::Null) { Val::Arr(Rc::default()) } else { self.val };
        let bounds = range.start.map(Self::val)..range.end.map(Self::val);
        // Errors that pass through the crate are told apart again by the cell.
        let failed: Cell<Option<Exn<'a, Self>>> = Cell::new(None);
        let changed = jaq_core::ValT::map_range(val, bounds, opt, |part| {
            let results: Vec<ValX<'a, Val>> = f(Self::measured(part))
                .take(1)
                .map(|result| {
                    result.map(Self::into_val).map_err(|error| {
                        failed.set(Some(error));
                        Exn::from(Error::new(Val::Null))
                    })
                })
                .collect();
            results.into_iter()
        });
        match (changed, failed.take()) {
            (_, Some(error)) => Err(error),
            (Ok(val), None) => Ok(Self::measured(val)),
            (Err(error), None) => Err(error.get_err().map_or_else(
                |_| Exn::from(Error::str("the range cannot be assigned")),
                |error| Exn::from(ours(error)),
            )),
        }
    }

    fn as_bool(&self) -> bool {
        !matches!(self.val, Val::Null | Val::Bool(false))
    }

    fn into_string(self) -> Self {
        match self.val {
            Val::TStr(_) => self,
            Val::BStr(text) => Self { val: Val::TStr(text), ..self },
            val => {
                let value = Self { val, ..self }.tight();
                value.look_at_all();
                Self::made(Val::utf8_str(super::convert::json_text(&value.val)))
            }
        }
    }
}

impl jaq_std::ValT for Value {
    fn into_seq<S: FromIterator<Self>>(self) -> Result<S, Self> {
        self.change();
        match self.val {
            Val::Arr(items) => {
                let (bytes, depth) = (self.bytes, self.depth);
                let items = Rc::try_unwrap(items).unwrap_or_else(|items| (*items).clone());
                Ok(items.into_iter().map(|item| part(item, bytes, depth)).collect())
            }
            _ => Err(self),
        }
    }

    fn is_int(&self) -> bool {
        jaq_std::ValT::is_int(&self.val)
    }

    fn as_isize(&self) -> Option<isize> {
        jaq_std::ValT::as_isize(&self.val)
    }

    fn as_f64(&self) -> Option<f64> {
        jaq_std::ValT::as_f64(&self.val)
    }

    fn is_utf8_str(&self) -> bool {
        matches!(self.val, Val::TStr(_))
    }

    fn as_bytes(&self) -> Option<&[u8]> {
        jaq_std::ValT::as_bytes(&self.val)
    }

    fn as_sub_str(&self, sub: &[u8]) -> Self {
        step(1);
        make(32);
        Self::plain(jaq_std::ValT::as_sub_str(&self.val, sub))
    }

    fn from_utf8_bytes(text: impl AsRef<[u8]> + Send + 'static) -> Self {
        Self::made(jaq_std::ValT::from_utf8_bytes(text))
    }
}

impl Value {
    pub(super) fn from_null() -> Self {
        Self { val: Val::Null, bytes: PLACE, depth: 0 }
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self { val: Val::Bool(value), bytes: PLACE, depth: 0 }
    }
}

impl From<isize> for Value {
    fn from(value: isize) -> Self {
        step(1);
        Self { val: value.into(), bytes: PLACE, depth: 0 }
    }
}

impl From<usize> for Value {
    fn from(value: usize) -> Self {
        Self { val: value.into(), bytes: PLACE, depth: 0 }
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self { val: value.into(), bytes: PLACE, depth: 0 }
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::made(text.into())
    }
}

impl From<Range<Option<Self>>> for Value {
    fn from(range: Range<Option<Self>>) -> Self {
        let bytes = [&range.start, &range.end].into_iter().flatten().map(|bound| bound.bytes);
        let bytes = bytes.fold(4 * PLACE, u32::saturating_add);
        let val = Val::from(range.start.map(Self::into_val)..range.end.map(Self::into_val));
        Self::whole(val, bytes, MAX_VALUE_DEPTH + 1)
    }
}

impl FromIterator<Self> for Value {
    fn from_iter<T: IntoIterator<Item = Self>>(items: T) -> Self {
        let (mut bytes, mut depth) = (PLACE, 0);
        let items = items.into_iter().map(|item| {
            step(1);
            make(size_of::<Val>());
            bytes = bytes.saturating_add(item.bytes);
            depth = depth.max(item.depth);
            item.val
        });
        let items: Vec<Val> = items.collect();
        Self::whole(Val::Arr(Rc::new(items)), bytes, depth + 1)
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&excerpt(self))
    }
}

/// The beginning of the text of a value, for messages.
pub(super) fn excerpt(value: &Value) -> String {
    struct Beginning(String);
    impl fmt::Write for Beginning {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            self.0.push_str(text);
            if self.0.len() > 128 { Err(fmt::Error) } else { Ok(()) }
        }
    }
    let mut beginning = Beginning(String::new());
    let whole = fmt::Write::write_fmt(&mut beginning, format_args!("{}", value.val)).is_ok();
    let mut text = beginning.0;
    if !whole || text.len() > 128 {
        text.truncate(text.floor_char_boundary(96));
        text.push('…');
    }
    text
}

//! Access predicates: what has to be true of an event for a filter to match, as keys that are looked up.

use super::condition::{Condition, Leaf, Text, Value, all, any, not};
use crate::filter::jsonpath::scalar::{Comparison, Literal, Scalar};
use smallvec::SmallVec;

/// The longest part of a literal within a pattern that is searched for.
const MAX_LITERAL_BYTES: usize = 64;

/// What a key says about an attribute or a place in the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Kind {
    Equal,
    Starts,
    Ends,
    /// It has this in it somewhere.
    Holds,
    Present,
    /// A text in the data.
    DataText,
    /// A number, a Boolean or null in the data.
    DataScalar,
}

/// A key. `field` is the number of the name, or of the path for data.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) kind: Kind,
    pub(super) field: u32,
    pub(super) value: SmallVec<[u8; 48]>,
}

/// A key that was chosen for a condition.
#[derive(Debug, Clone)]
pub(super) struct Chosen {
    pub(super) key: Key,
    /// Whether the condition is true wherever the key is.
    pub(super) decides: bool,
}

impl Key {
    fn new(kind: Kind, field: u32, value: &[u8]) -> Self {
        Self { kind, field, value: SmallVec::from_slice(value) }
    }

    /// What it costs beside its bucket, in entries: texts that are searched, events that have to be read.
    fn surcharge(&self) -> u64 {
        match self.kind {
            Kind::Equal => 0,
            Kind::Starts | Kind::Ends => 1,
            Kind::Holds => 2,
            Kind::Present => 8,
            Kind::DataText | Kind::DataScalar => 64,
        }
    }
}

/// The bytes under which a scalar of the data is looked up.
pub(super) fn scalar_bytes(scalar: Scalar<'_>) -> Option<(Kind, SmallVec<[u8; 24]>)> {
    let mut bytes = SmallVec::new();
    match scalar {
        Scalar::Null => bytes.push(0),
        Scalar::Boolean(boolean) => bytes.extend_from_slice(&[1, u8::from(boolean)]),
        Scalar::Number(number) => {
            bytes.push(2);
            bytes.extend_from_slice(&number.bytes());
        }
        Scalar::Text(_) | Scalar::Container => return None,
    }
    Some((Kind::DataScalar, bytes))
}

/// Calls back with each key that is necessary for the leaf.
fn keys_of(leaf: &Leaf, each: &mut impl FnMut(Key)) {
    match leaf {
        Leaf::Attribute(name, text) => match text {
            Text::Present => each(Key::new(Kind::Present, *name, &[])),
            Text::Equal(value) => each(Key::new(Kind::Equal, *name, value.as_bytes())),
            Text::Starts(value) => each(Key::new(Kind::Starts, *name, value.as_bytes())),
            Text::Ends(value) => each(Key::new(Kind::Ends, *name, value.as_bytes())),
            Text::Fits(pattern) => {
                if !pattern.prefix().is_empty() {
                    each(Key::new(Kind::Starts, *name, pattern.prefix().as_bytes()));
                }
                if !pattern.suffix().is_empty() {
                    each(Key::new(Kind::Ends, *name, pattern.suffix().as_bytes()));
                }
                for literal in pattern.literals().map(str::as_bytes).filter(|literal| !literal.is_empty()) {
                    let searched = literal.get(..MAX_LITERAL_BYTES).unwrap_or(literal);
                    each(Key::new(Kind::Holds, *name, searched));
                }
                each(Key::new(Kind::Present, *name, &[]));
            }
        },
        Leaf::Data(path, Value::Compare(Comparison::Equal, literal)) => match literal {
            Literal::Text(text) => each(Key::new(Kind::DataText, *path, text.as_bytes())),
            literal => {
                if let Some((kind, bytes)) = scalar_bytes(literal.as_scalar()) {
                    each(Key::new(kind, *path, &bytes));
                }
            }
        },
        Leaf::Data(..) => {}
    }
}

impl Condition {
    /// Calls back with each key that some choice of access predicates could have.
    pub(super) fn each_key(&self, each: &mut impl FnMut(Key)) {
        match self {
            Self::Leaf(leaf) => keys_of(leaf, each),
            Self::All(parts) | Self::Any(parts) => parts.iter().for_each(|part| part.each_key(each)),
            Self::Always | Self::Never | Self::Not(_) => {}
        }
    }

    /// Keys of which at least one is true of every event that fulfils the condition, as cheap as there are, none twice.
    /// None where there are no such keys.
    ///
    /// Of parts that must all be true the cheapest one will do; of alternatives all are needed.
    pub(super) fn cover(&self, mentions: &impl Fn(&Key) -> u64) -> Option<Vec<Chosen>> {
        let (_, mut keys) = self.cheapest(mentions)?;
        // Of the same key twice the one that decides is kept.
        keys.sort_unstable_by(|one, two| one.key.cmp(&two.key).then(two.decides.cmp(&one.decides)));
        keys.dedup_by(|later, kept| later.key == kept.key);
        Some(keys)
    }

    fn cheapest(&self, mentions: &impl Fn(&Key) -> u64) -> Option<(u64, Vec<Chosen>)> {
        match self {
            Self::Always | Self::Not(_) => None,
            Self::Never => Some((0, Vec::new())),
            Self::Leaf(leaf) => {
                let mut best: Option<(u64, Key)> = None;
                keys_of(leaf, &mut |key| {
                    let cost = mentions(&key) + key.surcharge();
                    // Of two that cost the same the longer one is true of fewer events.
                    let better = best
                        .as_ref()
                        .is_none_or(|(least, known)| (cost, known.value.len()) < (*least, key.value.len()));
                    if better {
                        best = Some((cost, key));
                    }
                });
                best.map(|(cost, key)| (cost, vec![Chosen { decides: leaf.has_one_key(), key }]))
            }
            Self::All(parts) => {
                let covers = parts.iter().filter_map(|part| part.cheapest(mentions));
                let (cost, mut keys) = covers.min_by_key(|(cost, _)| *cost)?;
                keys.iter_mut().for_each(|chosen| chosen.decides = false);
                Some((cost, keys))
            }
            Self::Any(parts) => {
                let mut all = (0_u64, Vec::new());
                for part in parts {
                    let (cost, keys) = part.cheapest(mentions)?;
                    all.0 = all.0.saturating_add(cost);
                    all.1.extend(keys);
                }
                Some(all)
            }
        }
    }

    /// What remains to be decided of an event of which the key is true.
    pub(super) fn given(&self, key: &Key) -> Self {
        match self {
            Self::Always => Self::Always,
            Self::Never => Self::Never,
            Self::Leaf(leaf) if leaf.is_decided_by(key) => Self::Always,
            Self::Leaf(_) => self.clone(),
            Self::Not(part) => not(part.given(key)),
            Self::All(parts) => all(parts.iter().map(|part| part.given(key))),
            Self::Any(parts) => any(parts.iter().map(|part| part.given(key))),
        }
    }

    /// How many leaves it has.
    pub(super) fn leaves(&self) -> usize {
        match self {
            Self::Always | Self::Never => 0,
            Self::Leaf(_) => 1,
            Self::Not(part) => part.leaves(),
            Self::All(parts) | Self::Any(parts) => parts.iter().map(Self::leaves).sum(),
        }
    }
}

impl Leaf {
    /// Whether its key, where it has one, says all that it says.
    fn has_one_key(&self) -> bool {
        !matches!(self, Self::Attribute(_, Text::Fits(_)))
    }

    /// Whether the leaf is true wherever the key is.
    fn is_decided_by(&self, key: &Key) -> bool {
        if !self.has_one_key() {
            return false;
        }
        let mut decided = false;
        keys_of(self, &mut |own| decided |= own == *key);
        decided
    }
}

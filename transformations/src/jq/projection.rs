//! Programs that do no more than put parts of the data together, such as `{id, name: .customer.name}`: applied without
//! the crates, to no more of the data than they look at.

use jaq_core::load::lex::StrPart;
use jaq_core::load::parse::{BinaryOp, Term};
use jaq_core::path::{Opt, Part};
use waypost_core::transformation::json::{Json, MAX_DEPTH, Number, Text, Wanted};
use waypost_core::transformation::{Run, TransformationError};

use super::convert::MAX_NUMBER_TEXT;
use super::value::MAX_VALUE_BYTES;

/// The deepest nesting of terms that is looked at.
const MAX_TERM_DEPTH: usize = 32;

/// The most hops of a place.
const MAX_HOPS: usize = 32;

/// The highest index of an element.
const MAX_INDEX: usize = 10_000;

/// A program that is a projection.
#[derive(Debug)]
pub(super) struct Projection {
    form: Form,
    wanted: Wanted,
}

/// What is made.
#[derive(Debug, Clone, PartialEq)]
enum Form {
    /// What is at a place of the data.
    Place(Vec<Hop>),
    Constant(Json),
    Array(Vec<Form>),
    Object(Vec<(Text, Form)>),
}

#[derive(Debug, Clone, PartialEq)]
enum Hop {
    Member(Text),
    Element(usize),
}

impl Projection {
    /// The program, where it is a projection.
    pub(super) fn of(program: &str) -> Option<Self> {
        let term: Term<&str> = jaq_core::load::parse(program, |parser| parser.term())?;
        let form = Form::of(&term, &[], 0)?;
        let mut wanted = Wanted::Kind;
        form.want(&mut wanted);
        Some(Self { form, wanted })
    }

    /// What of the data it looks at.
    pub(super) fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    /// What the program makes of the data; nothing where it fails, or may be near a limit: that is for the crates to
    /// tell.
    ///
    /// # Errors
    /// [`TransformationError`] where the event has too little left.
    pub(super) fn apply(&self, data: &Json, run: &mut Run) -> Result<Option<Json>, TransformationError> {
        let mut made = Making { bytes: 0 };
        let Some(json) = made.form(&self.form, data, 0) else { return Ok(None) };
        run.spend(1 + made.bytes as u64 / 64)?;
        run.make(made.bytes)?;
        Ok(Some(json))
    }
}

impl Form {
    /// What `term` makes of the value at `at`; nothing where it does more than that.
    fn of(term: &Term<&str>, at: &[Hop], depth: usize) -> Option<Self> {
        if depth > MAX_TERM_DEPTH {
            return None;
        }
        Some(match term {
            Term::Id => Self::Place(at.to_vec()),
            Term::Path(of, path) => {
                let Self::Place(mut hops) = Self::of(of, at, depth + 1)? else { return None };
                for (part, opt) in &path.0 {
                    let (Part::Index(index), Opt::Essential) = (part, opt) else { return None };
                    hops.push(match index {
                        Term::Num(digits) => Hop::Element(digits.parse().ok().filter(|at| *at <= MAX_INDEX)?),
                        name => Hop::Member(text(name)?),
                    });
                }
                if hops.len() > MAX_HOPS {
                    return None;
                }
                Self::Place(hops)
            }
            Term::BinOp(first, BinaryOp::Pipe(None), then) => {
                let Self::Place(hops) = Self::of(first, at, depth + 1)? else { return None };
                // What fails on the way there is seen only where something is taken from there.
                Self::of(then, &hops, depth + 1).filter(Self::has_place)?
            }
            Term::Arr(None) => Self::Array(Vec::new()),
            Term::Arr(Some(elements)) => {
                let mut forms = Vec::new();
                let mut rest = vec![&**elements];
                while let Some(term) = rest.pop() {
                    match term {
                        Term::BinOp(left, BinaryOp::Comma, right) => rest.extend([&**right, &**left]),
                        term => forms.push(Self::of(term, at, depth + 1)?),
                    }
                }
                Self::Array(forms)
            }
            Term::Obj(members) => {
                let member = |(name, term): &(Term<&str>, Option<Term<&str>>)| {
                    let name = text(name)?;
                    let form = match term {
                        Some(term) => Self::of(term, at, depth + 1)?,
                        None => Self::Place([at, &[Hop::Member(name.clone())]].concat()),
                    };
                    Some((name, form))
                };
                Self::Object(members.iter().map(member).collect::<Option<_>>()?)
            }
            Term::Num(digits) => {
                // Others may be written otherwise than they came.
                let plain = digits.len() < 16 && digits.bytes().all(|byte| byte.is_ascii_digit());
                Self::Constant(Json::Number(Number::parse(digits).filter(|_| plain)?))
            }
            Term::Call(name, arguments) if arguments.is_empty() => Self::Constant(match *name {
                "null" => Json::Null,
                "true" => true.into(),
                "false" => false.into(),
                _ => return None,
            }),
            term => Self::Constant(text(term)?.into()),
        })
    }

    fn has_place(&self) -> bool {
        match self {
            Self::Place(_) => true,
            Self::Constant(_) => false,
            Self::Array(forms) => forms.iter().any(Self::has_place),
            Self::Object(members) => members.iter().any(|(_, form)| form.has_place()),
        }
    }

    fn want(&self, wanted: &mut Wanted) {
        match self {
            Self::Place(hops) => {
                let place = hops.iter().fold(wanted, |wanted, hop| match hop {
                    Hop::Member(name) => wanted.member(name),
                    Hop::Element(index) => wanted.element(*index),
                });
                *place = Wanted::Whole;
            }
            Self::Constant(_) => {}
            Self::Array(forms) => forms.iter().for_each(|form| form.want(wanted)),
            Self::Object(members) => members.iter().for_each(|(_, form)| form.want(wanted)),
        }
    }
}

/// The text that a term is, where nothing is put into it.
fn text(term: &Term<&str>) -> Option<Text> {
    let Term::Str(None, parts) = term else { return None };
    let mut text = String::new();
    for part in parts {
        match part {
            StrPart::Str(part) => text.push_str(part),
            StrPart::Char(character) => text.push(*character),
            StrPart::Term(_) => return None,
        }
    }
    Some(text.into())
}

/// Counts what is made, as values of jq are bounded.
struct Making {
    bytes: usize,
}

impl Making {
    /// Recursion is bounded by the depth of forms.
    fn form(&mut self, form: &Form, data: &Json, depth: usize) -> Option<Json> {
        Some(match form {
            Form::Place(hops) => {
                let value = value_at(hops, data)?;
                self.count(value, depth)?;
                value.clone()
            }
            Form::Constant(value) => {
                self.count(value, depth)?;
                value.clone()
            }
            Form::Array(forms) => {
                self.add(0)?;
                let elements = forms.iter().map(|form| self.form(form, data, depth + 1));
                Json::Array(elements.collect::<Option<_>>()?)
            }
            Form::Object(members) => {
                self.add(0)?;
                let member = |(name, form): &(Text, Form)| {
                    self.add(name.len())?;
                    Some((name.clone(), self.form(form, data, depth + 1)?))
                };
                Json::Object(members.iter().map(member).collect::<Option<_>>()?)
            }
        })
    }

    /// Recursion is bounded by the depth of data.
    fn count(&mut self, value: &Json, depth: usize) -> Option<()> {
        match value {
            Json::Null | Json::Bool(_) => self.add(0),
            Json::Number(number) if number.text().len() > MAX_NUMBER_TEXT => None,
            Json::Number(number) => self.add(number.text().len()),
            Json::Text(text) => self.add(text.len()),
            Json::Array(_) | Json::Object(_) if depth >= MAX_DEPTH => None,
            Json::Array(elements) => {
                self.add(0)?;
                elements.iter().try_for_each(|element| self.count(element, depth + 1))
            }
            Json::Object(object) => {
                self.add(0)?;
                object.iter().try_for_each(|(name, value)| {
                    self.add(name.len())?;
                    self.count(value, depth + 1)
                })
            }
            Json::Unread(_) => None,
        }
    }

    fn add(&mut self, bytes: usize) -> Option<()> {
        self.bytes += 16 + bytes;
        (self.bytes <= MAX_VALUE_BYTES as usize / 2).then_some(())
    }
}

/// What is at a place; nothing where jq has an error.
fn value_at<'j>(hops: &[Hop], data: &'j Json) -> Option<&'j Json> {
    hops.iter().try_fold(data, |at, hop| match (hop, at) {
        (_, Json::Null) => Some(&Json::Null),
        (Hop::Member(name), Json::Object(object)) => Some(object.get(name).unwrap_or(&Json::Null)),
        (Hop::Element(index), Json::Array(elements)) => Some(elements.get(*index).unwrap_or(&Json::Null)),
        _ => None,
    })
}

#[cfg(test)]
mod suite;

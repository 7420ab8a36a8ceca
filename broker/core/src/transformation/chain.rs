//! Transformations one after the other, as a trigger or an addressable applies them.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use smallvec::SmallVec;

use super::document::{Document, Outputs};
use super::json::Text;
use super::{Discard, MAX_OUTPUTS, Moment, Run, Transformation, TransformationError};
use crate::codes;
use crate::event::Event;

/// What is done where a step fails on an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnError {
    /// The failure is permanent for the event: it becomes a dead letter.
    #[default]
    Fail,
    /// The event goes on as it was before the step.
    Skip,
    /// The event is dropped, and counted as dropped.
    Drop,
}

/// One transformation of a chain.
#[derive(Debug, Clone)]
pub struct Step {
    /// The name by which errors tell of it: `transformations[0] (fields)`, or that of the resource.
    pub name: String,
    /// What it does.
    pub transformation: Arc<dyn Transformation>,
    /// What is done where it fails.
    pub on_error: OnError,
}

/// Transformations in order. Empty, it gives each event back.
#[derive(Debug, Clone, Default)]
pub struct Chain {
    steps: Vec<Step>,
    digest: u64,
}

/// What a chain makes of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transformed {
    /// Events in order, at least one, no two of which have the same source and id.
    Events(Vec<Event>),
    /// None, and why.
    Nothing(Discard),
}

/// Why a chain failed on an event: the step, and its reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{step}: {error}")]
pub struct ChainError {
    /// The name of the step.
    pub step: String,
    /// Why it failed.
    #[source]
    pub error: TransformationError,
}

/// What became of an event at one step, for people who look into a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// The name of the step.
    pub step: String,
    /// The events after it.
    pub events: Vec<Event>,
    /// The failures that `onError` passed over.
    pub passed_over: Vec<TransformationError>,
}

impl Chain {
    /// The chain of these steps.
    pub fn new(steps: Vec<Step>) -> Self {
        Self { steps, digest: 0 }
    }

    /// The same chain with a digest of its settings, which two chains share that do the same.
    #[must_use]
    pub fn with_digest(self, digest: u64) -> Self {
        Self { digest, ..self }
    }

    /// What [`with_digest`](Self::with_digest) was given; 0 without.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// Whether there is no step.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// The steps in order.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Adds a step at the end.
    pub fn push(&mut self, step: Step) {
        self.steps.push(step);
    }

    /// Applies every step.
    ///
    /// # Errors
    /// [`ChainError`], which is permanent for the event.
    pub fn apply(&self, event: &Event, moment: Moment) -> Result<Transformed, ChainError> {
        self.run(event, moment, &mut |_, _, _| {})
    }

    /// Applies every step, and tells what there was after each that was reached and passed.
    pub fn trace(&self, event: &Event, moment: Moment) -> (Vec<Trace>, Result<Transformed, ChainError>) {
        let mut traces = Vec::new();
        let result = self.run(event, moment, &mut |step, documents, passed_over| {
            // What cannot be made an event yet fails as such at the end.
            let events = documents.iter().filter_map(|document| document.to_event().ok()).collect();
            traces.push(Trace { step: step.name.clone(), events, passed_over: passed_over.to_vec() });
        });
        (traces, result)
    }

    fn run(&self, event: &Event, moment: Moment, observe: Observer<'_>) -> Result<Transformed, ChainError> {
        let mut run = Run::new(moment);
        let mut documents = Documents::from_buf([Document::new(event)]);
        let mut passed_over = Vec::new();
        for step in &self.steps {
            passed_over.clear();
            let mut made = Made::default();
            for document in documents {
                step.apply(document, &mut run, &mut made, &mut passed_over)
                    .map_err(|error| ChainError { step: step.name.clone(), error })?;
            }
            documents = made.documents;
            observe(step, &documents, &passed_over);
            if documents.is_empty() {
                return Ok(Transformed::Nothing(made.discarded.unwrap_or(Discard::Filtered)));
            }
        }
        let last = || self.steps.last().map(|step| step.name.clone()).unwrap_or_default();
        let events: Result<Vec<Event>, _> = documents.iter().map(Document::to_event).collect();
        let events = events
            .and_then(|events| check_distinct(&events).map(|()| events))
            .map_err(|error| ChainError { step: last(), error })?;
        Ok(Transformed::Events(events))
    }
}

/// Told of each step, of the documents after it, and of the failures that it passed over.
type Observer<'o> = &'o mut dyn FnMut(&Step, &[Document], &[TransformationError]);

/// Of most events one is made.
type Documents = SmallVec<[Document; 1]>;

/// What a step made of the documents so far.
#[derive(Default)]
struct Made {
    documents: Documents,
    discarded: Option<Discard>,
}

impl Step {
    /// Applies the step to one document, by its policy.
    fn apply(
        &self,
        document: Document,
        run: &mut Run,
        made: &mut Made,
        passed_over: &mut Vec<TransformationError>,
    ) -> Result<(), TransformationError> {
        let before = (self.on_error == OnError::Skip).then(|| document.clone());
        let outputs = self.attempt(document, run).and_then(|outputs| {
            let more = match &outputs {
                Outputs::One(_) => 1,
                Outputs::Several(documents) => documents.len(),
                Outputs::Nothing(_) => 0,
            };
            if made.documents.len() + more > MAX_OUTPUTS {
                let reason = format!("it makes more than {MAX_OUTPUTS} events of one");
                return Err(TransformationError::limit(reason));
            }
            Ok(outputs)
        });
        match (outputs, self.on_error, before) {
            (Ok(Outputs::One(document)), ..) => made.documents.push(*document),
            (Ok(Outputs::Several(documents)), ..) => {
                if documents.is_empty() {
                    made.discarded.get_or_insert(Discard::Filtered);
                }
                if made.documents.is_empty() {
                    made.documents = documents.into();
                } else {
                    made.documents.extend(documents);
                }
            }
            (Ok(Outputs::Nothing(why)), ..) => drop(made.discarded.get_or_insert(why)),
            (Err(error), OnError::Skip, Some(before)) => {
                passed_over.push(error);
                made.documents.push(before);
            }
            (Err(error), OnError::Drop, _) => {
                passed_over.push(error);
                made.discarded.get_or_insert(Discard::Failed);
            }
            (Err(error), ..) => return Err(error),
        }
        Ok(())
    }

    fn attempt(&self, document: Document, run: &mut Run) -> Result<Outputs, TransformationError> {
        let parent: SmallVec<[u8; 64]> = document.attribute("id").unwrap_or_default().as_bytes().into();
        let mut outputs = self.transformation.apply(document, run)?;
        match &mut outputs {
            Outputs::One(document) => document.check()?,
            Outputs::Several(documents) => {
                let (name, parent) = (Text::from("id"), String::from_utf8_lossy(&parent));
                for (number, document) in documents.iter_mut().enumerate() {
                    if document.attribute("id") == Some(&*parent) {
                        document.set_attribute(name.clone(), numbered(&parent, number));
                    }
                    document.check()?;
                }
            }
            Outputs::Nothing(_) => {}
        }
        Ok(outputs)
    }
}

/// The id of an output.
fn numbered(parent: &str, number: usize) -> String {
    let mut id = String::with_capacity(parent.len() + 8);
    id.push_str(parent);
    id.push('-');
    let mut digits = [0; 20];
    let (mut rest, mut at) = (number, digits.len());
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(rest % 10).expect("the rest by ten is a digit");
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    id.extend(digits[at..].iter().map(|digit| char::from(*digit)));
    id
}

/// A receiver could not tell two events with one source and id apart.
fn check_distinct(events: &[Event]) -> Result<(), TransformationError> {
    if events.len() < 2 {
        return Ok(());
    }
    let mut seen = HashSet::with_capacity_and_hasher(events.len(), foldhash::quality::RandomState::default());
    match events.iter().find(|event| !seen.insert(event.identity())) {
        None => Ok(()),
        Some(event) => Err(TransformationError::new(format!(
            "two of the events that it makes have the source `{}` and the id `{}`: give each an id of its own, or \
             leave the id alone",
            event.source(),
            event.id()
        ))
        .coded(codes::TRANSFORMATION_OUTPUT_REPEATED)),
    }
}

impl fmt::Display for Discard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod suite;

//! Literals that values are searched for, all at once.

use std::sync::Arc;

use aho_corasick::{AhoCorasick, MatchKind, StartKind};
use memchr::memmem;

/// So many literals are searched for one by one; more of them get an automaton. Tests reach it with a few.
const MAX_RECENT: usize = if cfg!(test) { 2 } else { 32 };

/// The literals of one attribute. New ones are few and searched for one by one; when there are too many of them, they
/// get an automaton together with those of every automaton that is not larger than they are, so that each literal is
/// built in at most as often as their number doubles. One that is removed stays until then, and leads nowhere.
#[derive(Debug, Clone, Default)]
pub(super) struct Literals {
    recent: Vec<Arc<[u8]>>,
    automata: Vec<Arc<Automaton>>,
}

#[derive(Debug)]
struct Automaton {
    literals: Vec<Arc<[u8]>>,
    automaton: AhoCorasick,
}

impl Literals {
    pub(super) fn is_empty(&self) -> bool {
        self.recent.is_empty() && self.automata.is_empty()
    }

    /// Adds a literal that is not there. Once there are too many of them, [`Literals::seal`] is to be called.
    pub(super) fn add(&mut self, literal: &[u8]) {
        self.recent.push(literal.into());
    }

    pub(super) fn remove(&mut self, literal: &[u8]) {
        self.recent.retain(|recent| **recent != *literal);
    }

    /// Whether there are too many literals to search for one by one.
    pub(super) fn are_too_many(&self) -> bool {
        self.recent.len() > MAX_RECENT
    }

    /// Builds an automaton of the literals that are searched for one by one.
    pub(super) fn seal(&mut self) {
        let mut literals = std::mem::take(&mut self.recent);
        while let Some(last) = self.automata.pop_if(|last| last.literals.len() <= literals.len()) {
            literals.extend(last.literals.iter().cloned());
        }
        literals.sort_unstable();
        literals.dedup();
        let built = AhoCorasick::builder()
            .match_kind(MatchKind::Standard)
            .start_kind(StartKind::Unanchored)
            .build(&literals);
        match built {
            Ok(automaton) => self.automata.push(Arc::new(Automaton { literals, automaton })),
            // Too many for the numbers of an automaton: one by one it is.
            Err(_) => self.recent = literals,
        }
    }

    /// Calls back with each literal that is in the text, most of them once. `found` is used for the work.
    #[inline]
    pub(super) fn each_in<'l>(&'l self, text: &[u8], found: &mut Vec<u32>, mut each: impl FnMut(&'l [u8])) {
        for literal in &self.recent {
            if memmem::find(text, literal).is_some() {
                each(literal);
            }
        }
        for automaton in &self.automata {
            found.clear();
            found.extend(
                automaton.automaton.find_overlapping_iter(text).map(|found| found.pattern().as_u32()),
            );
            found.sort_unstable();
            found.dedup();
            found.iter().for_each(|literal| each(&automaton.literals[*literal as usize]));
        }
    }
}

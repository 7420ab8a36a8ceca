//! The places in event data that filters ask about, found in one pass over the text.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use super::scratch::{DataScratch, Found};
use crate::filter::jsonpath::json_text::{JsonText, Kind, NotJson, unescape};
use crate::filter::jsonpath::path::{Path, Step};

/// The number of a path.
pub(super) type PathId = u32;

const ROOT: PathId = 0;

/// The paths that filters ask about, as a tree. Copied when a new one comes, which is rare.
#[derive(Debug, Clone)]
pub(super) struct Paths {
    tree: Arc<Tree>,
}

#[derive(Debug, Clone)]
struct Tree {
    nodes: Vec<Node>,
    /// Children by the hash of parent and step; where two have the same, the next free number.
    children: HashMap<u64, PathId, foldhash::fast::RandomState>,
    hasher: foldhash::fast::RandomState,
}

#[derive(Debug, Clone)]
struct Node {
    parent: PathId,
    step: Step,
    /// Whether anything is asked about below it.
    inner: bool,
}

impl Default for Paths {
    fn default() -> Self {
        let root = Node { parent: ROOT, step: Step::Index(0), inner: false };
        let tree = Tree { nodes: vec![root], children: HashMap::default(), hasher: Default::default() };
        Self { tree: Arc::new(tree) }
    }
}

impl Paths {
    /// How many numbers there are.
    pub(super) fn len(&self) -> usize {
        self.tree.nodes.len()
    }

    /// The number of a path; a new one where there was none. None for a path that counts from the end of an array, which
    /// one pass does not find.
    pub(super) fn number(&mut self, path: &Path) -> Option<PathId> {
        if !path.counts_forwards() {
            return None;
        }
        let mut at = ROOT;
        for step in path.steps() {
            at = match self.tree.child(at, step.into()) {
                Ok(child) => child,
                Err(free) => {
                    let tree = Arc::make_mut(&mut self.tree);
                    let child = PathId::try_from(tree.nodes.len())
                        .expect("there are fewer paths than bytes of manifests");
                    tree.nodes.push(Node { parent: at, step: step.clone(), inner: false });
                    tree.nodes[at as usize].inner = true;
                    tree.children.insert(free, child);
                    child
                }
            };
        }
        Some(at)
    }

    /// Finds all places in the text, which is checked to its end.
    pub(super) fn find_all(&self, text: &str, scratch: &mut DataScratch) -> Result<(), NotJson> {
        scratch.begin(self.len());
        let mut reader = JsonText::new(text);
        let kind = reader.kind()?;
        self.tree.walk(text, &mut reader, kind, ROOT, scratch)?;
        reader.end()
    }

    /// What is at a place. Of a member that is given twice the last counts, with all that is in it: what was found within
    /// an earlier one lies before the start of the later one.
    #[inline]
    pub(super) fn found(&self, path: PathId, scratch: &DataScratch) -> Option<Found> {
        let found = scratch.get(path)?;
        let (mut node, mut inner) = (path, found);
        while node != ROOT {
            node = self.tree.nodes[node as usize].parent;
            let outer = scratch.get(node)?;
            if outer.start > inner.start {
                return None;
            }
            inner = outer;
        }
        Some(found)
    }
}

#[derive(Clone, Copy)]
enum StepRef<'s> {
    Name(&'s str),
    Index(i64),
}

impl<'s> From<&'s Step> for StepRef<'s> {
    fn from(step: &'s Step) -> Self {
        match step {
            Step::Name(name) => Self::Name(name),
            Step::Index(index) => Self::Index(*index),
        }
    }
}

impl Tree {
    /// The child, or the key under which it would go.
    fn child(&self, parent: PathId, step: StepRef<'_>) -> Result<PathId, u64> {
        let mut hasher = self.hasher.build_hasher();
        hasher.write_u32(parent);
        match step {
            StepRef::Name(name) => hasher.write(name.as_bytes()),
            StepRef::Index(index) => hasher.write_i64(index),
        }
        let mut key = hasher.finish();
        loop {
            let Some(child) = self.children.get(&key) else { return Err(key) };
            let node = &self.nodes[*child as usize];
            let same = match (&node.step, step) {
                (Step::Name(name), StepRef::Name(asked)) => **name == *asked,
                (Step::Index(index), StepRef::Index(asked)) => *index == asked,
                _ => false,
            };
            if same && node.parent == parent {
                return Ok(*child);
            }
            key = key.wrapping_add(1);
        }
    }

    fn walk(
        &self,
        text: &str,
        reader: &mut JsonText<'_>,
        kind: Kind,
        at: PathId,
        scratch: &mut DataScratch,
    ) -> Result<(), NotJson> {
        let start = reader.place();
        let mut filled = false;
        match kind {
            Kind::Object | Kind::Array if self.nodes[at as usize].inner => {
                scratch.set(at, Found { start, end: start, kind, filled });
                filled = reader.enter(kind)?;
                let mut more = filled;
                let mut index = 0;
                while more {
                    let child = if kind == Kind::Object {
                        let name = reader.name()?;
                        let written = &text[name.start..name.end];
                        if name.escaped {
                            let mut unescaped = scratch.take_text();
                            unescape(written, &mut unescaped);
                            let child = self.child(at, StepRef::Name(&unescaped));
                            scratch.put_text(unescaped);
                            child
                        } else {
                            self.child(at, StepRef::Name(written))
                        }
                    } else {
                        index += 1;
                        self.child(at, StepRef::Index(index - 1))
                    };
                    let inner = reader.kind()?;
                    match child {
                        Ok(child) => self.walk(text, reader, inner, child, scratch)?,
                        Err(_) => reader.skip(inner)?,
                    }
                    more = reader.more(kind)?;
                }
            }
            Kind::Object | Kind::Array => {
                reader.skip(kind)?;
                let inside = &text.as_bytes()[start + 1..reader.place() - 1];
                filled = inside.iter().any(|byte| !matches!(byte, b' ' | b'\n' | b'\t' | b'\r'));
            }
            _ => reader.skip(kind)?,
        }
        scratch.set(at, Found { start, end: reader.place(), kind, filled });
        Ok(())
    }
}

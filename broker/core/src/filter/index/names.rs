//! Numbers for the names of attributes.

use std::collections::HashMap;
use std::sync::Arc;

/// The number of a name.
pub(super) type NameId = u32;

/// The names that filters ask about. Copied when a new one comes, which is rare: most filters ask about the same few.
#[derive(Debug, Clone, Default)]
pub(super) struct Names {
    numbers: Arc<HashMap<Box<[u8]>, NameId, foldhash::fast::RandomState>>,
}

impl Names {
    /// The number of a name that some filter asks about.
    #[inline]
    pub(super) fn find(&self, name: &[u8]) -> Option<NameId> {
        self.numbers.get(name).copied()
    }

    /// The number of a name; a new one where there was none.
    pub(super) fn number(&mut self, name: &str) -> NameId {
        if let Some(number) = self.find(name.as_bytes()) {
            return number;
        }
        let numbers = Arc::make_mut(&mut self.numbers);
        let number = NameId::try_from(numbers.len()).expect("there are fewer names than bytes of manifests");
        numbers.insert(name.as_bytes().into(), number);
        number
    }
}

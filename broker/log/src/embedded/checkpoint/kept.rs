//! Small values of the process by name, beside the rows of logs: each with a checksum over name and value.

use redb::{Durability, ReadableDatabase, ReadableTableMetadata, TableDefinition, TableError};
use waypost_core::manifest::ResourceName;

use super::room::Needed;
use super::{Checkpoint, CheckpointError, ROWS, checksum, guarded};
use crate::embedded::codec::Put;
use crate::embedded::note::put_name;
use crate::embedded::store::Trouble;

const KEPT: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("kept");
/// The bytes before each content.
const CHECKSUM_BYTES: usize = 4;

impl Checkpoint {
    /// The kept values whose names begin with `prefix`, in the order of the names.
    pub(in crate::embedded) fn kept(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, CheckpointError> {
        let mut rows = Vec::new();
        let mut intact = Ok(());
        guarded(&self.file, || {
            let table = match self.database.begin_read()?.open_table(KEPT) {
                Err(TableError::TableDoesNotExist(_)) => return Ok(()),
                table => table?,
            };
            for row in table.range(prefix..)? {
                let (name, value) = row?;
                if !name.value().starts_with(prefix) {
                    break;
                }
                match self.content(name.value().as_bytes(), value.value()) {
                    Ok(content) => rows.push((name.value().to_owned(), content.to_vec())),
                    Err(error) => {
                        intact = Err(error);
                        break;
                    }
                }
            }
            Ok(())
        })?;
        intact.map(|()| rows)
    }

    /// Puts values in place of what stood under their names, or takes them out: all or none, and durably.
    pub(in crate::embedded) fn keep(&self, changes: &[(String, Option<Vec<u8>>)]) -> Result<(), Trouble> {
        self.make_room_to_keep(changes)?;
        // In the order of the names, in which the pages are filled one after the other. Of one name the last change holds.
        let mut changes: Vec<_> = changes.iter().collect();
        changes.sort_by_key(|(name, _)| name);
        self.write_kept(&changes).map_err(|error| Trouble::Broken(error.to_string()))
    }

    fn make_room_to_keep(&self, changes: &[(String, Option<Vec<u8>>)]) -> Result<(), Trouble> {
        let mut needed = Needed::default();
        for (name, content) in changes {
            needed.count(name.len(), content.as_ref().map(|content| content.len() + CHECKSUM_BYTES));
        }
        self.take_room(needed, || {
            guarded(&self.file, || match self.database.begin_read()?.open_table(KEPT) {
                Err(TableError::TableDoesNotExist(_)) => Ok(None),
                table => Ok(Some(table?.stats()?)),
            })
        })
    }

    fn write_kept(&self, changes: &[&(String, Option<Vec<u8>>)]) -> Result<(), CheckpointError> {
        guarded(&self.file, || {
            let mut transaction = self.database.begin_write()?;
            transaction.set_durability(Durability::Immediate)?;
            {
                let mut table = transaction.open_table(KEPT)?;
                for (name, content) in changes {
                    match content {
                        Some(content) => {
                            let mut value = Vec::with_capacity(content.len() + CHECKSUM_BYTES);
                            value.put_u32(checksum(name.as_bytes(), content));
                            value.put(content);
                            drop(table.insert(name.as_str(), value.as_slice())?);
                        }
                        None => drop(table.remove(name.as_str())?),
                    }
                }
            }
            transaction.commit()?;
            Ok(())
        })
    }

    /// Removes every row of a log.
    pub(in crate::embedded) fn forget(&self, log: &ResourceName) -> Result<(), CheckpointError> {
        let mut first = Vec::new();
        put_name(&mut first, log);
        let mut last = first.clone();
        // Kinds stay far below this one.
        last.put_u8(u8::MAX);
        guarded(&self.file, || {
            let mut transaction = self.database.begin_write()?;
            transaction.set_durability(Durability::Immediate)?;
            transaction.open_table(ROWS)?.retain_in(first.as_slice()..last.as_slice(), |_, _| false)?;
            transaction.commit()?;
            Ok(())
        })
    }
}

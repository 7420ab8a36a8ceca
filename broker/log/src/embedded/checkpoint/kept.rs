//! Small values of the process by name, beside the rows of logs: each with a checksum over name and value.

use redb::{Durability, ReadableDatabase, TableDefinition, TableError};
use waypost_core::manifest::ResourceName;

use super::{Checkpoint, CheckpointError, ROWS, checksum, guarded};
use crate::embedded::codec::Put;
use crate::embedded::note::put_name;

const KEPT: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("kept");

impl Checkpoint {
    /// The kept values whose names begin with `prefix`, in the order of the names.
    pub(in crate::embedded) fn kept(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, CheckpointError> {
        let rows = guarded(&self.file, || {
            let table = match self.database.begin_read()?.open_table(KEPT) {
                Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
                table => table?,
            };
            let mut rows = Vec::new();
            for row in table.range(prefix..)? {
                let (name, value) = row?;
                if !name.value().starts_with(prefix) {
                    break;
                }
                rows.push((name.value().to_owned(), value.value().to_vec()));
            }
            Ok(rows)
        })?;
        let intact = |(name, value): (String, Vec<u8>)| {
            let content = self.content(name.as_bytes(), &value)?.to_vec();
            Ok((name, content))
        };
        rows.into_iter().map(intact).collect()
    }

    /// Puts values in place of what stood under their names, or takes them out: all or none, and durably.
    pub(in crate::embedded) fn keep(
        &self,
        changes: &[(String, Option<Vec<u8>>)],
    ) -> Result<(), CheckpointError> {
        guarded(&self.file, || {
            let mut transaction = self.database.begin_write()?;
            transaction.set_durability(Durability::Immediate)?;
            {
                let mut table = transaction.open_table(KEPT)?;
                for (name, content) in changes {
                    match content {
                        Some(content) => {
                            let mut value = Vec::with_capacity(content.len() + 4);
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

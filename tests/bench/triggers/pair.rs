//! The same measured with few triggers and with many, in turns.

use serde::Serialize;

use crate::failure::Failure;
use crate::figures::Spread;
use crate::table::{Table, grouped, spread};

/// What was measured with one number of triggers and with another, round by round.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Pair<T> {
    pub(super) few_triggers: u32,
    pub(super) many_triggers: u32,
    pub(super) few: Vec<T>,
    pub(super) many: Vec<T>,
}

/// A column of a table.
pub(super) struct Column<T> {
    pub(super) heading: &'static str,
    pub(super) decimals: usize,
    pub(super) figure: fn(&T) -> f64,
}

impl<T> Pair<T> {
    /// Measures each number of triggers once per round, in every second round the many first.
    pub(super) fn measure(
        few_triggers: u32,
        many_triggers: u32,
        rounds: u16,
        mut one: impl FnMut(u32) -> Result<T, Failure>,
    ) -> Result<Self, Failure> {
        let (mut few, mut many) = (Vec::new(), Vec::new());
        for round in 0..rounds {
            if round % 2 == 0 {
                few.push(one(few_triggers)?);
                many.push(one(many_triggers)?);
            } else {
                many.push(one(many_triggers)?);
                few.push(one(few_triggers)?);
            }
        }
        Ok(Self { few_triggers, many_triggers, few, many })
    }

    /// The spread of what is made of the figure with few triggers and that with many in the same round.
    pub(super) fn compare(&self, figure: impl Fn(&T) -> f64, how: impl Fn(f64, f64) -> f64) -> Spread {
        let rounds = self.few.iter().zip(&self.many);
        Spread::of(rounds.map(|(few, many)| how(figure(few), figure(many))).collect())
    }

    /// A row for each number of triggers.
    pub(super) fn table(&self, columns: &[Column<T>]) -> Table {
        let headings: Vec<_> =
            ["triggers"].into_iter().chain(columns.iter().map(|column| column.heading)).collect();
        let mut table = Table::new(&headings);
        for (triggers, rounds) in [(self.few_triggers, &self.few), (self.many_triggers, &self.many)] {
            let cell = |column: &Column<T>| {
                spread(Spread::of(rounds.iter().map(column.figure).collect()), column.decimals)
            };
            let first = grouped(f64::from(triggers), 0);
            table.rows.push(std::iter::once(first).chain(columns.iter().map(cell)).collect());
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_take_turns_and_are_compared_within_a_round() {
        let mut order = Vec::new();
        let mut time = 0.0;
        let pair = Pair::measure(1, 1_000, 2, |triggers| {
            order.push(triggers);
            time += 1.0;
            Ok(time * f64::from(triggers))
        });
        let pair = pair.unwrap();
        assert_eq!(order, [1, 1_000, 1_000, 1]);
        let ratio = pair.compare(|figure| *figure, |few, many| many / few);
        assert_eq!((ratio.lowest, ratio.highest), (750.0, 2_000.0));
        let table = pair.table(&[Column { heading: "figure", decimals: 1, figure: |figure| *figure }]);
        assert_eq!(table.rows[2], ["1,000", "2,500.0 (2,000.0-3,000.0)"]);
    }
}

//! All that a measurement found: what the JSON file holds.

use serde::{Deserialize, Serialize};

use crate::goals::Goal;
use crate::idle::Idle;
use crate::isolation::Isolation;
use crate::latency::Latency;
use crate::machine::Machine;
use crate::rounds::Throughput;
use crate::startup::Startup;

/// Everything that was measured. Parts that were not asked for are empty.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Figures {
    pub(crate) machine: Machine,
    pub(crate) settings: Settings,
    pub(crate) throughput: Vec<Throughput>,
    pub(crate) latency: Vec<Latency>,
    pub(crate) isolation: Vec<Isolation>,
    pub(crate) startup: Vec<Startup>,
    pub(crate) idle: Vec<Idle>,
    /// The goals that these figures can be held against.
    pub(crate) goals: Vec<Goal>,
}

/// How it was measured.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Settings {
    pub(crate) rounds: usize,
    pub(crate) seconds: f64,
    pub(crate) warm_up_seconds: f64,
    pub(crate) connections: u16,
    /// Whether generator and subscriber were scheduled as batch work.
    #[serde(default)]
    pub(crate) batch: bool,
    pub(crate) data_bytes: usize,
    /// The first line of `waypost --version`.
    pub(crate) waypost: String,
}

/// The median of some rounds, and the lowest and highest.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) lowest: f64,
    pub(crate) highest: f64,
}

impl Spread {
    /// Of at least one value; of an even number the median is the mean of the two in the middle.
    pub(crate) fn of(mut values: Vec<f64>) -> Self {
        values.sort_unstable_by(f64::total_cmp);
        let (Some(lowest), Some(highest)) = (values.first(), values.last()) else {
            return Self { median: f64::NAN, lowest: f64::NAN, highest: f64::NAN };
        };
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[middle]
        } else {
            f64::midpoint(values[middle - 1], values[middle])
        };
        Self { median, lowest: *lowest, highest: *highest }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_does_not_depend_on_the_order() {
        assert_eq!(Spread::of(vec![5.0, 1.0, 2.0]), Spread { median: 2.0, lowest: 1.0, highest: 5.0 });
        assert!((Spread::of(vec![4.0, 1.0, 2.0, 9.0]).median - 3.0).abs() < f64::EPSILON);
        assert!(Spread::of(Vec::new()).median.is_nan());
    }
}

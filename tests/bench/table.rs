//! The figures for people: aligned columns, or Markdown.

use std::fmt::Write as _;

use crate::figures::{Figures, Spread};
use crate::histogram::Quantiles;
use crate::isolation;
use crate::rounds::{Case, Throughput};

/// How tables are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    Plain,
    Markdown,
}

/// All figures that there are.
pub(crate) fn render(figures: &Figures, style: Style) -> String {
    let mut text = machine(figures);
    for table in [
        throughput(&figures.throughput),
        latency(figures),
        isolated(figures),
        startup(figures),
        idle(figures),
        goals(figures),
    ] {
        if table.rows.len() > 1 {
            text.push('\n');
            table.write(style, &mut text);
        }
    }
    text
}

fn machine(figures: &Figures) -> String {
    let machine = &figures.machine;
    let settings = &figures.settings;
    format!(
        "{}, on {} ({} cores, {} MiB), Linux {}, data on {}: write of 4 KiB and fdatasync p50 {:.0} us, p99 {:.0} us. \
         Load average before: {:.2}. {} rounds of {} s after {} s to warm up, {} connections, {} bytes of data{}.\n",
        settings.waypost,
        machine.cpu,
        machine.cores,
        machine.memory_mebibytes,
        machine.kernel,
        machine.file_system,
        machine.sync.p50,
        machine.sync.p99,
        machine.load_before,
        settings.rounds,
        settings.seconds,
        settings.warm_up_seconds,
        settings.connections,
        settings.data_bytes,
        if settings.batch { "" } else { "; generator and subscriber interrupt the broker" },
    )
}

/// A table; the first row is the heading.
pub(crate) struct Table {
    pub(crate) rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(heading: &[&str]) -> Self {
        Self { rows: vec![heading.iter().map(ToString::to_string).collect()] }
    }

    pub(crate) fn write(&self, style: Style, text: &mut String) {
        let widths: Vec<usize> = (0..self.rows[0].len())
            .map(|column| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
            .collect();
        for (number, row) in self.rows.iter().enumerate() {
            match style {
                Style::Markdown => {
                    let _ = writeln!(text, "| {} |", row.join(" | "));
                    if number == 0 {
                        let _ = writeln!(text, "|{}", "---|".repeat(row.len()));
                    }
                }
                Style::Plain => {
                    let cells: Vec<_> =
                        row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
                    let _ = writeln!(text, "{}", cells.join("  ").trim_end());
                }
            }
        }
    }
}

/// The median, and in brackets the lowest and highest where they differ from it.
pub(crate) fn spread(spread: Spread, decimals: usize) -> String {
    let number = |value: f64| grouped(value, decimals);
    if spread.lowest.to_bits() == spread.highest.to_bits() {
        return number(spread.median);
    }
    format!("{} ({}-{})", number(spread.median), number(spread.lowest), number(spread.highest))
}

/// A number with its thousands apart.
pub(crate) fn grouped(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    let (whole, fraction) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut grouped = String::new();
    for (place, digit) in whole.chars().enumerate() {
        if place > 0 && (whole.len() - place).is_multiple_of(3) && !grouped.ends_with('-') {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped + fraction
}

fn mebibytes(kibibytes: Spread) -> String {
    let scale = |value: f64| value / 1024.0;
    let Spread { median, lowest, highest } = kibibytes;
    spread(Spread { median: scale(median), lowest: scale(lowest), highest: scale(highest) }, 0)
}

fn throughput(all: &[Throughput]) -> Table {
    let mut table = Table::new(&[
        "log",
        "fan-out",
        "deliveries/s",
        "% of raw",
        "CPU us per event: waypost",
        "per delivery",
        "generator",
        "subscriber",
        "peak MiB",
        "refused",
        "% CPU of others",
    ]);
    let raw = all.iter().find(|measured| measured.case == Case::RAW);
    for measured in all {
        let Case { log, fan_out } = measured.case;
        let cpu = measured.spread(|run| run.cpu_per_event.waypost);
        let share = raw.map(|raw| measured.ratio(raw, |run| run.deliveries_per_second).median * 100.0);
        let refused =
            measured.rounds.iter().map(|run| run.generated.refused.values().sum::<u64>()).sum::<u64>();
        let of_broker = |text: String| if log.is_none() { "-".to_owned() } else { text };
        table.rows.push(vec![
            measured.case.name().to_owned(),
            of_broker(fan_out.to_string()),
            spread(measured.deliveries_per_second(), 0),
            share.map_or_else(String::new, |share| format!("{share:.1}")),
            of_broker(spread(cpu, 1)),
            of_broker(format!("{:.1}", cpu.median / f64::from(fan_out))),
            format!("{:.1}", measured.spread(|run| run.cpu_per_event.generator).median),
            format!("{:.1}", measured.spread(|run| run.cpu_per_event.subscriber).median),
            of_broker(mebibytes(measured.spread(|run| run.peak_kibibytes as f64))),
            refused.to_string(),
            spread(measured.spread(|run| run.others_share * 100.0), 0),
        ]);
    }
    table
}

fn latency(figures: &Figures) -> Table {
    let mut table = Table::new(&[
        "log, at half of its highest rate",
        "events/s",
        "us until acknowledged: p50",
        "p99",
        "p99.9",
        "us end to end: p50",
        "p99",
        "p99.9",
        "% CPU of others",
    ]);
    for latency in &figures.latency {
        let quantiles: [fn(&Quantiles) -> f64; 3] = [|all| all.p50, |all| all.p99, |all| all.p999];
        let acknowledged = quantiles.map(|quantile| spread(latency.acknowledged(quantile), 0));
        let end_to_end = quantiles.map(|quantile| spread(latency.end_to_end(quantile), 0));
        let others = spread(latency.others(), 0);
        let first = [latency.log.name().to_owned(), grouped(latency.rate, 0)];
        table.rows.push(first.into_iter().chain(acknowledged).chain(end_to_end).chain([others]).collect());
    }
    table
}

fn isolated(figures: &Figures) -> Table {
    let mut table = Table::new(&[
        "log, healthy trigger",
        "events/s",
        "p99 us alone",
        "p99 us beside failing ones",
        "beside a held one that is away",
        "when it is back",
        "MiB alone",
        "MiB beside",
        "% CPU of others alone",
        "beside",
    ]);
    for measured in &figures.isolation {
        table.rows.push(vec![
            measured.log.name().to_owned(),
            grouped(measured.rate, 0),
            spread(isolation::p99(&measured.alone), 0),
            spread(isolation::p99(&measured.beside), 0),
            spread_or_nothing(&measured.away),
            spread_or_nothing(&measured.back),
            mebibytes(isolation::resident(&measured.alone)),
            mebibytes(isolation::resident(&measured.beside)),
            spread(isolation::others(&measured.alone), 0),
            spread(isolation::others(&measured.beside), 0),
        ]);
    }
    table
}

/// An earlier version did not measure all.
fn spread_or_nothing(rounds: &[isolation::Healthy]) -> String {
    if rounds.is_empty() { String::new() } else { spread(isolation::p99(rounds), 0) }
}

fn startup(figures: &Figures) -> Table {
    let mut table = Table::new(&["log", "start on empty data, ms", "after kill -9, ms", "MB of data then"]);
    for startup in &figures.startup {
        let killed = startup.killed();
        table.rows.push(vec![
            startup.log.name().to_owned(),
            spread(startup.empty(), 1),
            killed.map_or_else(|| "-".to_owned(), |killed| spread(killed, 1)),
            killed.map_or_else(|| "-".to_owned(), |_| grouped(startup.disk_bytes as f64 / 1e6, 0)),
        ]);
    }
    table
}

fn idle(figures: &Figures) -> Table {
    let mut table = Table::new(&["log", "idle brokers", "MiB of memory", "MB of disk", "CPU us per second"]);
    for idle in &figures.idle {
        table.rows.push(vec![
            idle.log.name().to_owned(),
            idle.brokers.to_string(),
            format!("{:.1}", idle.resident_kibibytes as f64 / 1024.0),
            format!("{:.2}", idle.disk_bytes as f64 / 1e6),
            grouped(idle.cpu_microseconds_per_second, 0),
        ]);
    }
    table
}

fn goals(figures: &Figures) -> Table {
    let mut table = Table::new(&["goal", "name", "measured", ""]);
    for goal in &figures.goals {
        table.rows.push(vec![
            goal.wanted.clone(),
            goal.name.clone(),
            grouped(goal.measured, 2),
            if goal.met { "met" } else { "MISSED" }.to_owned(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_apart() {
        for (value, decimals, expected) in
            [(0.0, 0, "0"), (999.0, 0, "999"), (1_000.0, 0, "1,000"), (1_234_567.89, 1, "1,234,567.9")]
        {
            assert_eq!(grouped(value, decimals), expected);
        }
    }

    #[test]
    fn a_spread_without_spread_is_a_number() {
        let same = Spread { median: 2.0, lowest: 2.0, highest: 2.0 };
        assert_eq!(spread(same, 1), "2.0");
        assert_eq!(spread(Spread { highest: 3.0, ..same }, 0), "2 (2-3)");
    }

    #[test]
    fn both_styles_have_all_cells() {
        let mut table = Table::new(&["a", "b"]);
        table.rows.push(vec!["wide cell".to_owned(), "1".to_owned()]);
        let (mut plain, mut markdown) = (String::new(), String::new());
        table.write(Style::Plain, &mut plain);
        table.write(Style::Markdown, &mut markdown);
        assert_eq!(plain, "a          b\nwide cell  1\n");
        assert_eq!(markdown, "| a | b |\n|---|---|\n| wide cell | 1 |\n");
    }
}

//! What the kernel knows of a process.

use crate::failure::Failure;

/// CPU time of the process so far, user and system, all threads. As precise as the kernel's ticks, mostly 10 ms.
pub(crate) fn cpu_microseconds(process: u32) -> Result<u64, Failure> {
    let text = read(process, "stat")?;
    cpu_ticks(&text).map(microseconds).ok_or(Failure::Protocol { what: "/proc/PID/stat", detail: text })
}

fn microseconds(ticks: u64) -> u64 {
    ticks * 1_000_000 / rustix::param::clock_ticks_per_second()
}

/// CPU time of all cores, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MachineTime {
    pub(crate) busy: u64,
    pub(crate) total: u64,
}

impl MachineTime {
    pub(crate) fn since(self, before: Self) -> Self {
        Self { busy: self.busy.saturating_sub(before.busy), total: self.total.saturating_sub(before.total) }
    }
}

/// CPU time of the machine since it was started.
pub(crate) fn machine() -> Result<MachineTime, Failure> {
    let path = "/proc/stat";
    let text = std::fs::read_to_string(path).map_err(Failure::io(format!("reading {path}")))?;
    machine_time(&text).ok_or(Failure::Protocol { what: path, detail: text })
}

/// The first line: user, nice, system, idle, waiting for disks, interrupts, soft interrupts, stolen by the host.
fn machine_time(stat: &str) -> Option<MachineTime> {
    let fields = stat.lines().next()?.strip_prefix("cpu ")?.split_ascii_whitespace().take(8);
    let fields = fields.map(str::parse).collect::<Result<Vec<u64>, _>>().ok()?;
    let total: u64 = fields.iter().sum();
    let idle = fields.get(3)? + fields.get(4)?;
    Some(MachineTime { busy: microseconds(total - idle), total: microseconds(total) })
}

/// Fields 14 and 15; the name of the process, field 2, may hold anything but ends at the last bracket.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

/// Memory that is resident now, in KiB.
pub(crate) fn resident_kibibytes(process: u32) -> Result<u64, Failure> {
    status(process, "VmRSS:")
}

/// The most memory that was ever resident, in KiB.
pub(crate) fn resident_peak_kibibytes(process: u32) -> Result<u64, Failure> {
    status(process, "VmHWM:")
}

fn status(process: u32, name: &str) -> Result<u64, Failure> {
    let text = read(process, "status")?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.trim().strip_suffix(" kB")?.trim().parse().ok())
        .ok_or_else(|| Failure::Protocol { what: "/proc/PID/status", detail: format!("it has no {name}") })
}

fn read(process: u32, file: &str) -> Result<String, Failure> {
    let path = format!("/proc/{process}/{file}");
    std::fs::read_to_string(&path).map_err(Failure::io(format!("reading {path}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_found_behind_any_name() {
        let stat = "7 (a (b) c) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20";
        assert_eq!(cpu_ticks(stat), Some(300));
        assert_eq!(cpu_ticks("7 (a"), None);
    }

    #[test]
    fn all_but_idle_and_waiting_is_busy() {
        let stat = "cpu  1 2 3 4 5 6 7 8 9 10\ncpu0 1 1 1 1 1 1 1 1 1 1\n";
        assert_eq!(machine_time(stat), Some(MachineTime { busy: microseconds(27), total: microseconds(36) }));
        assert_eq!(machine_time("intr 1"), None);
    }

    #[test]
    fn this_process_has_memory() {
        let process = std::process::id();
        let now = resident_kibibytes(process).unwrap();
        assert!(now > 0 && resident_peak_kibibytes(process).unwrap() > 0);
        cpu_microseconds(process).unwrap();
    }
}

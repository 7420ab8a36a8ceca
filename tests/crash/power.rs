//! Loss of power: the broker runs on an ext4 image under load, is stopped between two instructions, and the image as it
//! is at that moment is mounted elsewhere. What the kernel had not written by then is missing there.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use rustix::process::Signal;

use crate::broker::{Broker, Home, Start, pause, wait};
use crate::chance::Chance;
use crate::failure::{Failure, ensure};
use crate::load::{Book, Producers};
use crate::manifests::{self, Trigger};
use crate::subscriber::Subscriber;
use crate::{kills, note, report};

/// The size of the image.
const IMAGE: u64 = 256 * 1024 * 1024;
const PRODUCERS: usize = 4;
/// The library that makes every sync a lie, as the loader finds it.
const EATMYDATA: &str = "libeatmydata.so";

/// Arguments of `power-loss`.
#[derive(Debug, Args)]
pub(crate) struct PowerLoss {
    /// How often the power is lost, each time on a fresh image.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// What decides the moments.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// A mounted file system. It is unmounted when this is dropped.
#[derive(Debug)]
pub(crate) struct Mount(PathBuf);

impl Mount {
    /// Mounts an image, or what else `arguments` name, at a directory that is made for it.
    pub(crate) fn new(arguments: &[&str], at: &Path) -> Result<Self, Failure> {
        std::fs::create_dir_all(at).map_err(Failure::io("making a directory"))?;
        let mut command = Command::new("mount");
        command.args(arguments).arg(at);
        succeed(&mut command)?;
        Ok(Self(at.to_owned()))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let ended = Command::new("umount").arg(&self.0).status();
        if !ended.is_ok_and(|status| status.success()) {
            note(&format!("{} could not be unmounted: do it by hand", self.0.display()));
        }
    }
}

fn succeed(command: &mut Command) -> Result<(), Failure> {
    let output = command.output().map_err(Failure::io(format!("starting {command:?}")))?;
    ensure(output.status.success(), || {
        format!("{command:?} failed: {}", String::from_utf8_lossy(&output.stderr))
    })
}

/// Whether file systems can be mounted from here.
pub(crate) fn may_mount() -> bool {
    rustix::process::getuid().is_root()
        && ["mount", "umount"].iter().all(|tool| Command::new(tool).arg("--version").output().is_ok())
}

/// Takes the power away, and then again where syncs are lies: that must be seen.
pub(crate) fn power_loss(arguments: &PowerLoss, directory: &Path) -> Result<(), Failure> {
    let tools = ["mkfs.ext4", "losetup"].iter().all(|tool| Command::new(tool).arg("-V").output().is_ok());
    if !may_mount() || !tools || !Path::new("/dev/loop-control").exists() {
        return report("SKIPPED the loss of power: it needs root, loop devices, mount and mkfs.ext4\n");
    }
    let mut chance = Chance::new(arguments.seed);
    let mut acknowledged = 0;
    for round in 0..arguments.rounds {
        let lived = Duration::from_millis(300 + chance.below(2_000));
        let round = lose(&directory.join(round.to_string()), lived, false)?;
        ensure(round.missing.is_empty(), || {
            format!("of {} acknowledged events are missing: {:?}", round.acknowledged, round.missing)
        })?;
        acknowledged += round.acknowledged;
    }
    report(&format!(
        "the power was lost {} times: of {acknowledged} acknowledged events none was lost\n",
        arguments.rounds
    ))?;
    let there = Command::new("env").arg(format!("LD_PRELOAD={EATMYDATA}")).arg("true").output();
    if !there.is_ok_and(|output| output.status.success() && output.stderr.is_empty()) {
        return report("SKIPPED the control of the loss of power: eatmydata is not there\n");
    }
    let control = lose(&directory.join("control"), Duration::from_secs(2), true)?;
    ensure(!control.missing.is_empty(), || {
        format!(
            "without syncs none of {} events was lost: this test cannot tell, or the binary is linked statically",
            control.acknowledged
        )
    })?;
    report(&format!(
        "control: without syncs {} of {} acknowledged events were lost, as they must be\n",
        control.missing.len(),
        control.acknowledged
    ))
}

/// What a loss of power left.
#[derive(Debug)]
struct Left {
    acknowledged: usize,
    missing: Vec<u64>,
}

fn lose(directory: &Path, lived: Duration, without_syncs: bool) -> Result<Left, Failure> {
    let subscriber = Subscriber::start(|_, _, _| 202)?;
    let manifests = |paused| {
        let (url, delivery) = (subscriber.url("/all"), manifests::quick());
        manifests::broker(&[Trigger { name: "all", url, delivery, paused }])
    };
    // Nothing is delivered before: all that comes was read from the copy.
    let before = Home::new(&directory.join("before"), &manifests(true))?;
    let after = Home::new(&directory.join("after"), &manifests(false))?;
    let (image, copy) = (directory.join("image"), directory.join("copy"));
    let file = std::fs::File::create(&image).map_err(Failure::io("making an image"))?;
    file.set_len(IMAGE).map_err(Failure::io("making an image"))?;
    succeed(
        Command::new("mkfs.ext4")
            .args(["-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"])
            .arg(&image),
    )?;
    let book = Arc::new(Book::default());
    {
        // The kernel writes nothing by itself within the time of the test.
        let mounted = Mount::new(&["-o", "loop,commit=300", &image.to_string_lossy()], &before.data())?;
        let mut start = Start::default();
        if without_syncs {
            // What the file system has of the empty directory is not the question.
            succeed(&mut Command::new("sync"))?;
            start.environment.push(("LD_PRELOAD".to_owned(), EATMYDATA.to_owned()));
        }
        let broker = Broker::start(&before, &start)?;
        let producers = Producers::start(PRODUCERS, Duration::ZERO, &book, broker.ingress);
        pause(lived);
        broker.signal(Signal::STOP);
        stands_still(broker.id())?;
        let copied = std::fs::copy(&image, &copy);
        // Killed as it stands: one that went on for a moment could acknowledge what the copy does not hold.
        broker.kill()?;
        producers.stop();
        drop(mounted);
        copied.map_err(Failure::io("copying an image"))?;
    }
    let _mounted = Mount::new(&["-o", "loop", &copy.to_string_lossy()], &after.data())?;
    look(&after, &book, &subscriber, without_syncs)
}

/// Waits until every thread of a stopped process stands: one that is in a sync stops only when the sync has ended, and
/// an image that changes while it is copied is no image of any moment.
fn stands_still(process: u32) -> Result<(), Failure> {
    let tasks = format!("/proc/{process}/task");
    let stands = wait(|| {
        for task in std::fs::read_dir(&tasks).map_err(Failure::io("listing the threads of waypost"))? {
            let task = task.map_err(Failure::io("listing the threads of waypost"))?;
            let status = std::fs::read_to_string(task.path().join("status"))
                .map_err(Failure::io("reading the state of a thread"))?;
            let state = status.lines().find_map(|line| line.strip_prefix("State:"));
            if !state.is_some_and(|state| state.trim_start().starts_with('T')) {
                return Ok(None);
            }
        }
        Ok(Some(()))
    })?;
    stands.ok_or_else(|| Failure::Broken("a stopped waypost does not come out of a system call".to_owned()))
}

fn look(after: &Home, book: &Book, subscriber: &Subscriber, without_syncs: bool) -> Result<Left, Failure> {
    let acknowledged = book.acknowledged();
    let all_lost = || Left { acknowledged: acknowledged.len(), missing: acknowledged.clone() };
    let broker = match Broker::start(after, &Start::default()) {
        // A directory that lies about syncs may be beyond recovery, which is a loss, too.
        Err(_) if without_syncs => return Ok(all_lost()),
        started => started?,
    };
    let settled = broker.settled();
    if settled.is_err() && without_syncs {
        return Ok(all_lost());
    }
    settled?;
    if !without_syncs {
        broker.recount()?;
    }
    broker.stop()?;
    subscriber.unchanged()?;
    kills::no_panic(after)?;
    let missing = subscriber.missing("/all", &acknowledged);
    Ok(Left { acknowledged: acknowledged.len(), missing })
}

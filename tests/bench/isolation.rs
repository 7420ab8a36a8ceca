//! What a subscriber that never answers, one that always fails, and one that is away and comes back do to the latency of
//! a healthy one.

use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::figures::Spread;
use crate::stage::{Load, Log, Run, Scene, Stage, Subscriber};

/// Events per second.
const RATE: f64 = 2_000.0;

/// A healthy trigger alone, and beside two that are not.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Isolation {
    pub(crate) log: Log,
    pub(crate) rate: f64,
    pub(crate) alone: Vec<Healthy>,
    /// One subscriber never answers, one always answers 500.
    pub(crate) beside: Vec<Healthy>,
    /// One subscriber refuses connections, and its trigger holds what it is owed.
    #[serde(default)]
    pub(crate) away: Vec<Healthy>,
    /// That subscriber is back, and gets all that it is owed.
    #[serde(default)]
    pub(crate) back: Vec<Healthy>,
}

/// The healthy trigger in one round.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Healthy {
    pub(crate) run: Run,
    /// The broker's memory at the end, in KiB.
    pub(crate) resident_kibibytes: u64,
}

/// The 99th percentile from the time when an event was due until the healthy subscriber had it, in microseconds.
pub(crate) fn p99(rounds: &[Healthy]) -> Spread {
    Spread::of(rounds.iter().map(|healthy| healthy.run.received.latency.p99).collect())
}

pub(crate) fn resident(rounds: &[Healthy]) -> Spread {
    Spread::of(rounds.iter().map(|healthy| healthy.resident_kibibytes as f64).collect())
}

/// How much of the machine went to other processes in these rounds, in per cent.
pub(crate) fn others(rounds: &[Healthy]) -> Spread {
    Spread::of(rounds.iter().map(|healthy| healthy.run.others_share * 100.0).collect())
}

pub(crate) fn isolation(
    stage: &Stage,
    logs: &[Log],
    count: usize,
    seconds: f64,
    warm_up: f64,
) -> Result<Vec<Isolation>, Failure> {
    let mut all = Vec::new();
    for log in logs {
        let mut isolation = Isolation {
            log: *log,
            rate: RATE,
            alone: Vec::new(),
            beside: Vec::new(),
            away: Vec::new(),
            back: Vec::new(),
        };
        for round in 0..count {
            let never = Subscriber::start(stage, &["--never"])?;
            let failing = Subscriber::start(stage, &["--answer", "500"])?;
            let others = [never.address, failing.address].map(|address| format!("http://{address}/0"));
            // In turns, so that neither is always the first.
            if round % 2 == 0 {
                isolation.alone.push(measure(stage, *log, &[], seconds, warm_up)?);
                isolation.beside.push(measure(stage, *log, &others, seconds, warm_up)?);
            } else {
                isolation.beside.push(measure(stage, *log, &others, seconds, warm_up)?);
                isolation.alone.push(measure(stage, *log, &[], seconds, warm_up)?);
            }
            let (away, back) = measure_held(stage, *log, seconds, warm_up)?;
            isolation.away.push(away);
            isolation.back.push(back);
            let p99 = |rounds: &[Healthy]| rounds[round].run.received.latency.p99;
            crate::measure::progress(&format!(
                "isolation {} of {count}: {}: p99 {:.0} us alone, {:.0} us beside failing ones, {:.0} us beside one that is \
                 away, {:.0} us when it is back",
                round + 1,
                log.name(),
                p99(&isolation.alone),
                p99(&isolation.beside),
                p99(&isolation.away),
                p99(&isolation.back),
            ));
        }
        all.push(isolation);
    }
    Ok(all)
}

fn measure(
    stage: &Stage,
    log: Log,
    others: &[String],
    seconds: f64,
    warm_up: f64,
) -> Result<Healthy, Failure> {
    let mut scene = Scene::broker(stage, log, 1, others)?;
    let rate = Some(RATE);
    scene.run(stage, Load { seconds: warm_up, rate, run: 1, types: None })?;
    let run = scene.run(stage, Load { seconds, rate, run: 2, types: None })?;
    let waypost = scene.waypost.as_ref().expect("this scene has a broker");
    Ok(Healthy { run, resident_kibibytes: waypost.resident_kibibytes()? })
}

/// The healthy trigger beside one that holds what its subscriber, who is away, is owed; and then while that is delivered.
fn measure_held(stage: &Stage, log: Log, seconds: f64, warm_up: f64) -> Result<(Healthy, Healthy), Failure> {
    let mut held = Subscriber::start(stage, &["--away"])?;
    let mut scene = Scene::beside_one_that_holds(stage, log, &format!("http://{}/0", held.address))?;
    let rate = Some(RATE);
    scene.run(stage, Load { seconds: warm_up, rate, run: 1, types: None })?;
    let measured = |scene: &mut Scene, run| {
        let run = scene.run(stage, Load { seconds, rate, run, types: None })?;
        let waypost = scene.waypost.as_ref().expect("this scene has a broker");
        Ok::<_, Failure>(Healthy { run, resident_kibibytes: waypost.resident_kibibytes()? })
    };
    let away = measured(&mut scene, 2)?;
    held.listen()?;
    let back = measured(&mut scene, 3)?;
    Ok((away, back))
}

//! What the admin API asks of replays.

use std::sync::atomic::Ordering;

use tokio::sync::oneshot;
use waypost_core::manifest::ResourceName;

use super::super::Supervisor;
use super::sending::{document_of, filter_of, planned_of};
use crate::plan::Plan;
use crate::replay::{
    Replay, ReplayError, ReplayEstimate, ReplayOrigin, ReplayRange, ReplayRecord, ReplayRequest, ReplayState,
    ReplayStatus, count,
};

impl Supervisor {
    /// See [`crate::Engine::start_replay`].
    pub(crate) async fn start_replay(&self, request: ReplayRequest) -> Result<ReplayStatus, ReplayError> {
        self.to_its_end(|supervisor| async move { supervisor.start(request).await }).await
    }

    async fn start(&self, request: ReplayRequest) -> Result<ReplayStatus, ReplayError> {
        let applied = self.applied();
        let name = self.name_for(&request);
        if self.0.replays.get(&name).is_some() || applied.plan.replays.contains_key(&name) {
            return Err(ReplayError::Exists(name));
        }
        let document = document_of(&name, &request.spec);
        let planned = planned_of(&applied.plan, &document)?;
        let replay = self.begin(&applied.plan, &planned, ReplayOrigin::Api { document }).await?;
        Ok(self.replay_line(&replay))
    }

    /// Does something while nothing else is applied, to its end, also where whoever asks for it goes away.
    async fn to_its_end<D, F>(&self, what: D) -> Result<ReplayStatus, ReplayError>
    where
        D: FnOnce(Self) -> F + Send + 'static,
        F: Future<Output = Result<ReplayStatus, ReplayError>> + Send,
    {
        let (tell, told) = oneshot::channel();
        let supervisor = self.clone();
        self.0.context.dispatch.spawn("changes of replays", async move {
            let stop = supervisor.0.context.dispatch.stop();
            let _one_at_a_time = tokio::select! {
                applying = supervisor.0.applying.lock() => applying,
                // A shutdown holds it to its end, and waits for this task.
                () = stop.cancelled() => return,
            };
            if !supervisor.0.stopped.load(Ordering::Relaxed) {
                // Whoever asked may have gone.
                drop(tell.send(what(supervisor.clone()).await));
            }
        });
        told.await.unwrap_or(Err(ReplayError::Stopping))
    }

    /// See [`crate::Engine::estimate_replay`].
    pub(crate) async fn estimate_replay(
        &self,
        request: ReplayRequest,
    ) -> Result<ReplayEstimate, ReplayError> {
        let applied = self.applied();
        let name = self.name_for(&request);
        let planned = planned_of(&applied.plan, &document_of(&name, &request.spec))?;
        let (broker, resolved) = self.resolve_replay(&applied.plan, &planned).await?;
        let filter = filter_of(&applied.plan, &planned)?;
        let stop = self.0.context.dispatch.stop();
        let counting = async {
            let _one_of_few = self.0.replays.counting.acquire().await;
            count(broker.log(), &resolved.ranges, &filter).await
        };
        let expected = tokio::select! {
            counted = counting => counted.map_err(|error| ReplayError::Unreadable(error.to_string()))?,
            () = stop.cancelled() => return Err(ReplayError::Stopping),
        };
        let range = |range: &crate::logs::PastRange| ReplayRange::of(range);
        Ok(ReplayEstimate {
            namespace: name.namespace,
            broker: planned.broker.name,
            expected,
            ranges: resolved.ranges.iter().map(range).collect(),
            notices: resolved.notices,
        })
    }

    /// The name that is asked for, or one of the moment.
    fn name_for(&self, request: &ReplayRequest) -> ResourceName {
        let namespace = request.namespace.clone();
        if let Some(name) = &request.name {
            return ResourceName::new(namespace, name);
        }
        let now = jiff::Timestamp::from_nanosecond(i128::from(self.0.context.clock.now().0));
        let base = now.unwrap_or_default().strftime("replay-%Y%m%d-%H%M%S").to_string();
        let mut name = ResourceName::new(namespace, &base);
        for more in 2_u32.. {
            if self.0.replays.get(&name).is_none() {
                break;
            }
            name.name = format!("{base}-{more}");
        }
        name
    }

    /// See [`crate::Engine::pause_replay`].
    pub(crate) async fn pause_replay(
        &self,
        name: &ResourceName,
        paused: bool,
    ) -> Result<ReplayStatus, ReplayError> {
        let name = name.clone();
        self.to_its_end(move |supervisor| async move { supervisor.pause(&name, paused).await }).await
    }

    async fn pause(&self, name: &ResourceName, paused: bool) -> Result<ReplayStatus, ReplayError> {
        let replay = self.0.replays.find(name)?;
        refuse_ended(&replay)?;
        if !paused && replay.is_paused_by_manifest() {
            return Err(ReplayError::PausedByManifest(name.clone()));
        }
        let change = |record: &mut ReplayRecord| record.paused = paused;
        replay.change(&self.0.context.logs, change).await.map_err(ReplayError::Unwritten)?;
        let applied = self.applied();
        let plan: &Plan = &applied.plan;
        let planned = match &replay.record().origin {
            ReplayOrigin::Manifest => plan.replays.get(name).cloned(),
            ReplayOrigin::Api { document } => self.planned_again(plan, &replay, document),
        };
        self.bring_into_line(plan, &replay, planned.as_deref()).await;
        Ok(self.replay_line(&replay))
    }

    /// See [`crate::Engine::cancel_replay`].
    pub(crate) async fn cancel_replay(&self, name: &ResourceName) -> Result<ReplayStatus, ReplayError> {
        let name = name.clone();
        let cancelling = move |supervisor: Self| async move {
            let replay = supervisor.0.replays.find(&name)?;
            refuse_ended(&replay)?;
            supervisor.cancel(&replay).await?;
            Ok(supervisor.replay_line(&replay))
        };
        self.to_its_end(cancelling).await
    }
}

fn refuse_ended(replay: &Replay) -> Result<(), ReplayError> {
    let state = replay.state();
    if !state.has_ended() {
        return Ok(());
    }
    let state = if state == ReplayState::Completed { "completed" } else { "cancelled" };
    Err(ReplayError::Ended { name: replay.name.clone(), state })
}

//! The logs of brokers that do not run yet.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::task::JoinSet;
use waypost_core::codes;
use waypost_core::manifest::ResourceName;
use waypost_log::Log;

use super::Supervisor;
use crate::broker::Recorded;
use crate::context::Context;
use crate::logs::Unopened;
use crate::plan::{BrokerPlan, Plan};

/// So many logs are opened at the same time.
const OPENED_AT_ONCE: usize = 8;

/// A log, and how it is to be matched.
pub(super) type Opened = (Arc<dyn Log>, Recorded);

impl Supervisor {
    /// Opens the logs of the brokers that do not run yet, those that are kept although no manifest declares them too,
    /// and reads how they are to be matched: several at the same time, for each waits for the disk.
    pub(super) async fn open_logs(&self, plan: &Plan) -> HashMap<ResourceName, Opened> {
        let context = &self.0.context;
        let new: Vec<_> = {
            let running = self.0.running.lock();
            let all = plan.brokers.iter().chain(&plan.detached.brokers);
            all.filter(|(name, _)| !running.brokers.contains_key(*name)).collect()
        };
        let (mut opened, mut unopened) = (HashMap::new(), Vec::new());
        let mut new = new.into_iter();
        let mut opening = JoinSet::new();
        loop {
            while opening.len() < OPENED_AT_ONCE
                && let Some((name, planned)) = new.next()
            {
                let (context, name, planned) = (Arc::clone(context), name.clone(), Arc::clone(planned));
                opening.spawn(async move { (open_log(&context, &name, &planned).await, name) });
            }
            // One that panicked has said so, and is tried again with the next plan.
            let Some(Ok((result, name))) = opening.join_next().await else { break };
            match result {
                Ok(read) => {
                    opened.insert(name, read);
                }
                Err(error) => {
                    tracing::error!(broker = %name, code = error.code.id(), %error, "the broker cannot start");
                    // One that is detached is not found, whatever the state of its log.
                    if plan.brokers.contains_key(&name) {
                        unopened.push((name, Arc::new(error)));
                    }
                }
            }
        }
        context.directory.set_unopened(unopened);
        opened
    }
}

/// Opens a log, and reads how it is to be matched.
async fn open_log(
    context: &Arc<Context>,
    name: &ResourceName,
    planned: &BrokerPlan,
) -> Result<Opened, Unopened> {
    let log = context.logs.open(name, planned).await?;
    let (context, name) = (Arc::clone(context), name.clone());
    let reading = move || Recorded::read(&name, &*log, &context).map(|recorded| (log, recorded));
    tokio::task::spawn_blocking(reading).await.unwrap_or_else(|error| {
        let reason = format!("reading how the log is matched panicked ({error}); please report this");
        Err(Unopened { code: codes::LOG_FAILED, reason })
    })
}

//! The end of what was detached for too long: brokers with their logs, triggers with their debts.

use waypost_log::Timestamp;

use super::Supervisor;
use super::subscriptions::give_up;
use crate::logs::past_name;
use crate::plan::{Family, ResourceKey, declared_for, stored_names};

impl Supervisor {
    /// Gives up what was detached for longer than detached data is kept.
    pub(crate) async fn forget_detached(&self) {
        // Not waited for: a shutdown holds it to its end, and waits for the housekeeper.
        let Ok(_one_at_a_time) = self.0.applying.try_lock() else { return };
        let now = self.0.context.clock.now();
        let expired = |since: &Timestamp| now.since(*since) >= self.0.context.detached_retention;
        let applied = self.0.applied.load_full();
        // What is declared with an error is not gone, also where it has no valid version.
        let invalid = applied.plan.invalid();
        let (mut closed, mut forgotten, mut pasts) = (Vec::new(), Vec::new(), Vec::new());
        {
            let mut running = self.0.running.lock();
            for (name, broker) in &mut running.brokers {
                if invalid.contains(&declared_for(name)) {
                    continue;
                }
                let gone: Vec<_> = broker
                    .triggers_detached_since
                    .iter()
                    .filter(|(_, since)| expired(since))
                    .map(|(trigger, _)| ResourceKey::new(Family::Trigger, trigger.clone()))
                    .filter(|key| !invalid.contains(key))
                    .collect();
                for key in gone {
                    if give_up(&broker.broker, &key.name) {
                        broker.triggers_detached_since.remove(&key.name);
                        pasts.push(past_name(name, &key.name));
                        forgotten.push(key);
                    }
                }
            }
            let gone = running
                .brokers
                .iter()
                .filter(|(_, broker)| broker.detached_since.as_ref().is_some_and(expired))
                .filter(|(name, _)| !invalid.contains(&declared_for(name)));
            let gone: Vec<_> = gone.map(|(name, _)| name.clone()).collect();
            closed.extend(gone.iter().filter_map(|name| running.brokers.remove(name)));
        }
        for broker in closed {
            pasts.extend(self.end_replays_of(broker.broker.name()).await);
            tracing::info!(broker = %broker.broker.name(), "a broker that was detached is forgotten with its events");
            for subscription in broker.broker.subscriptions() {
                subscription.stop();
            }
            broker.broker.log().close().await;
            let name = broker.broker.name();
            if let Err(error) = self.0.context.logs.forget(name).await {
                tracing::error!(
                    broker = %name, code = error.code().id(), %error,
                    "the log of a broker that is forgotten cannot be deleted; it is tried again after a restart"
                );
                continue;
            }
            let triggers = broker.broker.subscriptions();
            pasts.extend(triggers.iter().map(|subscription| past_name(name, &subscription.name)));
            // Of an implicit one it is what it was made for that is stored.
            forgotten.extend([ResourceKey::new(Family::Broker, name.clone()), declared_for(name)]);
        }
        self.forget_stored(&forgotten, pasts).await;
        self.forget_replays().await;
    }

    /// Takes what is forgotten out of what a later process is told.
    async fn forget_stored(&self, forgotten: &[ResourceKey], pasts: Vec<String>) {
        if forgotten.is_empty() {
            return;
        }
        let applied = self.0.applied.load_full();
        let mut changes: Vec<_> = pasts.into_iter().map(|past| (past, None)).collect();
        for key in forgotten {
            let [resource, detached] = stored_names(key);
            // A trigger may be declared still although its broker is not.
            if !applied.plan.origins.contains_key(key) {
                changes.push((resource, None));
            }
            changes.push((detached, None));
        }
        if let Err(error) = self.0.context.logs.keep(changes).await {
            tracing::error!(code = error.code().id(), %error, "what is forgotten cannot be taken out of the stored plan");
        }
    }
}

//! Which delivery applies to a trigger, with every default filled in.

use waypost_core::delivery::{
    Backoff, DEFAULT_BACKOFF_DELAY, DEFAULT_BACKOFF_MAX, DEFAULT_MAX_IN_FLIGHT, DEFAULT_RETRY_AFTER_MAX,
    DEFAULT_TIMEOUT, DeliveryPolicy, Format, Ordering,
};
use waypost_core::manifest::{DeliveryExtras, DeliverySpec};

/// The policy that a `delivery` asks for. One without `retry` has none; policy and delay have Knative's defaults.
pub(super) fn policy(spec: &DeliverySpec) -> DeliveryPolicy {
    let mut policy = DeliveryPolicy {
        retry: spec.retry.unwrap_or(0),
        backoff: Backoff {
            policy: spec.backoff.policy.unwrap_or(Backoff::default().policy),
            delay: spec.backoff.delay.unwrap_or(DEFAULT_BACKOFF_DELAY),
            max: DEFAULT_BACKOFF_MAX,
        },
        timeout: spec.timeout.unwrap_or(DEFAULT_TIMEOUT),
        retry_after_max: spec.retry_after_max.unwrap_or(DEFAULT_RETRY_AFTER_MAX),
        format: spec.format.unwrap_or(Format::Binary),
        max_in_flight: DEFAULT_MAX_IN_FLIGHT,
        rate: None,
        ordering: Ordering::None,
        hold_when_down: false,
        deadline: None,
        max_backlog: None,
    };
    overlay(&mut policy, &spec.extras);
    policy
}

/// The policy of a trigger: its own, else that of its broker, else Knative's default; annotations on top.
pub(super) fn effective(
    own: Option<&DeliverySpec>,
    broker: Option<&DeliveryPolicy>,
    annotations: &DeliveryExtras,
) -> DeliveryPolicy {
    let mut effective = match own {
        Some(own) => policy(own),
        None => broker.cloned().unwrap_or_default(),
    };
    overlay(&mut effective, annotations);
    effective
}

/// A policy with the fields that `own` gives in the place of its own.
pub(super) fn overlaid(base: &DeliveryPolicy, own: &DeliverySpec) -> DeliveryPolicy {
    let mut policy = base.clone();
    policy.retry = own.retry.unwrap_or(policy.retry);
    policy.backoff.policy = own.backoff.policy.unwrap_or(policy.backoff.policy);
    policy.backoff.delay = own.backoff.delay.unwrap_or(policy.backoff.delay);
    policy.timeout = own.timeout.unwrap_or(policy.timeout);
    policy.retry_after_max = own.retry_after_max.unwrap_or(policy.retry_after_max);
    policy.format = own.format.unwrap_or(policy.format);
    overlay(&mut policy, &own.extras);
    policy
}

fn overlay(policy: &mut DeliveryPolicy, extras: &DeliveryExtras) {
    if let Some(max_in_flight) = extras.max_in_flight {
        policy.max_in_flight = max_in_flight;
    }
    if extras.rate.is_some() {
        policy.rate = extras.rate;
    }
    if let Some(ordering) = &extras.ordering {
        policy.ordering = ordering.clone();
    }
    if let Some(hold) = extras.hold_when_down {
        policy.hold_when_down = hold;
    }
    if let Some(max) = extras.backoff_max {
        policy.backoff.max = max;
    }
    if extras.deadline.is_some() {
        policy.deadline = extras.deadline;
    }
    if extras.max_backlog.is_some() {
        policy.max_backlog = extras.max_backlog;
    }
}

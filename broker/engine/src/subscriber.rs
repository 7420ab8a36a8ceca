//! What a trigger sends to, ready to be sent to.

mod http;

use waypost_core::delivery::Format;
use waypost_core::error::DeliveryError;
use waypost_core::event::Value;
use waypost_core::manifest::ResourceName;
use waypost_core::sink::{Batching, Outcome};
use waypost_core::transformation::{Moment, Transformed};
use waypost_core::{Event, codes};
use waypost_log::{Batch, Cause, Entry, Metadata, Origin, Position, Record, TriggerNumber};

pub(crate) use self::http::Answer;
use self::http::{HttpLane, HttpOptions, HttpSubscriber, Outgoing};
use crate::context::Context;
use crate::plan;

/// A subscriber, resolved to what runs.
#[derive(Debug)]
pub(crate) enum Subscriber {
    /// A URL outside this process.
    Http(HttpSubscriber),
    /// A sink of this process. Like the two below it is looked up at each attempt: it may come, go and change.
    Sink(ResourceName),
    /// A broker of this process.
    Broker(ResourceName),
    /// A transformation of this process: what it makes of the event is the reply.
    Transformation(ResourceName),
    /// Nothing can be sent, and this is why.
    Unresolved { destination: String, error: DeliveryError },
}

/// What a subscriber must know about the trigger that it serves.
#[derive(Debug, Clone)]
pub(crate) struct Terms {
    pub(crate) namespace: String,
    pub(crate) format: Format,
    pub(crate) timeout: std::time::Duration,
    pub(crate) strict_replies: bool,
}

/// What one worker keeps between attempts: for HTTP its connection. Serves one subscriber, the one that it was first
/// used with.
#[derive(Debug, Default)]
pub(crate) struct Lane {
    http: Option<HttpLane>,
}

/// One event on its way to a subscriber.
pub(crate) struct Sending<'a> {
    /// The entry that the trigger was owed.
    pub(crate) entry: &'a Entry,
    /// What is sent: the entry's own event, or what the transformations made of it.
    pub(crate) event: &'a Event,
    /// The delivery that this is, should it cause another event.
    pub(crate) cause: Causing<'a>,
    /// Whether an event in the answer is wanted.
    pub(crate) want_reply: bool,
}

/// A delivery, as it becomes the [`Cause`] of the events that it causes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Causing<'a> {
    pub(crate) broker: &'a ResourceName,
    pub(crate) position: Position,
    pub(crate) trigger: TriggerNumber,
    pub(crate) output: u32,
}

impl Causing<'_> {
    /// The cause of one of the events that the delivery causes, counted from 0.
    fn of(&self, event: u32) -> Cause {
        Cause {
            broker: self.broker.clone(),
            position: self.position,
            trigger: self.trigger,
            output: self.output.saturating_mul(OUTPUTS_APART).saturating_add(event),
        }
    }
}

impl Subscriber {
    /// Makes a planned subscriber ready.
    pub(crate) fn resolve(planned: &plan::Subscriber, terms: &Terms, context: &Context) -> Self {
        match planned {
            plan::Subscriber::Http(destination) => {
                let options = HttpOptions {
                    namespace: terms.namespace.clone(),
                    format: terms.format,
                    timeout: terms.timeout,
                    strict_replies: terms.strict_replies,
                    max_reply_bytes: context.max_event_bytes,
                };
                match HttpSubscriber::new(&context.pool, destination, options) {
                    Ok(subscriber) => Self::Http(subscriber),
                    Err(error) => Self::Unresolved { destination: destination.url.clone(), error },
                }
            }
            plan::Subscriber::Sink(name) => Self::Sink(name.clone()),
            plan::Subscriber::Broker(name) => Self::Broker(name.clone()),
            plan::Subscriber::Transformation(name) => Self::Transformation(name.clone()),
        }
    }

    /// The name of the place, for errors and dead letters.
    pub(crate) fn destination(&self) -> String {
        match self {
            Self::Http(subscriber) => subscriber.destination().to_owned(),
            Self::Sink(name) => format!("/{}/sinks/{}", name.namespace, name.name),
            Self::Broker(name) => {
                // A Sequence or a Parallel is told by its own address.
                let flow = [("sequence:", "sequences"), ("parallel:", "parallels")].into_iter().find_map(
                    |(prefix, kind)| {
                        Some((kind, name.name.strip_prefix(prefix).filter(|own| !own.contains(':'))?))
                    },
                );
                match flow {
                    Some((kind, own)) => format!("/{}/{kind}/{own}", name.namespace),
                    None => format!("/{}/{}", name.namespace, name.name),
                }
            }
            Self::Transformation(name) => format!("/{}/transformations/{}", name.namespace, name.name),
            Self::Unresolved { destination, .. } => destination.clone(),
        }
    }

    /// Makes one attempt. Not cancel-safe: a dropped attempt may have been received.
    pub(crate) async fn send(
        &self,
        lane: &mut Lane,
        sending: &Sending<'_>,
        terms: &Terms,
        context: &Context,
    ) -> Answer {
        match self {
            Self::Http(subscriber) => {
                let entry = sending.entry;
                let unchanged = sending.event.packed().as_ptr() == entry.event.packed().as_ptr();
                let outgoing = Outgoing {
                    event: sending.event,
                    head: if unchanged { entry.head() } else { None },
                    passed_headers: &entry.metadata.headers,
                    want_reply: sending.want_reply,
                    now: context.clock.now(),
                };
                lane.http.get_or_insert_with(|| subscriber.lane()).deliver(&outgoing).await
            }
            Self::Sink(name) => {
                let events = std::slice::from_ref(sending.event);
                let outcomes = deliver_to_sink(name, events, terms, context).await;
                answer_of(outcomes.into_iter().next())
            }
            Self::Broker(name) => {
                append_to_broker(name, std::slice::from_ref(sending.event), sending, context).await
            }
            Self::Transformation(name) => transform(name, sending, context).await,
            Self::Unresolved { error, .. } => Answer::Failed(error.clone()),
        }
    }
}

impl Subscriber {
    /// The batches that it takes: single events, but for a sink that asks for more. Not known of a sink that does not run.
    pub(crate) fn batching(&self, context: &Context) -> Option<Batching> {
        match self {
            Self::Sink(name) => context.directory.sink(&name.namespace, &name.name)?.batching(),
            Self::Http(_) | Self::Broker(_) | Self::Transformation(_) | Self::Unresolved { .. } => {
                Some(Batching::SINGLE)
            }
        }
    }

    /// Gives several events to a sink in one attempt, and returns what became of each, in order; fewer where the sink
    /// told of fewer, and none for what is no sink. Not cancel-safe: a dropped attempt may have been received.
    pub(crate) async fn send_batch(
        &self,
        events: &[Event],
        terms: &Terms,
        context: &Context,
    ) -> Vec<Outcome> {
        match self {
            Self::Sink(name) => deliver_to_sink(name, events, terms, context).await,
            Self::Http(_) | Self::Broker(_) | Self::Transformation(_) | Self::Unresolved { .. } => Vec::new(),
        }
    }
}

async fn deliver_to_sink(
    name: &ResourceName,
    events: &[Event],
    terms: &Terms,
    context: &Context,
) -> Vec<Outcome> {
    let find = || context.directory.sink(&name.namespace, &name.name);
    let Some(sink) = find() else { return vec![Outcome::Failed(absent("Sink", name)); events.len()] };
    // Replaced between the look-up and now: the one that took its place is found at the second look.
    let sink = if sink.is_closed() { find().unwrap_or(sink) } else { sink };
    match tokio::time::timeout(terms.timeout, sink.deliver(events)).await {
        Ok(outcomes) => outcomes,
        Err(_) => {
            let error = DeliveryError::retryable(
                codes::SUBSCRIBER_TIMEOUT,
                format!("the sink {name} did not finish within {:?}", terms.timeout),
            );
            vec![Outcome::Failed(error.congested()); events.len()]
        }
    }
}

/// Applies a transformation. What comes out goes to the broker behind its sink where it has one, and is the reply
/// where it has none.
async fn transform(name: &ResourceName, sending: &Sending<'_>, context: &Context) -> Answer {
    let Some(planned) = context.directory.transformation(&name.namespace, &name.name) else {
        return not_running("Transformation", name);
    };
    let moment = Moment { arrived_nanoseconds: sending.entry.arrived.0 };
    let events = match planned.chain.apply(sending.event, moment) {
        Ok(Transformed::Events(events)) => events,
        Ok(Transformed::Nothing(_)) => return Answer::Delivered { status: None, body_ignored: false },
        Err(error) => return Answer::Failed(DeliveryError::permanent(error.error.code, error.to_string())),
    };
    match &planned.broker {
        Some(broker) => append_to_broker(broker, &events, sending, context).await,
        None => Answer::Replied { status: None, events },
    }
}

/// The plan names something that does not run: no event is lost for that.
fn not_running(kind: &str, name: &ResourceName) -> Answer {
    Answer::Failed(absent(kind, name))
}

pub(crate) fn absent(kind: &str, name: &ResourceName) -> DeliveryError {
    DeliveryError::misconfigured(
        codes::SUBSCRIBER_NOT_RESOLVED,
        format!("the {kind} {name} is not running; see its status"),
    )
}

fn answer_of(outcome: Option<Outcome>) -> Answer {
    match outcome {
        Some(Outcome::Delivered) => Answer::Delivered { status: None, body_ignored: false },
        Some(Outcome::Replied(events)) => Answer::Replied { status: None, events },
        Some(Outcome::Failed(error)) => Answer::Failed(error),
        None => Answer::Failed(DeliveryError::retryable(
            codes::SINK_UNAVAILABLE,
            "the sink gave no outcome for the event",
        )),
    }
}

/// Hands events to a broker of this process: one commit, with their cause and one hop less.
async fn append_to_broker(
    name: &ResourceName,
    events: &[Event],
    sending: &Sending<'_>,
    context: &Context,
) -> Answer {
    let Some(broker) = context.directory.broker(&name.namespace, &name.name) else {
        return not_running("Broker", name);
    };
    match caused_batch(events, sending) {
        Ok(batch) => match broker.append_caused(batch).await {
            Ok(()) => Answer::Delivered { status: None, body_ignored: false },
            Err(error) => Answer::Failed(error),
        },
        Err(error) => Answer::Failed(error),
    }
}

/// The numbers of the events that one output of a delivery causes are this far from those of the next output.
pub(crate) const OUTPUTS_APART: u32 = 65_536;

/// The batch of events that a delivery caused. Fails where no hop is left.
pub(crate) fn caused_batch(events: &[Event], sending: &Sending<'_>) -> Result<Batch, DeliveryError> {
    let hops = sending.entry.metadata.hops.saturating_sub(1);
    if hops == 0 {
        return Err(DeliveryError::permanent(
            codes::REPLY_HOPS_SPENT,
            "the event was caused by a chain of replies that used up all its hops; look for triggers that match \
             what they cause",
        ));
    }
    if events.iter().any(|event| event.attribute(HOPS_ATTRIBUTE).and_then(hops_of) == Some(0)) {
        return Err(DeliveryError::permanent(
            codes::REPLY_HOPS_SPENT,
            "the reply says by its `knativebrokerttl` that it has no hops left",
        ));
    }
    let records = (0..).zip(events).map(|(number, event)| {
        let metadata = Metadata {
            hops,
            origin: Origin::Delivery,
            cause: Some(Box::new(sending.cause.of(number))),
            headers: sending.entry.metadata.headers.clone(),
            ..Metadata::default()
        };
        let (event, given) = take_hops(event.clone());
        let metadata = Metadata { hops: given.map_or(hops, |given| given.min(hops)), ..metadata };
        Record { metadata, event }
    });
    Ok(Batch::of(records))
}

/// Knative's loop counter as an attribute.
const HOPS_ATTRIBUTE: &str = "knativebrokerttl";

/// Whether a request header goes from the producer to the subscribers. `Knative-Activator-Num-Retries` does not: it
/// speaks of one hop, and on the next it keeps Knative's activator from starting the subscriber.
pub fn is_passed_header(name: &str) -> bool {
    matches!(name, "x-request-id" | "traceparent" | "tracestate")
        || (name.starts_with("knative-") && name != "knative-activator-num-retries")
}

/// Takes Knative's loop counter out of an event: what it says, where it says a number from 0 to 255 or more.
pub fn take_hops(event: Event) -> (Event, Option<u8>) {
    let Some(value) = event.attribute(HOPS_ATTRIBUTE) else { return (event, None) };
    let hops = hops_of(value);
    // Only an optional attribute goes, so what remains is still valid.
    let without = event.without_attribute(HOPS_ATTRIBUTE).unwrap_or(event);
    (without, hops)
}

/// What a loop counter says, where it is a number.
fn hops_of(counter: Value<'_>) -> Option<u8> {
    let hops = counter.text.parse::<i64>().ok()?;
    Some(u8::try_from(hops.clamp(0, 255)).unwrap_or(u8::MAX))
}

//! The topics of a stream as a log that forgets: the session at the broker, and the acknowledgements of what is stored.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arrow::datatypes::TimeUnit;
use async_trait::async_trait;
use parking_lot::Mutex;
use rumqttc::{
    AsyncClient, Event, Outgoing, Packet, Publish, QoS, SubAck, SubscribeFilter,
    SubscribeReasonCode,
};
use windrow_core::{Clock, Error, ErrorKind, Result};

use super::connection::Connected;
use super::feed::MqttFeed;
use super::options::MqttOptions;
use crate::broker::columns::{Carried, Carries, Metadata, Names};
use crate::broker::health::Health;
use crate::broker::log::{At, Log};

/// The only partition.
const PARTITION: &str = "messages";

/// What a message carries.
pub(super) const NAMES: Names = &[("topic", Metadata::Topic), ("timestamp", Metadata::Timestamp)];

/// What a message carries.
#[derive(Debug)]
pub(crate) struct MqttMessage {
    pub(super) topic: String,
    /// When it arrived here, in µs since 1970: a message of MQTT has no time.
    pub(super) micros: i64,
}

impl Carries for MqttMessage {
    fn carried(&self, what: Metadata) -> Carried<'_> {
        match what {
            Metadata::Topic => Carried::Text(Cow::Borrowed(&self.topic)),
            Metadata::Timestamp => Carried::Time(self.micros, TimeUnit::Microsecond),
            Metadata::Key
            | Metadata::Headers
            | Metadata::Partition
            | Metadata::Offset
            | Metadata::Id => Carried::Nothing,
        }
    }
}

/// The messages of one connection that are not acknowledged: those of another connection have other identifiers, and come again.
pub(super) struct Acknowledgements {
    client: AsyncClient,
    /// Offsets with identifiers, ascending.
    waiting: Mutex<VecDeque<(u64, u16)>>,
}

impl std::fmt::Debug for Acknowledgements {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Acknowledgements").finish_non_exhaustive()
    }
}

impl Acknowledgements {
    /// Notes the offset of a message that arrived.
    pub(super) fn expect(&self, offset: u64, publish: &Publish) {
        if publish.qos != QoS::AtMostOnce {
            self.waiting.lock().push_back((offset, publish.pkid));
        }
    }

    /// Acknowledges the messages below an offset.
    fn up_to(&self, offset: u64) {
        let mut waiting = self.waiting.lock();
        while let Some((at, identifier)) = waiting.front().copied()
            && at < offset
        {
            waiting.pop_front();
            self.one(identifier);
        }
    }

    /// Acknowledges a message.
    pub(super) fn one(&self, identifier: u16) {
        let mut message = Publish::new("", QoS::AtLeastOnce, vec![]);
        message.pkid = identifier;
        // There is room for all identifiers; without the connection the message comes again.
        drop(self.client.try_ack(&message));
    }
}

/// The topics.
#[derive(Debug)]
pub(crate) struct MqttLog {
    options: Arc<MqttOptions>,
    clock: Arc<dyn Clock>,
    health: Arc<Health>,
    /// Whether the session has the subscriptions of this stream. Subscribing again would repeat retained messages.
    is_subscribed: Arc<AtomicBool>,
    /// Those of the connection.
    current: Mutex<Option<Arc<Acknowledgements>>>,
}

impl MqttLog {
    pub(super) fn new(options: MqttOptions, clock: Arc<dyn Clock>, health: Arc<Health>) -> Self {
        Self {
            options: Arc::new(options),
            clock,
            health,
            is_subscribed: Arc::default(),
            current: Mutex::default(),
        }
    }

    async fn connect(&self) -> Result<Connected> {
        let connected = self.options.server.connect(&self.options.client_id, true).await?;
        if !connected.has_session || !self.is_subscribed.load(Ordering::Relaxed) {
            self.is_subscribed.store(false, Ordering::Relaxed);
            let topics = self.options.topics.iter();
            let filters = topics.map(|topic| SubscribeFilter::new(topic.clone(), QoS::AtLeastOnce));
            let asked = connected.client.try_subscribe_many(filters);
            asked.map_err(|error| self.options.server.away(&error.to_string()))?;
        }
        Ok(connected)
    }
}

/// Returns the error of a subscription that the broker refuses.
pub(super) fn refused(options: &MqttOptions, answer: &SubAck) -> Option<Error> {
    let codes = answer.return_codes.iter().zip(&options.topics);
    let refused = codes.filter(|(code, _)| **code == SubscribeReasonCode::Failure);
    let topics: Vec<String> = refused.map(|(_, topic)| format!("\"{topic}\"")).collect();
    if topics.is_empty() {
        return None;
    }
    let (server, topics) = (options.server.shown(), topics.join(", "));
    let message = format!("broker \"{server}\" refuses the subscription to {topics}");
    Some(
        Error::new(ErrorKind::Denied, message)
            .with_hint("Check the topics, and the rights of the user to them."),
    )
}

#[async_trait]
impl Log for MqttLog {
    type Message = MqttMessage;
    type Feed = MqttFeed;

    fn unit(&self) -> &'static str {
        "message"
    }

    fn rediscover_after(&self) -> Option<Duration> {
        None
    }

    fn forgets(&self) -> bool {
        true
    }

    fn acknowledge(&self, _: &str, offset: u64) {
        let current = self.current.lock().clone();
        if let Some(current) = current {
            current.up_to(offset);
        }
    }

    /// Begins the session: the messages that are published from now on wait at the broker.
    async fn check(&self) -> Result<()> {
        let Connected { client, mut events, .. } = self.connect().await?;
        loop {
            match events.poll().await {
                Ok(Event::Incoming(Packet::SubAck(answer))) => {
                    if let Some(error) = refused(&self.options, &answer) {
                        return Err(error);
                    }
                    self.is_subscribed.store(true, Ordering::Relaxed);
                    // A connection that has ended already is fine.
                    drop(client.try_disconnect());
                }
                Ok(Event::Outgoing(Outgoing::Disconnect)) => return Ok(()),
                // Messages come again, since they are not acknowledged.
                Ok(_) => {}
                Err(error) => return Err(self.options.server.failed(&error)),
            }
        }
    }

    async fn partitions(&self) -> Result<Vec<Arc<str>>> {
        Ok(vec![PARTITION.into()])
    }

    async fn start(&self, _: &str, _: bool) -> Result<String> {
        Ok(String::new())
    }

    async fn follow(&self, _: &str, at: &At) -> Result<MqttFeed> {
        let connected = self.connect().await?;
        let current =
            Arc::new(Acknowledgements { client: connected.client, waiting: Mutex::default() });
        *self.current.lock() = Some(Arc::clone(&current));
        let options = Arc::clone(&self.options);
        let parts = (options, Arc::clone(&self.clock), Arc::clone(&self.health));
        let subscribed = Arc::clone(&self.is_subscribed);
        Ok(MqttFeed::begin((connected.events, current), parts, subscribed, at.from.unwrap_or(0)))
    }
}

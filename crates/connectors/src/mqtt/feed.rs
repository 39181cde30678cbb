//! The messages of one connection, in the order in which they arrive.
//!
//! Invariants: what waits here is bounded in messages and in bytes; while it is full nothing is read from the connection, and the
//! broker waits. Messages of a connection that is lost are dropped, since the broker sends them again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use rumqttc::{Event, EventLoop, Packet, Publish, QoS};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use windrow_core::{Clock, Error, Result};

use super::log::{Acknowledgements, MqttMessage, refused};
use super::options::MqttOptions;
use super::topics::takes;
use crate::broker::health::Health;
use crate::broker::log::{Entry, Feed, Fetched, PIECE_BYTES};

/// The most messages that wait.
const WAITING: usize = 1_024;
/// The most bytes that they have, except for a single larger message.
const WAITING_BYTES: u32 = 8 << 20;

/// The reading.
pub(crate) struct MqttFeed {
    arrived: mpsc::Receiver<Arrived>,
    /// Why the connection has ended.
    ended: oneshot::Receiver<Error>,
    task: JoinHandle<()>,
    acknowledgements: Arc<Acknowledgements>,
    options: Arc<MqttOptions>,
    health: Arc<Health>,
    /// The offset of the next message.
    next: u64,
    /// Whether the connection was reported.
    is_begun: bool,
}

struct Arrived {
    publish: Publish,
    micros: i64,
    /// Its part of the bytes that may wait.
    room: OwnedSemaphorePermit,
}

impl Drop for MqttFeed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl MqttFeed {
    /// Begins to receive. `next`: the offset of the first message.
    pub(super) fn begin(
        (events, acknowledgements): (EventLoop, Arc<Acknowledgements>),
        (options, clock, health): (Arc<MqttOptions>, Arc<dyn Clock>, Arc<Health>),
        is_subscribed: Arc<AtomicBool>,
        next: u64,
    ) -> Self {
        let (sender, arrived) = mpsc::channel(WAITING);
        let (end, ended) = oneshot::channel();
        let receiving =
            Receiving { events, sender, options: Arc::clone(&options), clock, is_subscribed };
        let task = tokio::spawn(async move {
            if let Some(error) = receiving.run().await {
                // A feed that is gone needs no error.
                drop(end.send(error));
            }
        });
        Self { arrived, ended, task, acknowledgements, options, health, next, is_begun: false }
    }

    /// Takes a message.
    fn take(&mut self, Arrived { publish, micros, room }: Arrived, piece: &mut Piece) {
        drop(room);
        if !self.options.topics.iter().any(|filter| takes(filter, &publish.topic)) {
            self.health.note(&format!(
                "the session of client_id \"{}\" has a message of topic \"{}\", which the stream does not read",
                self.options.client_id, publish.topic
            ));
            if publish.qos != QoS::AtMostOnce {
                self.acknowledgements.one(publish.pkid);
            }
            return;
        }
        let offset = self.next;
        self.next += 1;
        self.acknowledgements.expect(offset, &publish);
        piece.bytes += publish.topic.len() + publish.payload.len();
        let message = MqttMessage { topic: publish.topic, micros };
        piece.entries.push(Entry { offset, message, value: Some(publish.payload) });
    }
}

/// Messages that are returned together.
#[derive(Default)]
struct Piece {
    entries: Vec<Entry<MqttMessage>>,
    bytes: usize,
}

#[async_trait]
impl Feed<MqttMessage> for MqttFeed {
    async fn next(&mut self, rows_max: usize) -> Result<Fetched<MqttMessage>> {
        let mut piece = Piece::default();
        if self.is_begun {
            let first = tokio::select! {
                biased;
                error = &mut self.ended => {
                    return Err(error.unwrap_or_else(|_| self.options.server.away("the connection has ended")));
                }
                first = self.arrived.recv() => first,
            };
            let Some(first) = first else {
                let error = (&mut self.ended).await;
                return Err(
                    error.unwrap_or_else(|_| self.options.server.away("the connection has ended"))
                );
            };
            self.take(first, &mut piece);
            while piece.entries.len() < rows_max
                && piece.bytes < PIECE_BYTES
                && let Ok(more) = self.arrived.try_recv()
            {
                self.take(more, &mut piece);
            }
        }
        self.is_begun = true;
        Ok(Fetched {
            entries: piece.entries,
            reached: None,
            place: None,
            lag: None,
            is_caught_up: false,
            is_over: false,
        })
    }
}

/// What the task does.
struct Receiving {
    events: EventLoop,
    sender: mpsc::Sender<Arrived>,
    options: Arc<MqttOptions>,
    clock: Arc<dyn Clock>,
    is_subscribed: Arc<AtomicBool>,
}

impl Receiving {
    /// Returns the error with which the connection ended; `None`: the receiver of the messages is gone.
    async fn run(mut self) -> Option<Error> {
        let room = Arc::new(Semaphore::new(WAITING_BYTES as usize));
        loop {
            match self.events.poll().await {
                Ok(Event::Incoming(Packet::Publish(publish))) => {
                    let micros = self.clock.now_micros();
                    let bytes = publish.topic.len() + publish.payload.len();
                    let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).clamp(1, WAITING_BYTES);
                    let room = Arc::clone(&room).acquire_many_owned(bytes).await.ok()?;
                    self.sender.send(Arrived { publish, micros, room }).await.ok()?;
                }
                Ok(Event::Incoming(Packet::SubAck(answer))) => {
                    if let Some(error) = refused(&self.options, &answer) {
                        return Some(error);
                    }
                    self.is_subscribed.store(true, Ordering::Relaxed);
                }
                Ok(_) => {}
                Err(error) => return Some(self.options.server.failed(&error)),
            }
        }
    }
}

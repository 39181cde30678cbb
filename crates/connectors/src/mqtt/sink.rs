//! Sinks with `connector = 'mqtt'`: rows as messages of QoS 1, each at least once.
//!
//! A task keeps the connection; it counts the messages that the broker has acknowledged without a gap.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rumqttc::{AsyncClient, Event, EventLoop, Outgoing, Packet, QoS};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use windrow_core::{Clock, Error, ErrorKind, Guarantee, Result, Sink};

use super::connection::{Connected, FLIGHT, MESSAGE_BYTES_MAX, ServerOptions};
use super::options::MqttSinkOptions;
use super::topics::is_topic;
use crate::broker::sink::{Destination, Sending, message_sink};
use crate::env::{ConnectorEnv, SinkSpec};

/// How long the end of a connection may take.
const GOODBYE: Duration = Duration::from_secs(1);

/// Returns a sink of the options of `CREATE SINK … WITH (connector = 'mqtt', …)`. Nothing is sent yet.
///
/// # Errors
/// For invalid options, column types that the format does not have, and brokers that the user may not write to.
pub(crate) fn open_sink(
    options: &[(String, String)],
    spec: &SinkSpec,
    env: &ConnectorEnv,
) -> Result<Box<dyn Sink>> {
    let options = MqttSinkOptions::read(options)?;
    let place = if options.topic.contains("${") { "" } else { &options.topic };
    let server = options.server.confined(&[place.to_owned()], env)?;
    // Two clients of one name would end each other's connections.
    let fresh = || format!("windrow-{}-{:x}", spec.id, env.clock.now_micros());
    let destination = MqttDestination {
        client_id: options.client_id.clone().unwrap_or_else(fresh),
        server,
        retain: options.retain,
        timeout: options.sink.timeout,
        clock: Arc::clone(&env.clock),
        link: None,
    };
    let topic = ("topic", options.topic.as_str());
    message_sink(destination, (&options.shape, options.sink), topic, spec, &env.io)
}

#[derive(Debug)]
struct MqttDestination {
    client_id: String,
    server: ServerOptions,
    retain: bool,
    timeout: Duration,
    clock: Arc<dyn Clock>,
    link: Option<Link>,
}

/// A connection.
struct Link {
    client: AsyncClient,
    progress: watch::Receiver<Progress>,
    /// The messages that were handed over.
    sent: u64,
    task: JoinHandle<()>,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("sent", &self.sent).finish_non_exhaustive()
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// How far a connection is.
#[derive(Debug, Default, Clone)]
struct Progress {
    /// Messages that are acknowledged, without a gap.
    done: u64,
    /// Why it has ended.
    ended: Option<String>,
}

impl Link {
    fn begin(Connected { client, events, .. }: Connected, server: ServerOptions) -> Self {
        let (sender, progress) = watch::channel(Progress::default());
        Self { client, progress, sent: 0, task: tokio::spawn(run(events, sender, server)) }
    }
}

/// Keeps a connection until it ends.
async fn run(mut events: EventLoop, progress: watch::Sender<Progress>, server: ServerOptions) {
    // The identifiers of messages in flight, and whether they are acknowledged.
    let mut flight: VecDeque<(u16, bool)> = VecDeque::new();
    let ended = loop {
        match events.poll().await {
            Ok(Event::Outgoing(Outgoing::Publish(identifier))) => {
                flight.push_back((identifier, false));
            }
            Ok(Event::Incoming(Packet::PubAck(answer))) => {
                let of = flight.iter_mut().find(|(id, is_done)| *id == answer.pkid && !is_done);
                if let Some((_, is_done)) = of {
                    *is_done = true;
                }
                let mut done = 0;
                while flight.pop_front_if(|(_, is_done)| *is_done).is_some() {
                    done += 1;
                }
                if done > 0 {
                    progress.send_modify(|progress| progress.done += done);
                }
            }
            Ok(Event::Outgoing(Outgoing::Disconnect)) => break "it was ended".to_owned(),
            Ok(_) => {}
            Err(error) => break server.failed(&error).message().to_owned(),
        }
    };
    progress.send_modify(|progress| progress.ended = Some(ended));
}

/// Checks what no broker takes.
fn check(sending: &Sending) -> Result<()> {
    let topic = &sending.topic;
    if !is_topic(topic) {
        return Err(Error::data(format!("\"{topic}\" is not a topic"))
            .with_hint("A topic is not empty, and has neither + nor #."));
    }
    let size = topic.len() + sending.message.value.as_ref().map_or(0, bytes::Bytes::len) + 4;
    match size > MESSAGE_BYTES_MAX {
        true => Err(Error::data(format!(
            "the message has {size} bytes, and one of MQTT has {MESSAGE_BYTES_MAX} at most"
        ))),
        false => Ok(()),
    }
}

impl MqttDestination {
    /// Returns the connection, which is made if there is none.
    async fn link(&mut self) -> Result<&mut Link> {
        let has_ended = |link: &Link| link.progress.borrow().ended.is_some();
        let link = match self.link.take().filter(|link| !has_ended(link)) {
            Some(link) => link,
            None => {
                let connected = self.server.connect(&self.client_id, false).await;
                Link::begin(connected?, self.server.clone())
            }
        };
        Ok(self.link.insert(link))
    }

    /// Sends some messages, and waits for their acknowledgements; returns how many came without a gap.
    async fn send_some(&mut self, messages: &[Sending]) -> (usize, Result<()>) {
        let (retain, timeout, clock) = (self.retain, self.timeout, Arc::clone(&self.clock));
        let server = self.server.clone();
        let link = match self.link().await {
            Ok(link) => link,
            Err(error) => return (0, Err(error)),
        };
        let (before, mut failed) = (link.sent, Ok(()));
        for sending in messages {
            let payload = sending.message.value.clone().unwrap_or_default();
            let sent = check(sending).and_then(|()| {
                let topic = sending.topic.as_str();
                let sent = link.client.try_publish(topic, QoS::AtLeastOnce, retain, payload);
                sent.map_err(|error| server.away(&error.to_string()))
            });
            if sent.is_err() {
                failed = sent;
                break;
            }
            link.sent += 1;
        }
        loop {
            let Progress { done, ended } = link.progress.borrow_and_update().clone();
            let taken = usize::try_from(done - before).unwrap_or(0);
            if done == link.sent {
                return (taken, failed);
            }
            if let Some(why) = ended {
                return (taken, Err(Error::new(ErrorKind::Unavailable, why)));
            }
            let is_silent = tokio::select! {
                // The task says so before it ends.
                changed = link.progress.changed() => changed.is_err(),
                () = clock.sleep(timeout) => true,
            };
            if is_silent {
                self.link = None;
                return (taken, Err(server.away("it does not acknowledge messages")));
            }
        }
    }
}

#[async_trait]
impl Destination for MqttDestination {
    fn guarantee(&self) -> Guarantee {
        Guarantee::AtLeastOnceWithoutKey
    }

    async fn connect(&mut self) -> Result<()> {
        self.link().await.map(drop)
    }

    async fn send(&mut self, messages: &[Sending]) -> (usize, Result<()>) {
        let mut taken = 0;
        for some in messages.chunks(FLIGHT) {
            let (more, sent) = self.send_some(some).await;
            taken += more;
            if sent.is_err() {
                return (taken, sent);
            }
        }
        (taken, Ok(()))
    }

    async fn close(&mut self) {
        let Some(mut link) = self.link.take() else { return };
        // A connection that has ended already is fine.
        drop(link.client.try_disconnect());
        tokio::select! {
            ended = link.progress.wait_for(|progress| progress.ended.is_some()) => drop(ended),
            () = self.clock.sleep(GOODBYE) => {}
        }
    }
}

//! `connector = 'mqtt'`: topics of an MQTT 3.1.1 broker, by rumqttc.
//!
//! ```text
//! broker ─ session of client_id ─► feed ─► rows ─► log of the stream (durable) ─► acknowledgement ─► broker
//! ```
//! - A broker keeps no log: what was acknowledged is gone. So the source [forgets](windrow_core::Source::forgets), and a message is
//!   acknowledged when its row is stored. Each arrives at least once.
//! - The session outlives the connection (clean session = false): messages wait at the broker while Windrow is away.
//! - A sink publishes with QoS 1 and waits for the acknowledgements.

mod connection;
mod feed;
mod log;
mod options;
mod sink;
mod topics;

use std::sync::Arc;

use windrow_core::{Result, Source};

use self::log::{MqttLog, NAMES};
use self::options::MqttOptions;
pub(crate) use self::options::{OPTIONS, SINK_OPTIONS};
pub(crate) use self::sink::open_sink;
use crate::broker::health::Health;
use crate::broker::log::{Reading, source};
use crate::{ConnectorEnv, Declared};

/// Opens the topics that the options describe. The session begins with it.
///
/// # Errors
/// See [`open_source`](crate::open_source). A broker that is away is none: a notice says so.
pub(crate) async fn open(
    options: &[(String, String)],
    declared: &Declared,
    env: &ConnectorEnv,
) -> Result<Arc<dyn Source>> {
    let mut options = MqttOptions::read(options)?;
    let places: Vec<String> =
        options.topics.iter().map(|filter| topics::without_share(filter).to_owned()).collect();
    options.server = options.server.confined(&places, env)?;
    let only = options.topics.first().filter(|_| options.topics.len() == 1);
    let topic = only.map(String::as_str);
    let (values, notices) = options.values.open(declared, ("mqtt", NAMES), topic, env).await?;
    let health = Arc::new(Health::default());
    let log = MqttLog::new(options, Arc::clone(&env.clock), Arc::clone(&health));
    let reading = Reading {
        values: Arc::new(values),
        clock: Arc::clone(&env.clock),
        io: env.io.clone(),
        health,
    };
    source(log, reading, notices, declared.restored).await
}

//! The least that reading a topic costs: a plain loop of librdkafka that counts messages, and the producer for it.
//!
//! `kafka fill BROKERS TOPIC ROWS` sends rows of ten columns as JSON, `kafka count BROKERS TOPIC` counts messages and bytes;
//! see `benches/README.md` for the query beside them.

#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "measures the machine and prints figures"
)]

use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use windrow_core::{Error, ErrorKind, Result};

/// How long a broker may be silent.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Sends rows of ten columns as JSON.
    Fill { brokers: String, topic: String, rows: u64 },
    /// Counts messages and bytes.
    Count { brokers: String, topic: String },
}

fn main() -> Result<()> {
    let done = match Arguments::parse().what {
        What::Fill { brokers, topic, rows } => fill(&brokers, &topic, rows),
        What::Count { brokers, topic } => count(&brokers, &topic),
    };
    done.map_err(|e| Error::new(ErrorKind::Unavailable, e.to_string()).with_source(e))
}

/// The row `number`.
fn row(number: u64) -> String {
    let (key, cents) = (number.wrapping_mul(7919) % 10_000, number.wrapping_mul(104_729) % 100_000);
    format!(
        "{{\"id\":{number},\"k\":{key},\"amount\":{}.{:02},\"country\":\"c{}\",\"name\":\"customer {key}\",\
         \"ok\":{},\"n\":{},\"score\":{:.4},\"note\":\"order of {key}\",\"ts\":{}}}",
        cents / 100,
        cents % 100,
        key % 50,
        key % 3 == 0,
        key % 17,
        key as f64 / 7.0,
        1_767_225_600_000_u64 + number / 10
    )
}

fn fill(brokers: &str, topic: &str, rows: u64) -> std::result::Result<(), KafkaError> {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("linger.ms", "50")
        .set("batch.size", "1000000")
        .create()?;
    for number in 0..rows {
        let row = row(number);
        let mut record = BaseRecord::<(), str>::to(topic).payload(&row).partition(0);
        // The queue is bounded: what does not fit waits.
        while let Err((KafkaError::MessageProduction(_), back)) = producer.send(record) {
            record = back;
            producer.poll(Duration::from_millis(10));
        }
    }
    producer.flush(PATIENCE)
}

fn count(brokers: &str, topic: &str) -> std::result::Result<(), KafkaError> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "bench")
        .set("fetch.queue.backoff.ms", "5")
        .set("enable.partition.eof", "true")
        .create()?;
    let mut from = TopicPartitionList::new();
    from.add_partition_offset(topic, 0, Offset::Beginning)?;
    consumer.assign(&from)?;
    let start = Instant::now();
    let (mut messages, mut bytes) = (0_u64, 0);
    loop {
        match consumer.poll(PATIENCE) {
            Some(Ok(message)) => {
                messages += 1;
                bytes += message.payload_len();
            }
            Some(Err(KafkaError::PartitionEOF(_))) | None => break,
            Some(Err(error)) => return Err(error),
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{messages} messages, {bytes} bytes, {seconds:.2} s, {:.2} M/s",
        messages as f64 / seconds / 1e6
    );
    Ok(())
}

//! The least that reading a topic costs: a plain loop of librdkafka that counts messages, and the producer for it.
//!
//! `kafka fill BROKERS TOPIC ROWS` sends rows of ten columns as JSON (`--avro`: as records of Avro, whose schema it prints), `kafka count BROKERS TOPIC` counts messages and bytes;
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
    /// Sends rows of ten columns as JSON, or as Avro.
    Fill {
        brokers: String,
        topic: String,
        rows: u64,
        /// Sends records of Avro, and prints their schema for the option `avro.schema`.
        #[arg(long)]
        avro: bool,
    },
    /// Counts messages and bytes.
    Count { brokers: String, topic: String },
}

fn main() -> Result<()> {
    let done = match Arguments::parse().what {
        What::Fill { brokers, topic, rows, avro: false } => {
            fill(&brokers, &topic, rows, |number| row(number).into_bytes())
        }
        What::Fill { brokers, topic, rows, avro: true } => {
            println!("{SCHEMA}");
            fill(&brokers, &topic, rows, record)
        }
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

/// The schema of the rows as Avro.
const SCHEMA: &str = r#"{"type": "record", "name": "r", "fields": [{"name": "id", "type": "long"}, {"name": "k", "type": "long"},
{"name": "amount", "type": {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2}},
{"name": "country", "type": "string"}, {"name": "name", "type": "string"}, {"name": "ok", "type": "boolean"},
{"name": "n", "type": "int"}, {"name": "score", "type": "double"}, {"name": "note", "type": "string"},
{"name": "ts", "type": {"type": "long", "logicalType": "timestamp-millis"}}]}"#;

/// The row `number` as a record of Avro.
fn record(number: u64) -> Vec<u8> {
    let long = |to: &mut Vec<u8>, value: u64| {
        let mut rest = value << 1;
        while rest >= 0x80 {
            to.push((rest & 0x7f) as u8 | 0x80);
            rest >>= 7;
        }
        to.push(rest as u8);
    };
    let bytes = |to: &mut Vec<u8>, value: &[u8]| {
        long(to, value.len() as u64);
        to.extend_from_slice(value);
    };
    let (key, cents) = (number.wrapping_mul(7919) % 10_000, number.wrapping_mul(104_729) % 100_000);
    let mut record = vec![];
    long(&mut record, number);
    long(&mut record, key);
    bytes(&mut record, &(cents as u32).to_be_bytes());
    bytes(&mut record, format!("c{}", key % 50).as_bytes());
    bytes(&mut record, format!("customer {key}").as_bytes());
    record.push(u8::from(key.is_multiple_of(3)));
    long(&mut record, key % 17);
    record.extend((key as f64 / 7.0).to_le_bytes());
    bytes(&mut record, format!("order of {key}").as_bytes());
    long(&mut record, 1_767_225_600_000 + number / 10);
    record
}

fn fill(
    brokers: &str,
    topic: &str,
    rows: u64,
    row: impl Fn(u64) -> Vec<u8>,
) -> std::result::Result<(), KafkaError> {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("linger.ms", "50")
        .set("batch.size", "1000000")
        .create()?;
    for number in 0..rows {
        let row = row(number);
        let mut record = BaseRecord::<(), [u8]>::to(topic).payload(&row).partition(0);
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

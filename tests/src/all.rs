//! The tests of the whole program: SQL in, rows out.
//!
//! One linked binary with its own harness, so that each SQL file is a test by its own name: `cargo test -p windrow-tests
//! -- slt/joins`. Paths in the SQL are relative to the root of the repository, where the tests run.

#![expect(clippy::expect_used, reason = "a test that cannot go on says so and fails")]

mod alerts;
mod avro;
mod bad_input;
mod binary;
mod brokers;
mod changes;
mod composed;
mod crash;
mod disk;
mod durable;
mod failing;
mod fields;
mod files;
mod flight;
mod flight_guard;
mod flight_ingest;
mod guard;
mod hooks;
mod house;
mod http_rows;
mod idle;
mod kafka;
mod kafka_formats;
mod kept_insert;
mod keyed;
mod live;
mod memory;
mod messages;
mod models;
mod nexmark;
mod panics;
mod postgres;
mod program;
mod readers;
mod refreshed;
mod resume;
mod rotation;
mod s3;
mod sinks;
mod slt;
mod sql_files;
mod sql_tests;
mod steady;
mod talk;
mod terminal;
mod tutorial;
mod watch;

use std::path::Path;

use libtest_mimic::{Arguments, Trial};

fn main() {
    let arguments = Arguments::from_args();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the repository");
    std::env::set_current_dir(root).expect("the repository is there");
    watch::start();
    let mut trials: Vec<Trial> = slt::trials();
    trials.extend(house::trials());
    trials.extend(sql_files::trials());
    trials.extend(sql_tests::trials());
    trials.extend(nexmark::trials());
    trials.extend(bad_input::trials());
    trials.extend(files::trials());
    trials.extend(live::trials());
    trials.extend(changes::trials());
    trials.extend(composed::trials());
    trials.extend(idle::trials());
    trials.extend(panics::trials());
    trials.extend(failing::trials());
    trials.extend(memory::trials());
    trials.extend(models::trials());
    trials.extend(steady::trials());
    trials.extend(messages::trials());
    trials.extend(binary::trials());
    trials.extend(durable::trials());
    trials.extend(disk::trials());
    trials.extend(crash::trials());
    trials.extend(resume::trials());
    trials.extend(rotation::trials());
    trials.extend(readers::trials());
    trials.extend(refreshed::trials());
    trials.extend(flight_ingest::trials());
    trials.extend(http_rows::trials());
    trials.extend(guard::trials());
    trials.extend(flight_guard::trials());
    trials.extend(kept_insert::trials());
    trials.extend(keyed::trials());
    trials.extend(brokers::trials());
    trials.extend(kafka::trials());
    trials.extend(kafka_formats::trials());
    trials.extend(avro::trials());
    trials.extend(sinks::trials());
    trials.extend(postgres::trials());
    trials.extend(alerts::trials());
    trials.extend(fields::trials());
    trials.extend(s3::trials());
    trials.extend(terminal::trials());
    trials.extend(tutorial::trials());
    trials.extend(flight::trials());
    let conclusion = libtest_mimic::run(&arguments, trials);
    s3::stop();
    watch::name_the_slowest();
    conclusion.exit();
}

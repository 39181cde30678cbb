//! Rows per second of models, on one thread: each file of a directory as `predict` computes it, in micro-batches.
//!
//! `benches/models.py` makes the models, and measures onnxruntime on batches of the same size.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Float32Array};
use clap::Parser;
use windrow_core::{Error, Result};
use windrow_models::Model;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures the models of a directory.
#[derive(Debug, Parser)]
struct Arguments {
    /// The directory with files that end in .onnx; their inputs are floats.
    directory: PathBuf,
    /// Rows of a batch.
    #[arg(long, default_value_t = 65_536)]
    rows: usize,
    /// Seconds for each model.
    #[arg(long, default_value_t = 3)]
    seconds: u64,
}

#[allow(clippy::print_stdout, reason = "a bench shows its result")]
fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let unreadable = |e: std::io::Error| Error::config(format!("cannot read the models: {e}"));
    let entries = std::fs::read_dir(&arguments.directory).map_err(unreadable)?;
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()
        .map_err(unreadable)?;
    files.retain(|file| file.extension().is_some_and(|ending| ending == "onnx"));
    files.sort();
    println!("model                   rows/s");
    for file in files {
        let model = Model::load(&std::fs::read(&file).map_err(unreadable)?)?;
        let columns = columns(model.arguments().len(), arguments.rows);
        let rate = rate(&model, &columns, &arguments)?;
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        println!("{name:<20} {rate:>10.0}");
    }
    Ok(())
}

/// Columns of numbers between -3 and 3 that are no sequence a branch predictor could learn.
fn columns(count: usize, rows: usize) -> Vec<ArrayRef> {
    let mut state = 1_u64;
    let mut next = move || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1_u64 << 24) as f32 * 6.0 - 3.0
    };
    let mut column =
        || Arc::new(Float32Array::from_iter_values((0..rows).map(|_| next()))) as ArrayRef;
    (0..count).map(|_| column()).collect()
}

/// The rows per second of the fastest batch: what disturbs others is not counted.
#[expect(clippy::disallowed_methods, reason = "a bench measures the machine's time")]
fn rate(model: &Model, columns: &[ArrayRef], arguments: &Arguments) -> Result<f64> {
    let began = Instant::now();
    let mut best = Duration::MAX;
    while began.elapsed() < Duration::from_secs(arguments.seconds) {
        let start = Instant::now();
        std::hint::black_box(model.predict(columns, arguments.rows)?);
        best = best.min(start.elapsed());
    }
    Ok(arguments.rows as f64 / best.as_secs_f64())
}

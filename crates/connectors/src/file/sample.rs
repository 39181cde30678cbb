//! Looking at the first records of a file: for its header, and to find out its columns.

use arrow::datatypes::{Schema, SchemaRef};
use std::sync::Arc;
use tokio::runtime::Handle;
use windrow_core::{Error, Result};

use super::feed::Feed;
use super::infer::{self, Guess};
use super::records::{Framing, RecordCutter};
use super::text::{TextFile, TextFormat};

/// Bytes that are read at a time, and the most that are read for a look.
const LOOK_BYTES: usize = 256 << 10;
const LOOK_BYTES_MAX: usize = 64 << 20;

/// The first records of a file that are not blank, `count` at most.
///
/// # Errors
/// When it cannot be read.
pub(super) async fn first_records(
    file: &TextFile,
    count: usize,
    io: &Handle,
) -> Result<Vec<Vec<u8>>> {
    let range = [0, 0, file.size];
    let feed = Feed::open(&file.name, &file.blob, file.packing, range, io)?;
    records_of(feed, &file.format, count).await
}

/// The first records of a text that are not blank, `count` at most.
///
/// # Errors
/// When it cannot be read.
pub(super) async fn records_of(
    mut feed: Feed,
    format: &TextFormat,
    count: usize,
) -> Result<Vec<Vec<u8>>> {
    let framing = match format {
        TextFormat::Json => Framing::Lines,
        TextFormat::Csv(dialect) => dialect.framing(),
    };
    let mut cutter = RecordCutter::new(framing);
    let (mut buffer, mut records) = (vec![], vec![]);
    loop {
        let before = buffer.len();
        let ended = feed.fill(&mut buffer, LOOK_BYTES).await? == 0;
        if before == 0 && buffer.starts_with(b"\xEF\xBB\xBF") {
            cutter.restart(3);
        }
        cutter.cut(&buffer, |start, end| records.push(start..end));
        if ended {
            records.push(cutter.start()..buffer.len());
        }
        let is_blank = |bytes: &[u8]| bytes.trim_ascii().is_empty();
        records.retain(|r| buffer.get(r.clone()).is_some_and(|bytes| !is_blank(bytes)));
        if ended || records.len() >= count || buffer.len() >= LOOK_BYTES_MAX {
            break;
        }
    }
    records.truncate(count);
    Ok(records.into_iter().filter_map(|r| buffer.get(r).map(<[u8]>::to_vec)).collect())
}

/// Finds out the columns of text files from their first `rows` rows.
///
/// # Errors
/// When there are no rows that can be read, or no columns in them.
pub(super) async fn infer_columns(
    files: &[Arc<TextFile>],
    rows: usize,
    io: &Handle,
) -> Result<SchemaRef> {
    let mut columns: Vec<(String, Guess)> = vec![];
    let mut seen = 0;
    for file in files {
        if seen >= rows {
            break;
        }
        let header = usize::from(matches!(file.format, TextFormat::Csv(_)));
        let records = first_records(file, rows - seen + header, io).await?;
        let found = match &file.format {
            TextFormat::Json => look_at_json(&file.name, &records)?,
            TextFormat::Csv(dialect) => {
                let split = |record: &Vec<u8>| dialect.split(record);
                look_at_csv(&file.name, records.iter().map(split), dialect.header)?
            }
        };
        seen += records.len();
        if let Guess::Struct(merged) = Guess::Struct(columns.clone()).merge(Guess::Struct(found)) {
            columns = merged;
        }
    }
    if columns.is_empty() {
        let names: Vec<&str> = files.iter().take(3).map(|f| f.name.as_str()).collect();
        return Err(Error::data(format!(
            "the columns cannot be found out: there are no rows in \"{}\"",
            names.join("\", \"")
        ))
        .with_hint("Declare the columns: CREATE STREAM s (column TYPE, …) WITH (…)."));
    }
    let schema: Schema = infer::schema(&columns);
    Ok(Arc::new(schema))
}

fn look_at_json(name: &str, records: &[Vec<u8>]) -> Result<Vec<(String, Guess)>> {
    let mut merged = Guess::Struct(vec![]);
    let mut wrong = None;
    for record in records {
        match serde_json::from_slice::<Guess>(record) {
            Ok(object @ Guess::Struct(_)) => merged = merged.merge(object),
            Ok(_) => wrong = wrong.or_else(|| Some("a line is not a JSON object".to_owned())),
            Err(e) => wrong = wrong.or_else(|| Some(e.to_string())),
        }
    }
    let Guess::Struct(columns) = merged else { return Ok(vec![]) };
    match wrong {
        Some(why) if columns.is_empty() => {
            Err(Error::data(format!("file \"{name}\" is not newline-delimited JSON: {why}"))
                .with_hint("Each line has to be one JSON object; an array is not read."))
        }
        _ => Ok(columns),
    }
}

fn look_at_csv(
    name: &str,
    mut records: impl Iterator<Item = Result<Vec<Option<String>>, String>>,
    header: bool,
) -> Result<Vec<(String, Guess)>> {
    let Some(first) = records.next() else { return Ok(vec![]) };
    let first = first
        .map_err(|why| Error::data(format!("the header of file \"{name}\" is wrong: {why}")))?;
    let mut guesses: Vec<Guess> = vec![Guess::Unknown; first.len()];
    let mut look = |record: &[Option<String>]| {
        // A record with another number of fields is a bad row; it tells nothing.
        if record.len() == guesses.len() {
            for (guess, field) in guesses.iter_mut().zip(record) {
                let known = std::mem::replace(guess, Guess::Unknown);
                *guess = known.merge(Guess::of_text(field.as_deref()));
            }
        }
    };
    if !header {
        look(&first);
    }
    records.filter_map(Result::ok).for_each(|record| look(&record));
    let mut columns: Vec<(String, Guess)> = vec![];
    for (number, (field, guess)) in first.into_iter().zip(guesses).enumerate() {
        let column = match header {
            true => field.unwrap_or_default().trim().to_owned(),
            false => format!("column_{}", number + 1),
        };
        // Of two columns with one name only the first can be asked for.
        if !column.is_empty() && !columns.iter().any(|(known, _)| *known == column) {
            columns.push((column, guess));
        }
    }
    Ok(columns)
}

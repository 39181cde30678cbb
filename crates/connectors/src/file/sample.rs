//! Samples the first records of a file: for its header, and to infer its columns.

use std::sync::Arc;

use arrow::datatypes::Schema;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};
use tokio::runtime::Handle;
use windrow_core::{Error, Result, sql_type};

use super::feed::Feed;
use super::infer::{self, Guess};
use super::text::{TextFile, TextFormat};
use crate::formats::records::{Framing, RecordCutter};

/// Bytes per read, and the most that are read for a sample.
const LOOK_BYTES: usize = 256 << 10;
const LOOK_BYTES_MAX: usize = 64 << 20;
/// Files whose beginnings are fetched concurrently.
const FILES_AT_ONCE: usize = 8;

/// Returns the first records of a file that are not blank, at most `count`.
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

/// Returns the first records of a text that are not blank, at most `count`.
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

/// What the first rows of text files show.
#[derive(Debug, Default)]
pub(super) struct Sample {
    /// Each column, with the first file that has a value of it.
    pub columns: Vec<Seen>,
    /// How many rows and files were sampled.
    pub rows: usize,
    pub files: usize,
}

/// A file and its first records.
type Head = (Arc<TextFile>, Vec<Vec<u8>>);

/// A column of a sample.
#[derive(Debug)]
pub(super) struct Seen {
    pub name: String,
    pub guess: Guess,
    pub file: String,
    /// A contradicting value in another file.
    other: Option<(Guess, String)>,
}

/// Samples the first rows of `files`, `rows` of each, until `enough` returns true.
///
/// # Errors
/// When a file cannot be read.
pub(super) async fn look(
    files: &[Arc<TextFile>],
    rows: usize,
    enough: impl Fn(&Sample) -> bool + Send,
    io: &Handle,
) -> Result<Sample> {
    let mut sample = Sample::default();
    let head = |file: &Arc<TextFile>| {
        let (file, io) = (Arc::clone(file), io.clone());
        let header = usize::from(matches!(file.format, TextFormat::Csv(_)));
        async move {
            let records = first_records(&file, rows.saturating_add(header), &io).await?;
            Ok::<_, Error>((file, records))
        }
    };
    let heads: Vec<BoxFuture<'static, Result<Head>>> =
        files.iter().map(|file| head(file).boxed()).collect();
    let mut heads = stream::iter(heads).buffered(FILES_AT_ONCE);
    while let Some(head) = heads.next().await {
        let (file, records) = head?;
        let found = match &file.format {
            TextFormat::Json => look_at_json(&file.name, &records)?,
            TextFormat::Csv(dialect) => {
                let split = |record: &Vec<u8>| dialect.split(record);
                look_at_csv(&file.name, records.iter().map(split), dialect.header)?
            }
        };
        let has_header = matches!(&file.format, TextFormat::Csv(dialect) if dialect.header);
        sample.rows += records.len().saturating_sub(usize::from(has_header));
        sample.files += 1;
        sample.add(found, &file);
        if enough(&sample) {
            break;
        }
    }
    Ok(sample)
}

impl Sample {
    /// Adds what another file shows.
    fn add(&mut self, found: Vec<(String, Guess)>, file: &TextFile) {
        let is_json = matches!(file.format, TextFormat::Json);
        for (name, guess) in found {
            let Some(seen) = self.columns.iter_mut().find(|seen| seen.name == name) else {
                self.columns.push(Seen { name, guess, file: file.name.clone(), other: None });
                continue;
            };
            // In CSV all fields are text, which proves nothing.
            if is_json && seen.other.is_none() && seen.guess.contradicts(&guess) {
                seen.other = Some((guess.clone(), file.name.clone()));
            }
            if seen.guess == Guess::Unknown {
                file.name.clone_into(&mut seen.file);
            }
            if seen.other.is_none() {
                let known = std::mem::replace(&mut seen.guess, Guess::Unknown);
                seen.guess = known.merge(guess);
            }
        }
    }

    /// Returns columns that hold everything that was seen.
    ///
    /// # Errors
    /// When two JSON files have values of different kinds in one column.
    pub(super) fn into_schema(self) -> Result<Schema> {
        for seen in &self.columns {
            if let Some((guess, file)) = &seen.other {
                return Err(Error::data(format!(
                    "column \"{}\" is {} in file \"{}\" and {} in file \"{file}\"",
                    seen.name,
                    sql_type(&seen.guess.data_type()),
                    seen.file,
                    sql_type(&guess.data_type()),
                ))
                .with_hint("Declare the columns; one that is VARCHAR takes both as their text."));
            }
        }
        let columns: Vec<_> =
            self.columns.into_iter().map(|seen| (seen.name, seen.guess)).collect();
        Ok(infer::schema(&columns))
    }
}

fn look_at_json(name: &str, records: &[Vec<u8>]) -> Result<Vec<(String, Guess)>> {
    let mut merged = Guess::Struct(vec![]);
    let mut wrong = None;
    for record in records {
        let guess = std::str::from_utf8(record).map_err(|_| "a line is not valid UTF-8");
        match guess.and_then(Guess::of_json) {
            Ok(object @ Guess::Struct(_)) => merged = merged.merge(object),
            Ok(_) => wrong = wrong.or(Some("a line is not a JSON object")),
            Err(why) => wrong = wrong.or(Some(why)),
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
        // A record with another number of fields is a bad row; it is ignored here.
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
        // Of two columns with one name only the first can be referenced.
        if !column.is_empty() && !columns.iter().any(|(known, _)| *known == column) {
            columns.push((column, guess));
        }
    }
    Ok(columns)
}

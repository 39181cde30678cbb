//! Helpers that run statements on an engine: text in, rows as text out.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use futures::{StreamExt, executor::block_on};
use windrow_core::Limits;
use windrow_engine::{Engine, EngineConfig, Outcome, Progress, Session, SessionOptions};

/// An engine of one's own and a session in it.
pub(crate) struct Talk {
    engine: Engine,
    session: Session,
}

/// The answer to one statement.
pub(crate) enum Answer {
    /// Rows, as Arrow shows them.
    Rows { schema: SchemaRef, rows: Vec<Vec<String>> },
    /// Anything else, in words ("CREATE STREAM").
    Done(String),
}

/// What went wrong, as a user sees it.
#[derive(Debug, Clone)]
pub(crate) struct Refusal(pub(crate) String);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refusal {}

impl From<ArrowError> for Refusal {
    fn from(error: ArrowError) -> Self {
        Self(error.to_string())
    }
}

impl Talk {
    /// A new engine with these limits, in which streams without connector end where they are read.
    pub(crate) fn new(limits: Limits) -> Result<Self, Refusal> {
        Self::open(EngineConfig { limits, ..EngineConfig::default() })
    }

    /// An engine on the data directory `dir`; waits for who has it to let it go.
    pub(crate) fn at(dir: &Path, limits: &Limits) -> Result<Self, Refusal> {
        let mut tries = 0;
        loop {
            let (limits, data_dir) = (limits.clone(), Some(dir.to_owned()));
            match Self::open(EngineConfig { limits, data_dir, ..EngineConfig::default() }) {
                Err(Refusal(why)) if why.contains("in use") && tries < 500 => {
                    tries += 1;
                    std::thread::sleep(Duration::from_millis(10));
                }
                done => return done,
            }
        }
    }

    pub(crate) fn open(config: EngineConfig) -> Result<Self, Refusal> {
        Self::open_with(config, SessionOptions { push_ends: true })
    }

    /// The same, but streams without connector do not end: queries follow them.
    pub(crate) fn following(config: EngineConfig) -> Result<Self, Refusal> {
        Self::open_with(config, SessionOptions { push_ends: false })
    }

    fn open_with(config: EngineConfig, options: SessionOptions) -> Result<Self, Refusal> {
        let open = || {
            let engine = Engine::open(config)?;
            let session = engine.session(options)?;
            Ok(Self { engine, session })
        };
        open().map_err(|e: windrow_core::Error| Refusal(e.render("")))
    }

    /// Archives what is finished and ends.
    pub(crate) fn close(self) -> Result<(), Refusal> {
        block_on(self.engine.close()).map_err(|e| Refusal(e.render("")))
    }

    /// How much has been read.
    pub(crate) fn progress(&self) -> Progress {
        self.engine.progress()
    }

    /// Begins a query whose rows nobody reads.
    pub(crate) fn begin(&self, sql: &str) -> Result<Outcome, Refusal> {
        block_on(self.session.run(sql)).map_err(|e| Refusal(e.render(sql)))
    }

    /// Runs one statement to its end.
    pub(crate) fn ask(&self, sql: &str) -> Result<Answer, Refusal> {
        block_on(self.answer(sql))
    }

    /// As [`ask`](Self::ask), for one that waits already.
    pub(crate) async fn answer(&self, sql: &str) -> Result<Answer, Refusal> {
        let refused = |e: windrow_core::Error| Refusal(e.render(sql));
        match self.session.run(sql).await.map_err(refused)? {
            Outcome::Done(done) => Ok(Answer::Done(done.said)),
            Outcome::Rows(mut stream) => {
                let schema = SchemaRef::clone(stream.schema());
                let mut rows = vec![];
                while let Some(batch) = stream.next().await {
                    rows.extend(texts(&batch.map_err(refused)?)?);
                }
                Ok(Answer::Rows { schema, rows })
            }
        }
    }

    /// The rows of a query.
    pub(crate) fn rows(&self, sql: &str) -> Result<Vec<Vec<String>>, Refusal> {
        match self.ask(sql)? {
            Answer::Rows { rows, .. } => Ok(rows),
            Answer::Done(message) => Err(Refusal(format!("no rows but {message:?}"))),
        }
    }

    /// Waits for the views over bounded inputs.
    pub(crate) fn drain(&self) -> Result<(), Refusal> {
        block_on(self.engine.drain()).map_err(|e| Refusal(e.render("")))
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        self.engine.shutdown();
    }
}

/// Each value as Arrow shows it; `NULL`, and `(empty)` for an empty text.
pub(crate) fn texts(batch: &RecordBatch) -> Result<Vec<Vec<String>>, Refusal> {
    let options = FormatOptions::default().with_null("NULL");
    let columns = batch
        .columns()
        .iter()
        .map(|c| ArrayFormatter::try_new(c.as_ref(), &options))
        .collect::<Result<Vec<_>, _>>()?;
    let text = |value: String| if value.is_empty() { "(empty)".to_owned() } else { value };
    (0..batch.num_rows())
        .map(|row| {
            Ok(columns
                .iter()
                .map(|c| c.value(row).try_to_string().map(text))
                .collect::<Result<_, _>>()?)
        })
        .collect()
}

/// One letter for a type, as the slt files write them.
pub(crate) fn letter(kind: &DataType) -> char {
    match kind {
        DataType::Boolean => 'B',
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => 'T',
        DataType::Date32 | DataType::Date64 => 'D',
        DataType::Timestamp(..) => 'P',
        DataType::Dictionary(_, value) => letter(value),
        t if t.is_integer() => 'I',
        t if t.is_floating() || t.is_decimal() => 'R',
        _ => '?',
    }
}

//! Limits. Every limit has a name, a unit and a default; none may ever give a silently wrong answer.

/// Steps of a pattern of MATCH_RECOGNIZE at most, each repetition in braces counted on its own.
pub const PATTERN_STEPS_MAX: usize = 10_000;

/// Different ways in which the rows of one match so far may have been taken, at most: those that conditions can tell apart.
pub const MATCH_THREADS_MAX: usize = 10_000;

/// Bytes of the file of a model at most. A model in use is in memory, beside the limits below.
pub const MODEL_BYTES_MAX: usize = 256 << 20;

/// The limits of one engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Rows in one micro-batch at most.
    pub batch_rows_max: usize,
    /// Worker threads, and so the number of source partitions (or splits of one) read at the same time.
    pub threads: usize,
    /// Batches queued between two steps of a query at most.
    pub queue_batches_max: usize,
    /// Bytes of one text row (a JSON line, a CSV record); a longer one is a bad row.
    pub row_bytes_max: usize,
    /// Bad rows and late rows retained for inspection, per stream or query. All are counted.
    pub kept_rows_max: usize,
    /// Bytes of SQL text in one submission at most.
    pub sql_bytes_max: usize,
    /// Rows that the memory tail of a stream or view holds until they are archived (with a data directory only).
    pub tail_rows_max: u64,
    /// Bytes that the memory tail holds likewise.
    pub tail_bytes_max: usize,
    /// Bytes of rows that a stream without connector, or a view, may hold when it is in memory only; more is an error.
    /// `None`: no limit.
    pub stream_bytes_max: Option<usize>,
    /// Bytes that window state, and the sorts, joins and groupings of queries, may take in memory; the excess spills to
    /// disk. `None`: no limit.
    pub memory_bytes_max: Option<usize>,
    /// Bytes that one statement may hold at once: while it is planned and its expressions are evaluated, in rows
    /// retained until it finishes, and in one run of a continuous query over a micro-batch. `None`: a quarter of the
    /// machine's memory.
    pub query_bytes_max: Option<usize>,
    /// The longest time that finished windows stay in memory only before they are archived.
    pub spill_interval: std::time::Duration,
    /// Time between two checkpoints of a query (with a data directory only).
    pub checkpoint_interval: std::time::Duration,
    /// How long an INSERT waits for an archive that fails to accept the rows before it.
    pub archive_wait: std::time::Duration,
    /// Bytes of memory in which one replay reader sorts; the rest goes to temporary files.
    pub replay_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            batch_rows_max: 65_536,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            queue_batches_max: 16,
            row_bytes_max: 256 << 20,
            kept_rows_max: 100_000,
            sql_bytes_max: 16 << 20,
            tail_rows_max: 1 << 20,
            tail_bytes_max: 64 << 20,
            stream_bytes_max: None,
            memory_bytes_max: None,
            query_bytes_max: None,
            spill_interval: std::time::Duration::from_secs(5),
            checkpoint_interval: std::time::Duration::from_secs(10),
            archive_wait: std::time::Duration::from_secs(30),
            replay_bytes_max: 256 << 20,
        }
    }
}

//! `connector = 'file'`: files of JSON, CSV, Parquet and Avro, on this machine and in object stores.
//!
//! - Each file is a partition; with `files = 'in_order'` all files, in order of name, form one.
//! - A split is a row group of a Parquet file, a range of bytes of a text file, or a whole Avro file.
//! - An offset is the number of the row in a Parquet or Avro file, and the position of the row's first
//!   byte in the (unpacked) text. In one partition of many files, file `n` starts at `n · 2⁴⁴`.
//! - Listing again finds new and changed files; those found before keep their partition. For followed text files see
//!   `follow`.

mod avro;
mod feed;
mod files;
mod follow;
mod format;
mod infer;
mod location;
mod options;
mod parquet;
mod sample;
mod schema;
mod text;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use tokio::sync::Mutex;
use windrow_core::{
    Error, ErrorKind, Partition, PartitionId, Reader, Result, ScanRequest, Source, Split,
};

use self::avro::{AvroFile, AvroReader, AvroSplit};
pub use self::files::Files;
use self::follow::{Chains, FollowReader, Following};
use self::format::{Format, Packing, format_of_name, is_tab_separated, packing_of_name};
use self::location::{Blob, Found, Location};
use self::options::FileOptions;
pub use self::options::OPTIONS;
use self::parquet::{ParquetFile, ParquetReader, ParquetSplit, read_footer};
use self::sample::first_records;
use self::text::{TextFile, TextFormat, TextReader, TextSettings, TextSplit};
use crate::formats::convert::NumberRules;
use crate::{ConnectorEnv, Declared};

/// The distance between the first offsets of two files in one partition: larger than any file.
const FILE_STRIDE_BITS: u32 = 44;
/// How often a location is polled by default: local files, and object stores.
const POLL_LOCAL: Duration = Duration::from_millis(200);
const POLL_STORE: Duration = Duration::from_secs(10);

/// Sizes that never change a result.
#[derive(Debug, Clone, Copy)]
struct Tuning {
    /// Bytes of a text file in one split.
    split_bytes: u64,
    /// Bytes of text per read.
    block_bytes: usize,
}

impl Default for Tuning {
    fn default() -> Self {
        Self { split_bytes: 8 << 20, block_bytes: 4 << 20 }
    }
}

/// Opens the files that the options describe. Undeclared columns are inferred.
///
/// # Errors
/// See [`open_source`](crate::open_source).
pub async fn open(
    options: &[(String, String)],
    declared: Declared,
    env: &ConnectorEnv,
) -> Result<Arc<dyn Source>> {
    Ok(Arc::new(FileSource::open(options, declared, env, Tuning::default()).await?))
}

#[derive(Debug)]
struct FileSource {
    location: Location,
    options: FileOptions,
    format: Format,
    schema: SchemaRef,
    rules: NumberRules,
    /// Index of the event-time column.
    event_time: Option<usize>,
    /// Notices about the columns.
    notices: Vec<String>,
    env: ConnectorEnv,
    tuning: Tuning,
    known: Mutex<Known>,
    chains: Arc<Chains>,
    /// The footers of Parquet files by name, with version and size.
    footers: parking_lot::Mutex<BTreeMap<String, Footer>>,
}

/// A file with its version and size.
type Footer = (String, u64, Arc<ParquetFile>);

/// The partitions and files found before.
#[derive(Debug, Default)]
struct Known {
    partitions: BTreeMap<String, PartitionId>,
    plans: BTreeMap<String, Plan>,
}

impl Known {
    /// Returns the number of a partition.
    fn number(&mut self, name: &str) -> Result<PartitionId> {
        let next = u32::try_from(self.partitions.len())
            .map_err(|_| Error::new(ErrorKind::Limit, "there are too many files"))?;
        Ok(*self.partitions.entry(name.to_owned()).or_insert(PartitionId(next)))
    }
}

/// The splits of one version of a file.
#[derive(Debug, Clone)]
struct Plan {
    version: String,
    size: u64,
    base: u64,
    splits: Vec<SplitPlan>,
}

#[derive(Debug, Clone)]
struct SplitPlan {
    rows: Option<u64>,
    bytes: Option<u64>,
    event_times: Option<(i64, i64)>,
    identity: Arc<str>,
    detail: Detail,
}

#[derive(Debug, Clone)]
enum Detail {
    Text(Arc<TextSplit>),
    Parquet(Arc<ParquetSplit>),
    Avro(Arc<AvroSplit>),
    /// A chain of followed files.
    Follow(String),
}

impl FileSource {
    async fn open(
        options: &[(String, String)],
        declared: Declared,
        env: &ConnectorEnv,
        tuning: Tuning,
    ) -> Result<Self> {
        let options = FileOptions::read(options)?;
        let location = Location::open(&options, &env.files)?;
        let found = list(&location, &options, options.format, env).await?;
        let format = match (options.format, found.first()) {
            (Some(format), _) => format,
            (None, Some(first)) => format_of_name(&first.name).ok_or_else(|| {
                Error::config(format!("the format of file \"{}\" is not known", first.name))
                    .with_hint("Add format = 'json', 'csv', 'parquet' or 'avro' to WITH.")
            })?,
            (None, None) => format_of_name(&options.path).ok_or_else(|| nothing(&options))?,
        };
        let mut source = Self {
            location,
            format,
            schema: Arc::new(Schema::empty()),
            rules: NumberRules {
                inferred: declared.schema.is_none(),
                epoch: options.epoch,
                unsaid: declared.unsaid.into(),
            },
            event_time: None,
            notices: vec![],
            env: env.clone(),
            tuning,
            known: Mutex::default(),
            chains: Arc::default(),
            footers: parking_lot::Mutex::default(),
            options,
        };
        // The files of one format may be only a part of a directory.
        let found: Vec<Found> = found.into_iter().filter(|f| source.reads(f)).collect();
        if found.is_empty() && !(source.options.follow && declared.schema.is_some()) {
            return Err(nothing(&source.options));
        }
        let time = declared.event_time;
        source.schema = match declared.schema {
            Some(schema) => schema,
            None => {
                let mut notices = vec![];
                let schema = source.infer(&found, time.as_deref(), &mut notices).await?;
                source.notices = notices;
                schema
            }
        };
        source.event_time = time.and_then(|name| source.schema.index_of(&name).ok());
        if !source.rules.inferred || !format.is_text() {
            let notices = source.check(&found).await?;
            source.notices.extend(notices);
        }
        Ok(source)
    }

    /// Whether a file of a directory has this stream's format, as far as its name indicates.
    fn reads(&self, found: &Found) -> bool {
        self.options.format.is_some()
            || format_of_name(&found.name).is_none_or(|format| format == self.format)
    }

    fn text_file(&self, found: &Found, base: u64, next_base: Option<u64>) -> Result<TextFile> {
        let format = self.text_format(&found.name)?;
        Ok(TextFile {
            name: found.name.clone(),
            blob: found.blob.clone(),
            size: found.size,
            packing: self.options.packing.unwrap_or_else(|| packing_of_name(&found.name)),
            format,
            base,
            next_base,
            first: tokio::sync::OnceCell::new(),
        })
    }

    fn text_format(&self, name: &str) -> Result<TextFormat> {
        Ok(match self.format {
            Format::Csv => TextFormat::Csv(self.options.csv.of_file(is_tab_separated(name))?),
            Format::Json | Format::Parquet | Format::Avro => TextFormat::Json,
        })
    }

    fn text_settings(&self) -> TextSettings {
        TextSettings {
            declared: self.schema(),
            rules: self.rules.clone(),
            on_bad: self.options.on_bad,
            row_bytes_max: self.env.limits.row_bytes_max,
            block_bytes: self.tuning.block_bytes.max(1),
            clock: Arc::clone(&self.env.clock),
            io: self.env.io.clone(),
        }
    }

    /// Whether a file is followed as it grows. Compressed files are read once.
    fn is_followed(&self, found: &Found) -> bool {
        let packing = self.options.packing.unwrap_or_else(|| packing_of_name(&found.name));
        self.options.follow && self.format.is_text() && packing == Packing::Plain
    }

    fn poll(&self) -> Duration {
        self.options.poll.unwrap_or(match self.location {
            Location::Local { .. } => POLL_LOCAL,
            Location::Store { .. } => POLL_STORE,
        })
    }

    async fn footer(&self, found: &Found) -> Result<Arc<ParquetFile>> {
        let known = self.footers.lock().get(&found.name).cloned();
        if let Some((version, size, file)) = known
            && (&version, size) == (&found.version, found.size)
        {
            return Ok(file);
        }
        let file = read_footer(&found.name, &found.blob, found.size, &self.env.io).await?;
        let file = Arc::new(file);
        let entry = (found.version.clone(), found.size, Arc::clone(&file));
        self.footers.lock().insert(found.name.clone(), entry);
        Ok(file)
    }

    async fn plan(&self, found: &Found, base: u64, next_base: Option<u64>) -> Result<Plan> {
        let splits = match self.format {
            Format::Parquet => self.plan_parquet(found, base, next_base).await?,
            Format::Avro => self.plan_avro(found, base, next_base).await?,
            Format::Json | Format::Csv => self.plan_text(found, base, next_base).await?,
        };
        Ok(Plan { version: found.version.clone(), size: found.size, base, splits })
    }

    async fn plan_parquet(
        &self,
        found: &Found,
        base: u64,
        next_base: Option<u64>,
    ) -> Result<Vec<SplitPlan>> {
        let file = self.footer(found).await?;
        let columns = Arc::new(file.find_columns(&self.schema, &self.rules)?);
        let starts = file.row_starts();
        let identity: Arc<str> = format!("{} ({} bytes)", found.name, found.size).into();
        let mut splits = vec![];
        for (row_group, pair) in starts.windows(2).enumerate() {
            let [first, end] = pair else { continue };
            let is_last = row_group + 2 == starts.len();
            let event_times = self.event_time.and_then(|time| {
                let to = self.schema.fields().get(time)?.data_type();
                file.event_times(row_group, columns.get(time).copied().flatten()?, to)
            });
            splits.push(SplitPlan {
                rows: Some(end - first),
                bytes: file.group_bytes(row_group),
                event_times,
                identity: Arc::clone(&identity),
                detail: Detail::Parquet(Arc::new(ParquetSplit {
                    file: Arc::clone(&file),
                    row_group,
                    first: base + first,
                    end: next_base.filter(|_| is_last).unwrap_or(base + end),
                    columns: Arc::clone(&columns),
                })),
            });
        }
        Ok(splits)
    }

    async fn plan_avro(
        &self,
        found: &Found,
        base: u64,
        next_base: Option<u64>,
    ) -> Result<Vec<SplitPlan>> {
        let file = self.avro_file(found).await?;
        let everything = (0..self.schema.fields().len()).collect();
        file.typed((&self.schema, everything), (&self.rules, self.options.on_bad))?;
        let rows = match self.options.follow {
            // A file that is still being written is read once it is whole.
            true => Some(file.count_rows(&self.env.io).await?),
            false => None,
        };
        Ok(vec![SplitPlan {
            rows,
            bytes: Some(found.size),
            event_times: None,
            identity: format!("{} ({} bytes)", found.name, found.size).into(),
            detail: Detail::Avro(Arc::new(AvroSplit { file, first: base, end: next_base })),
        }])
    }

    /// Reads the header of a file.
    async fn avro_file(&self, found: &Found) -> Result<AvroFile> {
        let packing = self.options.packing.unwrap_or_else(|| packing_of_name(&found.name));
        AvroFile::open(found, packing, &self.env.io).await
    }

    async fn plan_text(
        &self,
        found: &Found,
        base: u64,
        next_base: Option<u64>,
    ) -> Result<Vec<SplitPlan>> {
        let file = Arc::new(self.text_file(found, base, next_base)?);
        let step = self.tuning.split_bytes.max(1);
        let cuts = file.packing == Packing::Plain && !self.options.follow && found.size > step;
        let cuts = cuts && (self.format == Format::Json || self.has_no_quotes(&file).await?);
        let count = if cuts { found.size.div_ceil(step) } else { 1 };
        let identity: Arc<str> = format!("{} ({} bytes)", found.name, found.size).into();
        let splits = (0..count).map(|number| {
            let start = number * step;
            let end = (number + 1 < count).then_some(start + step);
            SplitPlan {
                rows: None,
                bytes: Some(end.unwrap_or(found.size) - start),
                event_times: None,
                identity: Arc::clone(&identity),
                detail: Detail::Text(Arc::new(TextSplit {
                    file: Arc::clone(&file),
                    start,
                    end,
                    goes_on_at: None,
                })),
            }
        });
        Ok(splits.collect())
    }

    /// Whether a CSV file on this machine may be split at any line end. Files in object stores are not scanned for
    /// this: they would be fetched twice.
    async fn has_no_quotes(&self, file: &TextFile) -> Result<bool> {
        let Blob::Local(path) = &file.blob else { return Ok(false) };
        let (path, quote, name) = (Arc::clone(path), self.options.csv.quote, file.name.clone());
        let look = self.env.io.spawn_blocking(move || -> std::io::Result<bool> {
            use std::io::Read;
            let mut file = std::fs::File::open(path.as_ref())?;
            let mut block = vec![0; 1 << 20];
            loop {
                match file.read(&mut block)? {
                    0 => return Ok(true),
                    n if memchr::memchr(quote, block.get(..n).unwrap_or_default()).is_some() => {
                        return Ok(false);
                    }
                    _ => {}
                }
            }
        });
        let looked = look.await.map_err(|e| location::interrupted(&e))?;
        looked.map_err(|e| location::unreadable(&name, e))
    }

    /// Returns the plan of a file, recomputed when the file changed.
    async fn known_plan(
        &self,
        known: &mut Known,
        found: &Found,
        (base, next_base): (u64, Option<u64>),
    ) -> Result<Option<Plan>> {
        let same = |plan: &&Plan| {
            plan.base == base && plan.version == found.version && plan.size == found.size
        };
        if let Some(plan) = known.plans.get(&found.name).filter(same) {
            return Ok(Some(plan.clone()));
        }
        match self.plan(found, base, next_base).await {
            Ok(plan) => {
                known.plans.insert(found.name.clone(), plan.clone());
                Ok(Some(plan))
            }
            // It may be half written; it is retried.
            Err(e) if self.options.follow && e.kind() == ErrorKind::Data => {
                tracing::warn!(file = found.name, "skipped for now: {e}");
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }
}

/// Lists the files that exist. A followed file may appear later, or reappear.
async fn list(
    location: &Location,
    options: &FileOptions,
    format: Option<Format>,
    env: &ConnectorEnv,
) -> Result<Vec<Found>> {
    match location.list(format, &env.io).await {
        Err(e) if options.follow && e.kind() == ErrorKind::NotFound => Ok(vec![]),
        found => found,
    }
}

/// Returns the error for a location without files.
fn nothing(options: &FileOptions) -> Error {
    let path = &options.path;
    if std::path::Path::new(path).is_dir() {
        let what = options.format.map_or("JSON, CSV, Parquet or Avro", Format::name);
        return Error::new(
            ErrorKind::NotFound,
            format!("directory \"{path}\" has no {what} files"),
        )
        .with_hint("Files are recognised by .json, .ndjson, .jsonl, .csv, .tsv, .parquet and .avro (and .gz or .zst); set format for others.");
    }
    Error::new(ErrorKind::NotFound, format!("no file matches \"{path}\""))
        .with_hint("Relative paths are relative to the directory in which windrow was started.")
}

/// Numbers the splits of one partition.
fn partition(id: PartitionId, name: String, plans: Vec<SplitPlan>) -> Partition {
    let split = |(number, plan): (usize, SplitPlan)| Split {
        partition: id,
        number,
        rows: plan.rows,
        bytes: plan.bytes,
        event_times: plan.event_times,
        identity: plan.identity,
        place: None,
        detail: Arc::new(plan.detail),
    };
    Partition { id, name, splits: plans.into_iter().enumerate().map(split).collect() }
}

#[async_trait]
impl Source for FileSource {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn is_bounded(&self) -> bool {
        !self.options.follow
    }

    fn notices(&self) -> Vec<String> {
        self.notices.clone()
    }

    async fn discover(&self) -> Result<Vec<Partition>> {
        let found = list(&self.location, &self.options, Some(self.format), &self.env).await?;
        let found: Vec<Found> = found.into_iter().filter(|f| self.reads(f)).collect();
        if found.is_empty() && !self.options.follow {
            return Err(nothing(&self.options));
        }
        let mut known = self.known.lock().await;
        if self.options.in_order {
            let mut splits = vec![];
            let count = found.len() as u64;
            for (number, found) in (0_u64..).zip(&found) {
                let base = number << FILE_STRIDE_BITS;
                let next = (number + 1 < count).then_some((number + 1) << FILE_STRIDE_BITS);
                let plan = self.known_plan(&mut known, found, (base, next)).await?;
                splits.extend(plan.into_iter().flat_map(|plan| plan.splits));
            }
            return Ok(vec![partition(PartitionId(0), self.options.path.clone(), splits)]);
        }
        let (followed, others): (Vec<_>, Vec<_>) =
            found.into_iter().partition(|found| self.is_followed(found));
        let mut partitions = vec![];
        let now = self.env.clock.now_micros();
        for chain in self.chains.found(&followed, now, &self.env.io).await? {
            let size = followed.iter().find(|one| one.name == chain).map_or(0, |one| one.size);
            let id = known.number(&chain)?;
            let split = SplitPlan {
                rows: None,
                bytes: Some(size),
                event_times: None,
                identity: chain.as_str().into(),
                detail: Detail::Follow(chain.clone()),
            };
            let place: Arc<str> = self.chains.start(&chain)?.into();
            let mut partition = partition(id, chain, vec![split]);
            partition.splits.iter_mut().for_each(|s| s.place = Some(Arc::clone(&place)));
            partitions.push(partition);
        }
        for found in &others {
            let Some(plan) = self.known_plan(&mut known, found, (0, None)).await? else {
                continue;
            };
            let id = known.number(&found.name)?;
            partitions.push(partition(id, found.name.clone(), plan.splits));
        }
        partitions.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(partitions)
    }

    fn recall(&self, partition: &str, place: &str) -> Result<()> {
        self.chains.recall(partition, place)
    }

    fn lost(&self, partition: &str, offset: u64, place: &str) -> Result<Option<String>> {
        self.chains.lost(partition, offset, place)
    }

    fn rediscover_after(&self) -> Option<Duration> {
        self.options.follow.then(|| self.poll())
    }

    async fn open(&self, split: &Split, scan: &ScanRequest) -> Result<Box<dyn Reader>> {
        let detail = split
            .detail
            .downcast_ref::<Detail>()
            .ok_or_else(|| Error::internal("a split of another source was given to a file"))?;
        match detail {
            Detail::Parquet(split) => {
                let (schema, io) = (self.schema(), self.env.io.clone());
                let on_bad = self.options.on_bad;
                Ok(Box::new(ParquetReader::new(Arc::clone(split), scan, schema, on_bad, io)?))
            }
            Detail::Avro(split) => {
                let settings = (self.schema(), self.rules.clone(), self.options.on_bad);
                Ok(Box::new(AvroReader::new(Arc::clone(split), scan, settings, &self.env.io)?))
            }
            Detail::Follow(chain) => {
                let following = Following {
                    settings: self.text_settings(),
                    format: self.text_format(chain)?,
                    chains: Arc::clone(&self.chains),
                    chain: chain.clone(),
                    poll: self.poll(),
                    rotate_wait: self.options.rotate_wait,
                };
                Ok(Box::new(FollowReader::open(following, scan).await?))
            }
            Detail::Text(split) => {
                let file = &split.file;
                let resumed = split.resumed(scan.from)?;
                let split = resumed.as_ref().unwrap_or(split);
                let needs_first = split.begins_late() && matches!(file.format, TextFormat::Csv(_));
                let first = if needs_first {
                    let look = || async {
                        let records = first_records(file, 1, &self.env.io).await?;
                        Ok::<_, Error>(records.into_iter().next().unwrap_or_default())
                    };
                    Some(file.first.get_or_try_init(look).await?.as_slice())
                } else {
                    None
                };
                let settings = self.text_settings();
                Ok(Box::new(TextReader::open(settings, Arc::clone(split), scan, first)?))
            }
        }
    }
}

#[cfg(test)]
mod tests;

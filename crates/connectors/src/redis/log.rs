//! Streams of Redis as a log: ids as offsets, where a stream begins and ends, and what its entries carry.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::TimeUnit;
use async_trait::async_trait;
use redis::aio::MultiplexedConnection;
use redis::{Value, cmd};
use windrow_core::{Error, Result};

use super::feed::RedisFeed;
use super::options::RedisOptions;
use crate::broker::columns::{Carried, Carries, Metadata, Names, headers_json};
use crate::broker::log::{At, Log};
use crate::broker::start::Start;

/// The place of a stream that begins with its oldest entry.
const EARLIEST: &str = "earliest";
/// How long a server may take to answer; longer than it is asked to wait for entries.
const PATIENCE: Duration = Duration::from_secs(10);
/// The bits of an offset that are the sequence of an id.
const SEQUENCE_BITS: u32 = 21;
/// The largest milliseconds of an id, exclusive: offsets are positive as signed numbers.
const MILLIS_END: u64 = 1 << (63 - SEQUENCE_BITS);

/// What an entry carries.
pub(super) const NAMES: Names = &[
    ("id", Metadata::Id),
    ("timestamp", Metadata::Timestamp),
    ("stream", Metadata::Topic),
    ("fields", Metadata::Headers),
];

/// Returns the offset of an id; `None`: it is none, or has no offset.
pub(super) fn offset_of(id: &str) -> Option<u64> {
    let (millis, sequence) = id.split_once('-')?;
    let (millis, sequence) = (millis.parse::<u64>().ok()?, sequence.parse::<u64>().ok()?);
    let fits = millis < MILLIS_END && sequence < 1 << SEQUENCE_BITS;
    fits.then_some((millis << SEQUENCE_BITS) | sequence)
}

/// Returns the id of an offset.
pub(super) fn id_of(offset: u64) -> String {
    format!("{}-{}", offset >> SEQUENCE_BITS, offset & ((1 << SEQUENCE_BITS) - 1))
}

/// An entry of a stream.
#[derive(Debug)]
pub(crate) struct RedisMessage {
    pub(super) stream: Arc<str>,
    pub(super) offset: u64,
    /// All of its fields, in their order.
    pub(super) fields: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Carries for RedisMessage {
    fn carried(&self, what: Metadata) -> Carried<'_> {
        match what {
            Metadata::Id => Carried::Text(Cow::Owned(id_of(self.offset))),
            Metadata::Topic => Carried::Text(Cow::Borrowed(&self.stream)),
            Metadata::Timestamp => {
                let millis = i64::try_from(self.offset >> SEQUENCE_BITS).unwrap_or(i64::MAX);
                Carried::Time(millis, TimeUnit::Millisecond)
            }
            Metadata::Headers => {
                let names: Vec<Cow<'_, str>> =
                    self.fields.iter().map(|(name, _)| String::from_utf8_lossy(name)).collect();
                let values = self.fields.iter().map(|(_, value)| Some(value.as_slice()));
                let all = names.iter().map(|name| &**name).zip(values);
                Carried::Text(Cow::Owned(headers_json(all)))
            }
            Metadata::Key | Metadata::Partition | Metadata::Offset => Carried::Nothing,
        }
    }
}

/// The streams.
#[derive(Debug)]
pub(crate) struct RedisLog {
    options: Arc<RedisOptions>,
}

/// What a stream has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Extent {
    /// The offset of its first entry; `None`: it has none.
    pub(super) first: Option<u64>,
    /// The largest offset that it ever had; 0: none.
    pub(super) last: u64,
}

impl RedisLog {
    pub(super) fn new(options: RedisOptions) -> Self {
        Self { options: Arc::new(options) }
    }

    async fn connect(&self) -> Result<MultiplexedConnection> {
        self.options.server.connect(PATIENCE).await
    }
}

/// Returns the error of an id that has no offset.
pub(super) fn odd_id(stream: &str, id: &str) -> Error {
    Error::data(format!(
        "stream \"{stream}\" has the id \"{id}\", which is no time in milliseconds"
    ))
    .with_hint(
        "Add entries with ids that Redis generates (XADD … *): milliseconds, and a sequence below 2097152.",
    )
}

/// Asks what a stream has. One that does not exist is empty.
///
/// # Errors
/// When the server does not answer, and when it is no stream.
pub(super) async fn extent(
    connection: &mut MultiplexedConnection,
    options: &RedisOptions,
    stream: &str,
) -> Result<Extent> {
    let away = |error| options.server.away(&error);
    let kind: String = cmd("TYPE").arg(stream).query_async(connection).await.map_err(away)?;
    match kind.as_str() {
        "stream" => {}
        "none" => return Ok(Extent::default()),
        other => {
            return Err(Error::config(format!("key \"{stream}\" is a {other}, not a stream"))
                .with_hint("Name keys that entries are added to by XADD."));
        }
    }
    let info: Value =
        cmd("XINFO").arg("STREAM").arg(stream).query_async(connection).await.map_err(away)?;
    let Value::Array(parts) = info else { return Ok(Extent::default()) };
    let mut extent = Extent::default();
    for pair in parts.chunks_exact(2) {
        let [name, value] = pair else { continue };
        match (text(name).as_deref(), value) {
            (Some("last-generated-id"), value) => {
                let id = text(value).unwrap_or_default();
                extent.last = offset_of(&id).ok_or_else(|| odd_id(stream, &id))?;
            }
            (Some("first-entry"), Value::Array(entry)) => {
                let id = entry.first().and_then(text).unwrap_or_default();
                extent.first = Some(offset_of(&id).ok_or_else(|| odd_id(stream, &id))?);
            }
            _ => {}
        }
    }
    Ok(extent)
}

/// Returns the text of a value.
pub(super) fn text(value: &Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes.clone()).ok(),
        Value::SimpleString(text) => Some(text.clone()),
        _ => None,
    }
}

/// Returns the error of a stream that was read up to `from`, if it may not have all that followed.
pub(super) fn missing(stream: &str, from: u64, extent: Extent) -> Option<Error> {
    let read = id_of(from.saturating_sub(1));
    if extent.last + 1 < from {
        return Some(Error::data(format!(
            "stream \"{stream}\" ends with the id {}, and was read up to {read} before: it was created again",
            id_of(extent.last)
        ))
        .with_hint("Drop what reads it and create it again."));
    }
    let is_kept = extent.first.is_some_and(|first| first < from);
    if is_kept || extent.last < from {
        return None;
    }
    Some(Error::data(format!(
        "stream \"{stream}\" may have lost entries: it was read up to {read}, which it does not have any more"
    ))
    .with_hint(
        "Entries were removed before later ones were read: keep more of them (XADD … MAXLEN, XTRIM), drop what reads them \
         and create it again.",
    ))
}

#[async_trait]
impl Log for RedisLog {
    type Message = RedisMessage;
    type Feed = RedisFeed;

    fn unit(&self) -> &'static str {
        "offset"
    }

    fn rediscover_after(&self) -> Option<Duration> {
        // They are looked for until the server answers.
        Some(Duration::from_secs(5))
    }

    async fn partitions(&self) -> Result<Vec<Arc<str>>> {
        let mut connection = self.connect().await?;
        for stream in &self.options.streams {
            extent(&mut connection, &self.options, stream).await?;
        }
        Ok(self.options.streams.iter().map(|stream| stream.as_str().into()).collect())
    }

    async fn start(&self, partition: &str, is_new: bool) -> Result<String> {
        Ok(match &self.options.start {
            _ if is_new => EARLIEST.to_owned(),
            Start::Earliest => EARLIEST.to_owned(),
            Start::At(offset) => offset.to_string(),
            Start::Time(micros) => {
                let millis = micros.div_euclid(1_000) + i64::from(micros.rem_euclid(1_000) > 0);
                let millis = u64::try_from(millis).unwrap_or(0).min(MILLIS_END - 1);
                (millis << SEQUENCE_BITS).to_string()
            }
            Start::Latest => {
                let mut connection = self.connect().await?;
                let extent = extent(&mut connection, &self.options, partition).await?;
                (extent.last + 1).to_string()
            }
        })
    }

    async fn follow(&self, partition: &str, at: &At) -> Result<RedisFeed> {
        let mut connection = self.connect().await?;
        let extent = extent(&mut connection, &self.options, partition).await?;
        if let Some(error) = at.from.and_then(|from| missing(partition, from, extent)) {
            return Err(error);
        }
        let start = at.place.parse::<u64>().ok();
        let from = at.from.max(start).unwrap_or(0).max(1);
        let until = at.until_now.then_some(extent.last + 1);
        let options = Arc::clone(&self.options);
        Ok(RedisFeed::new(
            (options, connection),
            partition.into(),
            (from, at.from.is_some()),
            until,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_offsets() {
        for id in ["0-1", "1767225600000-0", "1767225600000-2097151", "4398046511103-7"] {
            assert_eq!(id_of(offset_of(id).unwrap()), id);
        }
        for id in ["", "5", "1-2097152", "4398046511104-0", "-1", "a-b", "18446744073709551615-1"] {
            assert_eq!(offset_of(id), None, "{id}");
        }
        assert!(offset_of("5-9") < offset_of("6-0"));
    }

    #[test]
    fn what_may_be_lost_is_said() {
        let extent = |first, last| Extent { first, last };
        // The last entry that was read is still there, or nothing came after it.
        assert!(missing("s", 10, extent(Some(9), 20)).is_none());
        assert!(missing("s", 10, extent(None, 9)).is_none());
        let error = missing("s", 10, extent(Some(12), 20)).unwrap();
        assert!(error.message().contains("may have lost entries"), "{error}");
        assert!(missing("s", 10, extent(None, 20)).is_some());
        assert!(missing("s", 10, extent(Some(2), 5)).unwrap().message().contains("again"));
    }
}

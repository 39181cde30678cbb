//! Messages that are gathered for a batch, and the batch that they become.
//!
//! Offsets may have gaps: they are in the range of a batch and no rows of it.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, UInt64Array};
use arrow::compute::take;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use windrow_core::{BadRow, Clock, OffsetRange, Result, ScanRequest, SourceBatch};

use super::columns::{Carries, MetadataColumn};
use super::health::Backoff;
use super::values::Values;
use crate::formats::decode::{OnBadRow, Origin, bad_row, readable};
use crate::formats::messages::{MessageDecoder, Messages};

/// Bytes of values in a batch, about.
const BATCH_BYTES: usize = 4 << 20;
/// How long a bounded reading waits for a schema registry that does not answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Messages that were received and not returned yet.
pub(crate) struct Assembly {
    values: Arc<Values>,
    projection: Vec<usize>,
    wanted: SchemaRef,
    rows_max: usize,
    decoder: MessageDecoder,
    messages: Messages,
    metadata: Vec<MetadataColumn>,
    bad: Vec<BadRow>,
    /// The first and the last offset.
    span: Option<(u64, u64)>,
}

impl Assembly {
    /// Returns an empty one, of the columns of a request.
    ///
    /// # Errors
    /// When a column does not exist.
    pub(crate) fn new(values: Arc<Values>, scan: &ScanRequest) -> Result<Self> {
        let projection = scan.projection.clone();
        let wanted = Arc::new(values.columns.schema.project(&projection)?);
        let rows_max = scan.batch_rows_max.max(1);
        let of_value = values.columns.of_value(&projection);
        let decoder = MessageDecoder::new(&values.settings, of_value, rows_max)?;
        let nulls = values.settings.on_bad == OnBadRow::Null;
        let metadata = values.columns.builders(&projection, nulls);
        Ok(Self {
            values,
            projection,
            wanted,
            rows_max,
            decoder,
            messages: Messages::default(),
            metadata,
            bad: vec![],
            span: None,
        })
    }

    /// Whether a batch has room for another message.
    pub(crate) fn has_room(&self) -> bool {
        self.messages.len() < self.rows_max && self.messages.bytes() < BATCH_BYTES
    }

    /// Adds a message; `None`: it has no value.
    pub(crate) fn push(&mut self, offset: u64, message: &impl Carries, value: Option<&[u8]>) {
        self.span = Some((self.span.map_or(offset, |(first, _)| first), offset));
        let mut wrong = None;
        for column in &mut self.metadata {
            wrong = wrong.or(column.push(message));
        }
        match wrong {
            Some(reason) => {
                let raw = readable(value.unwrap_or_default());
                self.bad.push(BadRow { offset, reason, raw });
                // Its metadata has no row.
                self.messages.push_refused(offset);
            }
            None => self.decoder.push(&mut self.messages, offset, value),
        }
    }

    /// Fetches the schemas that the messages have. A registry that is away is waited for; what ends does so for a while.
    /// Dropping the future loses nothing. `note` is called with errors.
    ///
    /// # Errors
    /// When the registry does not answer what ends.
    pub(crate) fn fetch_schemas<F: Fn(&str) + Send>(
        &self,
        clock: &Arc<dyn Clock>,
        ends: bool,
        note: F,
    ) -> impl Future<Output = Result<()>> + Send + use<F> {
        let wanted = self.values.registry.clone().map(|registry| {
            let ids = self.decoder.schema_ids(&self.messages);
            (registry, ids)
        });
        let clock = Arc::clone(clock);
        async move {
            let Some((registry, ids)) = wanted else { return Ok(()) };
            let (mut backoff, mut waited) = (Backoff::default(), Duration::ZERO);
            for id in ids {
                while registry.is_needed(id) {
                    let Err(error) = registry.fetch(id).await else { break };
                    note(error.message());
                    if ends && waited >= PATIENCE {
                        return Err(error);
                    }
                    let pause = backoff.next_pause();
                    clock.sleep(pause).await;
                    waited += pause;
                }
            }
            Ok(())
        }
    }

    /// Returns what was gathered as a batch that begins at `from`, and ends behind the last message or at `reached`; `None`:
    /// there is nothing, and nothing was reached.
    ///
    /// # Errors
    /// For the first bad row when the stream says `on_bad_row = 'fail'`.
    pub(crate) fn batch(
        &mut self,
        origin: Origin<'_>,
        from: Option<u64>,
        reached: Option<u64>,
    ) -> Result<Option<SourceBatch>> {
        let span = self.span.take();
        let Some(first) = from.or(span.map(|(first, _)| first)).or(reached) else {
            return Ok(None);
        };
        let end = span.map(|(_, last)| last + 1).max(reached).unwrap_or(first).max(first);
        if span.is_none() && end == first {
            return Ok(None);
        }
        if self.values.settings.on_bad == OnBadRow::Fail
            && let Some(bad) = self.bad.first()
        {
            return Err(bad_row(bad, origin));
        }
        let decoded = self.decoder.decode(&self.messages, origin)?;
        let all = self.messages.offsets();
        let mut metadata = vec![];
        for column in &mut self.metadata {
            metadata.extend(column.finish()?);
        }
        if decoded.offsets.len() < all.len() {
            metadata = of_rows(&metadata, all, &decoded.offsets)?;
        }
        let columns = self.values.columns.join(&self.projection, decoded.rows.columns(), metadata);
        let options = RecordBatchOptions::new().with_row_count(Some(decoded.offsets.len()));
        let rows = RecordBatch::try_new_with_options(Arc::clone(&self.wanted), columns, &options)?;
        let mut bad = decoded.bad;
        bad.append(&mut self.bad);
        bad.sort_by_key(|bad| bad.offset);
        self.messages.clear();
        Ok(Some(SourceBatch {
            rows,
            offsets: OffsetRange::try_new(first, end)?,
            row_offsets: Arc::new(decoded.offsets),
            bad,
            skipped: decoded.skipped,
            watermark: None,
            idle: None,
            behind: vec![],
            place: None,
        }))
    }
}

/// Returns the metadata of the rows that are left. Both lists of offsets ascend.
fn of_rows(metadata: &[ArrayRef], all: &[u64], left: &[u64]) -> Result<Vec<ArrayRef>> {
    let mut at = 0;
    let rows: UInt64Array = left
        .iter()
        .map(|offset| {
            at += all.get(at..).unwrap_or_default().partition_point(|other| other < offset);
            Some(at as u64)
        })
        .collect();
    metadata.iter().map(|column| Ok(take(column, &rows, None)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{AsArray, Int64Array};
    use arrow::datatypes::Int64Type;

    #[test]
    fn metadata_is_of_the_rows_that_are_left() {
        let column: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3, 4]));
        let left = of_rows(&[column], &[10, 12, 20, 21], &[12, 21]).unwrap();
        assert_eq!(left[0].as_primitive::<Int64Type>().values(), &[2, 4]);
    }
}

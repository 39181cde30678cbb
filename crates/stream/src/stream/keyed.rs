//! How the changes of a stream with a primary key are read: with their positions, which decide which row of a key is the
//! current one.
//!
//! Rows of the same key are in one partition, so positions within the partition compare: a log has one, and so has a file;
//! messages with a key are all in the same partition of their topic.

use std::sync::Arc;

use arrow::array::UInt64Array;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use async_trait::async_trait;
use datafusion::error::Result as EngineResult;
use datafusion::physical_plan::ExecutionPlan;
use windrow_core::{Error, PartitionId, Reader, Result, ScanRequest, Source, SourceBatch, Split};
use windrow_sql::plan::SEQUENCE_COLUMN;

use crate::altered::Alteration;
use crate::followers::ReadBy;
use crate::stream::Stream;
use crate::stream::table::{Contents, LeftOut, ScanCall};

/// The columns of a log of changes, with the positions of its rows.
pub fn with_sequence(log: &SchemaRef) -> SchemaRef {
    let mut fields = log.fields().to_vec();
    fields.push(Arc::new(Field::new(SEQUENCE_COLUMN, DataType::UInt64, false)));
    Arc::new(Schema::new(fields))
}

/// Adds the positions of rows as a last column.
#[derive(Debug)]
pub(crate) struct Sequenced {
    /// Whether the rows of a key may be in any partition of the source, so that there must be only one.
    pub(crate) one_partition: bool,
}

#[async_trait]
impl Alteration for Sequenced {
    fn schema(&self, read: SchemaRef) -> SchemaRef {
        with_sequence(&read)
    }

    async fn open(
        &self,
        source: &dyn Source,
        split: &Split,
        scan: &ScanRequest,
    ) -> Result<Box<dyn Reader>> {
        if self.one_partition && split.partition != PartitionId(0) {
            let message = "the changes are in several files, whose order is not known";
            let hint = "Add files = 'in_order' where it is that of their names, or name one file.";
            return Err(Error::data(message).with_hint(hint));
        }
        let stored = source.schema().fields().len();
        let projection: Vec<usize> =
            scan.projection.iter().copied().filter(|column| *column < stored).collect();
        if projection.len() == scan.projection.len() {
            return source.open(split, scan).await;
        }
        // A row that is skipped could be the last one of its key.
        let request = ScanRequest { projection, predicates: vec![], ..scan.clone() };
        Ok(Box::new(SequencedReader { inner: source.open(split, &request).await? }))
    }
}

struct SequencedReader {
    inner: Box<dyn Reader>,
}

#[async_trait]
impl Reader for SequencedReader {
    async fn next(&mut self) -> Result<Option<SourceBatch>> {
        let Some(mut batch) = self.inner.next().await? else { return Ok(None) };
        let rows = &batch.rows;
        let at = (0..rows.num_rows()).map(|row| batch.row_offsets.offset(row));
        let mut columns = rows.columns().to_vec();
        columns.push(Arc::new(UInt64Array::from_iter_values(at)));
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        let schema = with_sequence(&rows.schema());
        batch.rows = RecordBatch::try_new_with_options(schema, columns, &options)?;
        Ok(Some(batch))
    }
}

/// The current contents of a log of changes: all of its rows, with their positions.
#[derive(Debug)]
pub(crate) struct KeyedContents {
    stream: Arc<Stream>,
    left_out: Arc<LeftOut>,
}

impl KeyedContents {
    pub(crate) fn new(stream: &Arc<Stream>, left_out: LeftOut) -> Self {
        Self { stream: Arc::clone(stream), left_out: Arc::new(left_out) }
    }
}

#[async_trait]
impl Contents for KeyedContents {
    fn schema(&self) -> SchemaRef {
        Arc::clone(self.stream.schema.schema())
    }

    async fn scan(&self, call: ScanCall<'_>) -> EngineResult<Arc<dyn ExecutionPlan>> {
        // It ends where the log ends now.
        let source = self.stream.source(true, ReadBy::Client, None);
        self.stream.read_from(source, Arc::clone(&self.left_out)).scan(call).await
    }
}

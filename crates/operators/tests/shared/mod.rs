//! Shared parts of the oracles' cases: columns, aggregates, and segments as they are written.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use datafusion::functions_aggregate as functions;
use datafusion::logical_expr::AggregateUDF;
use datafusion::physical_expr::aggregate::AggregateExprBuilder;
use datafusion::physical_expr::expressions::Column;
use datafusion::scalar::ScalarValue;
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use windrow_operators::{AggregateCall, Cut, SavedSegment, SegmentId};

use crate::naive;

/// Columns of the prepared batch: id, time, key1, key2, key3, value, float, flag.
pub(crate) const TIME: usize = 1;
pub(crate) const KEYS: [usize; 3] = [2, 3, 4];
const VALUE: usize = 5;
const FLOAT: usize = 6;
const FLAG: usize = 7;

pub(crate) fn schema(text: &DataType) -> SchemaRef {
    let a = Field::new("a", DataType::Int64, true);
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("ts", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), false),
        Field::new("k1", DataType::Int64, true),
        Field::new("k2", text.clone(), true),
        Field::new("k3", DataType::Struct(vec![a].into()), true),
        Field::new("v", DataType::Int64, true),
        Field::new("f", DataType::Float64, true),
        Field::new("b", DataType::Boolean, true),
    ]))
}

fn call(
    schema: &SchemaRef,
    function: Arc<AggregateUDF>,
    arguments: &[usize],
    distinct: bool,
    filter: Option<usize>,
) -> AggregateCall {
    let columns =
        arguments.iter().map(|c| Arc::new(Column::new(schema.field(*c).name(), *c)) as _).collect();
    let name = format!("{}{arguments:?}{distinct}{filter:?}", function.name());
    let function = AggregateExprBuilder::new(function, columns)
        .schema(Arc::clone(schema))
        .alias(name)
        .with_distinct(distinct)
        .build()
        .unwrap();
    AggregateCall { function: Arc::new(function), arguments: arguments.to_vec(), filter }
}

/// An aggregate of this crate.
fn own(name: &str) -> Arc<AggregateUDF> {
    let mut all = windrow_operators::aggregates::functions().into_iter();
    all.find(|function| function.name() == name).unwrap()
}

/// Returns the aggregates in the order in which [`naive`] computes them.
pub(crate) fn aggregates(schema: &SchemaRef) -> Vec<AggregateCall> {
    use functions::{array_agg, average, count, min_max, regr};
    vec![
        call(schema, count::count_udaf(), &[TIME], false, None),
        call(schema, windrow_operators::aggregates::sum_udaf(), &[VALUE], false, None),
        call(schema, min_max::min_udaf(), &[VALUE], false, None),
        call(schema, min_max::max_udaf(), &[3], false, None),
        call(schema, average::avg_udaf(), &[FLOAT], false, None),
        call(schema, count::count_udaf(), &[VALUE], true, None),
        call(schema, array_agg::array_agg_udaf(), &[VALUE], false, None),
        call(schema, count::count_udaf(), &[VALUE], false, Some(FLAG)),
        call(schema, regr::regr_count_udaf(), &[FLOAT, FLOAT], false, None),
        call(schema, own("max_by"), &[0, VALUE], false, None),
        call(schema, own("mode"), &[VALUE], false, None),
    ]
}

pub(crate) fn cell(array: &ArrayRef, row: usize) -> String {
    if array.is_null(row) {
        return "NULL".to_owned();
    }
    let text = ScalarValue::try_from_array(array, row).unwrap().to_string();
    match text.strip_prefix('[').and_then(|t| t.strip_suffix(']')) {
        Some(items) => naive::sorted_list(items.split(", ").map(str::to_owned).collect()),
        None => text,
    }
}

/// The segments on disk, and the last cuts with the progress of the run at each.
#[derive(Debug)]
pub(crate) struct Disk<At> {
    segments: BTreeMap<SegmentId, SavedSegment>,
    cuts: Vec<(Cut, At)>,
}

impl<At: Clone> Disk<At> {
    pub(crate) fn new() -> Self {
        Self { segments: BTreeMap::new(), cuts: vec![] }
    }

    /// Writes a cut, and deletes segments that none of the last three needs.
    pub(crate) fn keep(&mut self, mut cut: Cut, at: At) {
        for segment in cut.new.drain(..) {
            assert!(segment.id.0 < cut.next_id && cut.needed.contains(&segment.id));
            let before = self.segments.insert(segment.id, through_ipc(&segment));
            assert!(before.is_none(), "an id is given once");
        }
        assert!(cut.needed.iter().all(|id| self.segments.contains_key(id)));
        self.cuts.push((cut, at));
        if self.cuts.len() > 3 {
            self.cuts.remove(0);
            let cuts = &self.cuts;
            self.segments.retain(|id, _| cuts.iter().any(|(cut, _)| cut.needed.contains(id)));
        }
    }

    /// The segments that the newest cut needs.
    pub(crate) fn needed(&self) -> &[SegmentId] {
        &self.cuts.last().unwrap().0.needed
    }

    /// Returns one of the last cuts with its segments in any order; everything written later is discarded.
    pub(crate) fn lose(&mut self, rng: &mut StdRng) -> (Cut, At, Vec<SavedSegment>) {
        self.cuts.truncate(rng.random_range(1..=self.cuts.len()));
        let (cut, at) = self.cuts.last().unwrap().clone();
        self.segments.retain(|id, _| id.0 < cut.next_id);
        let mut segments: Vec<_> = cut.needed.iter().map(|id| self.segments[id].clone()).collect();
        segments.shuffle(rng);
        (cut, at, segments)
    }
}

/// Writes a segment as an Arrow IPC stream and reads it back.
fn through_ipc(segment: &SavedSegment) -> SavedSegment {
    let mut file = vec![];
    let pieces: Vec<_> = segment.pieces().map(|piece| piece.unwrap()).collect();
    assert_eq!(pieces.len(), segment.pieces_len());
    let mut writer = StreamWriter::try_new(&mut file, &pieces[0].schema()).unwrap();
    pieces.iter().for_each(|batch| writer.write(batch).unwrap());
    writer.finish().unwrap();
    let batches = StreamReader::try_new(file.as_slice(), None).unwrap();
    SavedSegment {
        batches: batches.map(|batch| batch.unwrap()).collect(),
        spilled: None,
        ..*segment
    }
}

//! Circuits: several operators over changing rows as one stateful operator, which takes the rows of all inputs at once and
//! returns the changes of the result.
//!
//! ```text
//! rows of input 0 ─► workers ─flush─► + ─► project ─► aggregate ─┐          ┌─► first rows ─► changes of the result
//! rows of input 1 ─► workers ─flush─► + ─► filter ───────────────┴─► join ─┘
//! ```
//! Between the nodes of a circuit flow rows with weights ([`delta`]): how often a row is added, or removed. Each node keeps
//! what it needs in order to return the changes of its own result, so any node can follow any other. The inputs are
//! append-only: their rows have the weight one.
//!
//! Everything that workers have flushed passes the whole circuit before the next flush. So after each emission the result
//! is that of the query over the rows so far, even if a stream takes several ways through the circuit.
//!
//! Invariants: summed, the changes so far are the result over all rows flushed so far, and no row of it has a negative
//! weight; an emission has each row once; no row is ever late, and nothing depends on the watermark.

mod delta;
mod exact_sum;
mod folds;
mod grouped;
mod join;
mod kept;
mod node;
mod ordered;
mod recomputed;
mod returned;
mod running;
mod top;
mod worker;

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use windrow_core::{Error, Result, Watermark};

pub use self::join::{PairSpec, Returned};
pub use self::node::{CircuitNode, Step};
pub use self::recomputed::{Functions, RecomputedSpec};
use self::running::Running;
pub use self::top::{Rank, TopSpec};
use self::worker::InputRows;
use crate::changing::CHANGE_CODE;
use crate::lateness::{NotOnTime, Tolerance};
use crate::port::{CoordinatorPart, StatefulOperator, WorkerPart};
use crate::segments::kept::SavedState;

/// Operators over changing rows: the contract between the planner and the circuit.
#[derive(Debug, Clone)]
pub struct CircuitSpec {
    inputs: Vec<SchemaRef>,
    nodes: Arc<[CircuitNode]>,
    /// The columns that identify a row of the result.
    key: Option<Vec<usize>>,
    output_schema: SchemaRef,
}

impl CircuitSpec {
    /// Checks that all nodes can be built. Each node reads nodes before it, and is read once, but for the last one, which
    /// returns the result. `key`: columns that no two rows of the result have in common, if there are such.
    ///
    /// # Errors
    /// When rows cannot be compared; Internal when the planner named a node or a column that does not exist.
    pub fn try_new(
        inputs: Vec<SchemaRef>,
        nodes: Vec<CircuitNode>,
        key: Option<Vec<usize>>,
    ) -> Result<Self> {
        let last = nodes.last().ok_or_else(|| Error::internal("a circuit without nodes"))?;
        let mut fields = last.schema.fields().to_vec();
        fields.push(Arc::new(Field::new(CHANGE_CODE, DataType::UInt64, false)));
        let output_schema = Arc::new(Schema::new(fields));
        let spec = Self { inputs, nodes: nodes.into(), key, output_schema };
        Running::try_new(&spec)?;
        Ok(spec)
    }

    /// The columns of the result, without [`CHANGE_CODE`].
    pub fn answer_schema(&self) -> Result<&SchemaRef> {
        let last = self.nodes.last();
        last.map(|node| &node.schema).ok_or_else(|| Error::internal("a circuit without nodes"))
    }

    /// The nodes, each after those that it reads.
    pub fn nodes(&self) -> &[CircuitNode] {
        &self.nodes
    }
}

impl StatefulOperator for CircuitSpec {
    fn inputs(&self) -> Vec<&SchemaRef> {
        self.inputs.iter().collect()
    }

    fn output_schema(&self) -> &SchemaRef {
        &self.output_schema
    }

    fn name(&self) -> &'static str {
        "circuit"
    }

    fn time_unit(&self) -> TimeUnit {
        TimeUnit::Microsecond
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("all rows so far")
    }

    fn parts(&self) -> Vec<String> {
        let nodes = self.nodes.iter().enumerate();
        nodes.map(|(number, node)| format!("{number}: {node}")).collect()
    }

    fn reach(&self) -> i64 {
        i64::MAX
    }

    fn valid_times(&self) -> RangeInclusive<i64> {
        i64::MIN..=i64::MAX
    }

    fn classify(&self, _: usize, _: &[i64], _: Watermark, _: Tolerance) -> NotOnTime {
        NotOnTime::default()
    }

    fn is_resumable(&self) -> bool {
        false
    }

    fn worker(&self, _input: usize) -> Box<dyn WorkerPart> {
        Box::new(InputRows::default())
    }

    fn coordinator(&self) -> Box<dyn CoordinatorPart> {
        match Running::try_new(self) {
            Ok(running) => Box::new(running),
            // The specification has built one already.
            Err(e) => Box::new(Running::failed(e)),
        }
    }

    fn restore(&self, _: SavedState<'_>) -> Result<Box<dyn CoordinatorPart>> {
        Err(no_checkpoints())
    }
}

/// The error for calls that the planner rules out.
fn no_checkpoints() -> Error {
    Error::internal("a circuit has no checkpoints")
}

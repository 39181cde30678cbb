//! A circuit that runs: takes what workers have flushed, passes it through all nodes, and returns the changes.
//!
//! Invariant: the states of all nodes contain the same rows, all that were flushed and are no longer `pending`.

use std::sync::Arc;

use windrow_core::{Error, ErrorKind, Result, Watermark};

use super::delta::{Codec, Delta, types};
use super::node::Node;
use super::returned::Changes;
use super::{CircuitSpec, no_checkpoints};
use crate::batches;
use crate::port::{CoordinatorPart, Finished, WindowRows};
use crate::segments::kept::Cut;
use crate::segments::spill::SpillSpace;
use crate::segments::{Body, Segment};

/// The end of all rows: the earliest possible one, so that they never wait for the watermark.
const END: i64 = i64::MIN + 1;

/// A circuit that runs.
#[derive(Debug)]
pub(super) struct Running {
    spec: CircuitSpec,
    nodes: Vec<Node>,
    /// Compares rows of the result, and their keys.
    codec: Codec,
    key: Option<Codec>,
    /// Flushed rows of each input that have not passed.
    pending: Vec<Vec<Delta>>,
    changes: Option<Changes>,
    begun: bool,
    /// All rows before this watermark are in the changes.
    flushed: Watermark,
    /// Whether the workers have been flushed in this pass.
    asked: bool,
    rows: u64,
    spills: bool,
    failed: Option<Error>,
}

impl Running {
    /// Without rows.
    ///
    /// # Errors
    /// When rows cannot be compared; Internal when a node reads one that does not exist.
    pub(super) fn try_new(spec: &CircuitSpec) -> Result<Self> {
        let mut nodes = vec![];
        for (number, planned) in spec.nodes.iter().enumerate() {
            let inputs =
                planned.inputs.iter().map(|at| spec.nodes.get(*at).filter(|_| *at < number));
            let inputs: Option<Vec<_>> = inputs.collect();
            let inputs =
                inputs.ok_or_else(|| Error::internal("a node of a circuit without its inputs"))?;
            nodes.push(Node::new(planned, &inputs)?);
        }
        let answer = spec.answer_schema()?;
        Ok(Self {
            codec: Codec::of(answer)?,
            key: match &spec.key {
                Some(key) => Some(Codec::new(types(answer, key)?)?),
                None => None,
            },
            pending: spec.inputs.iter().map(|_| vec![]).collect(),
            nodes,
            spec: spec.clone(),
            changes: None,
            begun: false,
            flushed: Watermark::NONE,
            asked: false,
            rows: 0,
            spills: false,
            failed: None,
        })
    }

    /// One that fails at once.
    pub(super) fn failed(error: Error) -> Self {
        Self {
            spec: CircuitSpec {
                inputs: vec![],
                nodes: Arc::new([]),
                key: None,
                output_schema: Arc::new(arrow::datatypes::Schema::empty()),
            },
            nodes: vec![],
            codec: Codec::nothing(),
            key: None,
            pending: vec![],
            changes: None,
            begun: false,
            flushed: Watermark::NONE,
            asked: false,
            rows: 0,
            spills: false,
            failed: Some(error),
        }
    }

    /// Passes the flushed rows through all nodes.
    fn emit(&mut self) -> Result<()> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let begins = !std::mem::replace(&mut self.begun, true);
        if !begins && self.pending.iter().all(Vec::is_empty) {
            return Ok(());
        }
        let mut results: Vec<Option<Delta>> = Vec::with_capacity(self.nodes.len());
        for (node, planned) in self.nodes.iter_mut().zip(self.spec.nodes.iter()) {
            let mut inputs = vec![];
            if let Node::Input(number) = node {
                let rows = self.pending.get_mut(*number).map(std::mem::take);
                let rows = rows.ok_or_else(|| Error::internal("an input that does not exist"))?;
                let schema = Arc::clone(&planned.schema);
                inputs.push((Delta::together(&schema, rows)?, schema));
            }
            for at in &planned.inputs {
                let delta = results.get_mut(*at).and_then(Option::take);
                let from = self.spec.nodes.get(*at);
                let (Some(delta), Some(from)) = (delta, from) else {
                    return Err(Error::internal("a node of a circuit is read twice"));
                };
                inputs.push((delta, Arc::clone(&from.schema)));
            }
            results.push(Some(node.run(planned, inputs)?));
        }
        let Some(Some(result)) = results.pop() else { return Ok(()) };
        let result = result.consolidated(&self.codec)?;
        let key = self.spec.key.as_deref().zip(self.key.as_ref());
        self.changes = Some(Changes::of(result, key)?).filter(|changes| !changes.is_empty());
        Ok(())
    }
}

impl CoordinatorPart for Running {
    fn add(&mut self, input: usize, segment: Segment) -> Result<()> {
        self.rows += segment.rows;
        let Body::Rows(batches) = segment.body.in_memory()? else {
            return Err(Error::internal("a flush of groups to a circuit"));
        };
        let pending = self.pending.get_mut(input);
        let pending = pending.ok_or_else(|| Error::internal("an input that does not exist"))?;
        for batch in batches::together(batches)? {
            let weights = vec![1; batch.num_rows()];
            pending.push(Delta { columns: batch.columns().to_vec(), weights });
        }
        Ok(())
    }

    fn flush_to(&mut self, reached: Watermark, idle: bool) -> Option<Watermark> {
        let asked = std::mem::take(&mut self.asked);
        let is_last = reached == Watermark::END && self.flushed != Watermark::END;
        (!asked && (idle || is_last)).then_some(reached)
    }

    fn flushed(&mut self, to: Watermark) {
        self.flushed = self.flushed.advance(to);
        self.asked = true;
    }

    fn complete_to(&self, reached: Watermark) -> Watermark {
        reached.min(self.flushed)
    }

    fn next_end(&mut self, _to: Watermark) -> Result<Option<i64>> {
        if self.changes.is_none() {
            self.emit()?;
        }
        Ok(self.changes.as_ref().map(|_| END))
    }

    fn close(&mut self, _to: Watermark, rows_max: usize) -> Result<Option<Finished>> {
        let Some(changes) = &mut self.changes else { return Ok(None) };
        let rows = changes.next(&self.spec.output_schema, rows_max)?;
        self.changes.take_if(|changes| changes.is_empty());
        let rows: Vec<_> = rows.into_iter().collect();
        Ok(Some(Finished { windows: 0, rows: WindowRows::Whole(rows.into_iter()) }))
    }

    fn next_close(&self) -> Option<i64> {
        None
    }

    fn keep_order(&mut self) -> bool {
        false
    }

    fn keep_cuts(&mut self) {}

    fn cut(&mut self) -> Result<Cut> {
        Err(no_checkpoints())
    }

    fn spill_to(&mut self, _space: Arc<dyn SpillSpace>) {
        self.spills = true;
    }

    /// Refused: any row may be needed at any time.
    fn spill(&mut self) -> Result<()> {
        if !self.spills {
            return Ok(());
        }
        let rows = self.open_windows();
        let message = format!(
            "an updating result keeps {rows} rows and groups, more than its share of memory"
        );
        Err(Error::new(ErrorKind::Limit, message)
            .with_detail("It keeps them in memory, since the next row may need any of them.")
            .with_hint(
                "Raise the limit (--memory-limit), filter rows below joins, or bound the join in time, so that state leaves.",
            ))
    }

    fn open_windows(&self) -> usize {
        self.nodes.iter().map(Node::rows).sum()
    }

    fn rows(&self) -> u64 {
        self.rows
    }

    fn size_bytes(&self) -> usize {
        let nodes: usize = self.nodes.iter().map(Node::size_bytes).sum();
        let pending = self.pending.iter().flatten().flat_map(|delta| &delta.columns);
        let pending: usize = pending.map(|column| column.get_array_memory_size()).sum();
        nodes + pending + self.changes.as_ref().map_or(0, Changes::size_bytes)
    }
}

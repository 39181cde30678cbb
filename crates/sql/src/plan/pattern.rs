//! MATCH_RECOGNIZE as a node of a logical plan, and its operator in a continuous query.
//!
//! The node is created when the clause is planned ([`super::pattern_clause`]), with all its conditions and measures
//! compiled. They read *prepared* columns, expressions over the input, and only these are visible to the optimiser's
//! rules. It is *never* executed: the bounded form lowers it ([`super::pattern_bounded`]), the continuous form makes an
//! operator of it.
//!
//! Invariants: the first prepared column orders the rows. The prepared columns do not depend on which columns of the
//! result are read, so that rows of one time are in the same order in both forms.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::{Column, DFSchemaRef, Result, TableReference, internal_err};
use datafusion::logical_expr::{
    Expr, ExprSchemable, Extension, LogicalPlan, LogicalPlanBuilder, UserDefinedLogicalNodeCore,
};
use windrow_core::Error;
use windrow_operators::{PatternPlan, PatternSpec, StatefulOperator};

use super::bounded::named;
use super::flow::OperatorNode;
use super::interval::{self, Time};
use super::known::Known;
use super::lineage;
use super::shape::refused;
use super::split::{Operators, Splitter, scan};
use crate::leaf::LeafTable;

/// A clause, compiled.
#[derive(Debug)]
pub(crate) struct Clause {
    pub(crate) spec: PatternSpec,
    /// The types of prepared columns.
    pub(crate) types: Vec<DataType>,
    /// The columns of the result that are the time of a row of the match.
    pub(crate) times: Vec<TimeOf>,
    /// The clause as text: clauses are equal when their texts are.
    pub(crate) text: String,
}

/// A column of the result that is the time of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TimeOf {
    pub(crate) column: usize,
    /// Whether it is the last row of the match; otherwise it is any.
    pub(crate) is_last: bool,
}

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct RowPattern {
    pub(crate) input: LogicalPlan,
    /// The prepared columns.
    pub(crate) prepared: Vec<Expr>,
    pub(crate) clause: Arc<Clause>,
    schema: DFSchemaRef,
}

impl RowPattern {
    pub(crate) fn new(
        input: LogicalPlan,
        prepared: Vec<Expr>,
        clause: Arc<Clause>,
        schema: DFSchemaRef,
    ) -> Self {
        Self { input, prepared, clause, schema }
    }

    /// The node in `plan`, if it is one.
    pub(crate) fn of(plan: &LogicalPlan) -> Option<&Self> {
        match plan {
            LogicalPlan::Extension(extension) => extension.node.as_any().downcast_ref(),
            _ => None,
        }
    }

    /// As a plan.
    pub(crate) fn into_plan(self) -> LogicalPlan {
        LogicalPlan::Extension(Extension { node: Arc::new(self) })
    }

    /// The columns of the output.
    pub(crate) fn columns(&self) -> &DFSchemaRef {
        &self.schema
    }

    /// The name of a prepared column.
    pub(crate) fn name(index: usize) -> String {
        format!("p{index}")
    }

    /// The input with the prepared columns.
    pub(crate) fn prepare(&self, input: LogicalPlan) -> Result<LogicalPlan> {
        let schema = Arc::clone(input.schema());
        let columns = self.prepared.iter().zip(&self.clause.types).enumerate();
        let columns = columns.map(|(i, (expr, of))| {
            Ok(expr.clone().cast_to(of, schema.as_ref())?.alias(Self::name(i)))
        });
        let columns = columns.collect::<Result<Vec<_>>>()?;
        LogicalPlanBuilder::from(input).project(columns)?.build()
    }

    fn plan(&self) -> &PatternPlan {
        self.clause.spec.plan()
    }

    /// The event time that orders the rows, given the event times among the columns of the input.
    fn event_time(&self, known: &[Known]) -> Option<Time> {
        let ascending = self.plan().order.first().is_some_and(|(_, options)| !options.descending);
        let Some(Expr::Column(column)) = self.prepared.first().filter(|_| ascending) else {
            return None;
        };
        let lag_ticks = lineage::of_column(known, &self.input, column).lag?;
        let index = self.input.schema().maybe_index_of_column(column)?;
        Some(Time { column: column.clone(), index, lag_ticks })
    }

    /// Refuses a clause that cannot run for ever. `of`: the streams below as text, and the event time of the first one.
    ///
    /// # Errors
    /// When something is missing; it says what.
    pub(crate) fn check_continuous(
        &self,
        known: &[Known],
        (of, time): (&str, Option<String>),
    ) -> Result<()> {
        if self.event_time(known).is_none() {
            let e = format!(
                "MATCH_RECOGNIZE on {of} is not ordered by its event time, ascending, so it never ends"
            );
            let times = known.iter().zip(self.input.schema().fields());
            let mut times = times.filter(|(known, _)| known.lag.is_some());
            let time = times.next().map(|(_, field)| field.name().clone()).or(time);
            let hint = match time {
                Some(time) => format!("Write ORDER BY {time} first; further columns may follow."),
                None => "Declare the event time of the stream, WATERMARK FOR ts, and order by it, unchanged.".to_owned(),
            };
            return Err(refused(Error::sql(e).with_hint(hint)));
        }
        if self.plan().looks_ahead() {
            return Err(refused(
                Error::sql("NEXT in MATCH_RECOGNIZE over a stream would wait for rows after the match")
                    .with_hint("Make the next row a variable of the pattern: PATTERN (a b) DEFINE b AS b.x > a.x."),
            ));
        }
        Ok(())
    }
}

/// The event times of matches: the times of their last rows, and with WITHIN those of all rows.
pub(crate) fn known(pattern: &RowPattern) -> Vec<Known> {
    let mut known = vec![Known::default(); pattern.schema.fields().len()];
    let plan = pattern.plan();
    for time in &pattern.clause.times {
        if let Some(slot) = known.get_mut(time.column) {
            slot.lag = if time.is_last { plan.lag() } else { plan.within };
        }
    }
    known
}

impl Splitter<'_> {
    /// Adds a pattern to a stage; returns its rows with the node's column names.
    pub(super) fn row_pattern(
        &mut self,
        pattern: &RowPattern,
        operators: &mut Operators,
    ) -> Result<LogicalPlan> {
        let known = lineage::columns(&pattern.input)?;
        let Some(time) = pattern.event_time(&known) else {
            return internal_err!("a pattern over a stream has no event time");
        };
        let of_time = pattern.input.schema().field(time.index).data_type();
        let Some(clock) = interval::clock(of_time) else {
            return internal_err!("the event time of a pattern is none");
        };
        let prepare = pattern.prepare(pattern.input.clone())?;
        let input = Arc::new(prepare.schema().as_arrow().clone());
        let spec = PatternSpec::try_new(PatternPlan { input, ..pattern.plan().clone() });
        let operator: Arc<dyn StatefulOperator> = Arc::new(spec.map_err(refused)?);
        let input = self.operator_input(&prepare, time.lag_ticks, clock.unit)?;
        let leaf = self.next_leaf();
        let name = TableReference::bare(leaf.to_string());
        let table = LeafTable::new(leaf, Arc::clone(operator.output_schema()));
        operators.nodes.push(OperatorNode { leaf, operator, inputs: vec![input] });
        operators.fingerprints.push(None);
        let columns = pattern.schema.iter().enumerate().map(|(i, (qualifier, field))| {
            let column = Expr::Column(Column::new(Some(name.clone()), format!("m{i}")));
            named(column, qualifier.cloned(), field.name())
        });
        scan(name.clone(), table)?.project(columns.collect::<Vec<_>>())?.build()
    }
}

impl PartialEq for RowPattern {
    fn eq(&self, other: &Self) -> bool {
        self.clause.text == other.clause.text
            && self.prepared == other.prepared
            && self.input == other.input
    }
}

impl Eq for RowPattern {}

impl Hash for RowPattern {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.input.hash(state);
        self.prepared.hash(state);
        self.clause.text.hash(state);
    }
}

impl PartialOrd for RowPattern {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        let own = (&self.clause.text, &self.prepared);
        match own.partial_cmp(&(&other.clause.text, &other.prepared)) {
            Some(Ordering::Equal) => self.input.partial_cmp(&other.input),
            order => order,
        }
    }
}

impl UserDefinedLogicalNodeCore for RowPattern {
    fn name(&self) -> &'static str {
        "RowPattern"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        self.prepared.clone()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RowPattern: ")?;
        self.clause.spec.describe(f)
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<Self> {
        let Ok([input]) = <[LogicalPlan; 1]>::try_from(inputs) else {
            return internal_err!("a pattern takes one input");
        };
        if exprs.len() != self.prepared.len() {
            return internal_err!("a pattern has lost columns");
        }
        let prepared = exprs.into_iter().map(Expr::unalias).collect();
        let (clause, schema) = (Arc::clone(&self.clause), Arc::clone(&self.schema));
        Ok(Self { input, prepared, clause, schema })
    }

    fn necessary_children_exprs(&self, _output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let schema = self.input.schema();
        let mut needed = vec![];
        for column in self.prepared.iter().flat_map(Expr::column_refs) {
            needed.push(schema.maybe_index_of_column(column)?);
        }
        needed.sort_unstable();
        needed.dedup();
        Some(vec![needed])
    }
}

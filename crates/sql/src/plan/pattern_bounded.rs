//! The bounded form of MATCH_RECOGNIZE: a window function over each partition returns a list of results, which is
//! unnested.
//!
//! ```text
//! rows ─► prepared columns ─► matches(…) OVER (PARTITION BY keys) ─► unnest ─► columns of the result
//! ```
//! The underlying engine collects the rows of a partition; the matcher sorts them.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{Field, FieldRef};
use datafusion::common::{Column, DataFusionError, Result, ScalarValue, UnnestOptions};
use datafusion::functions::core::expr_fn::get_field;
use datafusion::logical_expr::expr::{WindowFunction, WindowFunctionParams};
use datafusion::logical_expr::function::{PartitionEvaluatorArgs, WindowUDFFieldArgs};
use datafusion::logical_expr::{
    Expr, LogicalPlan, LogicalPlanBuilder, PartitionEvaluator, Signature, Volatility, WindowFrame,
    WindowFrameBound, WindowFrameUnits, WindowUDF, WindowUDFImpl,
};

use super::pattern::{Clause, RowPattern};

/// The column of lists.
const MATCHES: &str = "__matches";

/// The pattern over `input` as ordinary nodes, with the same columns.
pub(crate) fn lower(pattern: &RowPattern, input: LogicalPlan) -> Result<LogicalPlan> {
    let prepared = |index: usize| Expr::Column(Column::new_unqualified(RowPattern::name(index)));
    let plan = pattern.clause.spec.plan();
    let rows = LogicalPlanBuilder::from(pattern.prepare(input)?);
    // Rows with NULL have no place in the order.
    let rows = rows.filter(prepared(0).is_not_null())?;
    let count = pattern.prepared.len();
    let function = Matches {
        clause: Arc::clone(&pattern.clause),
        signature: Signature::any(count, Volatility::Immutable),
    };
    let call = WindowFunction {
        fun: Arc::new(WindowUDF::new_from_impl(function)).into(),
        params: WindowFunctionParams {
            args: (0..count).map(prepared).collect(),
            partition_by: plan.keys.iter().map(|key| prepared(*key)).collect(),
            order_by: vec![],
            window_frame: WindowFrame::new_bounds(
                WindowFrameUnits::Rows,
                WindowFrameBound::Preceding(ScalarValue::UInt64(None)),
                WindowFrameBound::Following(ScalarValue::UInt64(None)),
            ),
            filter: None,
            null_treatment: None,
            distinct: false,
        },
    };
    let matches = || Expr::Column(Column::new_unqualified(MATCHES));
    let options = UnnestOptions::new().with_preserve_nulls(false);
    let rows = rows
        .window([Expr::WindowFunction(Box::new(call)).alias(MATCHES)])?
        .project([matches()])?
        .unnest_column_with_options(Column::new_unqualified(MATCHES), options)?;
    let columns = pattern.columns().iter().enumerate().map(|(i, (qualifier, field))| {
        get_field(matches(), format!("m{i}")).alias_qualified(qualifier.cloned(), field.name())
    });
    rows.project(columns.collect::<Vec<_>>())?.build()
}

/// The results of the matches of a partition.
#[derive(Debug)]
struct Matches {
    clause: Arc<Clause>,
    signature: Signature,
}

impl PartialEq for Matches {
    fn eq(&self, other: &Self) -> bool {
        self.clause.text == other.clause.text
    }
}

impl Eq for Matches {}

impl Hash for Matches {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.clause.text.hash(state);
    }
}

impl WindowUDFImpl for Matches {
    fn name(&self) -> &'static str {
        "match_recognize"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn partition_evaluator(
        &self,
        _args: PartitionEvaluatorArgs<'_>,
    ) -> Result<Box<dyn PartitionEvaluator>> {
        Ok(Box::new(OfPartition(Arc::clone(&self.clause))))
    }

    fn field(&self, args: WindowUDFFieldArgs<'_>) -> Result<FieldRef> {
        Ok(Arc::new(Field::new(args.name(), self.clause.spec.matches_type(), true)))
    }
}

#[derive(Debug)]
struct OfPartition(Arc<Clause>);

impl PartitionEvaluator for OfPartition {
    fn evaluate_all(&mut self, values: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
        let matches = self.0.spec.matches(values, rows);
        matches.map_err(|e| DataFusionError::External(Box::new(e)))
    }
}

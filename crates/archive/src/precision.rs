//! Nanoseconds in a format whose readers support microseconds.
//!
//! Delta's timestamps have microseconds, and its readers refuse to round. So a column of nanoseconds is stored rounded
//! down to whole microseconds, and the remainder (0 to 999) in a separate column, which is not in Delta's schema: other
//! engines do not see it, Windrow adds it back.
//!
//! ```text
//! table   window_time 12:00:59.999999999
//! file    window_time 12:00:59.999999000    _windrow_ns_window_time 999
//! ```

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int16Array, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{
    DataType, Field, Int16Type, Schema, SchemaRef, TimeUnit, TimestampNanosecondType,
};
use datafusion::common::ScalarValue;
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::Result as EngineResult;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator, lit};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{BinaryExpr as Sum, CastExpr, Column};
use windrow_core::{Error, Result};

/// The prefix of the names of remainder columns.
const PREFIX: &str = "_windrow_ns_";
/// Nanoseconds in a microsecond.
const MICRO: i64 = 1_000;

fn is_nanos(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Timestamp(TimeUnit::Nanosecond, _))
}

/// Returns the name of a column's remainder.
fn rest_name(column: &str) -> String {
    format!("{PREFIX}{column}")
}

/// Returns what a value of a column of the table is in a file: the names and values of the columns that have its parts.
pub(crate) fn parts(column: &str, value: ScalarValue) -> Vec<(String, ScalarValue)> {
    let ScalarValue::TimestampNanosecond(Some(nanos), zone) = value else {
        return vec![(column.to_owned(), value)];
    };
    let rest = nanos.rem_euclid(MICRO);
    let whole = ScalarValue::TimestampNanosecond(Some(nanos - rest), zone);
    let rest = ScalarValue::Int16(i16::try_from(rest).ok());
    vec![(column.to_owned(), whole), (rest_name(column), rest)]
}

/// Returns the columns of a file: those of the table, then the remainders.
pub(crate) fn stored(schema: &SchemaRef) -> SchemaRef {
    let mut fields = schema.fields().to_vec();
    let nanos = schema.fields().iter().filter(|f| is_nanos(f.data_type()));
    fields.extend(nanos.map(|f| {
        let name = rest_name(f.name());
        Arc::new(Field::new(name, DataType::Int16, f.is_nullable()))
    }));
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

/// Returns the index of a column's remainder in the stored schema, if it has one.
pub(crate) fn rest_of(schema: &Schema, column: usize) -> Option<usize> {
    let nanos = |i: &usize| schema.fields().get(*i).is_some_and(|f| is_nanos(f.data_type()));
    nanos(&column).then(|| schema.fields().len() + (0..column).filter(nanos).count())
}

/// Converts rows of the table to rows of a file.
pub(crate) fn split(batch: &RecordBatch, stored: &SchemaRef) -> Result<RecordBatch> {
    let (mut columns, mut rests) = (Vec::with_capacity(stored.fields().len()), vec![]);
    for column in batch.columns() {
        if !is_nanos(column.data_type()) {
            columns.push(Arc::clone(column));
            continue;
        }
        let nanos = column.as_primitive::<TimestampNanosecondType>();
        let whole = nanos.unary::<_, TimestampNanosecondType>(|t| t - t.rem_euclid(MICRO));
        columns.push(Arc::new(whole.with_data_type(column.data_type().clone())) as ArrayRef);
        let rest: Int16Array =
            nanos.unary(|t| i16::try_from(t.rem_euclid(MICRO)).unwrap_or_default());
        rests.push(Arc::new(rest) as ArrayRef);
    }
    columns.append(&mut rests);
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(stored), columns, &options)
        .map_err(|e| Error::internal(format!("rows do not fit a file: {e}")).with_source(e))
}

/// Converts a bound of a column of the table to a bound of its stored part.
pub(crate) fn stored_bound(bound: &Precision<ScalarValue>) -> Precision<ScalarValue> {
    match bound {
        Precision::Exact(ScalarValue::TimestampNanosecond(Some(nanos), zone)) => {
            let whole = nanos.saturating_sub(nanos.rem_euclid(MICRO));
            Precision::Exact(ScalarValue::TimestampNanosecond(Some(whole), zone.clone()))
        }
        other => other.clone(),
    }
}

/// Combines the two columns of a file into one of the table.
pub(crate) fn join(whole: &ArrayRef, rest: &ArrayRef) -> Result<ArrayRef> {
    let (Some(nanos), Some(rests)) =
        (whole.as_primitive_opt::<TimestampNanosecondType>(), rest.as_primitive_opt::<Int16Type>())
    else {
        return Err(Error::internal("a stored column of nanoseconds has another type"));
    };
    let joined =
        arrow::compute::binary::<_, _, _, TimestampNanosecondType>(nanos, rests, |t, r| {
            t.wrapping_add(i64::from(r))
        })?;
    Ok(Arc::new(joined.with_data_type(whole.data_type().clone())))
}

/// Returns the same as an expression over a scan: the columns at `whole` and `rest` of `scanned`.
pub(crate) fn joined(scanned: &Schema, whole: usize, rest: usize) -> Arc<dyn PhysicalExpr> {
    let column = |i: usize| {
        let field = scanned.field(i);
        Arc::new(Column::new(field.name(), i)) as Arc<dyn PhysicalExpr>
    };
    let number = |i| Arc::new(CastExpr::new(column(i), DataType::Int64, None)) as _;
    let sum = Arc::new(Sum::new(number(whole), Operator::Plus, number(rest)));
    Arc::new(CastExpr::new(sum, scanned.field(whole).data_type().clone(), None))
}

/// Converts filters to conditions on the stored columns. They may accept more rows: a condition on nanoseconds is
/// widened to whole microseconds, or dropped where it is not a simple comparison.
pub(crate) fn widened(filters: &[Expr], schema: &Schema) -> EngineResult<Vec<Expr>> {
    let mut wide = vec![];
    for filter in filters.iter().flat_map(|f| split_conjunction(f)) {
        if !mentions_nanos(filter, schema)? {
            wide.push(filter.clone());
        } else if let Expr::BinaryExpr(comparison) = filter {
            wide.extend(widened_comparison(comparison));
        }
    }
    Ok(wide)
}

fn mentions_nanos(filter: &Expr, schema: &Schema) -> EngineResult<bool> {
    use datafusion::common::tree_node::TreeNode;
    let mut any = false;
    filter.apply(|node| {
        if let Expr::Column(column) = node {
            let field = schema.field_with_name(&column.name);
            any |= field.is_ok_and(|f| is_nanos(f.data_type()));
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(any)
}

/// `stored ≤ value < stored + 1 µs`.
fn widened_comparison(comparison: &BinaryExpr) -> Vec<Expr> {
    let BinaryExpr { left, op, right } = comparison;
    let (column, op, bound) = match (left.as_ref(), right.as_ref()) {
        (column @ Expr::Column(_), Expr::Literal(bound, _)) => (column, *op, bound),
        (Expr::Literal(bound, _), column @ Expr::Column(_)) => match op.swap() {
            Some(op) => (column, op, bound),
            None => return vec![],
        },
        _ => return vec![],
    };
    let ScalarValue::TimestampNanosecond(Some(nanos), zone) = bound else { return vec![] };
    let at = |nanos: i64| lit(ScalarValue::TimestampNanosecond(Some(nanos), zone.clone()));
    let from = || column.clone().gt(at(nanos.saturating_sub(MICRO)));
    let to = || column.clone().lt_eq(at(*nanos));
    match op {
        Operator::Gt | Operator::GtEq => vec![from()],
        Operator::Lt | Operator::LtEq => vec![to()],
        Operator::Eq => vec![from(), to()],
        _ => vec![],
    }
}

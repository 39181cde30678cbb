//! Casts of times without a zone to times with one: they are in the time zone of the session, whatever the time zone of
//! the column. As in PostgreSQL, a time zone belongs to the session and not to a column.

use arrow::datatypes::DataType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{ExprSchema, Result};
use datafusion::logical_expr::{Cast, Expr, ExprSchemable};

/// The default time zone of a session.
pub const TIME_ZONE: &str = "UTC";

/// A cast to a time with zone; a text is first interpreted in the session's time zone. `now()` has no zone here, and is
/// UTC.
pub(super) fn in_zone(
    expr: Expr,
    schema: &dyn ExprSchema,
    config: &ConfigOptions,
) -> Result<Transformed<Expr>> {
    let Expr::Cast(cast) = &expr else { return Ok(Transformed::no(expr)) };
    let DataType::Timestamp(unit, Some(zone)) = cast.field.data_type() else {
        return Ok(Transformed::no(expr));
    };
    let session = config.execution.time_zone.as_deref().unwrap_or(TIME_ZONE);
    let is_now = matches!(cast.expr.as_ref(), Expr::ScalarFunction(f) if f.func.name() == "now");
    let wanted = match is_now {
        true => TIME_ZONE,
        false if is_text(&cast.expr.get_type(schema)?) => session,
        false => return Ok(Transformed::no(expr)),
    };
    if zone.as_ref() == wanted {
        return Ok(Transformed::no(expr));
    }
    let read = DataType::Timestamp(*unit, Some(wanted.into()));
    let Expr::Cast(Cast { expr, field }) = expr else { return Ok(Transformed::no(expr)) };
    let inner = Expr::Cast(Cast::new(expr, read));
    Ok(Transformed::yes(Expr::Cast(Cast::new_from_field(Box::new(inner), field))))
}

/// Whether values are text, plain or in a dictionary.
pub fn is_text(of: &DataType) -> bool {
    match of {
        DataType::Dictionary(_, value) => is_text(value),
        of => of.is_string(),
    }
}

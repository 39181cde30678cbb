//! Types that SQL has no name for: `ARROW('Timestamp(us, "Europe/Berlin")')`.
//!
//! The text has the form in which `arrow_typeof` displays types.

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{DataFusionError, Result};
use datafusion::logical_expr::planner::TypePlanner;
use sqlparser::ast;
use windrow_core::Error;

/// Plans `ARROW('…')`; leaves every other type to DataFusion.
#[derive(Debug)]
pub(crate) struct ArrowTypes;

impl TypePlanner for ArrowTypes {
    fn plan_type_field(&self, sql_type: &ast::DataType) -> Result<Option<FieldRef>> {
        let ast::DataType::Custom(name, modifiers) = sql_type else { return Ok(None) };
        let [text] = modifiers.as_slice() else { return Ok(None) };
        if !name.to_string().eq_ignore_ascii_case("arrow") {
            return Ok(None);
        }
        let data_type: DataType = text.parse().map_err(|e| {
            let error = Error::sql(format!("\"{text}\" is not an Arrow type")).with_source(e);
            let hint = "Write a type as arrow_typeof shows it: ARROW('Timestamp(us, \"UTC\")').";
            DataFusionError::External(Box::new(error.with_hint(hint)))
        })?;
        Ok(Some(Field::new("", data_type, true).into()))
    }
}

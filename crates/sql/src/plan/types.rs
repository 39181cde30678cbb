//! Types that DataFusion does not plan: `JSON`, and `ARROW('Timestamp(us, "Europe/Berlin")')` for those that SQL has no name for.
//! That text has the form in which `arrow_typeof` displays types.
//!
//! JSON is text: a field of it has Arrow's extension type `arrow.json`, which clients see too.

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{DataFusionError, Result};
use datafusion::logical_expr::planner::TypePlanner;
use sqlparser::ast;
use windrow_core::{Error, sql_type};

/// The key of the metadata of a field that names its Arrow extension type.
const EXTENSION_KEY: &str = "ARROW:extension:name";
/// The extension type of text that is JSON.
const JSON_EXTENSION: &str = "arrow.json";

/// Returns the SQL name of the type of a column: as [`sql_type()`], and `JSON` for text of this extension type.
pub fn sql_type_of(field: &Field) -> String {
    match field.metadata().get(EXTENSION_KEY).map(String::as_str) {
        Some(JSON_EXTENSION) => "JSON".to_owned(),
        _ => sql_type(field.data_type()),
    }
}

/// Plans `JSON` and `ARROW('…')`; leaves every other type to DataFusion.
#[derive(Debug)]
pub(crate) struct ArrowTypes;

impl TypePlanner for ArrowTypes {
    fn plan_type_field(&self, sql_type: &ast::DataType) -> Result<Option<FieldRef>> {
        if matches!(sql_type, ast::DataType::JSON | ast::DataType::JSONB) {
            return Ok(Some(json_field("").into()));
        }
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

/// A column of JSON.
fn json_field(name: &str) -> Field {
    let extension = [(EXTENSION_KEY.to_owned(), JSON_EXTENSION.to_owned())];
    Field::new(name, DataType::Utf8View, true).with_metadata(extension.into())
}

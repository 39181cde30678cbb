//! Parameters of a plan: which there are, of which types, and their values in their place.

use std::collections::BTreeMap;

use arrow::datatypes::DataType;
use datafusion::common::{ParamValues, ScalarValue};
use datafusion::logical_expr::LogicalPlan;
use windrow_core::{Error, Result};

use crate::diagnostics::from_datafusion;

/// The types of the parameters by their number, from 1; `None`: nothing in the statement tells.
pub type Parameters = BTreeMap<usize, Option<DataType>>;

/// The parameters of a plan.
///
/// # Errors
/// When a type cannot be inferred for another reason than that nothing tells.
pub fn parameters(plan: &LogicalPlan) -> Result<Parameters> {
    let fields = plan.get_parameter_fields().map_err(from_datafusion)?;
    let mut found = Parameters::new();
    let mut names: Vec<_> = fields.into_iter().collect();
    names.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    for (name, field) in names {
        let known = field.map(|f| f.data_type().clone()).filter(|t| *t != DataType::Null);
        found.insert(number(&name)?, known);
    }
    Ok(found)
}

/// The plan with values in the place of its parameters.
///
/// # Errors
/// When a parameter has no value.
pub fn bind(plan: LogicalPlan, values: &[ScalarValue]) -> Result<LogicalPlan> {
    let names = plan.get_parameter_names().map_err(from_datafusion)?;
    let mut numbers = names.iter().map(|n| number(n)).collect::<Result<Vec<_>>>()?;
    numbers.sort_unstable();
    match numbers.last() {
        None => Ok(plan),
        Some(last) if *last > values.len() => {
            Err(Error::sql(format!("parameter ${} has no value", values.len() + 1))
                .with_hint("Prepare the statement, and bind a value to each of its parameters."))
        }
        Some(_) => {
            let values = ParamValues::from(values.to_vec());
            plan.replace_params_with_values(&values).map_err(from_datafusion)
        }
    }
}

fn number(name: &str) -> Result<usize> {
    name.strip_prefix('$')
        .and_then(|n| n.parse().ok())
        .filter(|n| *n > 0)
        .ok_or_else(|| Error::sql(format!("\"{name}\" is not a parameter")))
}

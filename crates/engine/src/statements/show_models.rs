//! `SHOW MODELS` and `DESCRIBE` of a model.

use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray, UInt64Array};
use windrow_core::{Result, sql_type};

use super::show::rows;
use crate::access::Role;
use crate::catalog::models::ModelVersion;
use crate::execution::context::StatementContext;
use crate::execution::outcome::Outcome;

/// Returns the models that the user may call, and the objects that use each, with the version.
///
/// # Errors
/// When the columns have different lengths (a bug).
pub(super) async fn show_models(cx: &StatementContext) -> Result<Outcome> {
    rows(listed(cx)).await
}

fn listed(cx: &StatementContext) -> Vec<(&'static str, ArrayRef)> {
    let models = cx.catalog().models().into_iter().map(|model| model.newest());
    let models: Vec<_> = models.filter(|m| cx.access.has(Role::Read, &m.name)).collect();
    let takes = |model: &ModelVersion| {
        let columns = model.loaded.arguments();
        let each = columns.iter().map(|c| format!("{} {}", c.name(), sql_type(c.data_type())));
        each.collect::<Vec<_>>().join(", ")
    };
    let used_by = |model: &ModelVersion| {
        let users = cx.catalog().users_of(&model.name).into_iter();
        let shown = users.filter(|(user, _)| cx.access.has(Role::Read, user));
        let shown = shown.map(|(user, version)| format!("{user} (version {version})"));
        shown.collect::<Vec<_>>().join(", ")
    };
    let text = |values: Vec<String>| Arc::new(StringArray::from(values)) as ArrayRef;
    let count = |values: Vec<u64>| Arc::new(UInt64Array::from(values)) as ArrayRef;
    vec![
        ("name", text(models.iter().map(|m| m.name.clone()).collect())),
        ("version", count(models.iter().map(|m| m.number).collect())),
        ("takes", text(models.iter().map(|m| takes(m)).collect())),
        ("returns", text(models.iter().map(|m| sql_type(&m.loaded.returns())).collect())),
        ("size_bytes", count(models.iter().map(|m| m.size as u64).collect())),
        ("used_by", text(models.iter().map(|m| used_by(m)).collect())),
    ]
}

/// Returns what a model takes and returns, and what is known about its file.
///
/// # Errors
/// When the columns have different lengths (a bug).
pub(super) async fn model_described(version: &ModelVersion) -> Result<Outcome> {
    rows(described(version)).await
}

fn described(version: &ModelVersion) -> Vec<(&'static str, ArrayRef)> {
    let model = &version.loaded;
    let line = |part: &str, name: &str, data_type: String, shape: String| {
        [part.to_owned(), name.to_owned(), data_type, shape]
    };
    let inputs = model.inputs().iter();
    let inputs = inputs.map(|i| line("input", &i.name, sql_type(&i.data_type), i.shape()));
    let outputs = model.outputs().iter();
    let outputs = outputs.map(|o| line("output", &o.name, sql_type(&o.column_type()), o.shape()));
    let about = [
        ("version", version.number.to_string()),
        ("size", format!("{} bytes", version.size)),
        ("producer", model.producer().to_owned()),
    ];
    let about = about.map(|(part, value)| line(part, &value, String::new(), String::new()));
    let lines: Vec<[String; 4]> = inputs.chain(outputs).chain(about).collect();
    let column = |of: fn(&[String; 4]) -> &String| {
        let values =
            lines.iter().map(|line| Some(of(line).as_str()).filter(|text| !text.is_empty()));
        Arc::new(values.collect::<StringArray>()) as ArrayRef
    };
    vec![
        ("part", column(|line| &line[0])),
        ("name", column(|line| &line[1])),
        ("data_type", column(|line| &line[2])),
        ("shape", column(|line| &line[3])),
    ]
}

//! Errors of calls of models, in the words of the caller: for the planner, a version of a model is a function with a name of its own.

use windrow_core::{Error, sql_type};
use windrow_sql::parse::function_of_model;

use crate::catalog::models::ModelVersion;

/// Values that are listed in a message at most.
const LISTED_MAX: usize = 8;

/// Returns an error about a call of this version in the caller's words; `None`: it is about something else.
pub(super) fn of_prediction(error: &Error, version: &ModelVersion) -> Option<Error> {
    let (name, function) = (&version.name, version.function());
    let refused = format!("function \"{}\" does not take (", function.name());
    let message = match error.message().strip_prefix(&refused) {
        Some(given) => {
            let given = given.strip_suffix(')').unwrap_or(given);
            let hint =
                format!("DESCRIBE {name} lists what it takes; convert a value with CAST(… AS …).");
            let message =
                format!("model \"{name}\" takes ({}), and is given ({given})", takes(version));
            return Some(placed(Error::new(error.kind(), message).with_hint(hint), error));
        }
        None => error.message().replace(&function_of_model(name), "predict"),
    };
    if message == error.message() {
        return None;
    }
    let better = Error::new(error.kind(), message);
    Some(placed(error.hints().iter().cloned().fold(better, Error::with_hint), error))
}

/// The values that a model takes, as they are written in SQL.
fn takes(version: &ModelVersion) -> String {
    let columns = version.loaded.arguments();
    let mut listed: Vec<String> = columns
        .iter()
        .take(LISTED_MAX)
        .map(|column| format!("{} {}", column.name(), sql_type(column.data_type())))
        .collect();
    if columns.len() > LISTED_MAX {
        listed.push(format!("… {} values", columns.len()));
    }
    listed.join(", ")
}

fn placed(better: Error, error: &Error) -> Error {
    match error.place() {
        Some(place) => better.with_place(place),
        None => better,
    }
}

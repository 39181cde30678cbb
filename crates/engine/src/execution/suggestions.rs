//! Suggestions for unknown names; errors in the words of the caller.

use windrow_core::{Error, ErrorKind};
use windrow_sql::diagnostics::nearest;

use crate::access::Role;
use crate::execution::context::StatementContext;
use crate::execution::predictions::of_prediction;

impl StatementContext {
    /// Adds the nearest name that exists to an error about an unknown table or function, and names models where the planner names
    /// their functions.
    pub(crate) fn suggest(&self, error: Error) -> Error {
        if error.kind() == ErrorKind::NotFound && !self.access.is_everything(Role::Read) {
            // Other names may be hidden from the user.
            let bare = Error::new(ErrorKind::NotFound, error.message());
            return match error.place() {
                Some(place) => bare.with_place(place),
                None => bare,
            };
        }
        let mut models = self.models().iter();
        if let Some(better) = models.find_map(|version| of_prediction(&error, version)) {
            return better;
        }
        let unknown = |kind: &str| {
            let rest = error.message().strip_prefix("unknown ")?.strip_prefix(kind)?;
            rest.strip_prefix(" \"")?.strip_suffix('"').map(str::to_owned)
        };
        if let Some(name) = unknown("table") {
            if let Some(broken) = self.catalog().broken(&name) {
                return broken;
            }
            let mut names = self.catalog().names();
            names.retain(|name| self.access.has(Role::Read, name));
            let near = nearest(&name, names.iter().map(String::as_str)).map(str::to_owned);
            return hinted(
                &error,
                ErrorKind::NotFound,
                near,
                "SHOW TABLES lists what can be read.",
            );
        }
        if let Some(name) = unknown("function") {
            let state = self.state();
            if state.window_functions().contains_key(&name) {
                let message = format!("\"{name}\" is a window function, and has no window here");
                let better = Error::sql(message)
                    .with_hint("Write OVER (PARTITION BY … ORDER BY …) behind it.");
                return match error.place() {
                    Some(place) => better.with_place(place),
                    None => better,
                };
            }
            let mut names: Vec<&str> = state
                .scalar_functions()
                .keys()
                .chain(state.aggregate_functions().keys())
                .chain(state.window_functions().keys())
                .map(String::as_str)
                // Names that no call has.
                .filter(|name| !name.contains(['$', '[']))
                .chain(["tumble", "hop", "cumulate", "session", "predict"])
                .collect();
            names.sort_unstable();
            let near = nearest(&name, names).map(str::to_owned);
            return hinted(&error, ErrorKind::Sql, near, "SHOW FUNCTIONS lists all functions.");
        }
        error
    }
}

fn hinted(error: &Error, kind: ErrorKind, near: Option<String>, list: &str) -> Error {
    let hint = match near {
        Some(near) => format!("Did you mean \"{near}\"? {list}"),
        None => list.to_owned(),
    };
    let better = Error::new(kind, error.message()).with_hint(hint);
    match error.place() {
        Some(place) => better.with_place(place),
        None => better,
    }
}

//! AFTER MATCH SKIP: where the search continues.

use windrow_core::{Error, Result};

use super::attempt::Label;
use super::program::bit;
use super::{PatternSpec, Skip};

/// The number of rows after the first row of a match at which the search continues.
///
/// # Errors
/// When there is no such row, or it is the first one.
pub(super) fn next(spec: &PatternSpec, labels: &[Label]) -> Result<usize> {
    let of =
        |variables: u64| move |label: &Label| bit(usize::from(label.variable)) & variables != 0;
    let (variables, found) = match &spec.plan.skip {
        Skip::PastLastRow => return Ok(labels.len()),
        Skip::ToNextRow => return Ok(1),
        Skip::ToFirst(variables) => (*variables, labels.iter().position(of(*variables))),
        Skip::ToLast(variables) => (*variables, labels.iter().rposition(of(*variables))),
    };
    let names = spec.plan.names.iter().enumerate().filter(|(at, _)| bit(*at) & variables != 0);
    let names: Vec<&str> = names.map(|(_, name)| name.as_str()).collect();
    let names = names.join(", ");
    match found {
        Some(0) => Err(Error::data(format!(
            "AFTER MATCH SKIP goes to \"{names}\", which is the first row of the match, so it would be found again for ever"
        ))
        .with_hint("Use AFTER MATCH SKIP TO NEXT ROW or PAST LAST ROW, or a variable that comes later.")),
        Some(at) => Ok(at),
        None => Err(Error::data(format!(
            "AFTER MATCH SKIP goes to \"{names}\", of which a match has no row"
        ))
        .with_hint("Use a variable of which each match has a row, or PAST LAST ROW.")),
    }
}

//! `SET name = value`.

use datafusion::config::ConfigOptions;
use windrow_core::{Error, Result};
use windrow_sql::diagnostics::{from_datafusion, nearest};
use windrow_sql::parse;
use windrow_sql::plan::TIME_ZONE;

use super::{Answer, Statement};
use crate::access::Access;
use crate::access::admission::Weight;
use crate::access::settings::{check_range, may_set};
use crate::catalog::Catalog;
use crate::execution::context::StatementContext;
use crate::execution::outcome::Outcome;

const TIME_ZONE_SETTING: &str = "datafusion.execution.time_zone";

/// `SET name = value`.
#[derive(Debug)]
pub(crate) struct Set(pub(super) parse::Set);

impl Statement for Set {
    fn admission(&self) -> (&'static str, Option<Weight>) {
        ("SET", None)
    }

    fn authorize(&self, access: &Access, _: &Catalog) -> Result<()> {
        may_set(access, "SET", &self.0.name)
    }

    fn execute<'a>(&'a self, cx: &'a StatementContext) -> Answer<'a, Outcome> {
        Box::pin(async move {
            let set = &self.0;
            check_range(&set.name, &set.value).map_err(|e| e.with_place(set.place))?;
            let state = cx.session.state_ref();
            let mut state = state.write();
            if set.name == TIME_ZONE_SETTING {
                let zone = zone(&set.value).map_err(|e| e.with_place(set.place))?;
                state.config_mut().options_mut().execution.time_zone = Some(zone);
                return Ok(Outcome::Done("SET".into()));
            }
            let options = state.config_mut().options_mut();
            check_known(options, set)?;
            options.set(&set.name, &set.value).map_err(|e| {
                let why = from_datafusion(e);
                let (name, value) = (&set.name, &set.value);
                Error::config(format!("setting \"{name}\" cannot be '{value}': {}", why.message()))
                    .with_place(set.place)
                    .with_hint("SHOW ALL lists the settings.")
            })?;
            Ok(Outcome::Done("SET".into()))
        })
    }
}

/// Checks that a setting exists.
///
/// # Errors
/// When it does not, with the nearest name.
fn check_known(options: &ConfigOptions, set: &parse::Set) -> Result<()> {
    let entries = options.entries();
    let known: Vec<&str> = entries.iter().map(|entry| entry.key.as_str()).collect();
    if known.contains(&set.name.as_str()) {
        return Ok(());
    }
    let hint = match nearest(&set.name, known) {
        Some(near) => format!("Did you mean \"{near}\"? SHOW ALL lists the settings."),
        None => "SHOW ALL lists the settings.".to_owned(),
    };
    Err(Error::config(format!("unknown setting \"{}\"", set.name)).with_hint(hint))
}

/// Returns the time zone of this name; without a name, the one that sessions begin with.
///
/// # Errors
/// When it does not exist.
fn zone(name: &str) -> Result<String> {
    if name.is_empty() {
        return Ok(TIME_ZONE.to_owned());
    }
    // A number alone is hours, as in PostgreSQL.
    let name = match name.parse::<i32>() {
        Ok(hours) => format!("{}{:02}:00", if hours < 0 { '-' } else { '+' }, hours.abs()),
        Err(_) => name.to_owned(),
    };
    let known = name.parse::<arrow::array::timezone::Tz>();
    match known {
        Ok(_) => Ok(name),
        Err(e) => Err(Error::config(format!("there is no time zone \"{name}\""))
            .with_source(e)
            .with_hint(
                "Write a name, such as 'Europe/Berlin' or 'UTC', or an offset, such as '+02:00'.",
            )),
    }
}

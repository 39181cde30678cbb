//! Settings: which there are is DataFusion's; what they may be, and who may change them, is ours.
//!
//! A setting that changes how much of the machine statements take (threads, rows of a batch, buffers,
//! thresholds from which something goes to disk) is an administrator's. What only changes how a statement
//! is read or written (time zone, dialect, formats, EXPLAIN) is everybody's. The ranges hold for all:
//! outside of them no machine can do what is asked for.

use std::sync::Arc;

use datafusion::config::ConfigOptions;
use windrow_core::{Error, Result};
use windrow_sql::diagnostics::{from_datafusion, nearest};
use windrow_sql::parse::Set;
use windrow_sql::plan::TIME_ZONE;

use crate::session::{Access, Outcome, Role, Session};

/// What everybody may set, by the beginning of the name.
const EVERYBODYS: [&str; 6] = [
    "datafusion.catalog.",
    "datafusion.explain.",
    "datafusion.format.",
    "datafusion.sql_parser.",
    "datafusion.execution.time_zone",
    "datafusion.optimizer.",
];

/// Exceptions of it.
const ADMINISTRATORS: [&str; 3] = [
    "datafusion.sql_parser.recursion_limit",
    "datafusion.optimizer.max_passes",
    "datafusion.optimizer.skip_failed_rules",
];

/// From the least to the greatest that a number may be.
const RANGES: [(&str, u64, u64); 9] = [
    // 0: one per processor.
    ("datafusion.execution.target_partitions", 0, 1_024),
    ("datafusion.execution.planning_concurrency", 0, 1_024),
    ("datafusion.execution.batch_size", 1, 1 << 20),
    ("datafusion.execution.meta_fetch_concurrency", 1, 1_024),
    ("datafusion.execution.minimum_parallel_output_files", 0, 1_024),
    ("datafusion.execution.max_buffered_batches_per_output_file", 0, 1_024),
    ("datafusion.execution.parquet.maximum_parallel_row_group_writers", 1, 1_024),
    ("datafusion.optimizer.max_passes", 1, 100),
    ("datafusion.sql_parser.recursion_limit", 1, 1_000),
];

/// The greatest of any other number: as bytes a TiB, as rows more than there are.
const NUMBER_MAX: u64 = 1 << 40;

impl Session {
    pub(super) fn set(&self, set: &Set) -> Result<Outcome> {
        may_set(self.access(), "SET", &set.name)?;
        check_range(&set.name, &set.value).map_err(|e| e.with_place(set.place))?;
        let state = self.context.state_ref();
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
    }
}

impl Session {
    /// The time zone of times that name none.
    pub(crate) fn time_zone(&self) -> Arc<str> {
        self.context
            .state_ref()
            .read()
            .config_options()
            .execution
            .time_zone
            .as_deref()
            .unwrap_or(TIME_ZONE)
            .into()
    }
}

/// Refuses settings that do not exist.
fn check_known(options: &ConfigOptions, set: &Set) -> Result<()> {
    let entries = options.entries();
    let known: Vec<&str> = entries.iter().map(|entry| entry.key.as_str()).collect();
    if known.contains(&set.name.as_str()) {
        return Ok(());
    }
    let hint = match nearest(&set.name, known) {
        Some(near) => format!("Did you mean \"{near}\"? SHOW ALL lists the settings."),
        None => "SHOW ALL lists the settings.".to_owned(),
    };
    let error = Error::config(format!("unknown setting \"{}\"", set.name));
    Err(error.with_hint(hint))
}

const TIME_ZONE_SETTING: &str = "datafusion.execution.time_zone";

/// A time zone that exists; without a name the one of the start.
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

/// Refuses who may not change a setting.
///
/// # Errors
/// Denied, unless the setting is everybody's or the user an administrator of all objects.
pub(super) fn may_set(access: &Access, verb: &str, name: &str) -> Result<()> {
    let name = name.to_lowercase();
    let free = EVERYBODYS.iter().any(|free| name.starts_with(free))
        && !ADMINISTRATORS.contains(&name.as_str());
    // Everybody writes `timezone` and `time zone` for it.
    if free || !name.starts_with("datafusion.") {
        return Ok(());
    }
    access.need_everywhere(Role::Admin, &format!("{verb} {name}"))
}

/// Refuses a number that is out of its range.
///
/// # Errors
/// With the range.
pub(super) fn check_range(name: &str, value: &str) -> Result<()> {
    let name = name.to_lowercase();
    let known = RANGES.iter().find(|(known, ..)| *known == name);
    let (_, least, greatest) = known.copied().unwrap_or((&name, 0, NUMBER_MAX));
    let digits = value.trim().trim_start_matches('-');
    let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    if !is_number {
        // A word, or not a number at all: what reads it says so.
        return Ok(());
    }
    match value.trim().parse::<u64>() {
        Ok(number) if (least..=greatest).contains(&number) => Ok(()),
        _ => Err(Error::config(format!(
            "setting \"{name}\" cannot be {}: it goes from {least} to {greatest}",
            value.trim()
        ))
        .with_hint(format!("Give a number from {least} to {greatest}."))),
    }
}

#[cfg(test)]
mod tests {
    use windrow_core::ErrorKind;

    use super::*;
    use crate::session::Grant;

    #[test]
    fn what_changes_the_use_of_the_machine_is_an_administrators() {
        let reader = Access::remote("ann", vec![Grant::new(Role::Read, "*").unwrap()]);
        let admin = Access::remote("eve", vec![Grant::new(Role::Admin, "*").unwrap()]);
        for name in [
            "datafusion.execution.target_partitions",
            "DATAFUSION.EXECUTION.BATCH_SIZE",
            "datafusion.execution.sort_spill_reservation_bytes",
            "datafusion.execution.parquet.pushdown_filters",
            "datafusion.runtime.memory_limit",
            "datafusion.optimizer.max_passes",
            "datafusion.sql_parser.recursion_limit",
        ] {
            assert_eq!(may_set(&reader, "SET", name).unwrap_err().kind(), ErrorKind::Denied);
            may_set(&admin, "SET", name).unwrap();
        }
        for name in [
            "datafusion.execution.time_zone",
            "datafusion.sql_parser.dialect",
            "datafusion.optimizer.prefer_hash_join",
            "datafusion.format.null",
        ] {
            may_set(&reader, "SET", name).unwrap();
        }
    }

    #[test]
    fn numbers_have_ranges() {
        for (name, value, fits) in [
            ("datafusion.execution.target_partitions", "1000000", false),
            ("datafusion.execution.target_partitions", "0", true),
            ("datafusion.execution.target_partitions", "-1", false),
            ("datafusion.execution.batch_size", "9223372036854775807", false),
            ("datafusion.execution.batch_size", "0", false),
            ("datafusion.execution.batch_size", "8192", true),
            ("datafusion.execution.sort_spill_reservation_bytes", "99999999999999999999", false),
            ("datafusion.execution.sort_spill_reservation_bytes", "10485760", true),
            ("datafusion.execution.time_zone", "+02:00", true),
        ] {
            assert_eq!(check_range(name, value).is_ok(), fits, "{name} = {value}");
        }
    }
}

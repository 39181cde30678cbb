//! Settings: DataFusion defines which ones exist; their ranges, and who may change them, are defined here.
//!
//! A setting that changes how much of the machine statements use (threads, rows of a batch, buffers, thresholds for
//! spilling) takes the role admin on all objects. One that only changes how a statement is read or its result is
//! written (time zone, dialect, formats, EXPLAIN) is open to all users. The ranges apply to all users: no machine can
//! work with values outside of them.

use windrow_core::{Error, Result};

use crate::access::{Access, Role};

/// Prefixes of the settings that are open to all users.
const EVERYBODYS: [&str; 6] = [
    "datafusion.catalog.",
    "datafusion.explain.",
    "datafusion.format.",
    "datafusion.sql_parser.",
    "datafusion.execution.time_zone",
    "datafusion.optimizer.",
];

/// Exceptions to [`EVERYBODYS`].
const ADMINISTRATORS: [&str; 3] = [
    "datafusion.sql_parser.recursion_limit",
    "datafusion.optimizer.max_passes",
    "datafusion.optimizer.skip_failed_rules",
];

/// Settings with the least and the greatest number that they take.
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

/// The greatest number that any other setting takes: as bytes 1 TiB, as rows more than exist.
const NUMBER_MAX: u64 = 1 << 40;

/// Checks that the user may change a setting; `verb` is the statement, for the error.
///
/// # Errors
/// [`ErrorKind::Denied`](windrow_core::ErrorKind::Denied), unless the setting is open to all users or the user has the
/// role admin on all objects.
pub(crate) fn may_set(access: &Access, verb: &str, name: &str) -> Result<()> {
    let name = name.to_lowercase();
    let free = EVERYBODYS.iter().any(|free| name.starts_with(free))
        && !ADMINISTRATORS.contains(&name.as_str());
    // `timezone` and `time zone` have no prefix.
    if free || !name.starts_with("datafusion.") {
        return Ok(());
    }
    access.need_everywhere(Role::Admin, &format!("{verb} {name}"))
}

/// Checks that the value of a setting, if it is a number, is in range.
///
/// # Errors
/// When it is not; the error states the range.
pub(crate) fn check_range(name: &str, value: &str) -> Result<()> {
    let name = name.to_lowercase();
    let known = RANGES.iter().find(|(known, ..)| *known == name);
    let (_, least, greatest) = known.copied().unwrap_or((&name, 0, NUMBER_MAX));
    let digits = value.trim().trim_start_matches('-');
    let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    if !is_number {
        // Whatever parses the value reports it.
        return Ok(());
    }
    match value.trim().parse::<u64>() {
        Ok(number) if (least..=greatest).contains(&number) => Ok(()),
        _ => Err(Error::config(format!(
            "setting \"{name}\" cannot be {}: it must be from {least} to {greatest}",
            value.trim()
        ))
        .with_hint(format!("Give a number from {least} to {greatest}."))),
    }
}

#[cfg(test)]
mod tests {
    use windrow_core::ErrorKind;

    use super::*;
    use crate::access::Grant;

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

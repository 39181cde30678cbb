//! Detects how much memory the machine has for this process, and how much the process has of it.

/// Assumed where the system does not report it.
const UNKNOWN_BYTES: usize = 4 << 30;
/// One statement may take the memory divided by this, unless configured otherwise.
const STATEMENT_PART: usize = 4;
/// Minimum for one statement.
const STATEMENT_BYTES_MIN: usize = 64 << 20;

/// Returns the default for the maximum memory of one statement, in bytes.
pub(super) fn statement_bytes() -> usize {
    (memory_bytes() / STATEMENT_PART).max(STATEMENT_BYTES_MIN)
}

/// Returns the memory of the machine in bytes, or less if a container or a limit on the address space leaves less to this
/// process.
fn memory_bytes() -> usize {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let machine = read("/proc/meminfo").and_then(|text| machine_bytes(&text));
    let container = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let container = container.iter().filter_map(|path| read(path)?.trim().parse().ok()).min();
    let process = read("/proc/self/limits").and_then(|text| process_bytes(&text));
    [machine, container, process].into_iter().flatten().min().unwrap_or(UNKNOWN_BYTES)
}

/// Returns the memory of the machine that this process has, in bytes; `None` where the system does not tell.
pub(crate) fn resident_bytes() -> Option<u64> {
    process_status_bytes(&std::fs::read_to_string("/proc/self/status").ok()?)
}

fn process_status_bytes(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    kilobytes.checked_mul(1024)
}

fn machine_bytes(text: &str) -> Option<usize> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kilobytes: usize = line.split_whitespace().next()?.parse().ok()?;
    kilobytes.checked_mul(1024)
}

fn process_bytes(text: &str) -> Option<usize> {
    let line = text.lines().find_map(|line| line.strip_prefix("Max address space"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_says_is_understood() {
        let text = "MemTotal:       24689764 kB\nMemFree:        17395416 kB\n";
        assert_eq!(machine_bytes(text), Some(24_689_764 * 1024));
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                      Max address space         8589934592           unlimited            bytes     \n";
        assert_eq!(process_bytes(limits), Some(8_589_934_592));
        let status = "Name:\twindrow\nVmRSS:\t  123456 kB\nThreads:\t4\n";
        assert_eq!(process_status_bytes(status), Some(123_456 * 1024));
        let limits = limits.replace("8589934592", "unlimited ");
        assert_eq!(process_bytes(&limits), None);
        assert!(statement_bytes() >= STATEMENT_BYTES_MIN);
    }
}

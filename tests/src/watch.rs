//! Reports a test that hangs, and the tests that took longest. The harness has no limit of its own: without this, a
//! test that waits for ever is not reported until the whole run is ended.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use libtest_mimic::{Failed, Trial};

/// Seconds. No test takes half as long, on a machine with other things to do.
const LIMIT: u32 = 1_200;

/// How many of the slowest tests are named at the end.
const NAMED: usize = 30;

/// The tests that run, and for how many seconds.
static RUNNING: Mutex<BTreeMap<String, u32>> = Mutex::new(BTreeMap::new());

/// The tests that have ended, and what each took.
static ENDED: Mutex<Vec<(Duration, String)>> = Mutex::new(Vec::new());

fn running() -> MutexGuard<'static, BTreeMap<String, u32>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

fn ended() -> MutexGuard<'static, Vec<(Duration, String)>> {
    ENDED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A test that is told when it hangs.
pub(crate) fn trial(
    name: impl Into<String>,
    test: impl FnOnce() -> Result<(), Failed> + Send + 'static,
) -> Trial {
    let name = name.into();
    Trial::test(name.clone(), move || {
        let _running = Entry::new(name);
        test()
    })
}

/// A test that runs, until this is dropped.
struct Entry {
    name: String,
    begun: Instant,
}

impl Entry {
    #[expect(
        clippy::disallowed_methods,
        reason = "how long a test takes is told, and decides nothing"
    )]
    fn new(name: String) -> Self {
        running().insert(name.clone(), 0);
        Self { name, begun: Instant::now() }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        running().remove(&self.name);
        ended().push((self.begun.elapsed(), std::mem::take(&mut self.name)));
    }
}

/// Says which tests took longest, if there were many.
#[expect(clippy::print_stderr, reason = "it is the output of a test run")]
pub(crate) fn name_the_slowest() {
    let mut ended = std::mem::take(&mut *ended());
    if ended.len() <= NAMED {
        return;
    }
    ended.sort_unstable();
    eprintln!("the slowest tests:");
    for (took, name) in ended.iter().rev().take(NAMED) {
        eprintln!("{:>7.1} s  {name}", took.as_secs_f64());
    }
}

/// Ends the process when a test runs longer than [`LIMIT`], after saying which.
#[expect(clippy::print_stderr, clippy::exit, reason = "nothing else ends a test that hangs")]
pub(crate) fn start() {
    std::thread::spawn(|| {
        loop {
            std::thread::sleep(Duration::from_secs(1));
            let mut hangs = false;
            for (name, seconds) in running().iter_mut() {
                *seconds += 1;
                if *seconds > LIMIT {
                    eprintln!("test {name} hangs: it has run for more than {LIMIT} s");
                    hangs = true;
                }
            }
            if hangs {
                std::process::exit(101);
            }
        }
    });
}

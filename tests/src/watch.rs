//! Names the test that hangs. The harness has no limit of its own: without this, a test that waits for ever says nothing until somebody
//! ends the whole run.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use libtest_mimic::{Failed, Trial};

/// No test takes half as long, on a machine with other things to do.
const LIMIT: Duration = Duration::from_secs(600);

/// The tests that run, and since when.
static RUNNING: Mutex<BTreeMap<String, Instant>> = Mutex::new(BTreeMap::new());

fn running() -> MutexGuard<'static, BTreeMap<String, Instant>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
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
struct Entry(String);

impl Entry {
    fn new(name: String) -> Self {
        running().insert(name.clone(), Instant::now());
        Self(name)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        running().remove(&self.0);
    }
}

/// Ends the process when a test runs longer than [`LIMIT`], after saying which.
pub(crate) fn start() {
    std::thread::spawn(|| {
        loop {
            std::thread::sleep(Duration::from_secs(1));
            let running = running();
            let hang: Vec<_> =
                running.iter().filter(|(_, since)| since.elapsed() > LIMIT).collect();
            if !hang.is_empty() {
                for (name, since) in hang {
                    eprintln!("test {name} hangs: it has run for {} s", since.elapsed().as_secs());
                }
                std::process::exit(101);
            }
        }
    });
}

//! Continuous queries: scan → tap → window state → finish → output.

pub(crate) mod coordinator;
pub(crate) mod cut;
pub(crate) mod idle;
pub(crate) mod keeper;
pub(crate) mod latency;
pub(crate) mod ledger;
pub(crate) mod output;
pub(crate) mod parts;
pub(crate) mod progress;
pub(crate) mod promise;
pub(crate) mod queue;
pub(crate) mod reference;
pub(crate) mod runner;
pub(crate) mod scan;
pub(crate) mod shared;
pub(crate) mod skipping;
pub(crate) mod stage;
pub(crate) mod start;
pub(crate) mod status;
pub(crate) mod tap;

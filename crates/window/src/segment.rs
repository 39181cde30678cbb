//! What a slice becomes when it leaves its store.

/// What one store has gathered of one slice.
#[derive(Debug)]
pub struct Segment {
    pub(crate) slice: i64,
}

impl Segment {
    /// Start of the slice in ticks.
    pub fn slice(&self) -> i64 {
        self.slice
    }
}

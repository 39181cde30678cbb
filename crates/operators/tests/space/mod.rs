//! A space for spilled state in memory; everything is written and read as Arrow IPC.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::RecordBatch;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use rand::Rng;
use rand::rngs::StdRng;
use windrow_core::{Error, Result};
use windrow_operators::{SpillFile, SpillSpace, SpilledFile};

/// Space for spilled state.
#[derive(Debug)]
pub(crate) struct Space {
    files: Arc<AtomicUsize>,
    pass_bytes: usize,
    part_groups_min: usize,
}

impl Space {
    /// Returns a space from which a window is read back whole, in some pieces, or in many.
    pub(crate) fn random(rng: &mut StdRng) -> Self {
        Self {
            files: Arc::default(),
            pass_bytes: [1000, 5000, 1 << 30][rng.random_range(0..3)],
            part_groups_min: [1, 5, 4096][rng.random_range(0..3)],
        }
    }

    /// The number of files that have not been deleted.
    pub(crate) fn files(&self) -> usize {
        self.files.load(Ordering::Relaxed)
    }
}

impl SpillSpace for Space {
    fn create(&self) -> Result<Box<dyn SpillFile>> {
        self.files.fetch_add(1, Ordering::Relaxed);
        Ok(Box::new(File { batches: vec![], files: Arc::clone(&self.files) }))
    }

    fn pass_bytes(&self) -> usize {
        self.pass_bytes
    }

    fn part_groups_min(&self) -> usize {
        self.part_groups_min
    }

    fn refuses(&self, _bytes: usize) -> Option<Error> {
        None
    }
}

#[derive(Debug)]
struct File {
    batches: Vec<Vec<u8>>,
    files: Arc<AtomicUsize>,
}

impl Drop for File {
    fn drop(&mut self) {
        self.files.fetch_sub(1, Ordering::Relaxed);
    }
}

impl SpillFile for File {
    fn append(&mut self, batch: &RecordBatch) -> Result<u64> {
        let mut bytes = vec![];
        let mut writer = StreamWriter::try_new(&mut bytes, &batch.schema())?;
        writer.write(batch)?;
        writer.finish()?;
        drop(writer);
        self.batches.push(bytes);
        Ok(self.batches.len() as u64 - 1)
    }

    fn finish(self: Box<Self>) -> Result<Arc<dyn SpilledFile>> {
        Ok(Arc::new(*self))
    }
}

impl SpilledFile for File {
    fn read(&self, at: u64) -> Result<RecordBatch> {
        let mut reader = StreamReader::try_new(self.batches[at as usize].as_slice(), None)?;
        Ok(reader.next().unwrap()?)
    }
}

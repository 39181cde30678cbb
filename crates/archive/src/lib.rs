//! Finished windows and stream history as Parquet on an object store.

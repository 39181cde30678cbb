//! Reads SQL text.

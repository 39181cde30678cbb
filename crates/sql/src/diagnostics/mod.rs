//! Errors for people.

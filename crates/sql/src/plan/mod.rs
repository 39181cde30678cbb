//! Logical plans.

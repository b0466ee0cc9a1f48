//! Whole-step benchmarks.

//! Comparisons with peers and whole-step benchmarks; see `benches/README.md`. The kernels' own benches are in `crates/qkernels/benches`.

//! Kernels of the Quartz engine: written once over an instruction-set token, stamped for each CPU, chosen at run time.

pub mod isa;
pub mod par;

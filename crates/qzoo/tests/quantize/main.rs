//! Post-training quantization of whole networks, against its definition, and in the folder of a run.

mod changes;
mod methods;
mod search;
mod support;

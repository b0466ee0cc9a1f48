//! Names that layers give to values for a [`Probe`](qgraph::Probe).
//!
//! Every composite marks its result with its full name. A quadratic neuron marks its own result, and where it runs as recorded ops
//! ([`BackwardMode::Ad`](crate::experiment::BackwardMode::Ad)) its parts, in the scope of its full name.

/// What a quadratic neuron gives, before the normalisation and activation behind it.
pub const NEURON: &str = "neuron";
/// A summand of the second degree in the neuron's input: a product or a square of projections, or a projection of squares or products of inputs. With inner
/// normalisations it is made of their results, shifts included. A sum of several products has a mark for each.
pub const SECOND_ORDER: &str = "second_order";
/// A summand of the first degree: a projection of the input that is added as it is.
pub const LINEAR: &str = "linear";
/// Begins the name of each projection behind its inner normalisation and activation: `branch1`, `branch2` and so on, as its weights are numbered.
pub const BRANCH: &str = "branch";
/// What a projection is given, in the scope of its full name; a projection that sees squares or products of pairs is given the values themselves.
pub const INPUT: &str = "input";

use crate::{Result, Tape, Var, Vjp};
use std::fmt::{self, Debug};
use std::sync::Arc;

/// How the backward pass of a composite is obtained from its one definition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Record the primitives: each keeps what its own rule needs.
    #[default]
    Ad,
    /// Record one node with the hand-derived rule of [`Function::symbolic`]; as [`Ad`](Self::Ad) where there is none.
    Symbolic,
    /// Record one node that keeps the inputs only, and run the forward again in the backward pass.
    Recompute,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Mode::Ad => "ad",
            Mode::Symbolic => "symbolic",
            Mode::Recompute => "recompute",
        })
    }
}

/// A composite: a forward written once with ops of the tape, to be run in any [`Mode`].
///
/// # Contract
/// - [`forward`](Self::forward) is pure: its result depends on `inputs` and on the settings in `self` only. In
///   [`Mode::Recompute`] it runs twice a step, and both runs must give the same bits.
/// - It uses no variable but `inputs` and what it derives from them or from constants. Parameters are inputs. It makes no leaf.
/// - Random numbers come from a key in `self`, so that both runs draw the same.
/// - What should happen once a step, such as an update of running statistics, goes through
///   [`Tape::effect`] (or an op's [`Context::effect`](crate::Context::effect)), which a rerun ignores.
/// - It may call other composites in any mode, and open scopes.
pub trait Function: Debug + Send + Sync {
    /// A short name in lower case: for reports and errors.
    fn name(&self) -> &'static str;

    /// Computes the output with ops of `tape`.
    ///
    /// # Errors
    /// Whatever the ops refuse.
    fn forward(&self, tape: &mut Tape, inputs: &[Var]) -> Result<Var>;

    /// A hand-derived backward half, for [`Mode::Symbolic`]. It sees the composite's inputs, its output and the intermediates
    /// that the forward offers by [`Tape::tap`], and decides what to keep.
    fn symbolic(&self) -> Option<Box<dyn Vjp>> {
        None
    }
}

impl Function for Arc<dyn Function> {
    fn name(&self) -> &'static str {
        (**self).name()
    }

    fn forward(&self, tape: &mut Tape, inputs: &[Var]) -> Result<Var> {
        (**self).forward(tape, inputs)
    }

    fn symbolic(&self) -> Option<Box<dyn Vjp>> {
        (**self).symbolic()
    }
}

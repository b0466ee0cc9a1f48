//! Looking at intermediate values and their gradients while a tape works.

use crate::accumulate::total;
use crate::tape::{OpNode, Rule};
use crate::{Pass, Result, Tape, Var};
use qtensor::Tensor;
use std::fmt::{self, Debug, Display};
use std::sync::{Arc, Mutex};

/// What a [`Probe`] is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SightingKind {
    /// An op, by its name.
    Op,
    /// A value to which the forward gave a name: see [`Tape::mark`].
    Mark,
}

/// One value, or the gradient of one.
#[derive(Clone, Copy, Debug)]
pub struct Sighting<'a> {
    /// The scope of the op or of the mark; empty outside any scope.
    pub scope: &'a str,
    /// The name of the op or of the mark.
    pub name: &'a str,
    /// Which of the two it is.
    pub kind: SightingKind,
    /// [`Pass::Forward`] for a value, [`Pass::Backward`] for the gradient with respect to it.
    pub pass: Pass,
    /// The output of the op or the marked value, or its gradient: of the same shape. It may be kept, which keeps its buffer alive.
    pub tensor: &'a Tensor,
}

type Observer = dyn FnMut(&Sighting<'_>) + Send;

/// An observer of the tapes that it is given to: a cheap handle, whose clones share the observer.
///
/// In the forward pass it sees the output of every primitive op and every [marked](Tape::mark) value, once, whatever the mode. In the backward pass it sees the
/// gradient with respect to each of them that lies on the way from the loss to a leaf. What a symbolic composite computes within has no gradient of its own:
/// there it sees that of the composite's result, under the name of its rule. A composite that is run again shows its values the first time, and the gradients
/// within as recorded ops do. Results do not depend on whether somebody looks.
///
/// ```
/// # use qgraph::{Pass, Probe, Tape, Tensor};
/// # use std::sync::{Arc, Mutex};
/// let seen = Arc::new(Mutex::new(Vec::new()));
/// let notes = seen.clone();
/// let probe = Probe::new(move |sighting| {
///     if sighting.scope == "head" {
///         notes.lock().unwrap().push((sighting.name.to_string(), sighting.pass, sighting.tensor.numel()));
///     }
/// });
/// let mut tape = Tape::new().probe(&probe);
/// let x = tape.leaf(Tensor::from_vec([2], vec![1.0f32, 2.0])?);
/// let y = tape.scope("head", |tape| tape.square(&x))?;
/// let loss = tape.sum_all(&y)?;
/// tape.backward(&loss)?;
/// let seen = seen.lock().unwrap();
/// assert_eq!(*seen, [("square".into(), Pass::Forward, 2), ("square".into(), Pass::Backward, 2)]);
/// # Ok::<(), qgraph::Error>(())
/// ```
#[derive(Clone)]
pub struct Probe {
    observer: Arc<Mutex<Observer>>,
}

impl Probe {
    /// A probe that calls `observer` for everything that it sees, on the thread that runs the tape.
    pub fn new(observer: impl FnMut(&Sighting<'_>) + Send + 'static) -> Self {
        Probe { observer: Arc::new(Mutex::new(observer)) }
    }

    fn show(&self, sighting: Sighting<'_>) {
        let mut observer = self.observer.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        (*observer)(&sighting);
    }
}

impl Debug for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Probe").finish_non_exhaustive()
    }
}

/// A mark whose gradient will be shown.
#[derive(Debug)]
pub(crate) struct Mark {
    entry: usize,
    scope: Arc<str>,
    name: String,
}

impl Tape {
    /// Shows every value and gradient to `probe`.
    pub fn probe(mut self, probe: &Probe) -> Self {
        self.settings.probe = Some(probe.clone());
        self
    }

    /// Gives a value a name under which a [`Probe`] finds it, and its gradient, in the current scope. Several values may have one name. Free without a probe.
    ///
    /// The gradient is shown for values of recorded ops; that of a leaf is in [`Gradients`](crate::Gradients).
    pub fn mark(&mut self, name: impl Display, var: &Var) {
        let Some(probe) = &self.settings.probe else { return };
        let name = name.to_string();
        if self.settings.forward == Pass::Forward {
            let (kind, pass) = (SightingKind::Mark, Pass::Forward);
            probe.show(Sighting { scope: &self.scope, name: &name, kind, pass, tensor: &var.value });
        }
        if let Some((tape, entry)) = &var.node
            && *tape == self.id
        {
            self.marks.push(Mark { entry: *entry, scope: self.scope.clone(), name });
        }
    }

    /// Shows the output of an op.
    pub(crate) fn show_output(&self, op: &str, output: &Tensor) {
        if let Some(probe) = self.settings.probe.as_ref().filter(|_| self.settings.forward == Pass::Forward) {
            let (kind, pass) = (SightingKind::Op, Pass::Forward);
            probe.show(Sighting { scope: &self.scope, name: op, kind, pass, tensor: output });
        }
    }

    /// Shows the gradient that has arrived, in one or two parts, at an entry.
    pub(crate) fn show_gradient(
        &self,
        entry: usize,
        node: &OpNode,
        (dy, also): &(Tensor, Option<Tensor>),
    ) -> Result<()> {
        let Some(probe) = &self.settings.probe else { return Ok(()) };
        let sum = also.as_ref().map(|also| total(dy.clone(), also.clone())).transpose()?;
        let (tensor, pass) = (sum.as_ref().unwrap_or(dy), Pass::Backward);
        // The ops of a rerun are shown one by one.
        if matches!(node.rule, Rule::Vjp(_)) {
            let kind = SightingKind::Op;
            probe.show(Sighting { scope: &node.scope, name: node.rule.name(), kind, pass, tensor });
        }
        for mark in self.marks.iter().filter(|mark| mark.entry == entry) {
            let kind = SightingKind::Mark;
            probe.show(Sighting { scope: &mark.scope, name: &mark.name, kind, pass, tensor });
        }
        Ok(())
    }
}

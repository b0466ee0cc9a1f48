//! The reverse pass.

use crate::accumulate::{Slot, ones};
use crate::finite::expect_finite;
use crate::half::fitting;
use crate::tape::{Edge, Node, OpNode, Rule, bytes};
use crate::{Error, Function, Gradients, Pass, PassCost, Result, Saved, Tape, Var};
use qkernels::reduce::sum_to;
use qtensor::{DType, Tensor};
use std::sync::Arc;
use std::time::Instant;

impl Tape {
    /// The gradient of a loss of one element with respect to every leaf. Consumes the tape: what an op saved is released as
    /// soon as its rule has run.
    ///
    /// # Errors
    /// `loss` has more than one element, does not depend on any leaf, or belongs to another tape; or a rule fails.
    pub fn backward(self, loss: &Var) -> Result<Gradients> {
        if loss.value.numel() != 1 {
            return Err(Error::Gradient {
                op: "backward",
                message: format!("a loss has one element, this one has shape {}; give backward_from dy", loss.shape()),
            });
        }
        let dy = ones(loss.shape(), loss.dtype())?;
        self.backward_from(loss, dy)
    }

    /// The product of `dy` with the Jacobian of `y` with respect to every leaf. `dy` has the shape and type of `y`.
    ///
    /// # Errors
    /// `dy` does not fit, `y` does not depend on any leaf, or belongs to another tape; or a rule fails.
    pub fn backward_from(self, y: &Var, dy: Tensor) -> Result<Gradients> {
        let Some((tape, start)) = &y.node else {
            return Err(Error::Variable { op: "backward", message: "the variable does not depend on any leaf" });
        };
        if *tape != self.id {
            return Err(Error::Variable { op: "backward", message: "the variable belongs to another tape" });
        }
        if dy.shape() != y.shape() {
            return Err(Error::gradient_shape("backward_from", y.shape(), dy.shape()));
        }
        if dy.dtype() != y.dtype() {
            return Err(qtensor::Error::DType { op: "backward_from", expected: y.dtype(), found: dy.dtype() }.into());
        }
        let id = self.id.clone();
        Ok(Gradients {
            id,
            slots: self.reverse(*start, dy)?.into_iter().map(|mut slot| Some(slot.take()?.0)).collect(),
        })
    }

    /// Pops every entry, last first; what remains in the slots are the gradients of leaves.
    fn reverse(mut self, start: usize, dy: Tensor) -> Result<Vec<Slot>> {
        let mut slots = vec![Slot::default(); self.nodes.len()];
        slots[start].add(dy, false)?;
        while let Some(node) = self.nodes.pop() {
            let (Node::Op(node), entry) = (node, self.nodes.len()) else { continue };
            if let Some(dy) = slots[entry].take() {
                self.show_gradient(entry, &node, &dy)?;
                self.step(node, dy, &mut slots)?;
            }
        }
        Ok(slots)
    }

    fn step(&self, mut node: OpNode, (dy, also): (Tensor, Option<Tensor>), slots: &mut [Slot]) -> Result<()> {
        let (name, scope) = (node.rule.name(), node.scope);
        let as_taken = |x: Tensor| if node.widens { fitting(x, DType::F32) } else { Ok(x) };
        let (dy, also) = (as_taken(dy)?, also.map(as_taken).transpose()?);
        node.saved.restore(|entry| as_taken(self.restored(entry)?))?;
        let needs: Vec<bool> = node.inputs.iter().map(Option::is_some).collect();
        // The ops of a rerun are timed one by one.
        let timed = self.settings.profile.as_ref().filter(|_| matches!(node.rule, Rule::Vjp(_)));
        let mut cost = PassCost { calls: 1, multiply_adds: node.multiply_adds, ..PassCost::default() };
        cost.bytes = node.saved.iter().chain([&dy]).chain(&also).map(bytes).sum();
        let start = timed.map(|_| Instant::now());
        let gradients = match node.rule {
            Rule::Rerun(ref function) => self.rerun(&**function, &scope, node.saved, dy, &needs),
            Rule::Vjp(ref rule) => match also {
                Some(also) => rule.vjp_of_two(node.saved, [dy, also], &needs),
                None => rule.vjp(node.saved, dy, &needs),
            },
        };
        let at = |e: Error| e.at(name, &scope, Pass::Backward);
        let gradients = gradients.map_err(at)?;
        if gradients.len() != needs.len() {
            let message = format!("the rule gave {} gradients for {} inputs", gradients.len(), needs.len());
            return Err(at(Error::Gradient { op: name, message }));
        }
        for (i, (edge, gradient)) in node.inputs.iter().zip(gradients).enumerate() {
            let (Some(edge), Some(gradient)) = (edge, gradient) else { continue };
            let gradient = fit(name, gradient, edge).map_err(at)?;
            cost.bytes += bytes(&gradient);
            if self.settings.check_finite {
                expect_finite(&gradient, name, &scope, Pass::Backward, || format!("gradient of input {i}"))?;
            }
            slots[edge.node].add(gradient, self.takes_two(edge.node)).map_err(at)?;
        }
        if let (Some(profile), Some(start)) = (timed, start) {
            cost.time = start.elapsed();
            profile.add(&scope, name, Pass::Backward, cost);
        }
        Ok(())
    }

    fn takes_two(&self, entry: usize) -> bool {
        matches!(&self.nodes[entry], Node::Op(OpNode { rule: Rule::Vjp(rule), .. }) if rule.takes_two())
    }

    /// The output of an earlier entry, computed again.
    fn restored(&self, entry: usize) -> Result<Tensor> {
        let Node::Op(OpNode { rule: Rule::Vjp(rule), saved, scope, .. }) = &self.nodes[entry] else {
            return Err(Error::argument("backward", "a leaf is not computed again"));
        };
        let saved = saved.restored(|entry| self.restored(entry))?;
        let start = self.settings.profile.as_ref().map(|_| Instant::now());
        let output = rule.restore(&saved).map_err(|e| e.at(rule.name(), scope, Pass::Recompute))?;
        if let (Some(profile), Some(start)) = (&self.settings.profile, start) {
            let bytes = saved.iter().chain([&output]).map(bytes).sum();
            let cost = PassCost { calls: 1, time: start.elapsed(), bytes, ..PassCost::default() };
            profile.add(scope, rule.name(), Pass::Recompute, cost);
        }
        Ok(output)
    }

    /// Records the composite on a tape of its own, which emits no effects, and goes back along that.
    fn rerun(
        &self,
        function: &dyn Function,
        scope: &Arc<str>,
        mut saved: Saved,
        dy: Tensor,
        needs: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        let mut inner = Tape { effects: None, scope: scope.clone(), ..Tape::new() };
        inner.settings = self.settings.clone();
        inner.settings.forward = Pass::Recompute;
        let mut inputs = Vec::with_capacity(needs.len());
        for need in needs {
            let value = saved.take()?;
            inputs.push(if *need { inner.leaf(value) } else { Var::constant(value) });
        }
        let output = function.forward(&mut inner, &inputs)?;
        let leaves: Vec<Option<usize>> = inputs.into_iter().map(|v| v.node.map(|(_, index)| index)).collect();
        let Some((_, start)) = output.node else { return Ok(vec![None; needs.len()]) };
        if output.value.shape() != dy.shape() {
            return Err(Error::gradient_shape(function.name(), output.value.shape(), dy.shape()));
        }
        drop(output.value);
        let mut slots = inner.reverse(start, dy)?;
        Ok(leaves.into_iter().map(|leaf| leaf.and_then(|index| Some(slots[index].take()?.0))).collect())
    }
}

/// The one place where broadcasting is undone: a gradient of the broadcast shape is summed to the input's. f32 becomes bf16 where the input is, and the
/// other way around.
fn fit(op: &'static str, gradient: Tensor, edge: &Edge) -> Result<Tensor> {
    if *gradient.shape() == edge.shape {
        let gradient = fitting(gradient, edge.dtype)?;
        if gradient.dtype() != edge.dtype {
            return Err(qtensor::Error::DType { op, expected: edge.dtype, found: gradient.dtype() }.into());
        }
        return Ok(gradient);
    }
    if gradient.dtype() == DType::BF16 {
        return fit(op, fitting(gradient, DType::F32)?, edge);
    }
    let broadcasts = edge.shape.broadcast(gradient.shape(), op).is_ok_and(|shape| shape == *gradient.shape());
    if !broadcasts {
        return Err(Error::gradient_shape(op, &edge.shape, gradient.shape()));
    }
    fit(op, sum_to(&gradient, &edge.shape)?, edge)
}

//! Composites in their three modes.

use crate::tape::{Edge, Rule};
use crate::{Function, Mode, Result, Tape, Var};
use qtensor::Tensor;
use std::sync::Arc;

impl Tape {
    /// Runs a composite in the given mode. Where no input needs a gradient the mode does not matter and nothing is recorded.
    ///
    /// # Errors
    /// An op of the composite refuses its inputs, or an input belongs to another tape.
    pub fn call(&mut self, function: impl Function + 'static, inputs: &[&Var], mode: Mode) -> Result<Var> {
        self.call_shared(Arc::new(function), inputs, mode)
    }

    fn call_shared(&mut self, function: Arc<dyn Function>, inputs: &[&Var], mode: Mode) -> Result<Var> {
        let edges = self.edges(function.name(), inputs)?;
        if edges.iter().all(Option::is_none) {
            return self.call_plain(&*function, inputs);
        }
        match mode {
            Mode::Ad => self.call_plain(&*function, inputs),
            Mode::Symbolic => match function.symbolic() {
                Some(rule) => self.call_as_one_node(&*function, inputs, edges, Rule::Vjp(rule)),
                None => self.call_plain(&*function, inputs),
            },
            Mode::Recompute => self.call_as_one_node(&*function, inputs, edges, Rule::Rerun(function.clone())),
        }
    }

    /// Its ops as if they were written here. Its taps are its own: a symbolic composite around it must not see them.
    fn call_plain(&mut self, function: &dyn Function, inputs: &[&Var]) -> Result<Var> {
        let taps = self.taps.take();
        let inputs: Vec<Var> = inputs.iter().map(|v| (*v).clone()).collect();
        let output = function.forward(self, &inputs);
        self.taps = taps;
        output
    }

    fn call_as_one_node(
        &mut self,
        function: &dyn Function,
        inputs: &[&Var],
        edges: Vec<Option<Edge>>,
        rule: Rule,
    ) -> Result<Var> {
        let wants_taps = matches!(rule, Rule::Vjp(_));
        let detached: Vec<Var> = inputs.iter().map(|v| v.detach()).collect();
        let outer_recording = std::mem::replace(&mut self.recording, false);
        let outer_taps = std::mem::replace(&mut self.taps, wants_taps.then(Vec::new));
        let before = self.multiply_adds;
        let output = function.forward(self, &detached);
        let taps = std::mem::replace(&mut self.taps, outer_taps).unwrap_or_default();
        self.recording = outer_recording;
        let values: Vec<Tensor> = detached.into_iter().map(Var::into_value).collect();
        let var = self.record(rule, edges, &values, output?.into_value(), &taps);
        // Each product has two factors, and a hand-derived rule a gradient for both. The ops of a rerun count their own.
        self.count_backward(&var, if wants_taps { 2 * (self.multiply_adds - before) } else { 0 });
        Ok(var)
    }

    /// Offers an intermediate of a composite to its hand-derived rule, which finds it in
    /// [`Record::taps`](crate::Record::taps). Free in every other mode.
    pub fn tap(&mut self, var: &Var) {
        if let Some(taps) = &mut self.taps {
            taps.push(var.value.clone());
        }
    }
}

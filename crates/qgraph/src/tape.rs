use crate::finite::expect_finite;
use crate::half::{fitting, widened};
use crate::probe::Mark;
use crate::var::TapeId;
use crate::{
    Context, Effect, Error, Function, OnHalf, Op, Pass, PassCost, Probe, Profile, Record, Result, Saved, Var, Vjp,
};
use qtensor::{DType, Shape, Tensor};
use std::sync::Arc;
use std::time::Instant;

/// The record of a computation, along which gradients flow back.
///
/// A tape lives for one step: make it, make leaves of the parameters, compute, call [`backward`](Self::backward), which
/// consumes it. It is flat: one entry a recorded op in the order of computation, and an entry holds only what its rule saved.
/// Where no input of an op needs a gradient nothing is recorded, so inference is the same code without leaves.
#[derive(Debug)]
pub struct Tape {
    pub(crate) id: TapeId,
    pub(crate) nodes: Vec<Node>,
    /// False while the forward of a composite runs that will be one node.
    pub(crate) recording: bool,
    /// Where a symbolic composite collects intermediates.
    pub(crate) taps: Option<Vec<Tensor>>,
    /// `None` in a rerun, which emits nothing.
    pub(crate) effects: Option<Vec<Effect>>,
    pub(crate) scope: Arc<str>,
    pub(crate) settings: Settings,
    /// Named values that a probe wants the gradients of.
    pub(crate) marks: Vec<Mark>,
    /// Of all forwards so far; counted for a profile only.
    pub(crate) multiply_adds: u64,
}

/// What a tape hands on to the tape of a rerun.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) check_finite: bool,
    pub(crate) profile: Option<Profile>,
    pub(crate) probe: Option<Probe>,
    pub(crate) forward: Pass,
}

#[derive(Debug)]
pub(crate) enum Node {
    Leaf,
    Op(OpNode),
}

#[derive(Debug)]
pub(crate) struct OpNode {
    pub(crate) rule: Rule,
    /// One an input; `None` where no gradient is needed.
    pub(crate) inputs: Vec<Option<Edge>>,
    pub(crate) saved: Saved,
    pub(crate) scope: Arc<str>,
    /// Of the backward pass; counted for a profile only.
    pub(crate) multiply_adds: u64,
    /// Whether the rule takes f32 where the output is bf16.
    pub(crate) widens: bool,
}

/// Where the gradient of an input goes, and what it must look like.
#[derive(Debug)]
pub(crate) struct Edge {
    pub(crate) node: usize,
    pub(crate) shape: Shape,
    pub(crate) dtype: DType,
}

#[derive(Debug)]
pub(crate) enum Rule {
    Vjp(Box<dyn Vjp>),
    Rerun(Arc<dyn Function>),
}

impl Rule {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Rule::Vjp(rule) => rule.name(),
            Rule::Rerun(function) => function.name(),
        }
    }
}

impl Default for Tape {
    fn default() -> Self {
        Tape {
            id: TapeId::new(),
            nodes: Vec::new(),
            recording: true,
            taps: None,
            effects: Some(Vec::new()),
            scope: Arc::from(""),
            settings: Settings { check_finite: false, profile: None, probe: None, forward: Pass::Forward },
            marks: Vec::new(),
            multiply_adds: 0,
        }
    }
}

impl Tape {
    /// An empty tape.
    pub fn new() -> Self {
        Self::default()
    }

    /// Checks every output and every gradient for infinities and NaN, and fails with [`Error::NotFinite`], which names the
    /// first op and scope. It reads every value once more: for the step that went wrong, not for every step.
    pub fn check_finite(mut self) -> Self {
        self.settings.check_finite = true;
        self
    }

    /// Times every op into `profile`.
    pub fn profile(mut self, profile: &Profile) -> Self {
        self.settings.profile = Some(profile.clone());
        self
    }

    /// A variable whose gradient is wanted: a parameter, or an input under study.
    ///
    /// The variable shares the buffer of `value`. Drop it before writing to a parameter in place, or the write copies.
    ///
    /// Within a composite that becomes one node of the tape it is a constant.
    pub fn leaf(&mut self, value: Tensor) -> Var {
        if !self.recording {
            return Var::constant(value);
        }
        self.nodes.push(Node::Leaf);
        Var { value, node: Some((self.id.clone(), self.nodes.len() - 1)), moments: None }
    }

    /// Number of entries: leaves and recorded ops.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether nothing was recorded.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Runs `body` with `name` added to the current scope, separated by a dot; reports and errors carry the scope of an op.
    pub fn scope<T>(&mut self, name: &str, body: impl FnOnce(&mut Tape) -> T) -> T {
        let inner: Arc<str> = if self.scope.is_empty() { name.into() } else { format!("{}.{name}", self.scope).into() };
        let outer = std::mem::replace(&mut self.scope, inner);
        let result = body(self);
        self.scope = outer;
        result
    }

    /// The names of all open scopes, joined by dots.
    pub fn current_scope(&self) -> &str {
        &self.scope
    }

    /// Computes a primitive, and records its rule where some input needs a gradient.
    ///
    /// # Errors
    /// The op refuses its inputs, or an input belongs to another tape.
    pub fn apply(&mut self, op: impl Op + 'static, inputs: &[&Var]) -> Result<Var> {
        self.apply_boxed(Box::new(op), inputs)
    }

    fn apply_boxed(&mut self, op: Box<dyn Op>, inputs: &[&Var]) -> Result<Var> {
        let (name, pass) = (op.name(), self.settings.forward);
        let edges = self.edges(name, inputs)?;
        let mut values: Vec<Tensor> = inputs.iter().map(|v| v.value.clone()).collect();
        let on_half = op.on_half();
        let wide = if on_half == OnHalf::Native { None } else { widened(&values)? };
        let widens = wide.is_some();
        values = wide.unwrap_or(values);
        let mut context = Context {
            records: edges.iter().any(Option::is_some),
            taps: Vec::new(),
            effects: self.effects.is_some().then(Vec::new),
            scope: self.scope.clone(),
            op: name,
            known: inputs.iter().map(|v| v.moments.clone()).collect(),
            moments: None,
        };
        let start = self.settings.profile.is_some().then(Instant::now);
        let output = op.forward(&values, &mut context).map_err(|e| e.at(name, &self.scope, pass))?;
        let mut multiply_adds = 0;
        if let (Some(profile), Some(start)) = (&self.settings.profile, start) {
            let time = start.elapsed();
            multiply_adds = op.multiply_adds(&values, &output);
            let bytes = values.iter().chain([&output]).map(bytes).sum();
            profile.add(&self.scope, name, pass, PassCost { calls: 1, time, multiply_adds, bytes });
            self.multiply_adds += multiply_adds;
        }
        if self.settings.check_finite {
            for (i, value) in values.iter().enumerate() {
                expect_finite(value, name, &self.scope, pass, || format!("input {i}"))?;
            }
            expect_finite(&output, name, &self.scope, pass, || "output".to_string())?;
        }
        if let (Some(all), Some(new)) = (&mut self.effects, context.effects) {
            all.extend(new);
        }
        let products = edges.iter().take(2).flatten().count() as u64;
        let mut var = self.record(Rule::Vjp(op), edges, &values, output, &context.taps);
        var.moments = context.moments.map(Arc::new);
        self.count_backward(&var, products * multiply_adds);
        if widens {
            if let (Some(_), Some(Node::Op(node))) = (&var.node, self.nodes.last_mut()) {
                node.widens = true;
            }
            if on_half == OnHalf::Round {
                var.value = fitting(var.value, DType::BF16)?;
                var.moments = None;
            }
        }
        self.show_output(name, &var.value);
        Ok(var)
    }

    /// Notes what the backward pass of a variable's op will multiply.
    pub(crate) fn count_backward(&mut self, var: &Var, multiply_adds: u64) {
        if let (Some(_), Some(Node::Op(node))) = (&var.node, self.nodes.last_mut()) {
            node.multiply_adds = multiply_adds;
        }
    }

    /// The places of the inputs; refuses variables that cannot be used here.
    pub(crate) fn edges(&self, op: &'static str, inputs: &[&Var]) -> Result<Vec<Option<Edge>>> {
        let edge = |var: &&Var| {
            let Some((tape, node)) = &var.node else { return Ok(None) };
            if *tape != self.id {
                return Err(Error::Variable { op, message: "the variable belongs to another tape" });
            }
            if !self.recording {
                return Err(Error::Variable { op, message: "a composite may use no variable but its inputs" });
            }
            Ok(Some(Edge { node: *node, shape: *var.shape(), dtype: var.dtype() }))
        };
        inputs.iter().map(edge).collect()
    }

    pub(crate) fn record(
        &mut self,
        rule: Rule,
        edges: Vec<Option<Edge>>,
        inputs: &[Tensor],
        output: Tensor,
        taps: &[Tensor],
    ) -> Var {
        if edges.iter().all(Option::is_none) {
            return Var::constant(output);
        }
        let needs: Vec<bool> = edges.iter().map(Option::is_some).collect();
        let restorable: Vec<Option<usize>> = edges.iter().map(|edge| self.restorable(edge.as_ref()?)).collect();
        let record = Record { inputs, output: &output, taps, needs: &needs, restorable: &restorable };
        let mut saved = Saved::default();
        match &rule {
            Rule::Vjp(rule) => rule.save(&record, &mut saved),
            Rule::Rerun(_) => (0..inputs.len()).for_each(|input| saved.keep_input(&record, input)),
        }
        self.nodes.push(Node::Op(OpNode {
            rule,
            inputs: edges,
            saved,
            scope: self.scope.clone(),
            multiply_adds: 0,
            widens: false,
        }));
        Var { value: output, node: Some((self.id.clone(), self.nodes.len() - 1)), moments: None }
    }

    /// The entry that gave the value at an edge, where it can compute it again.
    fn restorable(&self, edge: &Edge) -> Option<usize> {
        match &self.nodes[edge.node] {
            Node::Op(OpNode { rule: Rule::Vjp(rule), inputs, .. }) => rule.restores(inputs.len()).then_some(edge.node),
            _ => None,
        }
    }

    /// Hands out values once a step, whatever the mode: see [`Effect`].
    pub fn effect(&mut self, op: &'static str, key: usize, values: Vec<Tensor>) {
        let scope = self.scope.clone();
        if let Some(effects) = &mut self.effects {
            effects.push(Effect { op, scope, key, values });
        }
    }

    /// The effects emitted since the last call, in the order of computation. Take them before [`backward`](Self::backward).
    pub fn take_effects(&mut self) -> Vec<Effect> {
        self.effects.as_mut().map(std::mem::take).unwrap_or_default()
    }
}

/// Bytes of a tensor's elements.
pub(crate) fn bytes(tensor: &Tensor) -> u64 {
    (tensor.numel() * tensor.dtype().size()) as u64
}

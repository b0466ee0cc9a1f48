//! The walk over the layers of a network, each of which adds its nodes.

use super::graph::{Graph, Node, Value};
use super::projection::{Affine, Use, path_of};
use super::proto::Attribute;
use super::quantized::{ActivationGrid, Quantization};
use crate::Result;
use crate::nn::{
    Activation, BatchNorm, Body, Composite, EPS, Layer, Order, Parameters, Pool, PoolKind, Quadratic, Residual, Sees,
    Sequential, Unit,
};
use qkernels::quadratic::Rule;

/// A network on its way into a graph.
#[derive(Debug)]
pub(super) struct Network<'a> {
    pub(super) graph: Graph,
    pub(super) parameters: &'a Parameters,
    pub(super) quantization: &'a Quantization,
}

/// What a unit's projections come to, and what of the unit is still to be added.
struct Sum {
    value: Value,
    /// Where it is to be put on a grid behind its activation.
    grid: Option<ActivationGrid>,
    /// Whether the normalisation is part of it.
    is_normalised: bool,
}

impl Network<'_> {
    /// Layers one after the other.
    pub(super) fn sequential(&mut self, layers: &Sequential, x: &Value) -> Result<Value> {
        layers.layers().iter().try_fold(x.clone(), |x, layer| self.layer(layer, &x))
    }

    fn layer(&mut self, layer: &Layer, x: &Value) -> Result<Value> {
        match layer {
            Layer::Composite(composite) => self.composite(composite, x, None),
            Layer::Sequential(layers) => self.sequential(layers, x),
            Layer::BatchNorm(norm) => self.batch_norm(norm, x),
            Layer::Activation(activation) => self.activation(*activation, x, ""),
            // It does nothing outside training.
            Layer::Dropout(_) => Ok(x.clone()),
            Layer::Pool(pool) => self.pool(pool, x),
            Layer::GlobalAveragePool => {
                let shape = [&x.shape[..1], &[1, 1]].concat();
                let y = self.graph.node(Node::new("GlobalAveragePool", "global_average_pool", &[&x.name], &shape));
                Ok(self.flatten(&y))
            }
            Layer::Flatten => Ok(self.flatten(x)),
        }
    }

    fn flatten(&mut self, x: &Value) -> Value {
        let shape = [x.shape.iter().product()];
        self.graph.node(Node::new("Flatten", "flatten", &[&x.name], &shape).with([Attribute::count("axis", 1)]))
    }

    fn pool(&mut self, pool: &Pool, x: &Value) -> Result<Value> {
        let (kind, params) = pool.windows();
        let [top, left] = params.padding;
        let mut attributes = vec![
            Attribute::sizes("kernel_shape", params.kernel),
            Attribute::sizes("strides", params.stride),
            Attribute::sizes("pads", [top, left, top, left]),
            Attribute::count("ceil_mode", usize::from(params.ceil_mode)),
        ];
        let (op, name) = match kind {
            PoolKind::Max => ("MaxPool", "max_pool"),
            PoolKind::Average => ("AveragePool", "average_pool"),
        };
        if kind == PoolKind::Average {
            attributes.push(Attribute::count("count_include_pad", usize::from(params.count_include_pad)));
        }
        let shape = pool.output(&x.shape)?;
        Ok(self.graph.node(Node::new(op, name, &[&x.name], &shape).with(attributes)))
    }

    fn composite(&mut self, composite: &Composite, x: &Value, residual: Option<&Value>) -> Result<Value> {
        match composite.body() {
            Body::Unit(unit) => self.unit(unit, x, residual, composite.path()),
            Body::Residual(block) => self.residual(block, x),
        }
    }

    fn residual(&mut self, block: &Residual, x: &Value) -> Result<Value> {
        let branch: Vec<&Composite> = block.main_branch().collect();
        let Some((last, units)) = branch.split_last() else { return Ok(x.clone()) };
        let y = units.iter().try_fold(x.clone(), |y, unit| self.composite(unit, &y, None))?;
        let shortcut = match block.shortcut() {
            Some(shortcut) => self.composite(shortcut, x, None)?,
            None => x.clone(),
        };
        self.composite(last, &y, Some(&shortcut))
    }

    fn unit(&mut self, unit: &Unit, x: &Value, residual: Option<&Value>, path: &str) -> Result<Value> {
        let early = unit.norm().filter(|_| unit.order() == Order::NormFirst);
        let late = unit.norm().filter(|_| unit.order() == Order::ActivationFirst);
        let sum = match (unit.quadratic(), unit.projection()) {
            (Some(quadratic), _) => self.quadratic(quadratic, x, early, path)?,
            (None, Some(projection)) => {
                let affine = early.map(|norm| self.affine_of(norm)).transpose()?;
                let used = Use { projection, sees: Sees::Input, number: 0, affine: affine.as_ref() };
                let (value, grid) = self.projection(x, used)?;
                Sum { value, grid, is_normalised: true }
            }
            (None, None) => Sum { value: x.clone(), grid: None, is_normalised: false },
        };
        let Sum { value: mut y, mut grid, is_normalised } = sum;
        let stays_on_grid = matches!(unit.activation(), Activation::Identity | Activation::Relu | Activation::Relu6);
        if (residual.is_some() || !stays_on_grid)
            && let Some(grid) = grid.take()
        {
            y = self.graph.on_grid(&y, grid);
        }
        if let Some(norm) = early.filter(|_| !is_normalised) {
            y = self.batch_norm(norm, &y)?;
        }
        if let Some(residual) = residual {
            y = self.binary("Add", &format!("{path}.add"), [&y, residual]);
        }
        y = self.activation(unit.activation(), &y, path)?;
        if let Some(grid) = grid {
            y = self.graph.on_grid(&y, grid);
        }
        match late {
            Some(norm) => self.batch_norm(norm, &y),
            None => Ok(y),
        }
    }

    /// The sum of a neuron's terms, with the normalisation behind it where that folds.
    fn quadratic(&mut self, neuron: &Quadratic, x: &Value, outer: Option<&BatchNorm>, path: &str) -> Result<Sum> {
        let outer = outer.filter(|_| neuron.takes_outer());
        let behind = outer.map(|norm| self.affine_of(norm)).transpose()?;
        let mut uses = vec![0; neuron.matrices().len()];
        let mut first = 0;
        let mut sum: Option<Value> = None;
        for term in &neuron.neuron().terms {
            let mut parts = Vec::new();
            for (i, (&sees, &matrix)) in (first..).zip(term.sees.iter().zip(&term.weights)) {
                let norm = neuron.norms().get(i);
                let mut affine = norm.filter(|_| neuron.folds()).map(|norm| self.affine_of(norm)).transpose()?;
                // Of z1 · z2 + z3 the scale goes to the first and the third, the shift to the third.
                if let Some(Affine { scale, shift }) = behind.as_ref().filter(|_| i != 1) {
                    let inner = affine.take().unwrap_or_else(|| Affine::identity(scale.len()));
                    affine = Some(inner.then(scale, if i == 2 { shift } else { &[] }));
                }
                let number = uses[matrix];
                uses[matrix] += 1;
                let projection = &neuron.matrices()[matrix];
                let (mut y, grid) = self.projection(x, Use { projection, sees, number, affine: affine.as_ref() })?;
                if let Some(grid) = grid {
                    y = self.graph.on_grid(&y, grid);
                }
                if let Some(norm) = norm.filter(|_| !neuron.folds()) {
                    y = self.batch_norm(norm, &y)?;
                }
                if let Some(activation) = neuron.activations().get(i) {
                    y = self.activation(*activation, &y, &format!("{path}.branch{}", i + 1))?;
                }
                parts.push(y);
            }
            first += parts.len();
            let y = self.combine(term.rule, &parts, path);
            sum = Some(match sum {
                Some(sum) => self.binary("Add", &format!("{path}.sum"), [&sum, &y]),
                None => y,
            });
        }
        let value = sum.unwrap_or_else(|| x.clone());
        Ok(Sum { value, grid: None, is_normalised: outer.is_some() })
    }

    fn combine(&mut self, rule: Option<Rule>, parts: &[Value], path: &str) -> Value {
        let last = match rule {
            None => return parts[0].clone(),
            Some(Rule::Square) => return self.graph.square(&parts[0]),
            Some(Rule::Product) => None,
            Some(Rule::ProductAndSum) => Some(&parts[2]),
            Some(Rule::ProductAndFirst) => Some(&parts[0]),
        };
        let product = self.binary("Mul", &format!("{path}.product"), [&parts[0], &parts[1]]);
        match last {
            Some(last) => self.binary("Add", &format!("{path}.sum"), [&product, last]),
            None => product,
        }
    }

    fn binary(&mut self, op: &'static str, name: &str, [a, b]: [&Value; 2]) -> Value {
        self.graph.node(Node::new(op, name, &[&a.name, &b.name], &a.shape))
    }

    fn affine_of(&self, norm: &BatchNorm) -> Result<Affine> {
        let [scale, shift] = norm.affine(self.parameters)?;
        Ok(Affine { scale, shift })
    }

    /// A normalisation by running statistics that nothing could take.
    fn batch_norm(&mut self, norm: &BatchNorm, x: &Value) -> Result<Value> {
        let tensors = norm.tensors(self.parameters)?;
        let path = path_of(tensors[0].0).to_string();
        let mut inputs = Vec::new();
        for (name, tensor) in tensors {
            inputs.push(self.graph.floats(name, tensor.shape(), &tensor.to_vec::<f32>()?));
        }
        let inputs: Vec<&str> = [x.name.as_str()].into_iter().chain(inputs.iter().map(String::as_str)).collect();
        let node = Node::new("BatchNormalization", path, &inputs, &x.shape);
        Ok(self.graph.node(node.with([Attribute::number("epsilon", EPS as f32)])))
    }

    /// The activation of the layer at `path`.
    fn activation(&mut self, activation: Activation, x: &Value, path: &str) -> Result<Value> {
        let name = if path.is_empty() { activation.name().into() } else { format!("{path}.{}", activation.name()) };
        let mut inputs = vec![x.name.clone()];
        let mut attributes = Vec::new();
        let op = match activation {
            Activation::Identity => return Ok(x.clone()),
            Activation::Relu => "Relu",
            Activation::Relu6 => {
                inputs.push(self.graph.floats(&format!("{name}_least"), &[], &[0.0]));
                inputs.push(self.graph.floats(&format!("{name}_most"), &[], &[6.0]));
                "Clip"
            }
            Activation::LeakyRelu { slope } => {
                attributes.push(Attribute::number("alpha", slope));
                "LeakyRelu"
            }
            Activation::Prelu { slope } => {
                let slope = &self.parameters.parameters()[slope];
                inputs.push(self.graph.floats(&slope.name, slope.value.shape(), &slope.value.to_vec::<f32>()?));
                "PRelu"
            }
            Activation::Tanh => "Tanh",
            Activation::Sigmoid => "Sigmoid",
        };
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        Ok(self.graph.node(Node::new(op, name, &inputs, &x.shape).with(attributes)))
    }
}

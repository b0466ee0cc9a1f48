//! Projections as nodes: `Conv` and `Gemm`, with the normalisations behind them folded into their weights.

use super::graph::{Graph, Node, Value};
use super::proto::Attribute;
use super::quantized::{ActivationGrid, QuantizedWeights, Rows};
use super::{Network, refuse};
use crate::Result;
use crate::nn::{Conv2dConfig, Map, Parameters, Projection, Sees};

/// Bytes of all products of two values that the filters of one layer see in one image: more than this is no use to anybody.
const MOST_PAIRS: u64 = 1 << 30;

/// What follows a projection output by output: `x · scale + shift`.
#[derive(Clone, Debug)]
pub(super) struct Affine {
    pub(super) scale: Vec<f64>,
    pub(super) shift: Vec<f64>,
}

impl Affine {
    /// Nothing.
    pub(super) fn identity(channels: usize) -> Self {
        Affine { scale: vec![1.0; channels], shift: vec![0.0; channels] }
    }

    /// This, and then that.
    pub(super) fn then(mut self, scale: &[f64], shift: &[f64]) -> Self {
        for (own, scale) in self.scale.iter_mut().chain(&mut self.shift).zip(scale.iter().cycle()) {
            *own *= scale;
        }
        self.shift.iter_mut().zip(shift).for_each(|(own, shift)| *own += shift);
        self
    }
}

/// A projection at one of its places.
#[derive(Clone, Copy, Debug)]
pub(super) struct Use<'a> {
    pub(super) projection: &'a Projection,
    pub(super) sees: Sees,
    /// How many uses of the same weights came before.
    pub(super) number: usize,
    /// What follows directly.
    pub(super) affine: Option<&'a Affine>,
}

/// What a projection gives, and the grid on which it, or its activation, still has to be put.
pub(super) type Projected = (Value, Option<ActivationGrid>);

/// The weights as an operand, and the distance of two codes of each row where they are integers.
struct Weights {
    operand: String,
    scales: Option<Vec<f32>>,
    /// What could not be folded.
    left: Option<Affine>,
}

impl Network<'_> {
    /// Adds a projection of `x`.
    pub(super) fn projection(&mut self, x: &Value, used: Use<'_>) -> Result<Projected> {
        let Use { projection, sees, number, affine } = used;
        let parameter = &self.parameters.parameters()[projection.weight()];
        let path = path_of(&parameter.name);
        let quantized = self.quantization.get(&parameter.name);
        let shape: Vec<usize> = match (sees, projection.map()) {
            // What a filter sees was copied out, so that the form is a convolution of size 1.
            (Sees::Pairs, Map::Conv2d(_)) => [parameter.value.shape().as_ref(), &[1, 1]].concat(),
            _ => parameter.value.shape().to_vec(),
        };
        let output = projection.map().output(&x.shape)?;
        let grids = quantized.map(|weights| weights.grids(number)).unwrap_or_default();

        let mut seen = match sees {
            Sees::Input => x.clone(),
            Sees::Square => self.graph.square(x),
            Sees::Pairs => self.pairs(x, projection.map(), path)?,
        };
        if let Some(grid) = grids.input {
            seen = self.graph.on_grid(&seen, grid);
        }
        let Weights { operand, scales, mut left } = match quantized {
            Some(quantized) => self.integer_weights(&parameter.name, &shape, quantized, affine),
            None => self.float_weights(&parameter.name, &shape, affine)?,
        };
        let mut bias = bias_of(self.parameters, projection, affine.filter(|_| left.is_none()))?;
        if let Some(other) = quantized.and_then(|quantized| quantized.bias.as_ref()) {
            match &mut left {
                Some(left) => {
                    left.shift = other.iter().map(|bias| f64::from(*bias)).collect();
                    bias = None;
                }
                None => bias = Some(other.clone()),
            }
        }
        let mut inputs = vec![seen.name, operand];
        if let Some(bias) = bias {
            let name = format!("{path}.bias");
            let products =
                scales.zip(grids.input).map(|(scales, grid)| scales.iter().map(|s| s * grid.scale).collect());
            let integers = products.and_then(|p: Vec<f32>| self.graph.dequantized_bias(&name, &bias, &p));
            inputs.push(match integers {
                Some(integers) => integers.name,
                None => self.graph.floats(&name, &[bias.len()], &bias),
            });
        }
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        let node = match projection.map() {
            Map::Linear(_) => Node::new("Gemm", path, &inputs, &output).with([Attribute::count("transB", 1)]),
            Map::Conv2d(map) if sees == Sees::Pairs => {
                let map = Conv2dConfig { kernel: 1, stride: 1, padding: 0, ..*map };
                Node::new("Conv", path, &inputs, &output).with(attributes(&map))
            }
            Map::Conv2d(map) => Node::new("Conv", path, &inputs, &output).with(attributes(map)),
        };
        let mut y = self.graph.node(node);
        if let Some(left) = left {
            y = self.affine(&y, &left, path);
        }
        Ok((y, grids.output))
    }

    /// f32 weights, each row times its scale.
    fn float_weights(&mut self, name: &str, shape: &[usize], affine: Option<&Affine>) -> Result<Weights> {
        let mut values = floats(self.parameters, name)?;
        if let Some(Affine { scale, .. }) = affine {
            let row = values.len() / scale.len().max(1);
            for (row, scale) in values.chunks_mut(row.max(1)).zip(scale) {
                row.iter_mut().for_each(|w| *w = (f64::from(*w) * scale) as f32);
            }
        }
        let operand = self.graph.floats(name, shape, &values);
        Ok(Weights { operand, scales: None, left: None })
    }

    /// Integer weights, whose scales take those of `affine`; it is left over where a sign cannot be turned.
    fn integer_weights(
        &mut self,
        name: &str,
        shape: &[usize],
        quantized: &QuantizedWeights,
        affine: Option<&Affine>,
    ) -> Weights {
        let own = || (quantized.codes.clone(), quantized.scales.clone());
        let (integers, left) = match affine.filter(|_| !quantized.folded) {
            None => (own(), None),
            Some(affine) => match quantized.scaled(&affine.scale) {
                Some(scaled) => (scaled, None),
                None => (own(), Some(affine.clone())),
            },
        };
        let (codes, scales) = integers;
        let operand = self.graph.dequantized(Rows { name, shape, codes: &codes, scales: &scales }).name;
        Weights { operand, scales: Some(scales), left }
    }

    /// `x · scale + shift` for each channel, as nodes of their own.
    pub(super) fn affine(&mut self, x: &Value, affine: &Affine, path: &str) -> Value {
        // Numbers of channels stand before rows and columns.
        let mut shape = x.shape.clone();
        shape.iter_mut().skip(1).for_each(|size| *size = 1);
        let mut constant = |name: &str, values: &[f64]| {
            let values: Vec<f32> = values.iter().map(|value| *value as f32).collect();
            self.graph.floats(&format!("{path}.{name}"), &shape, &values)
        };
        let (scale, shift) = (constant("scale", &affine.scale), constant("shift", &affine.shift));
        let y = self.graph.node(Node::new("Mul", format!("{path}.scaled"), &[&x.name, &scale], &x.shape));
        self.graph.node(Node::new("Add", format!("{path}.shifted"), &[&y.name, &shift], &x.shape))
    }

    /// All products of two values that a filter sees, `[pairs]` or `[groups · pairs, H, W]`.
    fn pairs(&mut self, x: &Value, map: &Map, path: &str) -> Result<Value> {
        let key = format!("pairs of {} for {map:?}", x.name);
        if let Some(known) = self.graph.known(&key) {
            return Ok(known);
        }
        let seen: usize = map.weight_shape()[1..].iter().product();
        let (groups, positions) = match map {
            Map::Linear(_) => (1, Vec::new()),
            Map::Conv2d(map) => (map.groups, projection_positions(map, x)?),
        };
        let count = (groups * (seen * (seen + 1) / 2)) as u64;
        let bytes = positions.iter().map(|size| *size as u64).product::<u64>().saturating_mul(4 * count);
        if bytes > MOST_PAIRS {
            let gib = bytes as f64 / f64::from(1 << 30);
            return Err(refuse(format!(
                "{path}: ONNX has no operator for full quadratic forms, and the products of all pairs of the {seen} values \
                 that its filters see take {gib:.1} GiB for one image; train with [model] rank, or with another neuron in this layer"
            )));
        }
        let patches = match map {
            Map::Linear(_) => x.clone(),
            Map::Conv2d(map) => self.graph.patches(x, map, &positions, path),
        };
        let each =
            (0..groups).flat_map(|g| (0..seen).flat_map(move |i| (i..seen).map(move |j| [g * seen + i, g * seen + j])));
        let (left, right): (Vec<usize>, Vec<usize>) = each.map(|[i, j]| (i, j)).unzip();
        let shape = [&[left.len()], &positions[..]].concat();
        let [left, right] = [("left", left), ("right", right)].map(|(side, indices)| {
            let indices = self.graph.indices(&format!("{path}.{side}_indices"), &indices);
            let node = Node::new("Gather", format!("{path}.{side}"), &[&patches.name, &indices], &shape);
            self.graph.node(node.with([Attribute::count("axis", 1)]))
        });
        let y = self.graph.node(Node::new("Mul", format!("{path}.pairs"), &[&left.name, &right.name], &shape));
        self.graph.remember(key, &y);
        Ok(y)
    }
}

impl Graph {
    /// `x²`
    pub(super) fn square(&mut self, x: &Value) -> Value {
        let key = format!("square of {}", x.name);
        if let Some(known) = self.known(&key) {
            return known;
        }
        let y = self.node(Node::new("Mul", format!("{}.square", x.name), &[&x.name, &x.name], &x.shape));
        self.remember(key, &y);
        y
    }

    /// What each filter sees at each position, `[groups · seen, H, W]`: a convolution with filters that are 1 in one place.
    fn patches(&mut self, x: &Value, map: &Conv2dConfig, positions: &[usize], path: &str) -> Value {
        let channels = map.inputs / map.groups;
        let seen = channels * map.kernel * map.kernel;
        let filters = map.groups * seen;
        let ones: Vec<f32> = (0..filters * seen).map(|i| f32::from(u8::from(i / seen % seen == i % seen))).collect();
        let copy = self.floats(&format!("{path}.patch_filters"), &[filters, channels, map.kernel, map.kernel], &ones);
        let shape = [&[filters], positions].concat();
        self.node(Node::new("Conv", format!("{path}.patches"), &[&x.name, &copy], &shape).with(attributes(map)))
    }
}

/// Rows and columns of the output of a convolution.
fn projection_positions(map: &Conv2dConfig, x: &Value) -> Result<Vec<usize>> {
    Ok(Map::Conv2d(*map).output(&x.shape)?[1..].to_vec())
}

fn attributes(map: &Conv2dConfig) -> [Attribute; 4] {
    [
        Attribute::sizes("kernel_shape", [map.kernel; 2]),
        Attribute::sizes("strides", [map.stride; 2]),
        Attribute::sizes("pads", [map.padding; 4]),
        Attribute::count("group", map.groups),
    ]
}

/// The bias with what follows it.
fn bias_of(parameters: &Parameters, projection: &Projection, affine: Option<&Affine>) -> Result<Option<Vec<f32>>> {
    let own = match projection.bias() {
        Some(bias) => Some(parameters.parameters()[bias].value.to_vec::<f32>()?),
        None => None,
    };
    Ok(match (own, affine) {
        (own, None) => own,
        (None, Some(affine)) => Some(affine.shift.iter().map(|shift| *shift as f32).collect()),
        (Some(own), Some(Affine { scale, shift })) => {
            let each = own.iter().zip(scale).zip(shift);
            Some(each.map(|((bias, scale), shift)| (f64::from(*bias) * scale + shift) as f32).collect())
        }
    })
}

/// The values of a parameter or a buffer of the network.
pub(super) fn floats(parameters: &Parameters, name: &str) -> Result<Vec<f32>> {
    let value = parameters.get(name).ok_or_else(|| refuse(format!("the network has no tensor named {name}")))?;
    Ok(value.to_vec::<f32>()?)
}

/// The path of the layer that has a parameter.
pub(super) fn path_of(parameter: &str) -> &str {
    parameter.rsplit_once('.').map_or(parameter, |(path, _)| path)
}

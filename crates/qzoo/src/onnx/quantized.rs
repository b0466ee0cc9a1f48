//! Quantized layers as ONNX has them: integers behind `DequantizeLinear` (QDQ form), which runtimes turn into integer kernels.

use super::graph::{Graph, Node, Value};
use super::proto::{Attribute, Element};
use crate::models::Model;
use crate::nn::{Body, Codes, Composite, Sees, whole_bias};
use crate::quantize::Packed;
use qgraph::Result;
use std::collections::BTreeMap;

/// How activations become 8-bit integers: `code = clamp(round(x / scale) + zero_point, 0, 255)`, halves to even, and back by `(code - zero_point) · scale`.
pub use qkernels::i8::Quantization as ActivationGrid;

/// The activations around one use of quantized weights.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Grids {
    /// What the projection is given: the input of the layer, its squares, or its products of pairs. `None` leaves it f32.
    pub input: Option<ActivationGrid>,
    /// What it gives: behind the activation where ReLU, ReLU6 or nothing follows and no residual comes in between, else directly behind the projection.
    /// `None` leaves it f32; the next layer's `input` serves as well.
    pub output: Option<ActivationGrid>,
}

/// The weights of a projection as integers, `weight[o, …] = codes[o, …] · scales[o]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QuantizedWeights {
    /// Row-major, in the shape of the parameter.
    pub codes: Vec<i8>,
    /// One for each output; above 0.
    pub scales: Vec<f32>,
    /// Whether the batch normalisation behind the projection, where it is one that [folds](crate::models::Model::folded), is already part of codes and scales. Otherwise
    /// its scale is multiplied into `scales`, which is exact. Its shift becomes part of the bias either way.
    pub folded: bool,
    /// What is added for each output behind everything that is folded, where that is not what the model says: a corrected bias.
    pub bias: Option<Vec<f32>>,
    /// One for each projection of the layer that uses the weights, in order: two for shared ones of `type2&4_shared`. Missing ones are f32.
    pub grids: Vec<Grids>,
}

/// The projections that are stored as integers, by the names of their weights, such as `layer1.0.conv1.weight`. All others are f32.
pub type Quantization = BTreeMap<String, QuantizedWeights>;

impl QuantizedWeights {
    /// The weights of a quantized checkpoint, with activations in f32; `None` where its characters are not whole multiples, from -128 to 127, of one unit for each output.
    ///
    /// # Errors
    /// As [`Packed::values`].
    pub fn of(packed: &Packed) -> Result<Option<Self>> {
        let Some(Codes { values, units }) = packed.integers()? else { return Ok(None) };
        // A row of zeros may have no unit.
        let scales = units.into_iter().map(|unit| if unit > 0.0 { unit } else { 1.0 }).collect();
        Ok(Some(QuantizedWeights { codes: values.to_vec()?, scales, ..QuantizedWeights::default() }))
    }

    /// Says what does not fit a weight of that shape.
    pub(super) fn mistake(&self, shape: &[usize]) -> Option<String> {
        let (rows, count) = (shape.first().copied().unwrap_or(0), shape.iter().product::<usize>());
        let positive = |scale: &f32| *scale > 0.0 && scale.is_finite();
        if (self.codes.len(), self.scales.len()) != (count, rows) {
            let [codes, scales] = [self.codes.len(), self.scales.len()];
            return Some(format!("{codes} codes and {scales} scales for weights of shape {shape:?}"));
        }
        if let Some(bias) = self.bias.as_ref().filter(|bias| bias.len() != rows) {
            return Some(format!("{} biases for weights of shape {shape:?}", bias.len()));
        }
        let grids = self.grids.iter().flat_map(|grids| [grids.input, grids.output]).flatten();
        let bad = self.scales.iter().copied().chain(grids.map(|grid| grid.scale)).find(|scale| !positive(scale));
        bad.map(|scale| format!("scales must be above 0 and finite, not {scale}"))
    }

    /// The grids of a use.
    pub(super) fn grids(&self, number: usize) -> Grids {
        self.grids.get(number).copied().unwrap_or_default()
    }

    /// Multiplies each row by a number: its scale by the size, its codes by the sign. `None` where a code has no opposite.
    pub(super) fn scaled(&self, factors: &[f64]) -> Option<(Vec<i8>, Vec<f32>)> {
        let mut codes = self.codes.clone();
        let mut scales: Vec<f32> =
            self.scales.iter().zip(factors).map(|(scale, factor)| (f64::from(*scale) * factor.abs()) as f32).collect();
        // A row that is switched off keeps a scale that a division survives.
        let widest = scales.iter().copied().fold(f32::MIN_POSITIVE, f32::max);
        let row = codes.len() / factors.len().max(1);
        for ((row, scale), factor) in codes.chunks_mut(row.max(1)).zip(&mut scales).zip(factors) {
            if *scale < f32::MIN_POSITIVE {
                row.fill(0);
                *scale = widest;
            } else if *factor < 0.0 {
                for code in row {
                    *code = code.checked_neg()?;
                }
            }
        }
        Some((codes, scales))
    }
}

/// Integers with a scale for each row, and the names that they shall have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rows<'a> {
    pub(super) name: &'a str,
    pub(super) shape: &'a [usize],
    pub(super) codes: &'a [i8],
    pub(super) scales: &'a [f32],
}

impl Graph {
    /// `codes · scales` along the first axis, stored as i8 with a scale and a zero point of 0 for each row.
    pub(super) fn dequantized(&mut self, rows: Rows<'_>) -> Value {
        let Rows { name, shape, codes, scales } = rows;
        let data = self.codes(&format!("{name}_quantized"), shape, codes);
        let scale = self.floats(&format!("{name}_scale"), &[scales.len()], scales);
        let zero = self.codes(&format!("{name}_zero_point"), &[scales.len()], &vec![0; scales.len()]);
        let key = format!("{data} by {scale}");
        if let Some(known) = self.known(&key) {
            return known;
        }
        let name = format!("{name}_dequantized");
        let node = Node::new("DequantizeLinear", name, &[&data, &scale, &zero], shape);
        let weights = self.node(node.with([Attribute::count("axis", 0)]).constant());
        self.remember(key, &weights);
        weights
    }

    /// A bias for the sums of integer products: i32 with the scale of the products, `input.scale · scales`. `None` where a value does not fit.
    pub(super) fn dequantized_bias(&mut self, name: &str, bias: &[f32], products: &[f32]) -> Option<Value> {
        let codes = whole_bias(bias, products)?;
        let data = self.integers(&format!("{name}_quantized"), &codes);
        let scale = self.floats(&format!("{name}_scale"), &[products.len()], products);
        let shape = [bias.len()];
        let node = Node::new("DequantizeLinear", format!("{name}_dequantized"), &[&data, &scale], &shape);
        Some(self.node(node.with([Attribute::count("axis", 0)]).constant()))
    }

    /// `x` rounded to a grid: `QuantizeLinear` and `DequantizeLinear`. What already lies on it stays as it is.
    pub(super) fn on_grid(&mut self, x: &Value, grid: ActivationGrid) -> Value {
        let ActivationGrid { scale, zero_point } = grid;
        let key = |value: &Value| format!("{} at {:08x}, {zero_point}", value.name, scale.to_bits());
        if let Some(known) = self.known(&key(x)) {
            return known;
        }
        let scale = self.floats(&format!("{}_scale", x.name), &[], &[scale]);
        let zero = self.byte(&format!("{}_zero_point", x.name), zero_point);
        let node = Node::new("QuantizeLinear", format!("{}_quantized", x.name), &[&x.name, &scale, &zero], &x.shape);
        let codes = self.node(node.of(Element::U8));
        let name = format!("{}_dequantized", x.name);
        let y = self.node(Node::new("DequantizeLinear", name, &[&codes.name, &scale, &zero], &x.shape));
        self.remember(key(x), &y);
        self.remember(key(&y), &y);
        y
    }
}

/// The projections of a quantized network that can be stored as integers, with the grids of their inputs, and the names of those that cannot: their
/// characters are not whole multiples, from -128 to 127, of one unit for each output.
///
/// # Errors
/// As [`QuantizedWeights::of`].
pub fn quantization(model: &Model, packed: &[Packed]) -> Result<(Quantization, Vec<String>)> {
    let (mut found, mut left) = (Quantization::new(), Vec::new());
    for packed in packed {
        let name = &packed.about.name;
        let Some(mut weights) = QuantizedWeights::of(packed)? else {
            left.push(name.clone());
            continue;
        };
        // Grids are those of what a layer is given. Where a projection sees squares of it they have no place in front of the projection.
        let input = packed.about.input.filter(|input| input.levels == u8::MAX && sees_input(model, name));
        let input = input.map(|input| input.grid().quantization);
        weights.grids = input.map(|input| Grids { input: Some(input), output: None }).into_iter().collect();
        found.insert(name.clone(), weights);
    }
    Ok((found, left))
}

fn sees_input(model: &Model, name: &str) -> bool {
    let position = model.parameters().parameters().iter().position(|parameter| parameter.name == name);
    let units = model.network().composites().into_iter().flat_map(Composite::units);
    let mut projections = units.flat_map(|unit| match unit.body() {
        Body::Unit(unit) => unit.projections(),
        Body::Residual(_) => &[],
    });
    projections.any(|projection| Some(projection.weight()) == position && projection.sees() == Sees::Input)
}

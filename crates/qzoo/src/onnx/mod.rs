//! Networks as ONNX files (opset 21), which other programs run.
//!
//! The graph computes what [`Folded`](crate::models::Folded) does: batch normalisations that directly follow a projection are part of its weights, in double precision; others are
//! `BatchNormalization` nodes by running statistics; dropout is gone. The batch axis is symbolic, and every value between nodes has its shape. Nodes, their
//! results and the weights have the names of the layers and parameters that they come from.
//!
//! Any projection may be stored as integers instead, see [`Quantization`].

mod graph;
mod network;
mod projection;
mod proto;
mod quantized;
#[cfg(test)]
mod tests;

pub use quantized::{ActivationGrid, Grids, Quantization, QuantizedWeights, quantization};

use crate::checkpoint::Normalization;
use crate::models::Model;
use crate::{Error, Result};
use graph::{Graph, Node, Value};
use network::Network;
use projection::Affine;
use prost::Message;
use proto::{Attribute, Element, OperatorSet, Property};

/// The version of the operators.
const OPSET: i64 = 21;
/// The version of the format that came with them.
const IR_VERSION: i64 = 10;
/// A message of more bytes cannot be read by protobuf.
const MOST_BYTES: usize = i32::MAX as usize;

/// What a file says beside the network.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    /// Name of the experiment, which becomes that of the graph.
    pub name: &'a str,
    /// Names of the classes, in the order of the logits.
    pub classes: &'a [String],
    /// What is done to pixels before the network sees them.
    pub normalization: &'a Normalization,
    /// Whether the graph takes pixels as they are, u8, and normalises them itself. Otherwise it takes normalised ones, f32.
    pub raw_pixels: bool,
}

/// The bytes of an ONNX file: input `images` `[N, C, H, W]`, output `logits` `[N, classes]`. Equal arguments give equal bytes.
///
/// ```
/// use qzoo::{experiment, models::Model, onnx};
/// let model = Model::build(&experiment::Model::default(), [3, 32, 32], 10, 0)?;
/// let normalization = Default::default();
/// let about = onnx::About { name: "example", classes: &[], normalization: &normalization, raw_pixels: false };
/// let bytes = onnx::export(&model, &about, &onnx::Quantization::new())?;
/// assert!(bytes.len() > 4 * model.parameters().count());
/// # Ok::<(), qzoo::Error>(())
/// ```
///
/// # Errors
/// Quantized weights that do not fit the network, a layer that has no reasonable form in ONNX, or more than 2 GiB. The message names the layer.
pub fn export(model: &Model, about: &About<'_>, quantization: &Quantization) -> Result<Vec<u8>> {
    check(model, quantization)?;
    let element = if about.raw_pixels { Element::U8 } else { Element::F32 };
    let (graph, mut x) = Graph::new(about.name, element, &model.input());
    let mut network = Network { graph, parameters: model.parameters(), quantization };
    if about.raw_pixels {
        x = network.normalised(&x, about.normalization);
    }
    let logits = network.sequential(model.network(), &x)?;
    let file = proto::Model {
        ir_version: IR_VERSION,
        producer_name: "quartz".into(),
        producer_version: env!("CARGO_PKG_VERSION").into(),
        graph: Some(network.graph.finish(&logits)),
        opset_import: vec![OperatorSet { domain: String::new(), version: OPSET }],
        metadata: metadata(model, about),
    };
    let bytes = file.encoded_len();
    if bytes > MOST_BYTES {
        let gib = bytes as f64 / f64::from(1 << 30);
        return Err(refuse(format!(
            "{}: {gib:.1} GiB are more than an ONNX file can hold, which is 2 GiB",
            model.name()
        )));
    }
    Ok(file.encode_to_vec())
}

/// Refuses quantized weights that the network has no place for.
fn check(model: &Model, quantization: &Quantization) -> Result<()> {
    for (name, weights) in quantization {
        let mut parameters = model.parameters().parameters().iter();
        let parameter = parameters.find(|parameter| parameter.name == *name && parameter.kind.is_weight());
        let Some(parameter) = parameter else {
            return Err(refuse(format!(
                "{name}: {} has no weights of that name to be stored as integers",
                model.name()
            )));
        };
        if let Some(mistake) = weights.mistake(parameter.value.shape()) {
            return Err(refuse(format!("{name}: {mistake}")));
        }
    }
    Ok(())
}

fn metadata(model: &Model, about: &About<'_>) -> Vec<Property> {
    let Normalization { mean, std } = about.normalization;
    let pairs = [
        ("experiment", about.name.to_string()),
        ("model", model.name().to_string()),
        ("classes", serde_json::json!(about.classes).to_string()),
        ("mean", serde_json::json!(mean).to_string()),
        ("std", serde_json::json!(std).to_string()),
        ("pixels", if about.raw_pixels { "raw" } else { "normalized" }.to_string()),
        ("quartz_version", env!("CARGO_PKG_VERSION").to_string()),
    ];
    pairs.map(|(key, value)| Property { key: key.into(), value }).into()
}

impl Network<'_> {
    /// Bytes `[C, H, W]` as the network takes them: `(x / 255 - mean) / std` for each channel.
    fn normalised(&mut self, x: &Value, normalization: &Normalization) -> Value {
        let of = |list: &[f64], otherwise: f64| -> Vec<f64> {
            (0..x.shape[0]).map(|channel| list.get(channel).copied().unwrap_or(otherwise)).collect()
        };
        let (mean, std) = (of(&normalization.mean, 0.0), of(&normalization.std, 1.0));
        let scale = std.iter().map(|std| 1.0 / (255.0 * std)).collect();
        let shift = mean.iter().zip(&std).map(|(mean, std)| -mean / std).collect();
        let node =
            Node::new("Cast", "pixels", &[&x.name], &x.shape).with([Attribute::count("to", Element::F32 as usize)]);
        let pixels = self.graph.node(node);
        self.affine(&pixels, &Affine { scale, shift }, "pixels")
    }
}

/// An error about what cannot be exported.
fn refuse(message: String) -> Error {
    Error::Config(message)
}

//! Runs a graph with textbook loops in f64, and checks on the way what a runtime relies on.

use crate::onnx::proto::{Attribute, Element, Graph, Node, Tensor, ValueInfo};
use std::collections::HashMap;

/// A row-major array.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Array {
    pub(super) dims: Vec<usize>,
    pub(super) values: Vec<f64>,
}

impl Array {
    pub(super) fn new(dims: &[usize], values: Vec<f64>) -> Self {
        assert_eq!(dims.iter().product::<usize>(), values.len(), "{dims:?}");
        Array { dims: dims.to_vec(), values }
    }

    fn map(&self, f: impl Fn(f64) -> f64) -> Array {
        Array { dims: self.dims.clone(), values: self.values.iter().map(|x| f(*x)).collect() }
    }

    /// The value at a place of an array to which this one is broadcast.
    fn at(&self, dims: &[usize], mut place: usize) -> f64 {
        let (mut index, mut step) = (0, 1);
        for axis in (0..dims.len()).rev() {
            let coordinate = place % dims[axis];
            place /= dims[axis];
            if let Some(own) = (axis + self.dims.len()).checked_sub(dims.len()) {
                assert!([1, dims[axis]].contains(&self.dims[own]), "{:?} to {dims:?}", self.dims);
                index += if self.dims[own] == 1 { 0 } else { coordinate * step };
                step *= self.dims[own];
            }
        }
        self.values[index]
    }

    fn zip(&self, other: &Array, f: impl Fn(f64, f64) -> f64) -> Array {
        let values = self.values.iter().enumerate().map(|(i, x)| f(*x, other.at(&self.dims, i)));
        Array { dims: self.dims.clone(), values: values.collect() }
    }

    /// The value for each place of `like` by the channel of an axis.
    fn by_channel(&self, like: &[usize], axis: usize, place: usize) -> f64 {
        if self.values.len() == 1 {
            return self.values[0];
        }
        self.values[place / like[axis + 1..].iter().product::<usize>() % like[axis]]
    }
}

/// The constants of a graph; their bytes must fill their shapes.
fn constant(tensor: &Tensor) -> Array {
    let dims: Vec<usize> = tensor.dims.iter().map(|size| usize::try_from(*size).unwrap()).collect();
    let count: usize = dims.iter().product();
    let size = [1, 2, 3, 6, 7].into_iter().zip([4, 1, 1, 4, 8]).find(|(kind, _)| *kind == tensor.element).unwrap().1;
    assert_eq!(tensor.raw.len(), count * size, "{}", tensor.name);
    let values = tensor.raw.chunks_exact(size).map(|bytes| match tensor.element {
        e if e == Element::F32 as i32 => f64::from(f32::from_le_bytes(bytes.try_into().unwrap())),
        e if e == Element::U8 as i32 => f64::from(bytes[0]),
        e if e == Element::I8 as i32 => f64::from(bytes[0] as i8),
        e if e == Element::I32 as i32 => f64::from(i32::from_le_bytes(bytes.try_into().unwrap())),
        _ => i64::from_le_bytes(bytes.try_into().unwrap()) as f64,
    });
    Array::new(&dims, values.collect())
}

fn declared(value: &ValueInfo, batch: usize) -> Vec<usize> {
    let tensor = value.kind.as_ref().and_then(|kind| kind.tensor.as_ref()).unwrap();
    let dims = &tensor.shape.as_ref().unwrap().dims;
    let size = |dim: &crate::onnx::proto::Dimension| match (&dim.name, dim.size) {
        (Some(name), None) if name == "N" => batch,
        (None, Some(size)) => size as usize,
        _ => panic!("{}: {dim:?}", value.name),
    };
    dims.iter().map(size).collect()
}

/// The output of a graph. Names must be unique, inputs defined before they are used, and shapes as declared.
pub(super) fn run(graph: &Graph, images: Array) -> Array {
    let batch = images.dims[0];
    let shapes: HashMap<&str, Vec<usize>> =
        graph.values.iter().chain(&graph.outputs).map(|v| (v.name.as_str(), declared(v, batch))).collect();
    assert_eq!(shapes.len(), graph.values.len() + graph.outputs.len());
    let mut values: HashMap<&str, Array> = HashMap::new();
    for tensor in &graph.initializers {
        assert!(values.insert(&tensor.name, constant(tensor)).is_none(), "{} twice", tensor.name);
    }
    assert_eq!(declared(&graph.inputs[0], batch), images.dims);
    assert!(values.insert(&graph.inputs[0].name, images).is_none());
    for node in &graph.nodes {
        let inputs: Vec<&Array> = node
            .inputs
            .iter()
            .map(|name| values.get(name.as_str()).unwrap_or_else(|| panic!("{name} is not yet")))
            .collect();
        let y = compute(node, &inputs);
        let [name] = &node.outputs[..] else { panic!("{node:?}") };
        assert_eq!(shapes[name.as_str()], y.dims, "{name}");
        assert!(values.insert(name, y).is_none(), "{name} twice");
    }
    values[graph.outputs[0].name.as_str()].clone()
}

fn attribute<'a>(node: &'a Node, name: &str) -> &'a Attribute {
    node.attributes.iter().find(|a| a.name == name).unwrap_or_else(|| panic!("{} without {name}", node.op))
}

fn sizes(node: &Node, name: &str) -> Vec<usize> {
    attribute(node, name).ints.iter().map(|size| *size as usize).collect()
}

fn number(node: &Node, name: &str) -> usize {
    attribute(node, name).int.unwrap() as usize
}

fn compute(node: &Node, inputs: &[&Array]) -> Array {
    let x = inputs[0];
    match node.op.as_str() {
        "Add" => x.zip(inputs[1], |a, b| a + b),
        "Mul" => x.zip(inputs[1], |a, b| a * b),
        "Cast" => x.clone(),
        "Relu" => x.map(|x| x.max(0.0)),
        "Clip" => x.map(|x| x.clamp(inputs[1].values[0], inputs[2].values[0])),
        "LeakyRelu" => {
            let slope = f64::from(attribute(node, "alpha").float.unwrap());
            x.map(|x| if x < 0.0 { slope * x } else { x })
        }
        "PRelu" => x.zip(inputs[1], |x, slope| if x < 0.0 { slope * x } else { x }),
        "Tanh" => x.map(f64::tanh),
        "Sigmoid" => x.map(|x| 1.0 / (1.0 + (-x).exp())),
        "Flatten" => Array::new(&[x.dims[0], x.dims[1..].iter().product()], x.values.clone()),
        "Gemm" => gemm(x, inputs[1], inputs.get(2).copied(), number(node, "transB")),
        "Conv" => conv(node, inputs),
        "Gather" => gather(x, inputs[1], number(node, "axis")),
        "BatchNormalization" => {
            let eps = f64::from(attribute(node, "epsilon").float.unwrap());
            let of = |i: usize, place| inputs[i].by_channel(&x.dims, 1, place);
            let each = x.values.iter().enumerate();
            let each = each.map(|(i, x)| (x - of(3, i)) / (of(4, i) + eps).sqrt() * of(1, i) + of(2, i));
            Array::new(&x.dims, each.collect())
        }
        "MaxPool" => pool(node, x, |window| window.iter().flatten().copied().fold(f64::MIN, f64::max)),
        "AveragePool" => {
            assert_eq!(number(node, "count_include_pad"), 1);
            pool(node, x, |window| window.iter().flatten().sum::<f64>() / window.len() as f64)
        }
        "GlobalAveragePool" => {
            let plane = x.dims[2] * x.dims[3];
            let means = x.values.chunks(plane).map(|plane| plane.iter().sum::<f64>() / plane.len() as f64);
            Array::new(&[x.dims[0], x.dims[1], 1, 1], means.collect())
        }
        "QuantizeLinear" => {
            let (scale, zero) = (inputs[1].values[0], inputs[2].values[0]);
            x.map(|x| ((x / scale).round_ties_even() + zero).clamp(0.0, 255.0))
        }
        "DequantizeLinear" => {
            let axis = node.attributes.first().map_or(0, |axis| axis.int.unwrap() as usize);
            let zero = |place| inputs.get(2).map_or(0.0, |zero| zero.by_channel(&x.dims, axis, place));
            let scale = |place| inputs[1].by_channel(&x.dims, axis, place);
            let each = x.values.iter().enumerate();
            Array::new(&x.dims, each.map(|(i, x)| (x - zero(i)) * scale(i)).collect())
        }
        other => panic!("{other} is no operator of ours"),
    }
}

fn gemm(x: &Array, w: &Array, bias: Option<&Array>, transposed: usize) -> Array {
    assert_eq!((transposed, x.dims[1]), (1, w.dims[1]));
    let rows = x.values.chunks(x.dims[1]).flat_map(|x| {
        w.values.chunks(w.dims[1]).enumerate().map(move |(o, w)| {
            x.iter().zip(w).map(|(x, w)| x * w).sum::<f64>() + bias.map_or(0.0, |bias| bias.values[o])
        })
    });
    Array::new(&[x.dims[0], w.dims[0]], rows.collect())
}

fn gather(x: &Array, indices: &Array, axis: usize) -> Array {
    assert_eq!(axis, 1);
    let inner: usize = x.dims[2..].iter().product();
    let mut values = Vec::new();
    for image in x.values.chunks(x.dims[1] * inner) {
        for index in &indices.values {
            let first = *index as usize * inner;
            values.extend_from_slice(&image[first..first + inner]);
        }
    }
    let mut dims = x.dims.clone();
    dims[1] = indices.values.len();
    Array::new(&dims, values)
}

/// For each output the places of a window, `None` beyond the border: `[top, left, height, width]` of images of that size.
fn windows(node: &Node, size: [usize; 2]) -> ([usize; 2], Vec<Vec<Option<usize>>>) {
    let [kernel, strides, pads] = ["kernel_shape", "strides", "pads"].map(|name| sizes(node, name));
    assert_eq!(pads[..2], pads[2..]);
    let count = [0, 1].map(|axis| (size[axis] + 2 * pads[axis] - kernel[axis]) / strides[axis] + 1);
    let mut all = Vec::new();
    for (row, column) in (0..count[0]).flat_map(|row| (0..count[1]).map(move |column| (row, column))) {
        let taps = (0..kernel[0]).flat_map(|i| (0..kernel[1]).map(move |j| (i, j)));
        let place = |(i, j): (usize, usize)| {
            let y = (row * strides[0] + i).checked_sub(pads[0]).filter(|y| *y < size[0])?;
            let x = (column * strides[1] + j).checked_sub(pads[1]).filter(|x| *x < size[1])?;
            Some(y * size[1] + x)
        };
        all.push(taps.map(place).collect());
    }
    (count, all)
}

fn pool(node: &Node, x: &Array, f: impl Fn(&[Option<f64>]) -> f64) -> Array {
    assert_eq!(number(node, "ceil_mode"), 0);
    let (count, windows) = windows(node, [x.dims[2], x.dims[3]]);
    let mut values = Vec::new();
    for plane in x.values.chunks(x.dims[2] * x.dims[3]) {
        for window in &windows {
            values.push(f(&window.iter().map(|place| place.map(|p| plane[p])).collect::<Vec<_>>()));
        }
    }
    Array::new(&[x.dims[0], x.dims[1], count[0], count[1]], values)
}

fn conv(node: &Node, inputs: &[&Array]) -> Array {
    let (x, w, groups) = (inputs[0], inputs[1], number(node, "group"));
    let (count, windows) = windows(node, [x.dims[2], x.dims[3]]);
    let (plane, outputs, channels) = (x.dims[2] * x.dims[3], w.dims[0], w.dims[1]);
    assert_eq!(channels * groups, x.dims[1]);
    let mut values = Vec::new();
    for image in x.values.chunks(x.dims[1] * plane) {
        for (o, filter) in w.values.chunks(w.dims[1..].iter().product()).enumerate() {
            let first = o / (outputs / groups) * channels;
            for window in &windows {
                let mut sum = inputs.get(2).map_or(0.0, |bias| bias.values[o]);
                for (c, taps) in filter.chunks(window.len()).enumerate() {
                    let seen = &image[(first + c) * plane..];
                    sum += taps.iter().zip(window).map(|(w, place)| place.map_or(0.0, |p| w * seen[p])).sum::<f64>();
                }
                values.push(sum);
            }
        }
    }
    Array::new(&[x.dims[0], outputs, count[0], count[1]], values)
}

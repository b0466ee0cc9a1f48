use super::proto::{self, Attribute, Dimension, Element};
use std::collections::{HashMap, HashSet};

/// Name of the batch axis.
pub(super) const BATCH: &str = "N";
/// Name of the input.
pub(super) const IMAGES: &str = "images";
/// Name of the output.
pub(super) const LOGITS: &str = "logits";

/// What a node gives, or the input of the network.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Value {
    pub(super) name: String,
    pub(super) element: Element,
    /// Without the batch axis.
    pub(super) shape: Vec<usize>,
    /// Whether a batch axis comes first.
    batched: bool,
}

impl Value {
    fn info(&self) -> proto::ValueInfo {
        let batch = self.batched.then(|| Dimension { size: None, name: Some(BATCH.into()) });
        let sizes = self.shape.iter().map(|size| Dimension { size: Some(*size as i64), name: None });
        let shape = proto::Shape { dims: batch.into_iter().chain(sizes).collect() };
        let tensor = proto::TensorType { element: self.element as i32, shape: Some(shape) };
        proto::ValueInfo { name: self.name.clone(), kind: Some(proto::Type { tensor: Some(tensor) }) }
    }
}

/// A node to be added. It and its result have one name.
#[derive(Clone, Debug)]
pub(super) struct Node<'a> {
    op: &'static str,
    name: String,
    inputs: Vec<&'a str>,
    attributes: Vec<Attribute>,
    element: Element,
    shape: &'a [usize],
    batched: bool,
}

impl<'a> Node<'a> {
    /// An operator with a float result of that shape for each image; the name becomes another where it is taken.
    pub(super) fn new(op: &'static str, name: impl Into<String>, inputs: &[&'a str], shape: &'a [usize]) -> Self {
        Node {
            op,
            name: name.into(),
            inputs: inputs.to_vec(),
            attributes: Vec::new(),
            element: Element::F32,
            shape,
            batched: true,
        }
    }

    /// With attributes.
    pub(super) fn with(mut self, attributes: impl IntoIterator<Item = Attribute>) -> Self {
        self.attributes.extend(attributes);
        self
    }

    /// With a result of that type.
    pub(super) fn of(self, element: Element) -> Self {
        Node { element, ..self }
    }

    /// With a result that does not depend on the images.
    pub(super) fn constant(self) -> Self {
        Node { batched: false, ..self }
    }
}

/// A graph in the making: nodes in an order in which they can be computed.
#[derive(Debug)]
pub(super) struct Graph {
    graph: proto::Graph,
    taken: HashSet<String>,
    /// Values that would be computed twice in the same way, by what they are.
    known: HashMap<String, Value>,
}

impl Graph {
    /// A graph of that name with images `[N, C, H, W]` as its input.
    pub(super) fn new(name: &str, element: Element, shape: &[usize]) -> (Self, Value) {
        let images = Value { name: IMAGES.into(), element, shape: shape.to_vec(), batched: true };
        let graph = proto::Graph { name: name.into(), inputs: vec![images.info()], ..Default::default() };
        let taken = [IMAGES, LOGITS].map(String::from).into();
        (Graph { graph, taken, known: HashMap::new() }, images)
    }

    /// A name that nothing has yet: `base`, or with a number behind it.
    fn fresh(&mut self, base: &str) -> String {
        let mut name = base.to_string();
        let mut number = 1;
        while !self.taken.insert(name.clone()) {
            number += 1;
            name = format!("{base}_{number}");
        }
        name
    }

    /// Adds a node and returns its result.
    pub(super) fn node(&mut self, node: Node<'_>) -> Value {
        let name = self.fresh(&node.name);
        let value =
            Value { name: name.clone(), element: node.element, shape: node.shape.to_vec(), batched: node.batched };
        self.graph.nodes.push(proto::Node {
            inputs: node.inputs.into_iter().map(String::from).collect(),
            outputs: vec![name.clone()],
            name,
            op: node.op.into(),
            attributes: node.attributes,
        });
        self.graph.values.push(value.info());
        value
    }

    /// Adds a constant, unless the same one has that name already.
    fn initializer(&mut self, name: &str, element: Element, shape: &[usize], raw: Vec<u8>) -> String {
        let dims = shape.iter().map(|size| *size as i64).collect();
        let mut tensor = proto::Tensor { dims, element: element as i32, name: name.into(), raw };
        if self.graph.initializers.contains(&tensor) {
            return tensor.name;
        }
        tensor.name = self.fresh(name);
        let name = tensor.name.clone();
        self.graph.initializers.push(tensor);
        name
    }

    /// Adds f32 constants.
    pub(super) fn floats(&mut self, name: &str, shape: &[usize], values: &[f32]) -> String {
        let raw = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.initializer(name, Element::F32, shape, raw)
    }

    /// Adds i64 constants with one axis.
    pub(super) fn indices(&mut self, name: &str, values: &[usize]) -> String {
        let raw = values.iter().flat_map(|value| (*value as i64).to_le_bytes()).collect();
        self.initializer(name, Element::I64, &[values.len()], raw)
    }

    /// Adds i8 constants.
    pub(super) fn codes(&mut self, name: &str, shape: &[usize], values: &[i8]) -> String {
        let raw = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.initializer(name, Element::I8, shape, raw)
    }

    /// Adds i32 constants with one axis.
    pub(super) fn integers(&mut self, name: &str, values: &[i32]) -> String {
        let raw = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.initializer(name, Element::I32, &[values.len()], raw)
    }

    /// Adds one u8 constant.
    pub(super) fn byte(&mut self, name: &str, value: u8) -> String {
        self.initializer(name, Element::U8, &[], vec![value])
    }

    /// The value that was [remembered](Self::remember) as `key`.
    pub(super) fn known(&self, key: &str) -> Option<Value> {
        self.known.get(key).cloned()
    }

    /// Remembers a value, so that it need not be computed again.
    pub(super) fn remember(&mut self, key: String, value: &Value) {
        self.known.insert(key, value.clone());
    }

    /// The graph with `output` as its output, which is then named [`LOGITS`].
    pub(super) fn finish(mut self, output: &Value) -> proto::Graph {
        for node in &mut self.graph.nodes {
            let names = node.inputs.iter_mut().chain(&mut node.outputs);
            names.filter(|name| **name == output.name).for_each(|name| *name = LOGITS.into());
        }
        self.graph.values.retain(|value| value.name != output.name);
        self.graph.outputs = vec![Value { name: LOGITS.into(), ..output.clone() }.info()];
        self.graph
    }
}

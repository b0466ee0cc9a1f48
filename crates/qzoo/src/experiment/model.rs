//! `[model]`: which network, and the few things that can be varied in it.

use std::collections::BTreeMap;

use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};

use super::VggLayer;
use super::check::Checker;
use super::named::named_enum;
use super::pattern;
use super::vgg_layer::MOST_CHANNELS;

named_enum! {
    /// The networks that an experiment can name.
    ModelName {
        Mlp = "mlp", "fully connected: linear, activation and batch norm for each of `widths`, then a linear classifier";
        SmallCnn = "small_cnn", "a small convolutional network that trains in minutes on two cores";
        MnistCnn = "mnist_cnn", "two convolutions (32-64) and two linear layers with dropout, without batch norm: QuadraLib's demonstration on MNIST";
        CifarCnn = "cifar_cnn", "six convolutions (32-32-64-64-128-128) and two linear layers, with batch norm and dropout";
        Vgg7 = "vgg7", "VGG of QVGG-7 for 32x32 images: 7 convolutions, one linear layer";
        Vgg11 = "vgg11", "VGG configuration A for 32x32 images: 8 convolutions, one linear layer";
        Vgg13 = "vgg13", "VGG configuration B for 32x32 images: 10 convolutions, one linear layer";
        Vgg16 = "vgg16", "VGG configuration D for 32x32 images: 13 convolutions, one linear layer";
        Vgg19 = "vgg19", "VGG configuration E for 32x32 images: 16 convolutions, one linear layer";
        ResNet10 = "resnet10", "thin residual network for 32x32 images: 16-32-64 channels, 1 block a stage";
        ResNet14 = "resnet14", "thin residual network for 32x32 images: 16-32-64 channels, 2 blocks a stage";
        ResNet20 = "resnet20", "thin residual network for 32x32 images: 16-32-64 channels, 3 blocks a stage";
        ResNet32 = "resnet32", "thin residual network for 32x32 images: 16-32-64 channels, 5 blocks a stage";
        ResNet44 = "resnet44", "thin residual network for 32x32 images: 16-32-64 channels, 7 blocks a stage";
        ResNet56 = "resnet56", "thin residual network for 32x32 images: 16-32-64 channels, 9 blocks a stage";
        ResNet18 = "resnet18", "residual network of the ImageNet kind: 64 to 512 channels, basic blocks 2-2-2-2";
        ResNet34 = "resnet34", "residual network of the ImageNet kind: 64 to 512 channels, basic blocks 3-4-6-3";
        ResNet50 = "resnet50", "residual network of the ImageNet kind: 256 to 2048 channels, bottlenecks 3-4-6-3";
        MobileNetV1 = "mobilenet_v1", "depthwise separable convolutions, 32 to 1024 channels, 13 blocks";
        MobileNetB = "mobilenet_b", "depthwise separable convolutions, 32 to 1024 channels, the 8 blocks of QuadraLib's QMobileNet";
    }
}

named_enum! {
    /// The neurons that layers are made of. Wa, Wb and Wc are matrices or filters; a dot between two vectors is the product of their elements.
    NeuronName {
        Linear = "linear", "W x: first-order";
        Type1 = "type1", "x' Wa x + Wb x: a full quadratic form and a linear term (Cheung and Leung 1991; Zoumpourlis et al. 2017)";
        Type1Pure = "type1_pure", "x' Wa x: a full quadratic form alone (Redlapalli et al. 2003)";
        Type1And2 = "type1&2", "x' Wa x + Wb (x . x) (Milenkovic et al. 1996)";
        Type2 = "type2", "W (x . x): a quadratic neuron without products of different inputs (Goyal et al. 2020)";
        Type3 = "type3", "(W x) . (W x): the square of a projection (Mishra et al. 2020)";
        Type4 = "type4", "(Wa x) . (Wb x): the product of two projections (Chrysos et al. 2020)";
        Type2And4 = "type2&4", "(Wa x) . (Wb x) + Wc (x . x) (Fan et al. 2018)";
        Type2And4Shared = "type2&4_shared", "(Wa x) . (Wb x) + Wb (x . x): as type2&4 with two matrices";
        Ours = "ours", "(Wa x) . (Wb x) + Wc x: QuadraLib's neuron (Xu et al. 2022, arXiv:2204.01701)";
        QRes = "qres", "(Wa x) . (Wb x) + Wa x (Bu and Karpatne 2021)";
    }
}

named_enum! {
    /// The activation between layers.
    ActivationName {
        Relu = "relu", "max(x, 0)";
        Relu6 = "relu6", "min(max(x, 0), 6)";
        LeakyRelu = "leaky_relu", "x, or 0.01 x where x is negative";
        Prelu = "prelu", "x, or a x where x is negative; a is learnt, one a layer, at first 0.25";
        Tanh = "tanh", "hyperbolic tangent";
        Sigmoid = "sigmoid", "1 / (1 + exp(-x))";
    }
}

named_enum! {
    /// How the second-order part of quadratic neurons starts.
    QuadraticInit {
        Default = "default", "like the rest, as `init` says";
        Linear = "linear", "first-order: (Wa x) . (Wb x) is 0 where the neuron has a linear term of its own and else Wa x, squares are 0 (ReLinear, Fan et al. 2021)";
    }
}

named_enum! {
    /// How the weights of linear and convolutional layers are drawn; named as PyTorch names them.
    InitName {
        Default = "default", "the model's own";
        KaimingNormal = "kaiming_normal", "normal, variance 2 / fan in (He et al. 2015)";
        KaimingUniform = "kaiming_uniform", "uniform, variance 2 / fan in (He et al. 2015)";
        XavierNormal = "xavier_normal", "normal, variance 2 / (fan in + fan out) (Glorot and Bengio 2010)";
        XavierUniform = "xavier_uniform", "uniform, variance 2 / (fan in + fan out) (Glorot and Bengio 2010)";
    }
}

/// `[model]`. The number of classes and the shape of the input come from the data set.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Model {
    /// The network. Required in the file.
    pub name: ModelName,
    /// `mlp` only: units of each hidden layer, at most 64 layers of 1 to 65536; empty = a linear classifier.
    /// Default [500, 300].
    pub widths: Vec<usize>,
    /// Every convolutional model, not `mlp`: multiplies the channels of every layer (rounded, at least 1), above 0 and
    /// at most 64. Default 1.
    pub width: f64,
    /// VGG networks only: the convolutions, each as its number of channels, and the poolings, each as `"pool"`, in place of the network's own; at most 256,
    /// channels from 1 to 65536 before `width` multiplies them. Default: the named network's.
    pub layers: Option<Vec<VggLayer>>,
    /// VGG networks only: units of each hidden linear layer before the classifier, each with the activation and `dropout`, at most 16 layers of 1 to 65536:
    /// `[4096, 4096]` for ImageNet. Default none.
    pub classifier_widths: Vec<usize>,
    /// Residual networks only: blocks of each stage, each 1 to 256, in place of the network's own; four numbers for `resnet18`, `resnet34` and `resnet50`,
    /// three for the thin ones. Default: the named network's.
    pub blocks: Option<Vec<usize>>,
    /// Share of activations dropped in training, in [0, 1). `mlp`: after every hidden layer; `cifar_cnn`: in place of its
    /// own 0.2, 0.3, 0.4 and 0.5; `mnist_cnn`: in place of its own 0.25 and 0.5; the others: before the classifier. Default: the model's own (0 except
    /// for `cifar_cnn` and `mnist_cnn`).
    pub dropout: Option<f64>,
    /// `mlp` and `vgg` only: batch normalisation after every hidden layer's activation (`mlp`) or between every convolution
    /// and its activation (`vgg`). Default true.
    pub batch_norm: bool,
    /// The neuron of every layer but the stem and the shortcuts of residual networks, the stem of MobileNet, and the classifier: these are first-order
    /// unless `neurons` has their full name. Default `linear`.
    pub neuron: NeuronName,
    /// Pattern of layer names (`*` any characters, `?` one) to neuron, for layers that are not to have `neuron`. Where several match, the longest pattern
    /// wins. Layers that `neuron` leaves out take one from their full name only, such as `conv1 = "ours"`. Default none.
    pub neurons: BTreeMap<String, NeuronName>,
    /// `type1`, `type1_pure` and `type1&2` only: as many products of two projections in place of the full quadratic form, whose weights grow with
    /// the square of what a filter sees. At least 1. Default: the full form.
    pub rank: Option<usize>,
    /// Quadratic neurons only: the activation of each projection before they are combined, behind its normalisation. Default none.
    pub branch_activation: Option<ActivationName>,
    /// Quadratic neurons only: batch normalisation of each projection before they are combined. Default true.
    pub branch_norm: bool,
    /// Quadratic neurons only: how their second-order part starts. Default `default`.
    pub quadratic_init: QuadraticInit,
    /// The activation of every hidden layer. Default `relu`.
    pub activation: ActivationName,
    /// How weights are drawn. Default `default`, the model's own.
    pub init: InitName,
    /// Every convolutional model, not `mlp`: whether 3x3 and 5x5 convolutions of stride 1 may use Winograd's algorithm where it is faster; its rounding
    /// errors are a few times larger. Default true.
    pub winograd: bool,
}

impl Default for Model {
    fn default() -> Self {
        Model {
            name: ModelName::SmallCnn,
            widths: vec![500, 300],
            width: 1.0,
            layers: None,
            classifier_widths: Vec::new(),
            blocks: None,
            dropout: None,
            batch_norm: true,
            neuron: NeuronName::Linear,
            neurons: BTreeMap::new(),
            rank: None,
            branch_activation: None,
            branch_norm: true,
            quadratic_init: QuadraticInit::Default,
            activation: ActivationName::Relu,
            init: InitName::Default,
            winograd: true,
        }
    }
}

impl ModelName {
    /// Whether this is a VGG network.
    pub fn is_vgg(self) -> bool {
        matches!(self, ModelName::Vgg7 | ModelName::Vgg11 | ModelName::Vgg13 | ModelName::Vgg16 | ModelName::Vgg19)
    }

    /// Stages of a residual network; `None` for the others.
    pub fn stages(self) -> Option<usize> {
        use ModelName::*;
        match self {
            ResNet10 | ResNet14 | ResNet20 | ResNet32 | ResNet44 | ResNet56 => Some(3),
            ResNet18 | ResNet34 | ResNet50 => Some(4),
            _ => None,
        }
    }

    /// Whether the key of `[model]` means something for this network. Keys that are not of `[model]` at all do not.
    pub fn takes(self, key: &str) -> bool {
        match key {
            "widths" => self == ModelName::Mlp,
            "width" | "winograd" => self != ModelName::Mlp,
            "layers" | "classifier_widths" => self.is_vgg(),
            "blocks" => self.stages().is_some(),
            "batch_norm" => self == ModelName::Mlp || self.is_vgg(),
            "name" | "neuron" | "neurons" | "rank" | "branch_norm" | "branch_activation" | "quadratic_init"
            | "dropout" | "activation" | "init" => true,
            _ => false,
        }
    }
}

/// Only the keys that the network takes, so that the written file is a valid one.
impl Serialize for Model {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("name", &self.name)?;
        if self.name.takes("widths") {
            map.serialize_entry("widths", &self.widths)?;
        }
        if self.name.takes("width") {
            map.serialize_entry("width", &self.width)?;
        }
        if let Some(layers) = self.layers.as_ref().filter(|_| self.name.takes("layers")) {
            map.serialize_entry("layers", layers)?;
        }
        if self.name.takes("classifier_widths") && !self.classifier_widths.is_empty() {
            map.serialize_entry("classifier_widths", &self.classifier_widths)?;
        }
        if let Some(blocks) = self.blocks.as_ref().filter(|_| self.name.takes("blocks")) {
            map.serialize_entry("blocks", blocks)?;
        }
        if let Some(dropout) = &self.dropout {
            map.serialize_entry("dropout", dropout)?;
        }
        if self.name.takes("batch_norm") {
            map.serialize_entry("batch_norm", &self.batch_norm)?;
        }
        map.serialize_entry("neuron", &self.neuron)?;
        if !self.neurons.is_empty() {
            map.serialize_entry("neurons", &self.neurons)?;
        }
        if let Some(rank) = &self.rank {
            map.serialize_entry("rank", rank)?;
        }
        // An experiment of the auto-builder says how the neurons start that it will put in the place of first-order ones.
        if let Some(activation) = &self.branch_activation {
            map.serialize_entry("branch_activation", activation)?;
        }
        if self.has_quadratic() || !self.branch_norm {
            map.serialize_entry("branch_norm", &self.branch_norm)?;
        }
        if self.has_quadratic() || self.quadratic_init != QuadraticInit::Default {
            map.serialize_entry("quadratic_init", &self.quadratic_init)?;
        }
        map.serialize_entry("activation", &self.activation)?;
        map.serialize_entry("init", &self.init)?;
        if self.name.takes("winograd") {
            map.serialize_entry("winograd", &self.winograd)?;
        }
        map.end()
    }
}

impl Model {
    /// The neuron of the layer of that name: that of the longest matching pattern, else `neuron`.
    pub fn neuron_of(&self, layer: &str) -> NeuronName {
        pattern::longest(&self.neurons, layer).copied().unwrap_or(self.neuron)
    }

    fn has_quadratic(&self) -> bool {
        std::iter::once(&self.neuron).chain(self.neurons.values()).any(|neuron| *neuron != NeuronName::Linear)
    }

    fn has_form(&self) -> bool {
        let forms = [NeuronName::Type1, NeuronName::Type1Pure, NeuronName::Type1And2];
        std::iter::once(&self.neuron).chain(self.neurons.values()).any(|neuron| forms.contains(neuron))
    }

    pub(super) fn check(&self, checker: &mut Checker<'_>) {
        for (key, widths, most) in [("widths", &self.widths, 64), ("classifier_widths", &self.classifier_widths, 16)] {
            if widths.len() > most {
                checker.wrong(key, format!("{key:?} has at most {most} layers, not {}", widths.len()), None);
            }
            for (index, &width) in widths.iter().enumerate().filter(|(_, width)| !(1..=65536).contains(*width)) {
                let message = format!("an element of {key:?} must be from 1 to 65536, not {width}");
                checker.within(key).wrong(index, message, None);
            }
        }
        if !(self.width > 0.0 && self.width <= 64.0) {
            let message = format!("\"width\" must be above 0 and at most 64, not {}", self.width);
            checker.wrong("width", message, None);
        }
        for name in self.neurons.keys() {
            if let Some(mistake) = pattern::mistake(name) {
                checker.within("neurons").wrong_key(name, format!("{name:?} is no pattern of layer names: {mistake}"));
            }
        }
        match self.rank {
            Some(0) => checker.wrong("rank", "\"rank\" must be at least 1".to_string(), None),
            Some(rank) if rank > 1024 => {
                checker.wrong("rank", format!("\"rank\" must be at most 1024, not {rank}"), None);
            }
            Some(_) if !self.has_form() => {
                let message = "\"rank\" is only for the neurons type1, type1_pure and type1&2".to_string();
                checker.wrong("rank", message, None);
            }
            _ => {}
        }
        let unfit = [ActivationName::Relu, ActivationName::Relu6, ActivationName::Sigmoid];
        if let Some(activation) = self.branch_activation.filter(|activation| unfit.contains(activation))
            && self.quadratic_init == QuadraticInit::Linear
        {
            let message = format!(
                "\"quadratic_init\" cannot be linear behind {activation}: projections of 0 give no 0 or learn nothing"
            );
            let hint = "another branch_activation, or quadratic_init = \"default\"";
            checker.conflict("quadratic_init", message, Some(hint));
        }
        if let Some(dropout) = self.dropout {
            checker.share("dropout", dropout);
        }
        if let Some(layers) = &self.layers {
            check_layers(layers, checker);
        }
        if let (Some(blocks), Some(stages)) = (&self.blocks, self.name.stages()) {
            if blocks.len() != stages {
                let message = format!("\"blocks\" of {} has {stages} numbers, not {}", self.name, blocks.len());
                checker.wrong("blocks", message, None);
            }
            for (index, &count) in blocks.iter().enumerate().filter(|(_, count)| !(1..=256).contains(*count)) {
                let message = format!("an element of \"blocks\" must be from 1 to 256, not {count}");
                checker.within("blocks").wrong(index, message, None);
            }
        }
    }

    /// A layer's number of channels times [`width`](Self::width), at least 1.
    pub(crate) fn channels(&self, channels: usize) -> usize {
        ((channels as f64 * self.width).round() as usize).max(1)
    }
}

fn check_layers(layers: &[VggLayer], checker: &mut Checker<'_>) {
    if layers.len() > 256 {
        checker.wrong("layers", format!("\"layers\" has at most 256 elements, not {}", layers.len()), None);
    }
    if !layers.iter().any(|layer| matches!(layer, VggLayer::Conv(_))) {
        checker.wrong("layers", "\"layers\" needs a convolution".into(), Some("layers = [64, \"pool\", 128]"));
    }
    for (index, layer) in layers.iter().enumerate() {
        if let VggLayer::Conv(channels) = layer
            && !(1..=MOST_CHANNELS).contains(channels)
        {
            let message = format!("an element of \"layers\" must be from 1 to {MOST_CHANNELS}, not {channels}");
            checker.within("layers").wrong(index, message, None);
        }
    }
}

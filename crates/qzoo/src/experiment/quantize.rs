//! `[quantize]`: how a trained network is quantized, by `quartz quantize` or after a training.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::backward::parse_bytes;
use super::check::Checker;
use super::named::named_enum;
use super::pattern;
use super::values::Values;

named_enum! {
    /// The ways of choosing the characters of a layer.
    QuantizerName {
        Msq = "msq", "each weight by itself, without data: memoryless scalar quantization";
        Gpfq = "gpfq", "greedy path following: each weight takes up the error of those before it (Lybrand and Saab 2021; Zhang, Zhou and Saab 2023)";
        Sgpfq = "sgpfq", "gpfq with stochastic rounding (Zhang, Zhou and Saab 2023)";
        Spfq = "spfq", "weights that the quantized inputs explain best, then gpfq with stochastic rounding (Zhang and Saab 2023, with exact alignment)";
        Ldlq = "ldlq", "each error is spread over the weights that follow: GPTQ (Frantar et al. 2022; Chee et al. 2023)";
        AlignedLdlq = "aligned_ldlq", "ldlq on weights that the quantized inputs explain best, so that it corrects the errors of earlier layers too";
        Qronos = "qronos", "as aligned_ldlq, with the first weight chosen beside the original ones (Zhang et al. 2025)";
        Beacon = "beacon", "a scale for each neuron that fits its characters best, by sweeps of coordinate descent (after Zhang and Saab 2025)";
    }
}

named_enum! {
    /// Whose rules `gpfq` follows where the papers leave a choice.
    Compat {
        Lybrand2021 = "lybrand2021", "weights without data become 0, a weight whose inputs are orthogonal to the error is rounded by itself, middles go down";
        Zhang2023 = "zhang2023", "weights without data become the character next to 0, middles go up";
    }
}

named_enum! {
    /// The characters of b bits.
    AlphabetName {
        MidRise = "mid_rise", "2^b equally spaced characters without 0 (with it where 2^b is odd, as for ternary)";
        MidTread = "mid_tread", "2^b - 1 equally spaced characters with 0 in the middle";
        MidTreadPlus = "mid_tread_plus", "2^b + 1 of them";
        MidRiseZero = "mid_rise_zero", "mid_rise and 0";
        Asymmetric = "asymmetric", "2^b equally spaced characters from the smallest to the largest weight, 0 among them";
    }
}

named_enum! {
    /// What the largest character is, before `alphabet_scalar`.
    RadiusName {
        Median = "median", "the median of |w|";
        RowMax = "row_max", "the largest |w| of a neuron, as a mean over the neurons";
        Percentile = "percentile", "that percentile of |w| of a neuron, as a mean over the neurons";
        Max = "max", "the largest |w|";
        Mse = "mse", "the radius at which rounding each weight by itself has the least squared error";
    }
}

named_enum! {
    /// What a neuron of a convolution is.
    ConvMode {
        PerChannel = "per_channel", "each input channel of a filter by itself (Lybrand and Saab 2021)";
        FullFilter = "full_filter", "the whole filter: errors of one channel are taken up by the next";
    }
}

named_enum! {
    /// The order in which the inputs of a layer are walked through.
    FeatureOrder {
        Natural = "natural", "as they are stored";
        Descending = "descending", "those with the largest norm first";
    }
}

named_enum! {
    /// What makes weights sparse.
    Sparsity {
        None = "none", "nothing";
        L1 = "l1", "soft thresholding: arguments shrink by `threshold`";
        L0 = "l0", "hard thresholding: arguments up to `threshold` become 0";
    }
}

named_enum! {
    /// How the range of activations is chosen.
    RangeName {
        MinMax = "min_max", "the smallest and the largest value of the calibration images";
        Percentile = "percentile", "all but the share `1 - activation_percentile` of the values";
        Mse = "mse", "the range at which rounding has the least squared error";
    }
}

/// `[quantize]`. Several values of `bits` or `alphabet_scalar` make a grid, of which the best network is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Quantize {
    /// The method. Default `aligned_ldlq`.
    pub method: QuantizerName,
    /// Whose rules `gpfq` follows. Default `lybrand2021`.
    pub compat: Compat,
    /// Bits of a weight, 1 to 8; 1.58 for ternary. One value, several, or a range. Default 4.
    pub bits: Values,
    /// Choose the bits of each layer among `bits` by how much the answers depend on it, under `budget`, `max_size` or `max_drop`. Default false.
    pub mixed: bool,
    /// With `mixed`: bits of a weight, as a mean over all. One value, several, or a range. Default none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget: Option<Values>,
    /// With `mixed`: most bytes of all codes, such as "100KiB". Default none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_size: Option<String>,
    /// With `mixed`: most percentage points of accuracy to lose; the smallest network that keeps it is taken, with budgets that rise in steps of half a bit. Default none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_drop: Option<f64>,
    /// The characters. Default `mid_tread`.
    pub alphabet: AlphabetName,
    /// The largest character. Default `mse`.
    pub radius: RadiusName,
    /// Whether each output channel has a radius of its own. Default true.
    pub per_output: bool,
    /// For radius `percentile`: 0 to 1. Default 1.
    pub percentile: f64,
    /// Factor of the radius, above 0. One value, several, or a range. Default 1.
    pub alphabet_scalar: Values,
    /// What a neuron of a convolution is. Default `full_filter`.
    pub conv_mode: ConvMode,
    /// The order of the inputs. Default `natural`.
    pub order: FeatureOrder,
    /// For `ldlq`, `aligned_ldlq`, `qronos` and `spfq`: added to the diagonal of the Gram matrix, as a share of its mean. Default 0.01.
    pub damping: f64,
    /// Sweeps of coordinate descent behind the method, 0 to 100; `beacon` makes at least one. Default 0.
    pub sweeps: usize,
    /// What makes weights sparse. Default `none`.
    pub sparsity: Sparsity,
    /// For `sparsity`: in units of the weights. Default 0.1.
    pub threshold: f64,
    /// Training images to calibrate with, the first of the split, not augmented. Default 5000.
    pub samples: usize,
    /// Share of the output positions of a convolution that its Gram matrix sees, above 0 and at most 1. Default 1.
    pub patches: f64,
    /// Patterns of the layers to quantize; empty for all. Default [].
    pub layers: Vec<String>,
    /// Patterns of layers to leave as they are. Default [].
    pub skip: Vec<String>,
    /// Pattern of layer names to bits of their own. Default none.
    pub layer_bits: BTreeMap<String, f64>,
    /// Bits of the network's first and last layers, 1 to 8, where `layer_bits` has none for them. Default: those of all layers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_last_bits: Option<f64>,
    /// Bits of the inputs of quantized layers, 2 to 8; weights then correct for their rounding too. Default: not quantized.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub activation_bits: Option<usize>,
    /// How the range of activations is chosen. Default `mse`.
    pub activation_range: RangeName,
    /// For `activation_range` `percentile`. Default 0.9999.
    pub activation_percentile: f64,
    /// Add the mean error of each layer to its bias, where it has one or a batch norm follows. Default false.
    pub bias_correction: bool,
    /// Training images to measure the running statistics of batch norms anew with, behind the quantization; 0 for none. Default 0.
    pub recalibrate: usize,
    /// Make batch norms that directly follow a layer part of its weights first, and those between an activation and a linear layer part of that one's. Default false.
    pub fold: bool,
    /// Most memory for activations that are kept from layer to layer, such as "2GiB"; what does not fit is computed again. Default "2GiB".
    pub memory: String,
}

impl Default for Quantize {
    fn default() -> Self {
        Quantize {
            method: QuantizerName::AlignedLdlq,
            compat: Compat::Lybrand2021,
            bits: Values::one(4.0),
            mixed: false,
            budget: None,
            max_size: None,
            max_drop: None,
            alphabet: AlphabetName::MidTread,
            radius: RadiusName::Mse,
            per_output: true,
            percentile: 1.0,
            alphabet_scalar: Values::one(1.0),
            conv_mode: ConvMode::FullFilter,
            order: FeatureOrder::Natural,
            damping: 0.01,
            sweeps: 0,
            sparsity: Sparsity::None,
            threshold: 0.1,
            samples: 5000,
            patches: 1.0,
            layers: Vec::new(),
            skip: Vec::new(),
            layer_bits: BTreeMap::new(),
            first_last_bits: None,
            activation_bits: None,
            activation_range: RangeName::Mse,
            activation_percentile: 0.9999,
            bias_correction: false,
            recalibrate: 0,
            fold: false,
            memory: "2GiB".into(),
        }
    }
}

impl Quantize {
    /// Most bytes of all codes, where that is limited.
    pub fn max_bytes(&self) -> Option<u64> {
        self.max_size.as_deref().and_then(parse_bytes)
    }

    /// Bytes of activations that may be kept from layer to layer.
    pub fn memory_bytes(&self) -> u64 {
        parse_bytes(&self.memory).unwrap_or(2 << 30)
    }

    pub(super) fn check(&self, checker: &mut Checker<'_>) {
        numbers(checker, "bits", self.bits.as_slice(), is_bits, "from 1 to 8");
        if let Some(budget) = &self.budget {
            numbers(checker, "budget", budget.as_slice(), is_bits, "from 1 to 8");
        }
        if let Some(size) = self.max_size.as_ref().filter(|size| parse_bytes(size).is_none()) {
            let message =
                format!("{size:?} is no size; give a number above 0 with KiB, MiB or GiB, such as \"100KiB\"");
            checker.wrong("max_size", message, None);
        }
        if let Some(drop) = self.max_drop.filter(|drop| !(0.0..=100.0).contains(drop)) {
            checker.wrong("max_drop", format!("\"max_drop\" must be from 0 to 100, not {drop}"), None);
        }
        let limits = [self.budget.is_some(), self.max_size.is_some(), self.max_drop.is_some()];
        match limits.into_iter().filter(|limit| *limit).count() {
            0 if self.mixed => {
                let message = "\"mixed\" needs a limit of what bits may cost".to_string();
                checker.conflict("mixed", message, Some("budget = 3.0, max_size = \"100KiB\" or max_drop = 0.5"));
            }
            1 if !self.mixed => {
                let message = "\"budget\", \"max_size\" and \"max_drop\" limit what \"mixed\" chooses".to_string();
                checker.conflict("mixed", message, Some("mixed = true"));
            }
            2.. => {
                let message = "\"budget\", \"max_size\" and \"max_drop\" exclude each other".to_string();
                checker.conflict("mixed", message, None);
            }
            _ => {}
        }
        let positive = |c: f64| c > 0.0 && c <= 1e6;
        numbers(checker, "alphabet_scalar", self.alphabet_scalar.as_slice(), positive, "above 0 and at most a million");
        if let Some(bits) = self.first_last_bits.filter(|bits| !is_bits(*bits)) {
            checker.wrong("first_last_bits", format!("\"first_last_bits\" must be from 1 to 8, not {bits}"), None);
        }
        for (name, bits) in &self.layer_bits {
            if !is_bits(*bits) {
                let message = format!("{name:?} must be from 1 to 8, not {bits}");
                checker.within("layer_bits").wrong(name.as_str(), message, None);
            }
        }
        for (key, patterns) in [("layers", &self.layers), ("skip", &self.skip)] {
            for (i, wanted) in patterns.iter().enumerate() {
                if let Some(mistake) = pattern::mistake(wanted) {
                    let message = format!("{wanted:?} is no pattern of layer names: {mistake}");
                    checker.within(key).wrong(i, message, None);
                }
            }
        }
        for name in self.layer_bits.keys() {
            if let Some(mistake) = pattern::mistake(name) {
                let message = format!("{name:?} is no pattern of layer names: {mistake}");
                checker.within("layer_bits").wrong_key(name, message);
            }
        }
        if !(self.percentile > 0.0 && self.percentile <= 1.0) {
            let message = format!("\"percentile\" must be above 0 and at most 1, not {}", self.percentile);
            checker.wrong("percentile", message, None);
        }
        if !(self.damping >= 0.0 && self.damping.is_finite()) {
            checker.wrong(
                "damping",
                format!("\"damping\" must be a finite number of at least 0, not {}", self.damping),
                None,
            );
        }
        if !(self.patches > 0.0 && self.patches <= 1.0) {
            checker.wrong("patches", format!("\"patches\" must be above 0 and at most 1, not {}", self.patches), None);
        }
        if !(self.activation_percentile > 0.5 && self.activation_percentile <= 1.0) {
            let found = self.activation_percentile;
            let message = format!("\"activation_percentile\" must be above 0.5 and at most 1, not {found}");
            checker.wrong("activation_percentile", message, None);
        }
        checker.positive("threshold", self.threshold);
        checker.whole("sweeps", self.sweeps, 0, 100);
        checker.whole("samples", self.samples, 1, 100_000_000);
        if let Some(bits) = self.activation_bits {
            checker.whole("activation_bits", bits, 2, 8);
        }
        if parse_bytes(&self.memory).is_none() {
            let message =
                format!("{:?} is no size; give a number above 0 with KiB, MiB or GiB, such as \"2GiB\"", self.memory);
            checker.wrong("memory", message, None);
        }
        let asymmetric = self.alphabet == AlphabetName::Asymmetric;
        if asymmetric && (self.sparsity == Sparsity::L0 || self.method == QuantizerName::Beacon) {
            let message = "alphabet \"asymmetric\" goes with neither method \"beacon\" nor sparsity \"l0\"".to_string();
            checker.conflict("alphabet", message, Some("alphabet = \"mid_tread\""));
        }
        if self.method == QuantizerName::Beacon {
            if self.conv_mode == ConvMode::PerChannel {
                let message =
                    "method \"beacon\" has a scale for each filter and takes no conv_mode \"per_channel\"".to_string();
                checker.conflict("conv_mode", message, Some("conv_mode = \"full_filter\""));
            }
            if self.sparsity == Sparsity::L0 {
                let message =
                    "method \"beacon\" changes scales and takes no threshold in units of the weights".to_string();
                checker.conflict("sparsity", message, Some("sparsity = \"none\""));
            }
        }
        let stochastic = matches!(self.method, QuantizerName::Sgpfq | QuantizerName::Spfq);
        if self.sparsity != Sparsity::None && stochastic {
            let message = format!("method \"{}\" rounds at random and takes no \"sparsity\"", self.method);
            checker.conflict("sparsity", message, Some("method = \"gpfq\""));
        }
    }
}

fn is_bits(bits: f64) -> bool {
    (1.0..=8.0).contains(&bits)
}

fn numbers(checker: &mut Checker<'_>, key: &str, values: &[f64], fits: impl Fn(f64) -> bool, range: &str) {
    if values.is_empty() {
        checker.wrong(key, format!("{key:?} needs at least one value"), None);
    }
    for value in values.iter().filter(|value| !fits(**value)) {
        checker.wrong(key, format!("{key:?} must be {range}, not {value}"), None);
    }
}

//! `[sparse]`: which weights of a network are made zero and kept zero, when, and what layers with few weights compute in.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::check::Checker;
use super::finetune::Finetune;
use super::named::named_enum;
use super::pattern;
use super::sparse_phases::{AcDc, Gmp};

named_enum! {
    /// When weights become zero, and which.
    SparsifierName {
        Magnitude = "magnitude", "the smallest weights, at once and for good: before the first epoch of a training";
        Gmp = "gmp", "the smallest weights, more and more of them in steps of the cubic schedule of gradual magnitude pruning (Zhu and Gupta 2017)";
        AcDc = "acdc", "the smallest weights, in sparse phases that take turns with dense ones: alternating compressed and decompressed training (Peste et al. 2021)";
        Random = "random", "weights drawn by the seed, at once and for good: for benchmarks";
    }
}

named_enum! {
    /// Among which weights the smallest are looked for.
    SparseScope {
        Uniform = "uniform", "those of each layer: every layer is as sparse as the others";
        Global = "global", "those of all layers together: layers with small weights become sparser";
    }
}

named_enum! {
    /// What sparse layers compute in.
    Arithmetic {
        Auto = "auto", "sparse kernels, in f32 or in int8, where they are measured to be faster than dense ones";
        Dense = "dense", "dense kernels everywhere, which multiply zeros too";
        F32 = "f32", "sparse kernels in f32 where they are measured to be faster than dense ones";
        Int8 = "int8", "sparse kernels in int8, as `[sparse.int8]` says, where they are measured to be faster than dense ones";
    }
}

named_enum! {
    /// How the largest code of a tensor is chosen.
    Int8Range {
        AbsMax = "absmax", "the largest magnitude";
        Percentile = "percentile", "the magnitude below which the share `percentile` of the values lies";
        Mse = "mse", "the range at which rounding has the least squared error";
        Sawb = "sawb", "by the mean square and the mean magnitude: statistics-aware weight binning (Choi et al. 2019)";
    }
}

named_enum! {
    /// How gradients become codes without bias.
    Int8Gradients {
        Stochastic = "stochastic", "stochastic rounding on the grid of the largest magnitude";
        Dithered = "dithered", "stochastic rounding on a grid as coarse as the standard deviation: many codes are 0 (Wiedemann et al. 2020)";
        Luq = "luq", "powers of two with stochastic underflow: logarithmic unbiased quantization (Chmiel et al. 2021)";
    }
}

/// `[sparse]`. A network is pruned in training, by `quartz sparsify`, or not at all where the section is absent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sparse {
    /// Share of zeros among the weights of every layer that is pruned, 0 or larger and below 1. Default 0.9.
    pub sparsity: f64,
    /// When weights become zero, and which. Default `magnitude`.
    pub method: SparsifierName,
    /// Among which weights the smallest are looked for. Default `uniform`.
    pub scope: SparseScope,
    /// Pattern of layer names to a share of zeros of their own, whatever the scope. Default none.
    pub layers: BTreeMap<String, f64>,
    /// At most N weights in every M consecutive ones along the flattened inputs of an output, in place of `sparsity`; M from 2 to 64, N from 1 to M - 1.
    /// Default: anywhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n_of_m: Option<[usize; 2]>,
    /// Patterns of layers that stay dense. Default: the network's first and last layer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skip: Option<Vec<String>>,
    /// What sparse layers compute in. Default `auto`.
    pub arithmetic: Arithmetic,
    /// Share of zeros from which on a layer is considered for sparse kernels, 0 to 1. Default 0.8.
    pub threshold: f64,
    /// `[sparse.gmp]`.
    pub gmp: Gmp,
    /// `[sparse.acdc]`.
    pub acdc: AcDc,
    /// `[sparse.int8]`.
    pub int8: SparseInt8,
    /// `[sparse.finetune]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finetune: Option<Finetune>,
}

impl Default for Sparse {
    fn default() -> Self {
        Sparse {
            sparsity: 0.9,
            method: SparsifierName::Magnitude,
            scope: SparseScope::Uniform,
            layers: BTreeMap::new(),
            n_of_m: None,
            skip: None,
            arithmetic: Arithmetic::Auto,
            threshold: 0.8,
            gmp: Gmp::default(),
            acdc: AcDc::default(),
            int8: SparseInt8::default(),
            finetune: None,
        }
    }
}

/// `[sparse.int8]`: how the numbers of sparse layers become codes of 8 bits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SparseInt8 {
    /// The range of weights. Default `absmax`.
    pub weights: Int8Range,
    /// The range of activations. Default `absmax`.
    pub activations: Int8Range,
    /// How gradients become codes. Default `stochastic`.
    pub gradients: Int8Gradients,
    /// For ranges by `percentile`: above 0.5 and at most 1. Default 0.9999.
    pub percentile: f64,
    /// Whether each output channel of the weights has a range of its own. Default true.
    pub per_channel: bool,
}

impl Default for SparseInt8 {
    fn default() -> Self {
        SparseInt8 {
            weights: Int8Range::AbsMax,
            activations: Int8Range::AbsMax,
            gradients: Int8Gradients::Stochastic,
            percentile: 0.9999,
            per_channel: true,
        }
    }
}

impl Sparse {
    /// The share of zeros that a layer comes to, before at least one weight of each output is kept.
    pub fn sparsity_of(&self, layer: &str) -> f64 {
        match self.n_of_m {
            Some([n, m]) => 1.0 - n as f64 / m as f64,
            None => pattern::longest(&self.layers, layer).copied().unwrap_or(self.sparsity),
        }
    }

    pub(super) fn check(&self, checker: &mut Checker<'_>) {
        checker.share("sparsity", self.sparsity);
        checker.closed_share("threshold", self.threshold);
        for (name, sparsity) in &self.layers {
            let mut layers = checker.within("layers");
            layers.share(name, *sparsity);
            if let Some(mistake) = pattern::mistake(name) {
                layers.wrong_key(name, format!("{name:?} is no pattern of layer names: {mistake}"));
            }
        }
        for (i, wanted) in self.skip.iter().flatten().enumerate() {
            if let Some(mistake) = pattern::mistake(wanted) {
                let message = format!("{wanted:?} is no pattern of layer names: {mistake}");
                checker.within("skip").wrong(i, message, None);
            }
        }
        if let Some([n, m]) = self.n_of_m {
            self.check_groups([n, m], checker);
        }
        self.gmp.check(&mut checker.within("gmp"));
        self.acdc.check(&mut checker.within("acdc"));
        if let Some(finetune) = &self.finetune {
            finetune.check(&mut checker.within("finetune"));
        }
        let percentile = self.int8.percentile;
        if !(percentile > 0.5 && percentile <= 1.0) {
            let message = format!("\"percentile\" must be above 0.5 and at most 1, not {percentile}");
            checker.within("int8").wrong("percentile", message, None);
        }
    }

    fn check_groups(&self, [n, m]: [usize; 2], checker: &mut Checker<'_>) {
        if !(2..=64).contains(&m) || n == 0 || n >= m {
            let message =
                format!("\"n_of_m\" must be N weights of M, M from 2 to 64 and N from 1 to M - 1, not {n} of {m}");
            checker.wrong("n_of_m", message, Some("n_of_m = [2, 4]"));
        }
        let hint = Some("n_of_m alone says how many weights there are");
        if !self.layers.is_empty() {
            checker.conflict("layers", "\"layers\" and \"n_of_m\" exclude each other".into(), hint);
        }
        if self.scope == SparseScope::Global {
            checker.conflict("scope", "scope \"global\" and \"n_of_m\" exclude each other".into(), hint);
        }
        if self.method == SparsifierName::Gmp {
            let message = "method \"gmp\" prunes more and more weights and takes no \"n_of_m\"".to_string();
            checker.conflict("method", message, Some("method = \"acdc\" or \"magnitude\""));
        }
    }

    /// What cannot be told without the number of epochs.
    pub(super) fn check_beside(&self, epochs: usize, checker: &mut Checker<'_>) {
        let epochs = self.finetune.as_ref().map_or(epochs, |finetune| finetune.epochs);
        match self.method {
            SparsifierName::Gmp => self.gmp.check_beside(epochs, &mut checker.within("gmp")),
            SparsifierName::AcDc => self.acdc.check_beside(epochs, &mut checker.within("acdc")),
            SparsifierName::Magnitude | SparsifierName::Random => {}
        }
    }
}

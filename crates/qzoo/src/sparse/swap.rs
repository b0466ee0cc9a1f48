//! The swap: pruned layers train on sparse kernels where that was measured to be faster.

use super::chain::settle;
use super::decision::{Decision, Kernels, SwapTable, Timing};
use super::site::{Site, sites};
use super::trial::Trial;
use crate::Result;
use crate::experiment::Precision;
use crate::models::Model;
use crate::nn::{Map, SparseLayer, SparseLayers};
use qgraph::Tensor;
use qgraph::ops::SparseArithmetic;
use qkernels::sparse::{Pattern, Plan};
use qkernels::{isa, par};
use std::collections::HashMap;
use std::sync::Arc;

/// Sparsities within such a step are measured once.
const GRAIN: f64 = 200.0;

/// What may be chosen from.
#[derive(Clone, Debug)]
pub struct SwapOptions {
    /// A layer with a smaller share of zeros stays dense without a measurement.
    pub threshold: f64,
    /// Sparse kernels that a layer may take, in either memory order.
    pub kernels: Vec<Kernels>,
    /// How the products in bytes are made.
    pub int8: SparseArithmetic,
    /// The numbers between layers, in which all kernels are measured: those of dense layers are faster in bf16.
    pub precision: Precision,
}

/// A layer as a measurement sees it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Shape {
    kind: String,
    input: Vec<usize>,
    sparsity: u64,
}

/// Chooses the kernels of layers, and remembers what it has measured.
#[derive(Debug)]
pub struct Swap {
    options: SwapOptions,
    measured: HashMap<Shape, Vec<Timing>>,
}

impl Swap {
    /// Without measurements.
    pub fn new(options: SwapOptions) -> Self {
        Swap { options, measured: HashMap::new() }
    }

    /// The kernels of each projection of a network in training on batches like `images`, by the layers' own times. `pattern` gives the weights that there are by the position of a
    /// parameter; none for a layer that is not pruned.
    ///
    /// # Errors
    /// Images of another shape; patterns of other weights; a layer that kernels refuse.
    pub fn decide<'p>(
        &mut self,
        model: &Model,
        images: &Tensor,
        pattern: impl Fn(usize) -> Option<&'p Pattern>,
    ) -> Result<SwapTable> {
        let sites = sites(model, images)?;
        let mut layers = Vec::with_capacity(sites.len());
        for site in &sites {
            layers.push(self.layer(model, site, pattern(site.projection.weight()))?);
        }
        settle(&mut layers);
        Ok(SwapTable {
            batch: images.shape()[0],
            threads: par::threads(),
            isa: isa::current().name().to_string(),
            precision: self.options.precision,
            step: None,
            evaluation: None,
            layers,
        })
    }

    /// The row of a layer, measured as if its neighbours were alike.
    fn layer(&mut self, model: &Model, site: &Site, pattern: Option<&Pattern>) -> Result<Decision> {
        let sparsity = pattern.map_or(0.0, |pattern| 1.0 - pattern.density());
        let row = |why: String| Decision {
            layer: site.name.clone(),
            kind: site.kind(),
            input: site.input.clone(),
            nonzeros: pattern.map_or(site.weights(), Pattern::len),
            sparsity,
            timings: Vec::new(),
            choice: Kernels::Dense,
            why,
        };
        let SwapOptions { threshold, kernels, .. } = &self.options;
        let Some(pattern) = pattern else { return Ok(row("not pruned".into())) };
        if kernels.is_empty() {
            return Ok(row("dense kernels are asked for".into()));
        }
        // A whole number of weights may make a little less than the share that was asked for.
        if sparsity + 1.0 / (site.weights().max(1) as f64) < *threshold {
            let (zeros, least) = (100.0 * sparsity, 100.0 * threshold);
            return Ok(row(format!("{zeros:.1} % of its weights are zero, less than the threshold of {least:.0} %")));
        }
        let shape = Shape { kind: site.kind(), input: site.input.clone(), sparsity: (sparsity * GRAIN).round() as u64 };
        let timings = match self.measured.get(&shape) {
            Some(timings) => timings.clone(),
            None => {
                let weight = &model.parameters().parameters()[site.projection.weight()].value;
                let timings = self.measure(site, weight, pattern)?;
                self.measured.insert(shape, timings.clone());
                timings
            }
        };
        Ok(Decision { timings, ..row(String::new()) })
    }

    fn measure(&self, site: &Site, weight: &Tensor, pattern: &Pattern) -> Result<Vec<Timing>> {
        let plan = Arc::new(plan(site, pattern)?);
        let trial = Trial::new(site, weight, &plan.output_shape(site.input[0]), self.options.precision)?;
        let mut candidates = vec![(Kernels::Dense, None)];
        let kernels = self.options.kernels.iter().flat_map(|kernels| kernels.in_all_orders());
        for kernels in kernels.filter(|kernels| may_be_fast(&plan, **kernels)) {
            candidates.push((*kernels, self.sparse_layer(&plan, *kernels)));
        }
        par::install(|| trial.time(&candidates))
    }

    /// A layer on some kernels; none for dense ones.
    fn sparse_layer(&self, plan: &Arc<Plan>, kernels: Kernels) -> Option<SparseLayer> {
        let arithmetic = match kernels {
            Kernels::Dense => return None,
            Kernels::F32 | Kernels::F32Rows => SparseArithmetic::F32,
            Kernels::Int8 | Kernels::Int8Rows => self.options.int8.clone(),
        };
        let is_plain = plan.order() == kernels.order();
        let plan = if is_plain { plan.clone() } else { Arc::new((**plan).clone().in_order(kernels.order())) };
        Some(SparseLayer { plan, arithmetic })
    }

    /// The sparse layers of a table, for training.
    ///
    /// # Errors
    /// Patterns of other weights, or images of another shape.
    pub fn layers<'p>(
        &self,
        table: &SwapTable,
        model: &Model,
        images: &Tensor,
        pattern: impl Fn(usize) -> Option<&'p Pattern>,
    ) -> Result<SparseLayers> {
        let mut layers = SparseLayers::new();
        for site in sites(model, images)? {
            let Some(decision) = table.layers.iter().find(|decision| decision.layer == site.name) else { continue };
            let position = site.projection.weight();
            let Some(pattern) = pattern(position).filter(|_| decision.choice != Kernels::Dense) else { continue };
            if let Some(layer) = self.sparse_layer(&Arc::new(plan(&site, pattern)?), decision.choice) {
                layers.insert(position, layer);
            }
        }
        Ok(layers)
    }
}

/// Whether kernels are worth a measurement: those along rows have to fill a vector.
fn may_be_fast(plan: &Plan, kernels: Kernels) -> bool {
    let lanes = isa::current().lanes() * if kernels.is_int8() { 4 } else { 1 };
    kernels.is_innermost() || plan.longest_run() >= lanes
}

/// The passes of a layer over the weights of a pattern.
fn plan(site: &Site, pattern: &Pattern) -> Result<Plan> {
    Ok(match (site.projection.map(), site.projection.conv_params()) {
        (Map::Conv2d(_), Some(params)) => Plan::conv2d(pattern, &params, site.image())?,
        _ => Plan::linear(pattern)?,
    })
}

use crate::experiment::{ConvMode, Quantize, pattern};
use crate::models::Model;
use crate::nn::{Body, Composite, Layer, Map, Projection, Sees, Sequential};
use qgraph::{Result, Tape, Var};
use qkernels::gram::{Grouping, Inputs, Patches, Window};
use qtensor::random::{Purpose, StreamKey};
use std::ops::Range;

use super::quantizer::Recipe;
use crate::nn::Context;

/// A layer of the network that runs as a whole: what lies between two of them is all that later layers see of it.
#[derive(Debug)]
pub(super) struct Stage<'a> {
    scopes: Vec<String>,
    layer: &'a Layer,
    /// Projections that see the same, in the order of the walk.
    pub(super) groups: Vec<Group>,
}

/// Projections of one unit that are given the same values.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub(super) sites: Vec<Site>,
    /// Full name of the unit.
    unit: String,
    pub(super) sees: Sees,
    /// Number of the group in the network.
    pub(super) number: u32,
    /// Whether it is given what the stage is given, so that no forward pass is needed to see it.
    pub(super) is_first: bool,
}

/// One matrix of weights.
#[derive(Clone, Debug)]
pub(super) struct Site {
    /// Its full name, without `.weight`.
    pub(super) name: String,
    pub(super) projection: Projection,
    /// Whether it is a part of the network's first or last layer.
    pub(super) is_end: bool,
}

impl Stage<'_> {
    /// Its result.
    pub(super) fn forward(&self, tape: &mut Tape, x: &Var, context: &Context) -> Result<Var> {
        fn within(tape: &mut Tape, scopes: &[String], body: &mut dyn FnMut(&mut Tape) -> Result<Var>) -> Result<Var> {
            match scopes {
                [] => body(tape),
                [scope, rest @ ..] => tape.scope(scope, |tape| within(tape, rest, body)),
            }
        }
        within(tape, &self.scopes, &mut |tape| self.layer.forward(tape, x, context))
    }
}

impl Site {
    /// Bits of its weights, or `None` where the settings leave it as it is.
    pub(super) fn bits(&self, settings: &Quantize, recipe: &Recipe) -> Option<f64> {
        let any = |patterns: &[String]| patterns.iter().any(|wanted| pattern::matches(wanted, &self.name));
        let chosen = (settings.layers.is_empty() || any(&settings.layers)) && !any(&settings.skip);
        let mixed = || recipe.layers.get(&self.name).copied().unwrap_or(recipe.bits);
        chosen.then(|| self.own_bits(settings).unwrap_or_else(mixed))
    }

    /// Bits that the settings give to this layer whatever the others have.
    pub(super) fn own_bits(&self, settings: &Quantize) -> Option<f64> {
        let of_end = settings.first_last_bits.filter(|_| self.is_end);
        pattern::longest(&settings.layer_bits, &self.name).copied().or(of_end)
    }

    /// What Gram matrices of its inputs are made by.
    pub(super) fn inputs(&self, settings: &Quantize, seed: u64, layer: u32) -> Inputs {
        let (Map::Conv2d(map), Some(params)) = (self.projection.map(), self.projection.conv_params()) else {
            return Inputs::dense(self.channels());
        };
        let grouping = match settings.conv_mode {
            ConvMode::PerChannel => Grouping::PerChannel,
            ConvMode::FullFilter => Grouping::WholeFilter,
        };
        let key = StreamKey { seed, purpose: Purpose::Split, epoch: layer, index: 1 << 32 };
        let share = settings.patches;
        let patches = if share < 1.0 { Patches::Share { share, key } } else { Patches::All };
        let window = Window::Conv2d { params, kernel: [map.kernel; 2] };
        Inputs { window, channels: map.inputs, grouping, patches }
    }

    /// Groups of neurons that see different inputs.
    pub(super) fn groups(&self) -> usize {
        match self.projection.map() {
            Map::Linear(_) => 1,
            Map::Conv2d(map) => map.groups,
        }
    }

    fn channels(&self) -> usize {
        match self.projection.map() {
            Map::Linear(map) => map.inputs,
            Map::Conv2d(map) => map.inputs,
        }
    }

    /// The neurons of block `block` of its inputs: the rows of the weights and, of each row, the weights that belong to it.
    pub(super) fn neurons(&self, inputs: &Inputs, block: usize) -> (Range<usize>, Range<usize>) {
        let outputs = self.projection.map().outputs();
        let row: usize = self.projection.map().weight_shape()[1..].iter().product();
        let Map::Conv2d(map) = self.projection.map() else { return (0..outputs, 0..row) };
        let (each, channels) = (map.outputs / map.groups, map.inputs / map.groups);
        let rows = |group: usize| group * each..(group + 1) * each;
        match inputs.grouping {
            Grouping::WholeFilter => (rows(block), 0..row),
            Grouping::PerChannel => {
                let (size, channel) = (map.kernel * map.kernel, block % channels);
                (rows(block / channels), channel * size..(channel + 1) * size)
            }
        }
    }
}

/// The stages of a network, in order.
pub(super) fn stages(model: &Model) -> Vec<Stage<'_>> {
    let (mut found, mut number) = (Vec::<Stage<'_>>::new(), 0);
    collect(model, model.network(), &mut Vec::new(), &mut (&mut found, &mut number));
    let mut groups: Vec<&mut Group> = found.iter_mut().flat_map(|stage| &mut stage.groups).collect();
    let ends = [groups.first(), groups.last()].map(|group| group.map(|group| group.unit.clone()));
    for group in groups.iter_mut().filter(|group| ends.contains(&Some(group.unit.clone()))) {
        group.sites.iter_mut().for_each(|site| site.is_end = true);
    }
    found
}

fn collect<'a>(
    model: &Model,
    network: &'a Sequential,
    scopes: &mut Vec<String>,
    found: &mut (&mut Vec<Stage<'a>>, &mut u32),
) {
    let scope = network.scope();
    if !scope.is_empty() {
        scopes.push(scope.to_string());
    }
    for layer in network.layers() {
        match layer {
            Layer::Sequential(inner) => collect(model, inner, scopes, found),
            Layer::Composite(composite) => {
                let groups = groups(model, composite, found.1);
                found.0.push(Stage { scopes: scopes.clone(), layer, groups });
            }
            _ => found.0.push(Stage { scopes: scopes.clone(), layer, groups: Vec::new() }),
        }
    }
    if !scope.is_empty() {
        scopes.pop();
    }
}

fn groups(model: &Model, composite: &Composite, number: &mut u32) -> Vec<Group> {
    let first = |unit: &Composite| match composite.body() {
        Body::Unit(_) => true,
        Body::Residual(residual) => {
            residual.main_branch().next().is_some_and(|first| first.path() == unit.path())
                || !residual.main_branch().any(|main| main.path() == unit.path())
        }
    };
    let mut groups: Vec<Group> = Vec::new();
    for unit in composite.units() {
        let Body::Unit(body) = unit.body() else { continue };
        let begin = groups.len();
        for projection in body.projections() {
            let name = &model.parameters().parameters()[projection.weight()].name;
            let name = name.strip_suffix(".weight").unwrap_or(name).to_string();
            let site = Site { name, projection: projection.clone(), is_end: false };
            match groups[begin..].iter_mut().find(|group| group.sees == projection.sees()) {
                Some(group) => group.sites.push(site),
                None => {
                    groups.push(Group {
                        sites: vec![site],
                        unit: unit.path().to_string(),
                        sees: projection.sees(),
                        number: *number,
                        is_first: first(unit),
                    });
                    *number += 1;
                }
            }
        }
    }
    groups
}

/// Refuses patterns that match no layer.
pub(super) fn check_patterns(settings: &Quantize, stages: &[Stage<'_>]) -> crate::Result<()> {
    let names: Vec<&str> = sites(stages).map(|site| site.name.as_str()).collect();
    let patterns = settings.layers.iter().chain(&settings.skip).chain(settings.layer_bits.keys());
    for wanted in patterns {
        if !names.iter().any(|name| pattern::matches(wanted, name)) {
            let message = format!("no layer matches {wanted}; the layers are {}", names.join(", "));
            return Err(crate::Error::Config(message));
        }
    }
    Ok(())
}

/// All matrices of weights, in the order of the walk.
pub(super) fn sites<'a>(stages: &'a [Stage<'_>]) -> impl Iterator<Item = &'a Site> {
    stages.iter().flat_map(|stage| &stage.groups).flat_map(|group| &group.sites)
}

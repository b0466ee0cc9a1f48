//! What a network is made of, as far as the auto-builder can change it.

use crate::experiment::{self, ModelName, VggLayer};
use crate::models::{Model, resnet, vgg};
use crate::nn::{Body, Composite};
use crate::{Error, Result};
use std::fmt;

/// A layer that can be measured: a convolution of VGG, or a block of a residual network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its name in the network, such as `features.7` or `layer2.1`.
    pub name: String,
    /// Names of the convolution units within: itself, or those of the block's main branch.
    pub units: Vec<String>,
}

/// The layers of a network in groups: of VGG, the convolutions between two poolings, each with its channels; of a residual network, the blocks of a stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blueprint {
    family: Family,
    groups: Vec<Vec<Slot>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Vgg,
    Residual,
}

/// A layer in its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slot {
    /// Number of the layer in the network that the blueprint was taken of.
    part: usize,
    /// Output channels; 0 for a block, whose stage has them.
    channels: usize,
}

impl Blueprint {
    /// The blueprint of a model as its experiment describes it.
    ///
    /// # Errors
    /// The auto-builder does not know how to change this model.
    pub fn of(model: &experiment::Model) -> Result<Self> {
        let name = model.name;
        let mut number = 0;
        let mut slot = |channels| {
            number += 1;
            Slot { part: number - 1, channels }
        };
        if name.is_vgg() {
            let table = model.layers.as_deref().unwrap_or(vgg::table(name));
            let mut groups = vec![Vec::new()];
            for layer in table {
                match layer {
                    VggLayer::Pool => groups.push(Vec::new()),
                    VggLayer::Conv(channels) => {
                        let slot = slot(model.channels(*channels));
                        groups.iter_mut().last().into_iter().for_each(|group| group.push(slot));
                    }
                }
            }
            return Ok(Blueprint { family: Family::Vgg, groups });
        }
        if name.stages().is_some() {
            let blocks = model.blocks.as_deref().unwrap_or(resnet::blocks(name));
            let groups = blocks.iter().map(|count| (0..*count).map(|_| slot(0)).collect()).collect();
            return Ok(Blueprint { family: Family::Residual, groups });
        }
        let can = |name: &&ModelName| name.is_vgg() || name.stages().is_some();
        let names: Vec<&str> = ModelName::ALL.iter().filter(can).map(|name| name.name()).collect();
        Err(Error::Config(format!("the auto-builder does not work for {name}; it does for {}", names.join(", "))))
    }

    /// Makes a model be what this blueprint says. Channels of VGG are then given one by one, for `width` 1.
    pub fn write(&self, model: &mut experiment::Model) {
        match self.family {
            Family::Vgg => {
                let mut table = Vec::new();
                for (number, group) in self.groups.iter().enumerate() {
                    table.extend((number > 0).then_some(VggLayer::Pool));
                    table.extend(group.iter().map(|slot| VggLayer::Conv(slot.channels)));
                }
                (model.layers, model.width) = (Some(table), 1.0);
            }
            Family::Residual => model.blocks = Some(self.groups.iter().map(Vec::len).collect()),
        }
    }

    /// Whether layers can shrink by themselves: those of a stage with identity shortcuts cannot.
    pub fn shrinks(&self) -> bool {
        self.family == Family::Vgg
    }

    /// Numbers, in the network that the blueprint was taken of, of the layers that are left.
    pub fn parts(&self) -> Vec<usize> {
        self.groups.iter().flatten().map(|slot| slot.part).collect()
    }

    /// The network without that layer; `None` where it cannot be left out.
    ///
    /// A convolution of VGG can be left out while another one of its group stays and the channels that the group hands on stay the same. A block of a residual
    /// network can be left out where its input has the shape of its output, which holds for all but the first of a stage.
    pub fn without(&self, part: usize) -> Option<Blueprint> {
        let (group, place) = self.find(part)?;
        let slots = &self.groups[group];
        let fits = match self.family {
            Family::Vgg if place + 1 < slots.len() => true,
            Family::Vgg => place > 0 && slots[place - 1].channels == slots[place].channels,
            Family::Residual => place > 0,
        };
        fits.then(|| {
            let mut smaller = self.clone();
            smaller.groups[group].remove(place);
            smaller
        })
    }

    /// The network with that share of the layer's channels, at least one, and the channels before and after; `None` where it cannot shrink further.
    pub fn shrunk(&self, part: usize, share: f64) -> Option<(Blueprint, [usize; 2])> {
        let (group, place) = self.find(part).filter(|_| self.shrinks())?;
        let before = self.groups[group][place].channels;
        let after = ((before as f64 * share).round() as usize).max(1);
        (after < before).then(|| {
            let mut smaller = self.clone();
            smaller.groups[group][place].channels = after;
            (smaller, [before, after])
        })
    }

    fn find(&self, part: usize) -> Option<(usize, usize)> {
        let mut groups = self.groups.iter().enumerate();
        groups.find_map(|(group, slots)| Some((group, slots.iter().position(|slot| slot.part == part)?)))
    }
}

/// The table as an experiment writes it, or the blocks of the stages.
impl fmt::Display for Blueprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let join = |slots: &[Slot]| slots.iter().map(|slot| slot.channels.to_string()).collect::<Vec<_>>().join(" ");
        let groups = self.groups.iter();
        let words: Vec<String> = match self.family {
            Family::Vgg => groups.map(|group| join(group)).collect(),
            Family::Residual => groups.map(|group| group.len().to_string()).collect(),
        };
        match self.family {
            Family::Vgg => f.write_str(words.join(" pool ").trim_end()),
            Family::Residual => write!(f, "{} blocks", words.join("-")),
        }
    }
}

/// The layers of a built model, in the order of its blueprint.
pub fn parts(model: &Model) -> Vec<Part> {
    let path = |composite: &Composite| composite.path().to_string();
    let of = |composite: &Composite| match composite.body() {
        Body::Unit(_) => vec![path(composite)],
        Body::Residual(block) => block.main_branch().map(path).collect(),
    };
    let composites = model.network().composites().into_iter();
    let measured = composites.filter(|composite| match composite.body() {
        Body::Unit(_) => model.name().is_vgg() && composite.path().starts_with("features."),
        Body::Residual(_) => true,
    });
    measured.map(|composite| Part { name: path(composite), units: of(composite) }).collect()
}

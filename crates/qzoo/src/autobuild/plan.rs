use super::reduce::reduce;
use super::{Blueprint, Budget, Reduced, Rules, Size, parts};
use crate::experiment::{Autobuild, Experiment, NeuronName, pattern};
use crate::models::Model;
use crate::{Error, Result};

/// The images that a network is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Images {
    /// `[C, H, W]`.
    pub shape: [usize; 3],
    /// Number of classes.
    pub classes: usize,
}

/// What a search is about to do, before any training.
#[derive(Clone, Debug)]
pub struct Plan {
    pub(super) experiment: Experiment,
    pub(super) settings: Autobuild,
    images: Images,
    blueprint: Blueprint,
    full: Size,
    smallest: Size,
    budget: Budget,
}

impl Plan {
    /// Works out the full network, its costs and the limits of the experiment.
    ///
    /// # Errors
    /// The experiment has no `[autobuild]`, its model or its neuron does not fit, or the limits are below what the reduction can reach.
    pub fn new(experiment: &Experiment, images: Images) -> Result<Self> {
        let Some(settings) = experiment.autobuild.clone() else {
            let message = "the experiment has no [autobuild]; add the section, or a budget with --set autobuild.max_parameters=0.5";
            return Err(Error::Config(message.into()));
        };
        let (own, wanted) = (experiment.model.neuron, settings.neuron);
        if own != NeuronName::Linear && own != wanted {
            let message =
                format!("model.neuron is {own} already, and autobuild.neuron {wanted}; give both the same name");
            return Err(Error::Config(message));
        }
        if !experiment.model.neurons.is_empty() {
            let message = "the auto-builder gives all layers one neuron, and names of layers change when others go: leave out model.neurons";
            return Err(Error::Config(message.into()));
        }
        let blueprint = Blueprint::of(&experiment.model)?;
        let mut plan = Plan {
            experiment: experiment.clone(),
            settings,
            images,
            blueprint,
            full: Size::default(),
            smallest: Size::default(),
            budget: Budget::default(),
        };
        plan.full = plan.size(&plan.blueprint)?;
        plan.budget = Budget::new(plan.settings.max_parameters, plan.settings.max_macs, plan.full);
        plan.smallest = plan.reach(&plan.blueprint, usize::MAX)?.size;
        if !plan.budget.holds(plan.smallest) {
            let (limits, least) = (plan.budget, plan.smallest);
            let limit = |limit: Option<u64>| limit.map_or_else(|| "any".into(), |limit| limit.to_string());
            let message = format!(
                "the limits are {} parameters and {} multiplications, but reduce = {:?} comes down to {} and {} at best",
                limit(limits.parameters),
                limit(limits.macs),
                plan.settings.reduce.name(),
                least.parameters,
                least.macs
            );
            return Err(Error::Config(message));
        }
        // Both trainings must be possible before the first one begins.
        plan.round(0, &plan.blueprint)?;
        plan.round(1, &plan.blueprint)?;
        Ok(plan)
    }

    /// The full network.
    pub fn blueprint(&self) -> &Blueprint {
        &self.blueprint
    }

    /// What the full network costs.
    pub fn full(&self) -> Size {
        self.full
    }

    /// The limits in numbers.
    pub fn budget(&self) -> Budget {
        self.budget
    }

    /// What the smallest network costs that the reduction could come to within the limits.
    pub fn smallest(&self) -> Size {
        self.smallest
    }

    /// The next network, by the importance of the layers of this one.
    pub(super) fn reduce(&self, blueprint: &Blueprint, layers: &[(String, f64)]) -> Result<Reduced> {
        let most = match self.settings.changes_per_round {
            0 if self.budget.is_some() => usize::MAX,
            0 => 1,
            most => most,
        };
        reduce(blueprint, layers, &self.rules(most), &|blueprint| self.size(blueprint))
    }

    /// Where the reduction ends that goes as far as the limits ask for.
    fn reach(&self, blueprint: &Blueprint, most: usize) -> Result<Reduced> {
        // Which layers go does not matter for whether the limits can be reached: in the end all are tried.
        let layers: Vec<(String, f64)> = blueprint.parts().iter().map(|_| (String::new(), 1.0)).collect();
        let size = |blueprint: &Blueprint| self.size(blueprint);
        reduce(blueprint, &layers, &self.rules(if self.budget.is_some() { most } else { 0 }), &size)
    }

    fn rules(&self, most: usize) -> Rules {
        let Autobuild { reduce: how, shrink, .. } = self.settings;
        Rules { how, shrink, budget: self.budget, most }
    }

    /// What a network of these layers costs.
    pub(super) fn size(&self, blueprint: &Blueprint) -> Result<Size> {
        let rows = self.model(&self.quadratic(blueprint))?.summary()?;
        Ok(Size {
            parameters: rows.iter().map(|row| row.parameters as u64).sum(),
            macs: rows.iter().map(|row| row.macs).sum(),
        })
    }

    fn quadratic(&self, blueprint: &Blueprint) -> Experiment {
        let mut experiment = self.experiment.clone();
        experiment.model.neuron = self.settings.neuron;
        if *blueprint != self.blueprint {
            blueprint.write(&mut experiment.model);
        }
        experiment
    }

    pub(super) fn model(&self, experiment: &Experiment) -> Result<Model> {
        let Images { shape, classes } = self.images;
        let refused = |error: qgraph::Error| Error::Config(format!("{}: {error}", experiment.model.name));
        Model::build(&experiment.model, shape, classes, experiment.seed).map_err(refused)
    }

    /// The experiment of a round.
    pub(super) fn round(&self, number: usize, blueprint: &Blueprint) -> Result<Experiment> {
        let mut experiment = self.quadratic(blueprint);
        let suffix = format!("-round-{number}");
        experiment.name = self.experiment.name.chars().take(64 - suffix.len()).collect::<String>() + &suffix;
        experiment.autobuild = None;
        let epochs = if number == 0 { self.settings.epochs } else { self.settings.reduced_epochs };
        experiment.train.epochs = epochs.unwrap_or(experiment.train.epochs);
        if number > 0 {
            // Layers that are gone need no mode of their own.
            let model = self.model(&experiment)?;
            let names = model.composites();
            experiment.backward.layers.retain(|wanted, _| names.iter().any(|name| pattern::matches(wanted, name)));
        }
        match experiment.validate().first() {
            None => Ok(experiment),
            Some(problem) => Err(Error::Config(format!("the experiment of round {number} would be wrong: {problem}"))),
        }
    }

    /// The layers of a round's network that are measured.
    pub(super) fn parts(&self, blueprint: &Blueprint) -> Result<Vec<super::Part>> {
        Ok(parts(&self.model(&self.quadratic(blueprint))?))
    }
}

//! `[optim]`: the update rule, its learning rate and its groups of parameters.

use serde::{Deserialize, Serialize};

use super::check::Checker;
use super::named::named_enum;
use super::pattern;

named_enum! {
    /// The optimizers that an experiment can name.
    OptimName {
        Sgd = "sgd", "stochastic gradient descent, with momentum and Nesterov's form of it";
        Adam = "adam", "Adam with L2 decay added to the gradient (Kingma and Ba 2015)";
        AdamW = "adamw", "Adam with decoupled weight decay (Loshchilov and Hutter 2019)";
        Adadelta = "adadelta", "step sizes from running averages of squared gradients and updates (Zeiler 2012)";
    }
}

/// `[optim]`: the keys that every optimizer has, and the rule with its own.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Optim {
    /// `name` and the keys of that optimizer alone.
    #[serde(flatten)]
    pub rule: Rule,
    /// Learning rate before the schedule, above 0. Default: sgd 0.1, adam and adamw 0.001, adadelta 1.
    pub lr: f64,
    /// Weight decay, 0 or larger. Default: adamw 0.01, the others 0.
    pub weight_decay: f64,
    /// Whether biases and the scales and shifts of normalisations decay too. Default true.
    pub decay_norms_and_biases: bool,
    /// Factor on the learning rate of the second-order part of quadratic neurons, 0 or larger (0 freezes it); groups with a rate of their own keep that.
    /// Default 1.
    pub quadratic_lr: f64,
    /// Parameters with a learning rate or decay of their own. The first group whose pattern matches holds. Default none.
    pub groups: Vec<Group>,
}

/// The optimizer and the keys that only it has.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "name", rename_all = "lowercase")]
pub enum Rule {
    /// `name = "sgd"`.
    Sgd(Sgd),
    /// `name = "adam"`.
    Adam(Adam),
    /// `name = "adamw"`.
    AdamW(AdamW),
    /// `name = "adadelta"`.
    Adadelta(Adadelta),
}

/// Keys of `name = "sgd"`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sgd {
    /// Share of the last update that is kept, in [0, 1). Default 0.
    pub momentum: f64,
    /// Share of the gradient that momentum leaves out, in [0, 1]. Default 0.
    pub dampening: f64,
    /// Nesterov's form of momentum; needs momentum above 0 and no dampening. Default false.
    pub nesterov: bool,
}

/// Keys of `name = "adam"`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Adam {
    /// Decay of the running averages of the gradient and of its square, each in [0, 1). Default [0.9, 0.999].
    pub betas: [f64; 2],
    /// Added to the denominator, above 0. Default 1e-8.
    pub eps: f64,
}

/// Keys of `name = "adamw"`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdamW {
    /// Decay of the running averages of the gradient and of its square, each in [0, 1). Default [0.9, 0.999].
    pub betas: [f64; 2],
    /// Added to the denominator, above 0. Default 1e-8.
    pub eps: f64,
}

/// Keys of `name = "adadelta"`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Adadelta {
    /// Decay of the running averages, in [0, 1). Default 0.9.
    pub rho: f64,
    /// Added under both roots, above 0. Default 1e-6.
    pub eps: f64,
}

/// One entry of `groups`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Group {
    /// Pattern of parameter names (`*` any characters, `?` one). Required.
    pub pattern: String,
    /// Learning rate of these parameters before the schedule, 0 or larger (0 freezes them). Default: `optim.lr`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lr: Option<f64>,
    /// Weight decay of these parameters, norms and biases included. Default: what the rest has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight_decay: Option<f64>,
}

impl Default for Sgd {
    fn default() -> Self {
        Sgd { momentum: 0.0, dampening: 0.0, nesterov: false }
    }
}

impl Default for Adam {
    fn default() -> Self {
        Adam { betas: [0.9, 0.999], eps: 1e-8 }
    }
}

impl Default for AdamW {
    fn default() -> Self {
        AdamW { betas: [0.9, 0.999], eps: 1e-8 }
    }
}

impl Default for Adadelta {
    fn default() -> Self {
        Adadelta { rho: 0.9, eps: 1e-6 }
    }
}

impl Rule {
    /// The optimizer's name.
    pub fn name(&self) -> OptimName {
        match self {
            Rule::Sgd(_) => OptimName::Sgd,
            Rule::Adam(_) => OptimName::Adam,
            Rule::AdamW(_) => OptimName::AdamW,
            Rule::Adadelta(_) => OptimName::Adadelta,
        }
    }

    /// The rule of that name with its defaults.
    pub fn of(name: OptimName) -> Rule {
        match name {
            OptimName::Sgd => Rule::Sgd(Sgd::default()),
            OptimName::Adam => Rule::Adam(Adam::default()),
            OptimName::AdamW => Rule::AdamW(AdamW::default()),
            OptimName::Adadelta => Rule::Adadelta(Adadelta::default()),
        }
    }
}

impl Optim {
    /// The optimizer of that name with its defaults.
    pub fn of(name: OptimName) -> Optim {
        let (lr, weight_decay) = match name {
            OptimName::Sgd => (0.1, 0.0),
            OptimName::Adam => (1e-3, 0.0),
            OptimName::AdamW => (1e-3, 1e-2),
            OptimName::Adadelta => (1.0, 0.0),
        };
        Optim {
            rule: Rule::of(name),
            lr,
            weight_decay,
            decay_norms_and_biases: true,
            quadratic_lr: 1.0,
            groups: Vec::new(),
        }
    }

    /// The first group whose pattern matches the parameter's name.
    pub fn group_of(&self, parameter: &str) -> Option<&Group> {
        self.groups.iter().find(|group| pattern::matches(&group.pattern, parameter))
    }
}

impl Default for Optim {
    fn default() -> Self {
        Optim::of(OptimName::Sgd)
    }
}

impl Optim {
    pub(super) fn check(&self, checker: &mut Checker<'_>) {
        checker.positive("lr", self.lr);
        checker.not_negative("weight_decay", self.weight_decay);
        checker.not_negative("quadratic_lr", self.quadratic_lr);
        self.rule.check(checker);
        for (index, group) in self.groups.iter().enumerate() {
            group.check(&mut checker.within("groups").within(index));
        }
    }
}

impl Rule {
    fn check(&self, checker: &mut Checker<'_>) {
        match self {
            Rule::Sgd(sgd) => sgd.check(checker),
            Rule::Adam(Adam { betas, eps }) | Rule::AdamW(AdamW { betas, eps }) => {
                for (index, beta) in betas.iter().enumerate() {
                    if !(0.0..1.0).contains(beta) {
                        let message = format!("an element of \"betas\" must be 0 or larger and below 1, not {beta}");
                        checker.within("betas").wrong(index, message, None);
                    }
                }
                checker.positive("eps", *eps);
            }
            Rule::Adadelta(Adadelta { rho, eps }) => {
                checker.share("rho", *rho);
                checker.positive("eps", *eps);
            }
        }
    }
}

impl Sgd {
    fn check(&self, checker: &mut Checker<'_>) {
        checker.share("momentum", self.momentum);
        checker.closed_share("dampening", self.dampening);
        if self.nesterov && self.momentum == 0.0 {
            let message = "\"nesterov\" needs a momentum above 0".to_owned();
            checker.conflict("nesterov", message, Some("momentum = 0.9, or nesterov = false"));
        }
        if self.nesterov && self.dampening != 0.0 {
            let message = "\"nesterov\" allows no dampening".to_owned();
            checker.conflict("dampening", message, Some("dampening = 0, or nesterov = false"));
        }
    }
}

impl Group {
    fn check(&self, checker: &mut Checker<'_>) {
        if let Some(mistake) = pattern::mistake(&self.pattern) {
            let message = format!("{:?} is no pattern of parameter names: {mistake}", self.pattern);
            checker.wrong("pattern", message, None);
        }
        if let Some(lr) = self.lr {
            checker.not_negative("lr", lr);
        }
        if let Some(weight_decay) = self.weight_decay {
            checker.not_negative("weight_decay", weight_decay);
        }
        if self.lr.is_none() && self.weight_decay.is_none() {
            let message = "the group sets neither \"lr\" nor \"weight_decay\"".to_owned();
            checker.conflict("pattern", message, Some("add one of them or remove the group"));
        }
    }
}

use qtensor::random::philox4x32;
use qtensor::{Error, Result};

/// The characters that a weight may become: `unit · (level - zero point)`, computed in f32, with a unit and a zero point for all neurons or one for each.
///
/// Equally spaced levels are whole numbers: `-K … K`, or odd ones where there is no zero.
#[derive(Clone, Debug, PartialEq)]
pub struct Grid {
    levels: Vec<f32>,
    units: Vec<f32>,
    zero_points: Vec<f32>,
    /// Distance of neighbouring levels where all are the same.
    step: Option<f64>,
}

impl Grid {
    /// Levels in ascending order, one unit for all neurons or one for each.
    ///
    /// # Errors
    /// No level, more than 65,536, or levels that do not ascend; no unit; values that are negative (units), infinite or not a number.
    pub fn new(levels: Vec<f32>, units: Vec<f32>) -> Result<Self> {
        let ascend = levels.windows(2).all(|pair| pair[0] < pair[1]);
        if levels.is_empty() || levels.len() > 1 << 16 || !ascend || levels.iter().any(|level| !level.is_finite()) {
            return Err(Error::argument("grid", "levels must be 1 to 65,536 finite numbers in ascending order"));
        }
        if units.is_empty() || units.iter().any(|unit| !(*unit >= 0.0 && unit.is_finite())) {
            return Err(Error::argument(
                "grid",
                "units must be finite numbers of at least 0, one or one for each neuron",
            ));
        }
        let steps = levels.windows(2).map(|pair| f64::from(pair[1]) - f64::from(pair[0]));
        let step = steps.clone().next().unwrap_or(1.0);
        let step = steps.clone().all(|other| other == step).then_some(step);
        Ok(Grid { levels, units, zero_points: vec![0.0], step })
    }

    /// `count` equally spaced levels around 0: `-K … K` for an odd count, odd numbers for an even one.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn uniform(count: usize, units: Vec<f32>) -> Result<Self> {
        let (half, step) = if count % 2 == 1 { ((count / 2) as f32, 1.0) } else { (count as f32 - 1.0, 2.0) };
        Grid::new((0..count).map(|i| step * i as f32 - half).collect(), units)
    }

    /// The same with a level that stands for 0, one for all neurons or one for each.
    ///
    /// # Errors
    /// Zero points that are infinite or not a number, or none.
    pub fn with_zero_points(self, zero_points: Vec<f32>) -> Result<Self> {
        if zero_points.is_empty() || zero_points.iter().any(|point| !point.is_finite()) {
            return Err(Error::argument("grid", "zero points must be finite numbers, one or one for each neuron"));
        }
        Ok(Grid { zero_points, ..self })
    }

    /// The levels.
    pub fn levels(&self) -> &[f32] {
        &self.levels
    }

    /// The units: one, or one for each neuron.
    pub fn units(&self) -> &[f32] {
        &self.units
    }

    /// The zero points: one, or one for each neuron.
    pub fn zero_points(&self) -> &[f32] {
        &self.zero_points
    }

    /// The same levels with other units.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_units(&self, units: Vec<f32>) -> Result<Self> {
        Grid::new(self.levels.clone(), units)?.with_zero_points(self.zero_points.clone())
    }

    pub(super) fn unit(&self, neuron: usize) -> f32 {
        self.units[if self.units.len() == 1 { 0 } else { neuron }]
    }

    fn zero_point(&self, neuron: usize) -> f32 {
        self.zero_points[if self.zero_points.len() == 1 { 0 } else { neuron }]
    }

    /// The character of that level.
    pub fn character(&self, neuron: usize, level: usize) -> f32 {
        self.unit(neuron) * (self.levels[level] - self.zero_point(neuron))
    }

    /// Position of the level whose character that is, or `None` where it is none.
    pub fn level_of(&self, neuron: usize, character: f32) -> Option<usize> {
        let nearest = self.nearest(self.position(neuron, f64::from(character)), Ties::Down);
        (self.character(neuron, nearest) == character).then_some(nearest)
    }

    /// Refuses a number of neurons for which there are not enough units or zero points.
    pub(super) fn check(&self, neurons: usize) -> Result<()> {
        let fits = |count: usize| count == 1 || count == neurons;
        if fits(self.units.len()) && fits(self.zero_points.len()) {
            return Ok(());
        }
        let (units, points) = (self.units.len(), self.zero_points.len());
        Err(Error::argument("grid", format!("{units} units and {points} zero points for {neurons} neurons")))
    }

    /// A value in the measure of the levels.
    fn position(&self, neuron: usize, value: f64) -> f64 {
        let unit = f64::from(self.unit(neuron));
        if unit == 0.0 { f64::from(self.zero_point(neuron)) } else { value / unit + f64::from(self.zero_point(neuron)) }
    }

    /// The nearest level to a position.
    fn nearest(&self, position: f64, ties: Ties) -> usize {
        let last = self.levels.len() - 1;
        if let Some(step) = self.step {
            let steps = (position - f64::from(self.levels[0])) / step;
            let nearest = match ties {
                Ties::Down => (steps - 0.5).ceil(),
                Ties::Up => (steps + 0.5).floor(),
            };
            return nearest.clamp(0.0, last as f64) as usize;
        }
        let middle = |i: usize| (f64::from(self.levels[i]) + f64::from(self.levels[i + 1])) / 2.0;
        let above = |i: usize| match ties {
            Ties::Down => position > middle(i),
            Ties::Up => position >= middle(i),
        };
        // Levels are few; the search ends at the first whose upper border lies above the position.
        let (mut low, mut high) = (0, last);
        while low < high {
            let i = (low + high) / 2;
            if above(i) { low = i + 1 } else { high = i }
        }
        low
    }

    /// The level below a position and how far the position lies on the way to the next one; beyond the ends, the end.
    fn floor(&self, position: f64) -> (usize, f64) {
        let above = self.levels.partition_point(|level| f64::from(*level) <= position);
        let last = self.levels.len() - 1;
        if above == 0 || above > last {
            return (above.saturating_sub(1).min(last), 0.0);
        }
        let (low, high) = (f64::from(self.levels[above - 1]), f64::from(self.levels[above]));
        (above - 1, (position - low) / (high - low))
    }
}

/// Where the middle between two characters goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ties {
    /// To the lower one, as an arg min over ascending characters does.
    Down,
    /// To the upper one.
    Up,
}

/// How a number becomes a character.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mode {
    /// The nearest one.
    Nearest(Ties),
    /// One of the two neighbours, so that the mean is the number (Zhang, Zhou and Saab 2023). The noise depends on nothing but the seed, the layer, the pass,
    /// the neuron and the feature.
    Stochastic {
        /// Seed of the experiment.
        seed: u64,
        /// Number of the layer.
        layer: u32,
        /// Number of the pass over the layer.
        pass: u32,
    },
    /// The nearest one to `sign(x) · max(|x| - threshold, 0)`: sparse weights by an L1 penalty.
    Soft {
        /// In units of the weights.
        threshold: f64,
    },
    /// 0 where `|x|` is at most the threshold, else the nearest one: sparse weights by an L0 penalty. The grid should have no level between 0 and the threshold.
    Hard {
        /// In units of the weights.
        threshold: f64,
    },
}

/// A grid and how numbers become its characters.
#[derive(Clone, Debug)]
pub struct Rounding {
    /// The characters.
    pub grid: Grid,
    /// The way to them.
    pub mode: Mode,
}

impl Rounding {
    /// To the nearest character, middles down.
    pub fn nearest(grid: Grid) -> Self {
        Rounding { grid, mode: Mode::Nearest(Ties::Down) }
    }

    /// The character for the argument of a neuron at a feature.
    pub fn round(&self, feature: usize, neuron: usize, argument: f64) -> f32 {
        let grid = &self.grid;
        let nearest = |x: f64| grid.character(neuron, grid.nearest(grid.position(neuron, x), Ties::Down));
        match self.mode {
            Mode::Nearest(ties) => grid.character(neuron, grid.nearest(grid.position(neuron, argument), ties)),
            Mode::Stochastic { seed, layer, pass } => {
                let (level, share) = grid.floor(grid.position(neuron, argument));
                let counter = [feature as u32, neuron as u32, layer, pass];
                let noise = philox4x32(counter, [seed as u32, (seed >> 32) as u32])[0];
                let up = f64::from(noise) / 4_294_967_296.0 < share;
                grid.character(neuron, level + usize::from(up))
            }
            Mode::Soft { threshold } => nearest(argument.signum() * (argument.abs() - threshold).max(0.0)),
            Mode::Hard { threshold } if argument.abs() <= threshold => 0.0,
            Mode::Hard { .. } => nearest(argument),
        }
    }
}

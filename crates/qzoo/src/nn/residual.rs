use super::{Composite, Context, Walk};
use qgraph::{Error, Result, Tape, Var};

/// A residual block (He et al., 2016): units one after the other, whose last one adds the block's input before its activation.
///
/// Two units of 3x3 make a basic block, three of 1x1, 3x3, 1x1 a bottleneck. Where the shape changes, the shortcut is a unit of its
/// own (1x1 convolution and normalisation, "option B").
#[derive(Clone, Debug)]
pub struct Residual {
    units: Vec<Composite>,
    last: Composite,
    shortcut: Option<Composite>,
}

impl Residual {
    /// A block of these units, with the shortcut where the shape changes.
    ///
    /// # Errors
    /// There is no unit.
    pub fn new(mut units: Vec<Composite>, shortcut: Option<Composite>) -> Result<Self> {
        let last = units.pop().ok_or_else(|| Error::argument("residual", "a block needs at least one unit"))?;
        Ok(Residual { units, last, shortcut })
    }

    /// `last(… first(x)) + shortcut(x)`, activated.
    ///
    /// # Errors
    /// The input does not fit.
    pub fn forward(&self, tape: &mut Tape, x: &Var, context: &Context) -> Result<Var> {
        let mut y = x.clone();
        for unit in &self.units {
            y = unit.forward(tape, &y, None, context)?;
        }
        let residual = match &self.shortcut {
            Some(shortcut) => shortcut.forward(tape, x, None, context)?,
            None => x.clone(),
        };
        self.last.forward(tape, &y, Some(&residual), context)
    }

    /// The units of the main branch, in order.
    pub fn main_branch(&self) -> impl Iterator<Item = &Composite> {
        self.units.iter().chain([&self.last])
    }

    /// What the block's input goes through before it is added; `None` where it is added as it is.
    pub fn shortcut(&self) -> Option<&Composite> {
        self.shortcut.as_ref()
    }

    /// Whether input and output have one shape, so that the network stays one without the block.
    pub fn keeps_shape(&self) -> bool {
        self.shortcut.is_none()
    }

    /// The composites within, in the order of their parameters.
    pub fn children(&self) -> impl Iterator<Item = &Composite> {
        self.main_branch().chain(&self.shortcut)
    }

    /// Adds the rows of all layers; returns the output's shape.
    ///
    /// # Errors
    /// The input does not fit, or the two branches do not fit each other.
    pub fn describe(&self, input: &[usize], walk: &mut Walk) -> Result<Vec<usize>> {
        let mut output = input.to_vec();
        for unit in self.main_branch() {
            output = unit.describe(&output, walk)?;
        }
        let shortcut = match &self.shortcut {
            Some(shortcut) => shortcut.describe(input, walk)?,
            None => input.to_vec(),
        };
        if shortcut != output {
            return Err(Error::shape("residual", format!("the branches give {output:?} and {shortcut:?}")));
        }
        Ok(output)
    }
}

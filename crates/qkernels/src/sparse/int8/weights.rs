//! Weights as bytes.

use super::super::plan::Plan;
use super::index::{Index, Quads, Side};
use crate::par;
use crate::rounding::{Clip, Format, Groups, Quantizer, Rounding};
use qtensor::{Error, Result, Tensor};
use std::sync::{Arc, OnceLock};

/// Weights that one thread takes at a time.
const PIECE: usize = 16 * 1024;

/// How the values of a layer become i8 codes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ByteScheme {
    /// How ranges are chosen.
    pub clip: Clip,
    /// How a value between two codes becomes one of them.
    pub rounding: Rounding,
    /// Whether every output (in the forward pass) and every input (in the input gradient) has a scale of its own, or all weights share one.
    pub per_channel: bool,
    /// For which passes codes are made.
    pub passes: BytePasses,
}

/// The passes that read weights: each has codes of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BytePasses {
    /// The forward pass.
    Forward,
    /// The input gradient.
    InputGrad,
    /// Both.
    Both,
}

impl Default for ByteScheme {
    /// Nothing clipped, to nearest, by channel, for both passes.
    fn default() -> Self {
        ByteScheme { clip: Clip::AbsMax, rounding: Rounding::Nearest, per_channel: true, passes: BytePasses::Both }
    }
}

/// The values of a layer as i8 codes from -127 to 127, for one plan: [`Plan::quantize`] makes them anew after each change of the values.
#[derive(Clone, Debug)]
pub struct ByteWeights {
    index: Arc<OnceLock<Index>>,
    forward: Option<Packed>,
    input_grad: Option<Packed>,
}

/// The codes of one direction.
#[derive(Clone, Debug)]
pub(super) struct Packed {
    /// Of each target channel, or one of all.
    scales: Vec<f32>,
    /// i8, in the order of the target channels.
    codes: Tensor,
    /// For each list of the walk.
    pub(super) lists: Vec<PackedList>,
}

/// The codes of a list.
#[derive(Clone, Debug)]
pub(super) struct PackedList {
    /// Four codes each.
    pub(super) words: Vec<i32>,
    /// The sum of each target channel's codes.
    pub(super) sums: Vec<i32>,
}

impl Plan {
    /// The codes of values for the passes of the scheme.
    ///
    /// # Errors
    /// `values` is no f32 vector with a number for each weight of the pattern; a rule with parameters out of range; a value that is infinite or not a number; a channel whose sum of bytes
    /// might not fit 32 bits: more than 66311 weights.
    pub fn quantize(&self, values: &Tensor, scheme: &ByteScheme) -> Result<ByteWeights> {
        let values = self.pattern.check_values("sparse quantize", values)?;
        let index = self.index()?;
        let input_grad = || {
            let memory = values.as_slice::<f32>()?;
            let order = &index.input_grad.order;
            let moved = par::collect(order.len(), PIECE, |place| memory[order[place] as usize]);
            Packed::new(&Tensor::from_vec([order.len()], moved)?, &index.input_grad, scheme)
        };
        let forward = || Packed::new(&values, &index.forward, scheme);
        Ok(ByteWeights {
            index: self.bytes.clone(),
            forward: (scheme.passes != BytePasses::InputGrad).then(forward).transpose()?,
            input_grad: (scheme.passes != BytePasses::Forward).then(input_grad).transpose()?,
        })
    }

    /// What passes with bytes read besides the walks.
    pub(super) fn index(&self) -> Result<&Index> {
        if let Some(index) = self.bytes.get() {
            return Ok(index);
        }
        let made = Index::new(self)?;
        Ok(self.bytes.get_or_init(|| made))
    }
}

impl ByteWeights {
    /// i8 codes of the forward pass, in the order of the values; `None` where the scheme left them out.
    pub fn forward_codes(&self) -> Option<&Tensor> {
        self.forward.as_ref().map(|packed| &packed.codes)
    }

    /// The scale of each output, or one for all weights; `None` where the scheme left them out.
    pub fn forward_scales(&self) -> Option<&[f32]> {
        self.forward.as_ref().map(|packed| &packed.scales[..])
    }

    /// i8 codes of the input gradient, in the order of the values; `None` where the scheme left them out.
    ///
    /// # Errors
    /// There is no room.
    pub fn input_grad_codes(&self) -> Result<Option<Tensor>> {
        let (Some(packed), Some(index)) = (&self.input_grad, self.index.get()) else { return Ok(None) };
        let mut codes = vec![0i8; index.input_grad.order.len()];
        let places = index.input_grad.order.iter().zip(packed.codes.as_slice::<i8>()?);
        places.for_each(|(position, code)| codes[*position as usize] = *code);
        Tensor::from_vec([codes.len()], codes).map(Some)
    }

    /// The scale of each input, or one for all weights; `None` where the scheme left them out.
    pub fn input_grad_scales(&self) -> Option<&[f32]> {
        self.input_grad.as_ref().map(|packed| &packed.scales[..])
    }

    /// The codes of the forward pass of a plan.
    ///
    /// # Errors
    /// They were made for another plan, or without those of the forward pass.
    pub(super) fn of_forward(&self, op: &'static str, plan: &Plan) -> Result<&Packed> {
        self.check(op, plan)?;
        self.forward.as_ref().ok_or_else(|| missing(op))
    }

    /// The codes of the input gradient of a plan.
    ///
    /// # Errors
    /// They were made for another plan, or without those of the input gradient.
    pub(super) fn of_input_grad(&self, op: &'static str, plan: &Plan) -> Result<&Packed> {
        self.check(op, plan)?;
        self.input_grad.as_ref().ok_or_else(|| missing(op))
    }

    fn check(&self, op: &'static str, plan: &Plan) -> Result<()> {
        if Arc::ptr_eq(&self.index, &plan.bytes) {
            return Ok(());
        }
        Err(Error::argument(op, "the weights were quantized for another plan; quantize the values with this one"))
    }
}

fn missing(op: &'static str) -> Error {
    Error::argument(op, "the weights have no codes for this pass: name it in the `passes` of their ByteScheme")
}

impl Packed {
    /// From the values in the order of the target channels.
    fn new(values: &Tensor, side: &Side, scheme: &ByteScheme) -> Result<Packed> {
        let groups = if scheme.per_channel { Groups::Rows(side.starts.clone()) } else { Groups::Tensor };
        let quantizer = Quantizer::choose(values, groups, Format::Signed, scheme.clip)?;
        let codes = quantizer.quantize(values, scheme.rounding)?;
        // The last is that of the places that fill up fours.
        let bytes: Vec<i8> = codes.as_slice::<i8>()?.iter().copied().chain([0]).collect();
        let lists = par::map(side.lists.len(), |i| PackedList::new(&side.lists[i], &bytes));
        Ok(Packed { scales: quantizer.scales().to_vec(), codes, lists })
    }

    /// The factor of each target channel's sums where a source step has that value.
    ///
    /// # Errors
    /// One is larger than f32 can be.
    pub(super) fn factors(&self, op: &'static str, source: f32, channels: usize) -> Result<Vec<f32>> {
        let factor = |channel: usize| {
            let scale = if self.scales.len() == 1 { self.scales[0] } else { self.scales[channel] };
            let factor = scale * source;
            let too_large = || {
                let message = format!("the scales {scale} of channel {channel} and {source} have a product beyond f32");
                Error::argument(op, message)
            };
            if factor.is_finite() { Ok(factor) } else { Err(too_large()) }
        };
        (0..channels).map(factor).collect()
    }
}

impl PackedList {
    fn new(quads: &Quads, codes: &[i8]) -> PackedList {
        let four = |places: &[u32; 4]| places.map(|place| codes[place as usize]);
        let word = |quad: usize| i32::from_le_bytes(four(&quads.places[quad]).map(|code| code as u8));
        let words = par::collect(quads.places.len(), PIECE / 4, word);
        let sum = |channel: usize| {
            let words = words[quads.starts[channel]..quads.starts[channel + 1]].iter();
            words.flat_map(|word| word.to_le_bytes()).map(|code| i32::from(code as i8)).sum()
        };
        let channels = quads.starts.len() - 1;
        let sums = par::collect(channels, (PIECE * channels).div_ceil(codes.len()).max(1), sum);
        PackedList { words, sums }
    }
}

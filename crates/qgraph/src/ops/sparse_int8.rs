//! Sparse maps in bytes.

use super::sparse::{Gradients, Operands, SparseMap, both};
use crate::half::fitting;
use crate::{Result, Saved};
use qkernels::rounding::{Clip, Format, Groups, Logarithmic, Quantizer, Rounding};
use qkernels::sparse::{ByteCodes, ByteForward, BytePasses, ByteScheme, Order};
use qtensor::{DType, Tensor};
use std::sync::Arc;

/// How the operands of a [`SparseMap`] become bytes. Gradients pass the rounding of inputs and weights as if it were not there, and are 0 where these are clipped (the straight-through
/// rule with the clipping mask).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SparseInt8 {
    /// The range of the weights, which are rounded to nearest.
    pub weights: Clip,
    /// Whether each output has a range of its own for its weights, and each input for theirs in the input gradient.
    pub per_channel: bool,
    /// The range of the inputs, which are rounded to nearest.
    pub inputs: Clip,
    /// How gradients of outputs become codes, stochastically where there is noise.
    pub gradients: GradientCodes,
}

/// Codes of gradients.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum GradientCodes {
    /// Equally spaced, in that range.
    Uniform(Clip),
    /// Powers of two apart (LUQ, Chmiel et al. 2021), of which a byte's products hold seven and 0: logarithmic codes of 4 bits.
    Logarithmic,
}

/// The powers of two from 1 to 64.
const LEVELS: u8 = 7;

impl Default for SparseInt8 {
    /// Nothing is clipped; gradients have equally spaced codes.
    fn default() -> Self {
        let gradients = GradientCodes::Uniform(Clip::AbsMax);
        SparseInt8 { weights: Clip::AbsMax, per_channel: true, inputs: Clip::AbsMax, gradients }
    }
}

impl SparseInt8 {
    /// Whether some inputs may be clipped, so that the backward pass has to know which.
    pub(super) fn masks_inputs(&self) -> bool {
        self.inputs != Clip::AbsMax
    }

    fn scheme(&self, passes: BytePasses) -> ByteScheme {
        let (clip, per_channel) = (self.weights, self.per_channel);
        ByteScheme { clip, per_channel, rounding: Rounding::Nearest, passes }
    }
}

/// The output, and for the backward pass the codes of `x` with their range.
pub(super) fn forward_int8(map: &SparseMap, int8: SparseInt8, operands: Operands<'_>) -> Result<(Tensor, [Tensor; 2])> {
    let Operands { x, values, bias } = operands;
    let dtype = x.dtype();
    // Other rules than by the largest magnitude look at f32.
    let x = if int8.masks_inputs() { fitting(x.clone(), DType::F32)? } else { x.clone() };
    let x = &x;
    let quantizer = Quantizer::choose_bytes(x, int8.inputs)?;
    let codes = ByteCodes::quantize(x, &quantizer, Rounding::Nearest, map.plan.order())?;
    let weights = map.plan.quantize(values, &int8.scheme(BytePasses::Forward))?;
    let call = ByteForward { x: &codes, weights: &weights, bias, activation: map.activation, dtype };
    let y = map.plan.forward_int8(&call)?;
    let range = Tensor::from_vec([2], vec![codes.scale(), f32::from(codes.zero_point())])?;
    Ok((y, [codes.codes().clone(), range]))
}

/// What the forward pass kept of `x`.
#[derive(Clone)]
struct Kept {
    quantizer: Quantizer,
    /// Codes, or the values where the op before made them again or the clipped ones have to be known.
    x: Tensor,
}

/// The gradients from what was kept.
pub(super) fn backward_int8(
    map: &SparseMap,
    int8: SparseInt8,
    saved: &mut Saved,
    [weights, dy]: [&Tensor; 2],
    needs: &[bool],
) -> Result<Gradients> {
    let rounding = map.noise.map_or(Rounding::Nearest, Rounding::Stochastic);
    let codes = gradient_codes(dy, int8.gradients, rounding, map.plan.order())?;
    let kept = if needs[1] { Some(Kept::take(saved, int8)?) } else { None };
    let mask = kept.clone().filter(|_| int8.masks_inputs());
    let codes = &codes;
    let of_weights = |kept: Kept| move || weight_grad(map, int8, kept, (weights, codes));
    let of_inputs = || input_grad(map, int8, mask, (weights, codes, dy.dtype()));
    both((&map.plan, dy), kept.map(of_weights), needs[0].then_some(of_inputs))
}

impl Kept {
    fn take(saved: &mut Saved, int8: SparseInt8) -> Result<Kept> {
        let quantizer = of_range(&saved.take()?)?;
        let x = saved.take()?;
        let x = if int8.masks_inputs() { fitting(x, DType::F32)? } else { x };
        Ok(Kept { quantizer, x })
    }
}

/// The gradient of the inputs, 0 where those of the mask are clipped.
fn input_grad(
    map: &SparseMap,
    int8: SparseInt8,
    mask: Option<Kept>,
    (weights, dy, dtype): (&Tensor, &ByteCodes, DType),
) -> Result<Tensor> {
    let values = map.plan.pattern().gather(weights)?;
    let weights = map.plan.quantize(&values, &int8.scheme(BytePasses::InputGrad))?;
    match mask {
        Some(Kept { quantizer, x }) => {
            Ok(quantizer.gradient(&x, &map.plan.input_grad_int8(dy, &weights, DType::F32)?)?)
        }
        None => Ok(map.plan.input_grad_int8(dy, &weights, dtype)?),
    }
}

/// The gradient of the dense weights, 0 where they are clipped.
fn weight_grad(map: &SparseMap, int8: SparseInt8, kept: Kept, (weights, dy): (&Tensor, &ByteCodes)) -> Result<Tensor> {
    let order = map.plan.order();
    let x = match kept.x.dtype() {
        DType::U8 => ByteCodes::new(kept.x, &kept.quantizer, order)?,
        _ => ByteCodes::quantize(&kept.x, &kept.quantizer, Rounding::Nearest, order)?,
    };
    let pattern = map.plan.pattern();
    let gradient = map.plan.weight_grad_int8(&x, dy)?;
    if int8.weights == Clip::AbsMax {
        return Ok(pattern.to_dense(&gradient)?);
    }
    let values = pattern.gather(weights)?;
    Ok(pattern.to_dense(&weight_quantizer(map, int8, &values)?.gradient(&values, &gradient)?)?)
}

/// The quantizer of the weights in the forward pass.
fn weight_quantizer(map: &SparseMap, int8: SparseInt8, values: &Tensor) -> Result<Quantizer> {
    let pattern = map.plan.pattern();
    let starts = (0..pattern.rows()).map(|row| pattern.row(row).start).chain([pattern.len()]);
    let groups = if int8.per_channel { Groups::Rows(Arc::from_iter(starts)) } else { Groups::Tensor };
    Ok(Quantizer::choose(values, groups, Format::Signed, int8.weights)?)
}

/// The quantizer of codes with that step and that code of 0.
fn of_range(range: &Tensor) -> Result<Quantizer> {
    let range = range.to_vec::<f32>()?;
    let [scale, zero_point] = range[..] else {
        return Err(crate::Error::argument("sparse_map", "a range is a step and a code of 0"));
    };
    let format = if zero_point == 0.0 { Format::Unsigned } else { Format::Offset };
    Ok(Quantizer::new(format, Groups::Tensor, vec![scale])?)
}

/// Whether a rule looks at no more than statistics, which bf16 has too.
fn is_of_statistics(clip: Clip) -> bool {
    !matches!(clip, Clip::Percentile(_) | Clip::Mse)
}

/// Gradients around a code of 128.
fn gradient_codes(dy: &Tensor, how: GradientCodes, rounding: Rounding, order: Order) -> Result<ByteCodes> {
    match how {
        GradientCodes::Uniform(clip) => {
            let dy = if dy.dtype() == DType::BF16 && !is_of_statistics(clip) {
                &fitting(dy.clone(), DType::F32)?
            } else {
                dy
            };
            let quantizer = Quantizer::choose(dy, Groups::Tensor, Format::Offset, clip)?;
            Ok(ByteCodes::quantize(dy, &quantizer, rounding, order)?)
        }
        GradientCodes::Logarithmic => {
            let dy = fitting(dy.clone(), DType::F32)?;
            let logarithmic = Logarithmic::choose(&dy, Groups::Tensor, LEVELS)?;
            let exponents = logarithmic.quantize(&order.memory(&dy)?, rounding)?;
            // 0, or a level from 1 on with the sign of the value.
            let code = |e: &i8| (128 + i32::from(e.signum()) * (1 << e.unsigned_abs().saturating_sub(1))) as u8;
            let codes = exponents.as_slice::<i8>()?.iter().map(code).collect();
            let step = logarithmic.maxima()[0] / f32::from(1u8 << (LEVELS - 1));
            let quantizer = Quantizer::new(Format::Offset, Groups::Tensor, vec![step.max(f32::MIN_POSITIVE)])?;
            Ok(ByteCodes::new(Tensor::from_vec(*exponents.shape(), codes)?, &quantizer, order)?)
        }
    }
}

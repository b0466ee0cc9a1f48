use qkernels::reduce::norm2;
use qtensor::{Error, Result, Tensor};

/// The L2 norm of all gradients together.
///
/// # Errors
/// A gradient that is neither f32 nor f64.
pub fn global_norm(gradients: &[Option<Tensor>]) -> Result<f64> {
    let mut sum = 0.0;
    for gradient in gradients.iter().flatten() {
        sum += norm2(gradient)?.powi(2);
    }
    Ok(sum.sqrt())
}

/// Scales all gradients by `largest / (norm + 1e-6)` where that is below 1, as `torch.nn.utils.clip_grad_norm_` does.
/// Returns the norm before. Gradients whose norm is not finite are left as they are.
///
/// # Errors
/// A gradient that is not f32, or a bound that is not positive.
pub fn clip_by_norm(gradients: &mut [Option<Tensor>], largest: f64) -> Result<f64> {
    if largest.is_nan() || largest <= 0.0 {
        return Err(Error::argument("clip_by_norm", format!("the bound must be above 0, not {largest}")));
    }
    let norm = global_norm(gradients)?;
    let factor = (largest / (norm + 1e-6)) as f32;
    if norm.is_finite() && factor < 1.0 {
        for gradient in gradients.iter_mut().flatten() {
            gradient.memory_mut::<f32>()?.iter_mut().for_each(|g| *g *= factor);
        }
    }
    Ok(norm)
}

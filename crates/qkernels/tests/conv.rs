//! Convolution and its gradients.

use qkernels::{Activation, Conv2dParams, conv2d};
use qtensor::{Result, Tensor};

/// `scipy.signal.correlate2d(x, w, "same")` of a small example, and a bias.
#[test]
fn a_published_example() -> Result<()> {
    let x = Tensor::from_vec([1, 1, 3, 3], (1..=9).map(|v| v as f32).collect())?;
    let w = Tensor::from_vec([1, 1, 3, 3], vec![-1.0f32, -2.0, -1.0, 0.0, 0.0, 0.0, 1.0, 2.0, 1.0])?;
    let params = Conv2dParams { padding: [1; 2], ..Default::default() };
    let y = conv2d(&x, &w, None, &params, Activation::None)?;
    assert_eq!(y.to_vec::<f32>()?, [13.0, 20.0, 17.0, 18.0, 24.0, 18.0, -13.0, -20.0, -17.0]);
    let bias = Tensor::from_vec([1], vec![1.0f32])?;
    let y = conv2d(&x, &w, Some(&bias), &params, Activation::Relu)?;
    assert_eq!(y.to_vec::<f32>()?, [14.0, 21.0, 18.0, 19.0, 25.0, 19.0, 0.0, 0.0, 0.0]);
    Ok(())
}

#[test]
fn wrong_shapes_are_values() -> Result<()> {
    let x = Tensor::zeros([2, 4, 5, 5], qtensor::DType::F32)?;
    let shapes = [[3, 4, 6, 1], [3, 3, 1, 1], [3, 4, 0, 1]];
    for shape in shapes {
        let w = Tensor::zeros(shape, qtensor::DType::F32)?;
        let error = conv2d(&x, &w, None, &Conv2dParams::default(), Activation::None).unwrap_err().to_string();
        assert!(error.starts_with("conv2d: input 2×4×5×5, weights 3×"), "{error}");
    }
    Ok(())
}

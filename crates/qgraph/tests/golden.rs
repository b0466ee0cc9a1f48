//! Values and gradients of every op against PyTorch's, in f32 and, from the same rounded numbers, in f64.
//!
//! `cargo xtask golden` writes the reference file.

use qgraph::ops::{BatchNorm, BatchNormInference};
use qgraph::{Activation, Conv2dParams, DType, PoolParams, Result, Tape, Tensor, Var};
use safetensors::SafeTensors;
use serde_json::Value;

/// One line of the reference file: an op, its inputs and what PyTorch made of them.
struct Case<'a> {
    file: &'a SafeTensors<'a>,
    name: &'a str,
    op: &'a str,
    inputs: usize,
    options: &'a Value,
    dtype: DType,
}

impl Case<'_> {
    fn tensor(&self, name: &str) -> Tensor {
        let view = self.file.tensor(&format!("{}/{name}", self.name)).unwrap();
        let words = view.data();
        if view.dtype() == safetensors::Dtype::I64 {
            let labels = words.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap())).collect();
            return Tensor::from_vec(view.shape(), labels).unwrap();
        }
        let values: Vec<f32> = words.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        Tensor::from_vec(view.shape(), values).unwrap().to_dtype(self.dtype).unwrap()
    }

    fn number(&self, key: &str) -> f64 {
        self.options[key].as_f64().unwrap_or_else(|| panic!("{}: no option {key}", self.name))
    }

    fn pair(&self, key: &str) -> [usize; 2] {
        [self.number(key) as usize; 2]
    }

    fn run(&self, tape: &mut Tape, x: &[Var]) -> Result<Var> {
        let pool = || PoolParams {
            kernel: self.pair("kernel"),
            stride: self.pair("stride"),
            padding: self.pair("padding"),
            ceil_mode: false,
            count_include_pad: true,
        };
        match self.op {
            "conv2d" => {
                let params = Conv2dParams {
                    stride: self.pair("stride"),
                    padding: self.pair("padding"),
                    dilation: self.pair("dilation"),
                    groups: self.number("groups") as usize,
                    winograd: true,
                };
                tape.conv2d(&x[0], &x[1], x.get(2), params)
            }
            "linear" => tape.linear(&x[0], &x[1], x.get(2)),
            "matmul" => tape.matmul(&x[0], &x[1]),
            "batch_norm_train" => {
                let op = BatchNorm { eps: self.number("eps"), key: None, activation: Activation::None };
                tape.batch_norm(op, &x[0], &x[1], &x[2])
            }
            "batch_norm_infer" => {
                let op = BatchNormInference { eps: self.number("eps"), activation: Activation::None };
                tape.batch_norm_inference(op, &x[0], [&x[1], &x[2]], [&self.tensor("mean"), &self.tensor("var")])
            }
            "max_pool2d" => tape.max_pool2d(&x[0], pool()),
            "avg_pool2d" => tape.avg_pool2d(&x[0], pool()),
            "global_avg_pool2d" => tape.global_avg_pool2d(&x[0]),
            "relu" => tape.relu(&x[0]),
            "relu6" => tape.relu6(&x[0]),
            "tanh" => tape.tanh(&x[0]),
            "sigmoid" => tape.sigmoid(&x[0]),
            "exp" => tape.exp(&x[0]),
            "log" => tape.log(&x[0]),
            "sqrt" => tape.sqrt(&x[0]),
            "square" => tape.square(&x[0]),
            "neg" => tape.neg(&x[0]),
            "leaky_relu" => tape.leaky_relu(&x[0], self.number("slope")),
            "prelu" => tape.prelu(&x[0], &x[1]),
            "add" => tape.add(&x[0], &x[1]),
            "sub" => tape.sub(&x[0], &x[1]),
            "mul" => tape.mul(&x[0], &x[1]),
            "div" => tape.div(&x[0], &x[1]),
            "log_softmax" => tape.log_softmax(&x[0]),
            "cross_entropy" => tape.cross_entropy(&x[0], &self.tensor("labels"), self.number("smoothing")),
            "cross_entropy_soft" => tape.cross_entropy(&x[0], &self.tensor("targets"), self.number("smoothing")),
            other => panic!("the reference file has an op without a call here: {other}"),
        }
    }

    fn close(&self, what: &str, ours: &Tensor, tolerance: f64) {
        let expected = self.tensor(what);
        assert_eq!(ours.shape(), expected.shape(), "{} {what}", self.name);
        let plain = |t: &Tensor| t.to_dtype(DType::F64).unwrap().to_vec::<f64>().unwrap();
        for (i, (a, b)) in plain(ours).iter().zip(plain(&expected)).enumerate() {
            let error = (a - b).abs();
            assert!(error <= tolerance * (0.1 + b.abs()), "{} {what}[{i}]: {a} instead of {b}", self.name);
        }
    }

    fn check(&self, tolerance: f64) {
        let mut tape = Tape::new();
        let leaves: Vec<Var> = (0..self.inputs).map(|i| tape.leaf(self.tensor(&format!("x{i}")))).collect();
        let y = self.run(&mut tape, &leaves).unwrap_or_else(|error| panic!("{}: {error}", self.name));
        self.close("y", y.value(), tolerance);
        let gradients = tape.backward_from(&y, self.tensor("dy")).unwrap();
        for (i, leaf) in leaves.iter().enumerate() {
            self.close(&format!("g{i}"), gradients.get(leaf).unwrap(), tolerance);
        }
    }
}

#[test]
fn values_and_gradients_are_pytorch_s() {
    let bytes = include_bytes!("golden/ops.safetensors");
    let file = SafeTensors::deserialize(bytes).unwrap();
    let (_, metadata) = SafeTensors::read_metadata(bytes).unwrap();
    let cases: Value = serde_json::from_str(&metadata.metadata().as_ref().unwrap()["cases"]).unwrap();
    let cases = cases.as_array().unwrap();
    assert!(cases.len() >= 45);
    for case in cases {
        for (dtype, tolerance) in [(DType::F32, 1e-4), (DType::F64, 1e-6)] {
            let (name, op) = (case["name"].as_str().unwrap(), case["op"].as_str().unwrap());
            let inputs = case["inputs"].as_u64().unwrap() as usize;
            Case { file: &file, name, op, inputs, options: &case["options"], dtype }.check(tolerance);
        }
    }
}

//! Fits `y = (x w)²` with an op and a composite of its own: `cargo run -p qgraph --example regression`.
use qgraph::kernels::elementwise::{BinaryOp::Mul, UnaryOp::Square, axpy, binary, scale, unary};
use qgraph::random::{Purpose, Stream, StreamKey};
use qgraph::{Context, Function, Mode, Op, Record, Result, Saved, Tape, Tensor, Var, Vjp, inputs, kernels};

/// A primitive, `Σ log cosh x`: square near 0 and absolute far away.
#[derive(Debug)]
struct LogCosh;
impl Op for LogCosh {
    fn forward(&self, x: &[Tensor], _: &mut Context) -> Result<Tensor> {
        let [x] = inputs("log_cosh", x)?;
        Ok(Tensor::scalar(x.to_vec::<f64>()?.iter().map(|x| x.cosh().ln()).sum::<f64>()))
    }
}
impl Vjp for LogCosh {
    fn name(&self) -> &'static str {
        "log_cosh"
    }
    fn save(&self, record: &Record<'_>, saved: &mut Saved) {
        saved.keep(&record.inputs[0]);
    }
    fn vjp(&self, mut saved: Saved, dy: Tensor, _: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let x = saved.take()?;
        let slopes = x.to_vec::<f64>()?.iter().map(|x| x.tanh()).collect();
        Ok(vec![Some(binary(Mul, &dy, &Tensor::from_vec(x.shape(), slopes)?)?)])
    }
}

/// A composite of `x` and `w`, with a rule by hand that does not keep the projection `x w` but computes it again.
#[derive(Debug)]
struct Quadratic;
impl Function for Quadratic {
    fn name(&self) -> &'static str {
        "quadratic"
    }
    fn forward(&self, tape: &mut Tape, x: &[Var]) -> Result<Var> {
        let projection = tape.matmul(&x[0], &x[1])?;
        tape.square(&projection)
    }
    fn symbolic(&self) -> Option<Box<dyn Vjp>> {
        Some(Box::new(Quadratic))
    }
}
impl Vjp for Quadratic {
    fn name(&self) -> &'static str {
        "quadratic"
    }
    fn save(&self, record: &Record<'_>, saved: &mut Saved) {
        record.inputs.iter().for_each(|x| saved.keep(x));
    }
    fn vjp(&self, mut saved: Saved, dy: Tensor, _: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let (x, w) = (saved.take()?, saved.take()?);
        let slope = binary(Mul, &dy, &scale(&kernels::matmul(&x, &w)?, 2.0)?)?;
        Ok(vec![Some(kernels::matmul(&slope, &w.t()?)?), Some(kernels::matmul(&x.t()?, &slope)?)])
    }
}

fn main() -> Result<()> {
    let mut random = Stream::new(StreamKey { seed: 2, purpose: Purpose::Data, epoch: 0, index: 0 });
    let mut normal = |rows, columns| Tensor::from_fn([rows, columns], || f64::from(random.normal()));
    let (x, w, start) = (normal(256, 4)?, normal(4, 1)?, normal(4, 1)?);
    let (target, x) = (Var::constant(unary(Square, &kernels::matmul(&x, &w)?)?), Var::constant(x));
    for mode in [Mode::Ad, Mode::Symbolic, Mode::Recompute] {
        let mut weight = start.clone();
        for step in 0..=100 {
            let mut tape = Tape::new();
            let w = tape.leaf(weight.clone());
            let y = tape.call(Quadratic, &[&x, &w], mode)?;
            let error = tape.sub(&y, &target)?;
            let loss = tape.apply(LogCosh, &[&error])?;
            let (kept, gradients) = (tape.retained().bytes(), tape.backward(&loss)?);
            gradients.get(&w).map_or(Ok(()), |gradient| axpy(-3e-4, gradient, &mut weight))?;
            if step % 50 == 0 {
                println!("{mode:>9}, step {step:3}: loss {:10.6}, {kept} bytes kept", loss.value().item()?);
            }
        }
    }
    Ok(())
}

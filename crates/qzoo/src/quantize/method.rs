use crate::experiment::{Compat, FeatureOrder, QuantizerName};
use qgraph::{Error, Result};
use qkernels::Gemm;
use qkernels::feedback::{Factor, Grid, Mode, Recursion, Rounding, Rule, Target, Ties, Walk};
use qtensor::{DType, Tensor};

/// One way to choose characters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Method {
    pub(super) name: QuantizerName,
    pub(super) compat: Compat,
    pub(super) order: FeatureOrder,
    /// A share of the mean of the diagonal of `H`.
    pub(super) damping: f64,
    pub(super) sweeps: usize,
    /// For random rounding.
    pub(super) seed: u64,
}

/// Neurons that see the same inputs.
pub(super) struct Problem<'a> {
    /// `[neurons, N]`, f32.
    pub(super) weights: &'a Tensor,
    /// `X~ᵀ X~`, `[N, N]`, f64.
    pub(super) h: &'a Tensor,
    /// `X~ᵀ X`; `h` where both networks see the same.
    pub(super) c: &'a Tensor,
    pub(super) grid: Grid,
    /// How numbers become characters, where the method does not say it.
    pub(super) mode: Mode,
    /// Tells the random numbers of the layers apart.
    pub(super) layer: u32,
}

/// Characters with their alphabet, whose units a method may change.
pub(super) struct Chosen {
    /// `[neurons, N]`, f32.
    pub(super) characters: Tensor,
    pub(super) grid: Grid,
}

impl Method {
    /// Whether it reads data at all.
    pub(super) fn needs_data(&self) -> bool {
        self.name != QuantizerName::Msq || self.sweeps > 0
    }

    /// Whether the walk over the data gives the same as the recursion on matrices.
    pub(super) fn can_walk(&self) -> bool {
        let greedy = matches!(self.name, QuantizerName::Gpfq | QuantizerName::Sgpfq);
        greedy && self.sweeps == 0 && self.order == FeatureOrder::Natural
    }

    /// The middles of the rules that are followed.
    pub(super) fn ties(&self) -> Ties {
        match self.compat {
            Compat::Lybrand2021 => Ties::Down,
            Compat::Zhang2023 => Ties::Up,
        }
    }

    fn rule(&self) -> Rule {
        match self.compat {
            Compat::Lybrand2021 => Rule::Lybrand2021,
            Compat::Zhang2023 => Rule::Nearest,
        }
    }

    fn mode(&self, mode: Mode, layer: u32) -> Mode {
        match self.name {
            QuantizerName::Sgpfq | QuantizerName::Spfq => Mode::Stochastic { seed: self.seed, layer, pass: 0 },
            _ => mode,
        }
    }

    /// Each weight by itself.
    pub(super) fn round(&self, weights: &Tensor, grid: Grid, mode: Mode) -> Result<Chosen> {
        let rounding = Rounding { grid, mode };
        let recursion = Recursion { target: Target::Weights, feedback: None, divisors: None, rule: Rule::Nearest };
        Ok(Chosen { characters: recursion.quantize(weights, &rounding)?, grid: rounding.grid })
    }

    /// On the data themselves, `[samples, N]`: for what [`can_walk`](Self::can_walk).
    pub(super) fn walk(
        &self,
        data: [&Tensor; 2],
        weights: &Tensor,
        grid: Grid,
        (mode, layer): (Mode, u32),
    ) -> Result<Chosen> {
        let [quantized, analog] = data;
        let same = quantized.buffer_id() == analog.buffer_id();
        let walk = Walk { quantized, analog: (!same).then_some(analog), rule: self.rule() };
        let rounding = Rounding { grid, mode: self.mode(mode, layer) };
        Ok(Chosen { characters: walk.quantize(weights, &rounding)?.characters, grid: rounding.grid })
    }

    /// On Gram matrices.
    pub(super) fn choose(&self, problem: &Problem<'_>) -> Result<Chosen> {
        match self.order {
            FeatureOrder::Natural => self.choose_in_order(problem),
            FeatureOrder::Descending => {
                let norms = diagonal(problem.h)?;
                let mut order: Vec<usize> = (0..norms.len()).collect();
                order.sort_by(|a, b| norms[*b].total_cmp(&norms[*a]).then(a.cmp(b)));
                let square = |x: &Tensor| -> Result<Tensor> {
                    Ok(columns(&columns(x, &order)?.t()?.contiguous(), &order)?.t()?.contiguous())
                };
                let (h, c) = (square(problem.h)?, square(problem.c)?);
                let weights = columns(problem.weights, &order)?;
                let chosen = self.choose_in_order(&Problem {
                    weights: &weights,
                    h: &h,
                    c: &c,
                    grid: problem.grid.clone(),
                    ..*problem
                })?;
                let mut back = vec![0; order.len()];
                order.iter().enumerate().for_each(|(new, old)| back[*old] = new);
                Ok(Chosen { characters: columns(&chosen.characters, &back)?, grid: chosen.grid })
            }
        }
    }

    fn choose_in_order(&self, problem: &Problem<'_>) -> Result<Chosen> {
        let grid = problem.grid.clone();
        let rounding = Rounding { grid, mode: self.mode(problem.mode, problem.layer) };
        let divisors = diagonal(problem.h)?;
        if let Some(feature) = divisors.iter().position(|norm| !norm.is_finite()) {
            let message = format!("input {feature} is infinite or not a number for some calibration image");
            return Err(Error::argument("quantize", message));
        }
        let greedy = Recursion {
            target: Target::Lower(problem.c),
            feedback: Some(problem.h),
            divisors: Some(&divisors),
            rule: self.rule(),
        };
        let characters = match self.name {
            QuantizerName::Msq => {
                return self.refine(problem, self.round(problem.weights, rounding.grid, problem.mode)?);
            }
            QuantizerName::Gpfq | QuantizerName::Sgpfq => greedy.quantize(problem.weights, &rounding)?,
            QuantizerName::Beacon => {
                let first = greedy.quantize(problem.weights, &rounding)?;
                return self.beacon(problem, Chosen { characters: first, grid: rounding.grid });
            }
            QuantizerName::Spfq => {
                let aligned = self.aligned(problem, &divisors)?;
                Recursion { target: Target::Lower(problem.h), ..greedy }.quantize(&aligned, &rounding)?
            }
            QuantizerName::Ldlq => self.spread(problem, &problem.weights.to_dtype(DType::F64)?, &rounding)?,
            QuantizerName::AlignedLdlq | QuantizerName::Qronos => {
                self.spread(problem, &self.aligned(problem, &divisors)?, &rounding)?
            }
        };
        self.refine(problem, Chosen { characters, grid: rounding.grid })
    }

    fn damping(&self, divisors: &[f64]) -> f64 {
        let mean = divisors.iter().sum::<f64>() / divisors.len().max(1) as f64;
        // Without any data the matrix is 0, and every weight is rounded by itself.
        if mean > 0.0 { (self.damping * mean).max(mean * 1e-12) } else { 1.0 }
    }

    /// The weights with which the quantized inputs explain the layer's result best, `(H + λ I)⁻¹ (C w + λ w)`, `[neurons, N]`, f64.
    fn aligned(&self, problem: &Problem<'_>, divisors: &[f64]) -> Result<Tensor> {
        let damping = self.damping(divisors);
        let weights = problem.weights.to_dtype(DType::F64)?.t()?.contiguous();
        let mut right = weights.copy();
        Gemm { alpha: 1.0, beta: damping, ..Gemm::new(problem.c, &weights) }.run_into(&mut right)?;
        Ok(Factor::new(problem.h, damping)?.solve(&right)?.t()?.contiguous())
    }

    /// GPTQ of these weights, `[neurons, N]`, f64.
    fn spread(&self, problem: &Problem<'_>, weights: &Tensor, rounding: &Rounding) -> Result<Tensor> {
        let divisors = diagonal(problem.h)?;
        let mut reversed = problem.h.to_vec::<f64>()?;
        reversed.reverse();
        let reversed = Tensor::from_vec(*problem.h.shape(), reversed)?;
        let feedback = Factor::new(&reversed, self.damping(&divisors))?.feedback()?;
        drop(reversed);
        // E w = w + F w.
        let mut target = weights.contiguous().copy();
        Gemm { alpha: 1.0, beta: 1.0, ..Gemm::new(weights, &feedback.t()?) }.run_into(&mut target)?;
        if self.name == QuantizerName::Qronos {
            self.first_beside_the_original(problem, divisors[0], &mut target)?;
        }
        let recursion = Recursion {
            target: Target::Given(&target),
            feedback: Some(&feedback),
            divisors: None,
            rule: Rule::Nearest,
        };
        Ok(recursion.quantize(weights, rounding)?)
    }

    /// Qronos chooses the first character for the case that all others stay as they were: `(C_1 w - H_1,2: w_2:) / H_11`.
    fn first_beside_the_original(&self, problem: &Problem<'_>, divisor: f64, target: &mut Tensor) -> Result<()> {
        if divisor <= 0.0 {
            return Ok(());
        }
        let row = |x: &Tensor| x.slice(0, 0..1)?.to_vec::<f64>();
        let (c, h) = (row(problem.c)?, row(problem.h)?);
        let (weights, size) = (problem.weights.to_dtype(DType::F64)?.to_vec::<f64>()?, c.len());
        for (w, target) in weights.chunks_exact(size).zip(target.memory_mut::<f64>()?.chunks_exact_mut(size)) {
            let wanted: f64 = c.iter().zip(w).map(|(c, w)| c * w).sum();
            let others: f64 = h.iter().zip(w).skip(1).map(|(h, w)| h * w).sum();
            target[0] = (wanted - others) / divisor;
        }
        Ok(())
    }

    /// Sweeps of coordinate descent on `‖X w - X~ q‖²`.
    fn refine(&self, problem: &Problem<'_>, mut chosen: Chosen) -> Result<Chosen> {
        if self.sweeps == 0 {
            return Ok(chosen);
        }
        let target = wanted(problem)?;
        let rounding = Rounding { grid: chosen.grid.clone(), mode: problem.mode };
        for _ in 0..self.sweeps {
            chosen.characters = self.sweep(problem, &target, &chosen.characters, &rounding)?;
        }
        Ok(chosen)
    }

    fn sweep(&self, problem: &Problem<'_>, target: &Tensor, start: &Tensor, rounding: &Rounding) -> Result<Tensor> {
        let divisors = diagonal(problem.h)?;
        let recursion = Recursion {
            target: Target::Given(target),
            feedback: Some(problem.h),
            divisors: Some(&divisors),
            rule: self.rule(),
        };
        Ok(recursion.sweep(problem.weights, start, rounding)?)
    }

    /// Sweeps, and between them the scale of each neuron that fits its characters best: `<X w, X~ q> / ‖X~ q‖²`. The angle between the two results shrinks with every step.
    fn beacon(&self, problem: &Problem<'_>, mut chosen: Chosen) -> Result<Chosen> {
        let target = wanted(problem)?;
        for _ in 0..self.sweeps.max(1) {
            chosen = rescaled(problem, &target, chosen)?;
            let rounding = Rounding { grid: chosen.grid.clone(), mode: problem.mode };
            chosen.characters = self.sweep(problem, &target, &chosen.characters, &rounding)?;
        }
        rescaled(problem, &target, chosen)
    }
}

/// `C w` of each neuron, `[neurons, N]`, f64.
fn wanted(problem: &Problem<'_>) -> Result<Tensor> {
    Ok(Gemm::new(&problem.weights.to_dtype(DType::F64)?, &problem.c.t()?).run()?)
}

/// The same levels with the best unit for each neuron.
fn rescaled(problem: &Problem<'_>, target: &Tensor, chosen: Chosen) -> Result<Chosen> {
    let size = problem.h.shape()[0];
    let exact = chosen.characters.to_dtype(DType::F64)?;
    let seen = Gemm::new(&exact, problem.h).run()?;
    let (q, seen, target) = (exact.to_vec::<f64>()?, seen.to_vec::<f64>()?, target.to_vec::<f64>()?);
    let dot = |a: &[f64], b: &[f64]| -> f64 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
    let mut units = Vec::new();
    let mut characters = chosen.characters.contiguous().copy();
    for (j, row) in characters.memory_mut::<f32>()?.chunks_exact_mut(size).enumerate() {
        let at = j * size..(j + 1) * size;
        let (common, square) = (dot(&q[at.clone()], &target[at.clone()]), dot(&q[at.clone()], &seen[at]));
        let old = chosen.grid.units()[if chosen.grid.units().len() == 1 { 0 } else { j }];
        // A neuron that is wrong altogether keeps its scale.
        let factor = if common > 0.0 && square > 0.0 { common / square } else { 1.0 };
        let unit = (f64::from(old) * factor) as f32;
        for character in row.iter_mut().filter(|character| **character != 0.0) {
            *character = unit * (*character / old).round();
        }
        units.push(unit);
    }
    Ok(Chosen { characters, grid: chosen.grid.with_units(units)? })
}

fn diagonal(h: &Tensor) -> Result<Vec<f64>> {
    Ok(h.to_vec::<f64>()?.into_iter().step_by(h.shape()[0] + 1).collect())
}

/// The columns of a matrix in another order.
fn columns(x: &Tensor, order: &[usize]) -> Result<Tensor> {
    fn take<T: qtensor::Element>(x: &Tensor, order: &[usize]) -> Result<Tensor> {
        let (values, size) = (x.to_vec::<T>()?, order.len());
        let rows = values.chunks_exact(size.max(1));
        Ok(Tensor::from_vec(*x.shape(), rows.flat_map(|row| order.iter().map(|i| row[*i])).collect())?)
    }
    if x.dtype() == DType::F64 { take::<f64>(x, order) } else { take::<f32>(x, order) }
}

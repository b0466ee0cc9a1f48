//! Reverse-mode automatic differentiation as a library: values in, gradients out, no globals.
//!
//! # A step
//!
//! A [`Tape`] lives for one step. Make leaves of what needs a gradient, compute, and go back:
//!
//! ```
//! use qgraph::{Tape, Tensor, Var};
//!
//! let mut tape = Tape::new();
//! let x = Var::constant(Tensor::from_vec([2, 2], vec![1.0f32, 2.0, 3.0, 4.0])?);
//! let w = tape.leaf(Tensor::from_vec([2, 1], vec![0.5f32, -0.5])?);
//! let y = tape.matmul(&x, &w)?;
//! let loss = tape.sum_of_squares(&y)?;
//! assert_eq!(loss.value().item()?, 0.5);
//! let gradients = tape.backward(&loss)?;
//! assert_eq!(gradients.get(&w).unwrap().to_vec::<f32>()?, [-4.0, -6.0]);
//! # Ok::<(), qgraph::Error>(())
//! ```
//!
//! A [`Var`] is a tensor and, perhaps, a place on the tape. Without leaves nothing is recorded, so inference is the same code.
//! [`Tape::backward`] consumes the tape and frees what each op saved as soon as it is used. All ops are methods of [`Tape`]; the
//! types behind them are in [`ops`]. f32 and f64 may live on one tape.
//!
//! # An op of your own
//!
//! A primitive is a forward on tensors ([`Op`]) and a backward rule ([`Vjp`]). The rule says what it keeps, and gets exactly that:
//!
//! ```
//! use qgraph::check::GradientCheck;
//! use qgraph::kernels::{BinaryOp, binary};
//! use qgraph::{Context, Op, Record, Result, Saved, Tensor, Vjp, inputs};
//!
//! #[derive(Clone, Debug)]
//! struct Hypotenuse; // √(a² + b²)
//!
//! impl Op for Hypotenuse {
//!     fn forward(&self, x: &[Tensor], _: &mut Context) -> Result<Tensor> {
//!         let [a, b] = inputs("hypotenuse", x)?;
//!         let (a, b) = (a.to_vec::<f64>()?, b.to_vec::<f64>()?);
//!         Ok(Tensor::from_vec(x[0].shape(), a.iter().zip(&b).map(|(a, b)| a.hypot(*b)).collect())?)
//!     }
//! }
//!
//! impl Vjp for Hypotenuse {
//!     fn name(&self) -> &'static str {
//!         "hypotenuse"
//!     }
//!     fn save(&self, record: &Record<'_>, saved: &mut Saved) {
//!         saved.keep(record.output);
//!         (0..2).for_each(|i| saved.keep_if(record.needs[i], &record.inputs[i]));
//!     }
//!     fn vjp(&self, mut saved: Saved, dy: Tensor, needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
//!         let slope = binary(BinaryOp::Div, &dy, &saved.take()?)?;
//!         let mut gradients = Vec::new();
//!         for need in needs {
//!             let x = saved.take_if(*need)?;
//!             gradients.push(x.map(|x| binary(BinaryOp::Mul, &slope, &x)).transpose()?);
//!         }
//!         Ok(gradients)
//!     }
//! }
//!
//! let inputs = [Tensor::from_vec([2], vec![3.0, 1.0])?, Tensor::from_vec([2], vec![4.0, -1.0])?];
//! let checked = GradientCheck::default().run(&inputs, |tape, x| tape.apply(Hypotenuse, &[&x[0], &x[1]]))?;
//! assert!(checked.worst() < 1e-6);
//! # Ok::<(), qgraph::Error>(())
//! ```
//!
//! [`check::GradientCheck`] compares the rule with differences of the forward, and finds rules that ignore `needs` or depend on
//! strides.
//!
//! # A composite in three modes
//!
//! A [`Function`] is written once with ops of the tape. [`Mode`] chooses what its backward pass costs: record the primitives
//! ([`Mode::Ad`]), use a rule by hand ([`Mode::Symbolic`]), or keep the inputs only and compute twice ([`Mode::Recompute`]).
//!
//! ```
//! use qgraph::{Function, Mode, Result, Tape, Tensor, Var};
//!
//! #[derive(Debug)]
//! struct Softplus; // log(1 + eˣ)
//!
//! impl Function for Softplus {
//!     fn name(&self) -> &'static str {
//!         "softplus"
//!     }
//!     fn forward(&self, tape: &mut Tape, x: &[Var]) -> Result<Var> {
//!         let e = tape.exp(&x[0])?;
//!         let sum = tape.add_scalar(&e, 1.0)?;
//!         tape.log(&sum)
//!     }
//! }
//!
//! let mut kept = Vec::new();
//! for mode in [Mode::Ad, Mode::Recompute] {
//!     let mut tape = Tape::new();
//!     let x = tape.leaf(Tensor::zeros([1024], qgraph::DType::F32)?);
//!     let y = tape.call(Softplus, &[&x], mode)?;
//!     kept.push(tape.retained_except([x.value()]).bytes());
//!     let loss = tape.mean_all(&y)?;
//!     assert_eq!(tape.backward(&loss)?.get(&x).unwrap().get::<f32>(&[0])?, 0.5 / 1024.0);
//! }
//! assert_eq!(kept, [2 * 4096, 0]);
//! # Ok::<(), qgraph::Error>(())
//! ```
//!
//! A rule by hand sees what the forward offers with [`Tape::tap`], and may keep it or compute it again.
//!
//! # What happens once a step
//!
//! Ops and composites are pure, since a composite may run twice. Dropout draws from a key that is part of the op. Running statistics
//! leave the tape as [`Effect`]s, once, whatever the mode: take them with [`Tape::take_effects`] and apply them.
//!
//! # Mixed precision
//!
//! Variables may be bf16: an activation then takes half the memory. Parameters stay f32, and so do their gradients. Convolutions, linear layers, batch
//! normalisation and max pooling compute with bf16 directly, other ops in f32 with a rounded result, losses and sums with an f32 one: see [`OnHalf`].
//!
//! # Looking inside
//!
//! - [`Tape::scope`] names the part of a network; errors and reports carry the name.
//! - [`Tape::retained`] says what is kept for the backward pass, to the byte, by scope and op.
//! - [`Tape::profile`] times every op, forward and backward.
//! - [`Tape::probe`] shows every value and gradient to an observer; [`Tape::mark`] gives values names for it.
//! - [`Tape::check_finite`] finds the first op that makes an infinity or NaN.
//!
//! ```
//! use qgraph::{Tape, Tensor};
//!
//! let mut tape = Tape::new().check_finite();
//! let x = tape.leaf(Tensor::from_vec([2], vec![1.0f32, 0.0])?);
//! let error = tape.scope("layer1.0", |tape| tape.log(&x)).unwrap_err();
//! assert_eq!(error.to_string(), "output of log in layer1.0 (forward) is not finite");
//! # Ok::<(), qgraph::Error>(())
//! ```
#![forbid(unsafe_code)]

mod accumulate;
mod backward;
mod call;
pub mod check;
mod effect;
mod error;
mod finite;
mod function;
mod gradients;
mod half;
mod op;
pub mod ops;
mod probe;
mod profile;
mod retained;
mod saved;
mod tape;
mod var;

pub use effect::Effect;
pub use error::{Error, Result};
pub use function::{Function, Mode};
pub use gradients::Gradients;
pub use half::OnHalf;
pub use op::{Context, Op, Record, Vjp, inputs};
pub use probe::{Probe, Sighting, SightingKind};
pub use profile::{OpCost, Pass, PassCost, Profile};
pub use qkernels as kernels;
pub use qkernels::pool::PoolParams;
pub use qkernels::{Activation, Conv2dParams};
pub use qtensor::{DType, Element, Shape, Tensor, pool, random};
pub use retained::{Retained, RetainedBy};
pub use saved::Saved;
pub use tape::Tape;
pub use var::Var;

/// The examples of the README run as tests.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;

//! Random programs of ops, with values used any number of times: gradients are right, and equal in every mode.

mod common;

use common::{assert_close, dropout_key, normal};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use qgraph::check::GradientCheck;
use qgraph::{Function, Mode, Result, Tape, Tensor, Var};

/// One instruction: which op, and which of the values so far are its operands (modulo their number).
type Instruction = (u8, u8, u8);

const SIDE: usize = 3;
const INPUTS: usize = 2;

/// Runs a program on square matrices. Every value stays of moderate size, so that differences are accurate.
#[derive(Clone, Debug)]
struct Program {
    instructions: Vec<Instruction>,
    /// The mode of nested programs.
    nested: Mode,
}

impl Program {
    fn run(&self, tape: &mut Tape, inputs: &[Var]) -> Result<Var> {
        let mut values = inputs.to_vec();
        for (position, (op, a, b)) in self.instructions.iter().enumerate() {
            let a = values[usize::from(*a) % values.len()].clone();
            let b = values[usize::from(*b) % values.len()].clone();
            let value = match op % 12 {
                0 => tape.add(&a, &b)?,
                1 => tape.sub(&a, &b)?,
                2 => tape.mul(&a, &b)?,
                3 => tape.matmul(&a, &b)?,
                4 => tape.sigmoid(&a)?,
                5 => tape.permute(&a, &[1, 0])?,
                6 => tape.dropout(&a, 0.3, dropout_key(position as u64))?,
                7 => {
                    let column = tape.sum(&a, &[1], true)?;
                    tape.mul(&column, &b)?
                }
                8 => {
                    let (left, right) = (tape.slice(&a, 1, 0..1)?, tape.slice(&b, 1, 1..SIDE)?);
                    tape.concatenate(&[&right, &left], 1)?
                }
                9 => {
                    let flat = tape.reshape(&a, [SIDE * SIDE])?;
                    let flat = tape.scale(&flat, 0.5)?;
                    tape.reshape(&flat, [SIDE, SIDE])?
                }
                10 => tape.linear(&a, &b, None)?,
                _ => {
                    let half = Program { instructions: self.instructions[..position].to_vec(), nested: self.nested };
                    tape.call(half, &[&a, &b], self.nested)?
                }
            };
            // Bounded, and smooth.
            values.push(tape.tanh(&value)?);
        }
        Ok(values.swap_remove(values.len() - 1))
    }
}

impl Function for Program {
    fn name(&self) -> &'static str {
        "program"
    }

    fn forward(&self, tape: &mut Tape, inputs: &[Var]) -> Result<Var> {
        self.run(tape, inputs)
    }
}

fn inputs() -> [Tensor; INPUTS] {
    [normal(&[SIDE, SIDE], 1), normal(&[SIDE, SIDE], 2)]
}

fn gradients(program: &Program, mode: Mode) -> (Tensor, Vec<Tensor>) {
    let mut tape = Tape::new();
    let x = inputs().map(|x| tape.leaf(x));
    let y = tape.call(program.clone(), &[&x[0], &x[1]], mode).unwrap();
    let gradients = tape.backward_from(&y, normal(&[SIDE, SIDE], 3)).unwrap();
    let zero = |x: &Var| Tensor::zeros_like(x.value());
    let all = x.iter().map(|x| gradients.get(x).cloned().unwrap_or_else(|| zero(x))).collect();
    (y.into_value(), all)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, rng_seed: RngSeed::Fixed(5), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_programs(instructions in prop::collection::vec(any::<Instruction>(), 1..9)) {
        let program = Program { instructions, nested: Mode::Ad };
        let checked = GradientCheck { directions: 1, ..GradientCheck::default() }
            .run(&inputs(), |tape, x| program.run(tape, x))
            .unwrap();
        prop_assert!(checked.worst() <= 1e-6, "{checked:?}");

        let (y, expected) = gradients(&program, Mode::Ad);
        for nested in [Mode::Ad, Mode::Recompute] {
            let program = Program { nested, ..program.clone() };
            let (other, found) = gradients(&program, Mode::Recompute);
            assert_close(&y, &other, 0.0);
            // Contributions to one value may be added in another order.
            expected.iter().zip(&found).for_each(|(a, b)| assert_close(a, b, 1e-12));
        }
    }
}

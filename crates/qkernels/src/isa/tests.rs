//! Every operation of every instruction set that this CPU has, lane by lane against plain Rust.

use super::*;

fn inputs() -> [[f32; 16]; 3] {
    let value = |i: usize, salt: f32| ((i as f32 + salt) * 1.7).sin() * 9.0;
    [0.3, 5.1, 11.7].map(|salt| std::array::from_fn(|i| value(i, salt)))
}

type Scalar = fn(f32, f32, f32) -> f32;

struct Lanes(Scalar, Op);

#[derive(Clone, Copy, Debug)]
enum Op {
    Add,
    Sub,
    Mul,
    Div,
    Fma,
    Max,
    Min,
    Sqrt,
    Round,
    Scale,
    Select,
    Relu,
    Nan,
    Mantissa,
    Exponent,
}

impl Kernel for Lanes {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let [a, b, c] = inputs();
        let (va, vb, vc) = (isa.load(&a), isa.load(&b), isa.load(&c));
        let result = match self.1 {
            Op::Add => isa.add(va, vb),
            Op::Sub => isa.sub(va, vb),
            Op::Mul => isa.mul(va, vb),
            Op::Div => isa.div(va, vb),
            Op::Fma => isa.fma(va, vb, vc),
            Op::Max => isa.max(va, vb),
            Op::Min => isa.min(va, vb),
            Op::Sqrt => isa.sqrt(isa.mul(va, va)),
            Op::Round => isa.round(va),
            Op::Scale => isa.scale_by_power_of_two(va, isa.round(vb)),
            Op::Select => isa.select(isa.gt(va, vb), vb, vc),
            Op::Relu => isa.relu(va),
            Op::Nan => isa.select(isa.is_nan(isa.sqrt(va)), vb, vc),
            Op::Mantissa => isa.split(isa.max(va, isa.splat(0.01))).0,
            Op::Exponent => isa.split(isa.max(va, isa.splat(0.01))).1,
        };
        let mut out = [0.0; 16];
        isa.store(&mut out, result);
        for i in 0..I::LANES {
            let expected = self.0(a[i], b[i], c[i]);
            let error = (out[i] - expected).abs();
            assert!(
                error <= 2e-6 * expected.abs().max(10.0),
                "{:?} lane {i}: {} instead of {expected}",
                self.1,
                out[i]
            );
        }
    }
}

#[test]
fn arithmetic() {
    for id in available() {
        let cases: [(Op, Scalar); 15] = [
            (Op::Add, |a, b, _| a + b),
            (Op::Sub, |a, b, _| a - b),
            (Op::Mul, |a, b, _| a * b),
            (Op::Div, |a, b, _| a / b),
            (Op::Fma, |a, b, c| a * b + c),
            (Op::Max, |a, b, _| a.max(b)),
            (Op::Min, |a, b, _| a.min(b)),
            (Op::Sqrt, |a, _, _| a.abs()),
            (Op::Round, |a, _, _| a.round_ties_even()),
            (Op::Scale, |a, b, _| a * b.round_ties_even().exp2()),
            (Op::Select, |a, b, c| if a > b { b } else { c }),
            (Op::Relu, |a, _, _| a.max(0.0)),
            (Op::Nan, |a, b, c| if a < 0.0 { b } else { c }),
            (Op::Mantissa, |a, _, _| a.max(0.01) / a.max(0.01).log2().floor().exp2()),
            (Op::Exponent, |a, _, _| a.max(0.01).log2().floor()),
        ];
        for (op, expected) in cases {
            dispatch_on(id, Lanes(expected, op));
        }
    }
}

struct Parts;

impl Kernel for Parts {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let [a, ..] = inputs();
        for count in 0..=I::LANES {
            let x = isa.load_part(&a[..count]);
            let mut out = [7.0; 16];
            isa.store_part(&mut out[..count], x);
            assert_eq!(out[..count], a[..count]);
            assert!(out[count..].iter().all(|v| *v == 7.0), "a partial store wrote too far");
            isa.store(&mut out, x);
            assert!(out[count..I::LANES].iter().all(|v| *v == 0.0), "a partial load read too far");
            let sum: f64 = a[..count].iter().map(|v| f64::from(*v)).sum();
            assert!((f64::from(isa.sum(x)) - sum).abs() < 1e-5);
        }
        let full = isa.load(&a);
        assert_eq!(isa.maximum(full), a[..I::LANES].iter().copied().fold(f32::NEG_INFINITY, f32::max));
        let nan = isa.splat(f32::NAN);
        let mut out = [0.0; 16];
        isa.store(&mut out, isa.max(nan, isa.splat(3.0)));
        assert_eq!(out[0], 3.0, "the second operand wins over NaN");
        isa.store(&mut out, isa.relu(nan));
        assert!(out[0].is_nan(), "a rectified NaN stays NaN");
    }
}

#[test]
fn partial_vectors_and_reductions() {
    available().for_each(|id| dispatch_on(id, Parts));
}

struct Transposition;

impl Kernel for Transposition {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let (lanes, from_step, to_step) = (I::LANES, I::LANES + 3, I::LANES + 1);
        let from: Vec<f32> = (0..lanes * from_step).map(|i| i as f32).collect();
        let mut to = vec![-1.0f32; lanes * to_step];
        isa.transpose(&from, from_step, &mut to, to_step);
        for i in 0..lanes {
            for j in 0..to_step {
                let expected = if j < lanes { from[j * from_step + i] } else { -1.0 };
                assert_eq!(to[i * to_step + j], expected, "row {i}, column {j}");
            }
        }
    }
}

#[test]
fn transpositions() {
    available().for_each(|id| dispatch_on(id, Transposition));
}

struct Rotations;

impl Kernel for Rotations {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let [a, _, _] = inputs();
        macro_rules! check {
            ($($depth:literal $by:literal),*) => {$(if $depth <= I::LANES {
                let mut out = [0.0; 16];
                isa.store(&mut out, isa.permute(isa.load(&a), const { &rotation_in_groups($depth, $by) }));
                for lane in 0..I::LANES {
                    let from = lane / $depth * $depth + (lane + $by) % $depth;
                    assert_eq!(out[lane], a[from], "{} {} lane {lane}", $depth, $by);
                }
            })*};
        }
        check!(2 0, 2 1, 4 1, 4 2, 4 3, 8 0, 8 1, 8 5, 8 7);
    }
}

#[test]
fn rotations_in_groups() {
    for id in available() {
        dispatch_on(id, Rotations);
    }
}

#[test]
fn names_are_unique_and_portable_is_always_there() {
    let names: Vec<&str> = available().map(IsaId::name).collect();
    assert_eq!(names.last(), Some(&"portable"));
    assert!(names.iter().enumerate().all(|(i, n)| !names[..i].contains(n)));
}

/// bf16 values whose sums and products stay normal numbers.
fn halves(salt: usize) -> [bf16; 32] {
    std::array::from_fn(|i| bf16::from_f32(((i * 7 + salt) as f32 * 1.3).sin() * [1.0, 300.0, 0.01][(i + salt) % 3]))
}

struct Halves;

impl Kernel for Halves {
    type Output = ();
    const DOT_PRODUCTS: bool = true;
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let (a, b) = (halves(0), halves(5));
        let pair = |x: &[bf16; 32]| isa.pair_bf16(isa.load_bf16(&x[..]), isa.load_bf16(&x[16..]));
        let c: [f32; 16] = std::array::from_fn(|i| (i as f32 * 0.7).cos());
        let mut out = [0.0; 16];
        isa.store(&mut out, isa.dot_bf16(pair(&a), pair(&b), isa.load(&c)));
        for i in 0..I::LANES {
            let product = |i: usize| a[i].to_f32() * b[i].to_f32();
            let expected = (c[i] + product(i + 16)) + product(i);
            assert_eq!(out[i].to_bits(), expected.to_bits(), "lane {i}: {} instead of {expected}", out[i]);
        }
        for count in 0..=I::LANES {
            let x = isa.load_bf16_part(&a[..count]);
            let mut to = [bf16::ONE; 17];
            isa.store_bf16_part(&mut to[..count], x);
            assert_eq!(to[..count], a[..count]);
            assert!(to[count..].iter().all(|x| *x == bf16::ONE), "a partial store wrote too far");
            isa.store_bf16(&mut to, x);
            assert!(to[count..I::LANES].iter().all(|x| *x == bf16::ZERO), "a partial load read too far");
        }
        for count in 0..=I::LANES {
            let mut to = [bf16::ONE; 17];
            // SAFETY: that many are there, and nothing behind them is touched.
            unsafe { isa.store_bf16_part_at(to.as_mut_ptr(), count, isa.load_bf16_part_at(a.as_ptr(), count)) };
            assert_eq!(to[..count], a[..count]);
            assert!(to[count..].iter().all(|x| *x == bf16::ONE), "a partial store wrote too far");
        }
        let factors: [f32; 16] = std::array::from_fn(|i| ((i * 31) as f32 * 0.37).sin() * 3.0);
        let (mut rounded, mut stored) = ([0.0; 16], [bf16::ZERO; 16]);
        isa.store(&mut rounded, isa.round_bf16(isa.load(&factors)));
        // SAFETY: there is room for any vector.
        unsafe { isa.store_factors_at(stored.as_mut_ptr(), isa.load(&factors)) };
        for i in 0..I::LANES {
            assert_eq!((rounded[i], stored[i]), (bf16::from_f32(factors[i]).to_f32(), bf16::from_f32(factors[i])));
        }
        for bits in
            [0x3f80_8000, 0x3f81_8000, 0x3f80_8001, 0x7f7f_ffff, 0x7f80_0000, 0xff80_0001, 0x0000_8000, 0x8000_ffff]
        {
            let x = f32::from_bits(bits);
            let mut to = [bf16::ONE; 16];
            isa.store_bf16(&mut to, isa.splat(x));
            assert!(to[0] == bf16::from_f32(x) || to[0].is_nan() && x.is_nan(), "{bits:x} gave {:x}", to[0].to_bits());
        }
    }
}

#[test]
fn pairs_of_bf16() {
    available().for_each(|id| dispatch_on(id, Halves));
}

//! Instruction sets: one table, best first, and one place that chooses.
//!
//! A kernel is written once, generic over a token type that implements [`Isa`]. A token is a zero-sized value whose existence proves
//! that the CPU has the instructions, so arithmetic on it is safe. [`dispatch`] builds the token of the chosen instruction set inside a function that
//! carries the matching `#[target_feature]`; everything generic below it must be `#[inline(always)]` to inherit the features.
//!
//! The choice is made once, at the first use: the best that the CPU has, or the one that the environment variable `QUARTZ_ISA` names.

#[cfg(all(target_arch = "x86_64", not(quartz_quick_build)))]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod bf16_lanes;
mod integers;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;
mod stored;
#[cfg(target_arch = "x86_64")]
mod transpose;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use integers::Integers;
use qtensor::bf16;
use std::sync::OnceLock;
pub(crate) use stored::Stored;

/// Vector arithmetic on f32. The same lane never depends on another except in [`sum`](Isa::sum) and [`maximum`](Isa::maximum).
///
/// # Safety
/// A value must exist only where the CPU supports the instructions that its methods use.
pub unsafe trait Isa: Integers + Outline + Copy + Send + Sync + 'static {
    /// One truth value a lane.
    type Mask: Copy;
    /// f32 in a vector.
    const LANES: usize;
    /// Vector registers that a kernel may keep busy.
    const REGISTERS: usize;

    /// The token.
    ///
    /// # Safety
    /// The CPU must support the instruction set.
    unsafe fn assume() -> Self;

    /// All lanes equal to `x`.
    fn splat(self, x: f32) -> Self::F32;
    /// Reads the vector at `from`.
    ///
    /// # Safety
    /// `LANES` f32 must be readable at `from`; no alignment is needed.
    unsafe fn load_at(self, from: *const f32) -> Self::F32;
    /// Reads `count <= LANES` f32 at `from`; the other lanes are 0 and their memory is not touched.
    ///
    /// # Safety
    /// `count` f32 must be readable at `from`.
    unsafe fn load_part_at(self, from: *const f32, count: usize) -> Self::F32;
    /// Writes the vector to `to`.
    ///
    /// # Safety
    /// `LANES` f32 must be writable at `to`; no alignment is needed.
    unsafe fn store_at(self, to: *mut f32, x: Self::F32);
    /// Writes the first `count <= LANES` lanes to `to`; the memory of the others is not touched.
    ///
    /// # Safety
    /// `count` f32 must be writable at `to`.
    unsafe fn store_part_at(self, to: *mut f32, count: usize, x: Self::F32);

    /// `a + b`
    fn add(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a - b`
    fn sub(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a * b`
    fn mul(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a / b`
    fn div(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a * b + c`, rounded once where the CPU has such an instruction
    fn fma(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32;
    /// The larger; `b` where either is NaN
    fn max(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// The smaller; `b` where either is NaN
    fn min(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// Square root
    fn sqrt(self, a: Self::F32) -> Self::F32;
    /// To the nearest whole number, ties to even
    fn round(self, a: Self::F32) -> Self::F32;
    /// `a * 2^n` for whole `n` in -126..=127
    fn scale_by_power_of_two(self, a: Self::F32, n: Self::F32) -> Self::F32;
    /// `a > b`, false where either is NaN
    fn gt(self, a: Self::F32, b: Self::F32) -> Self::Mask;
    /// Where `a` is NaN
    fn is_nan(self, a: Self::F32) -> Self::Mask;
    /// `(m, e)` with `a = m * 2^e` and `1 <= m < 2`, for positive normal `a`; unspecified for others
    fn split(self, a: Self::F32) -> (Self::F32, Self::F32);
    /// `yes` where the mask is true, `no` elsewhere
    fn select(self, mask: Self::Mask, yes: Self::F32, no: Self::F32) -> Self::F32;
    /// Sum of all lanes, in an order that is fixed for the instruction set
    fn sum(self, a: Self::F32) -> f32;
    /// Largest lane
    fn maximum(self, a: Self::F32) -> f32;

    /// Reads `LANES` bf16 at `from` as f32, exactly.
    ///
    /// # Safety
    /// `LANES` bf16 must be readable at `from`.
    #[inline(always)]
    unsafe fn load_bf16_at(self, from: *const bf16) -> Self::F32 {
        // SAFETY: the caller's promise.
        self.load(&bf16_lanes::widen(Self::LANES, |i| unsafe { *from.add(i) }))
    }
    /// Writes the vector to `to`, each lane rounded to the nearest bf16, ties to even; NaN stays NaN.
    ///
    /// # Safety
    /// `LANES` bf16 must be writable at `to`.
    #[inline(always)]
    unsafe fn store_bf16_at(self, to: *mut bf16, x: Self::F32) {
        let mut lanes = [0.0; 16];
        self.store(&mut lanes, x);
        for (i, x) in lanes[..Self::LANES].iter().enumerate() {
            // SAFETY: the caller's promise.
            unsafe { *to.add(i) = bf16_lanes::round(*x) };
        }
    }
    /// Reads `count <= LANES` bf16 at `from` as f32; the other lanes are 0 and their memory is not touched.
    ///
    /// # Safety
    /// `count` bf16 must be readable at `from`.
    #[inline(always)]
    unsafe fn load_bf16_part_at(self, from: *const bf16, count: usize) -> Self::F32 {
        // SAFETY: the caller's promise.
        self.load(&bf16_lanes::widen(count.min(Self::LANES), |i| unsafe { *from.add(i) }))
    }
    /// Writes the first `count <= LANES` lanes to `to`, rounded to bf16; the memory of the others is not touched.
    ///
    /// # Safety
    /// `count` bf16 must be writable at `to`.
    #[inline(always)]
    unsafe fn store_bf16_part_at(self, to: *mut bf16, count: usize, x: Self::F32) {
        let mut lanes = [0.0; 16];
        self.store(&mut lanes, x);
        for (i, x) in lanes[..Self::LANES.min(count)].iter().enumerate() {
            // SAFETY: the caller's promise.
            unsafe { *to.add(i) = bf16_lanes::round(*x) };
        }
    }
    /// Each lane rounded to the nearest bf16, ties to even, for [`dot_bf16`](Isa::dot_bf16): a subnormal may become 0.
    #[inline(always)]
    fn round_bf16(self, x: Self::F32) -> Self::F32 {
        let mut lanes = [0.0; 16];
        self.store(&mut lanes, x);
        lanes.iter_mut().for_each(|x| *x = f32::from(bf16_lanes::round(*x)));
        self.load(&lanes)
    }
    /// Writes [`round_bf16`](Isa::round_bf16) of each lane to `to`.
    ///
    /// # Safety
    /// `LANES` bf16 must be writable at `to`.
    #[inline(always)]
    unsafe fn store_factors_at(self, to: *mut bf16, x: Self::F32) {
        // SAFETY: the caller's promise.
        unsafe { self.store_bf16_at(to, x) };
    }
    /// Two vectors of values that bf16 holds exactly, lane by lane as pairs: the first in the low half of the 32 bits, the second in the high half.
    #[inline(always)]
    fn pair_bf16(self, low: Self::F32, high: Self::F32) -> Self::F32 {
        bf16_lanes::zip(self, low, high, |low, high| low >> 16 | high & 0xffff_0000)
    }
    /// The sum of `c` and the products of two bf16 pairs in each lane: first `c + high * high`, then that `+ low * low`, each rounded once to f32.
    ///
    /// All instruction sets give the same bits where no product or sum is subnormal. AVX512-BF16 takes a subnormal (below 1.2e-38) for 0, the others do not.
    #[inline(always)]
    fn dot_bf16(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32 {
        let high = |x| bf16_lanes::zip(self, x, x, |x, _| x & 0xffff_0000);
        let low = |x| bf16_lanes::zip(self, x, x, |x, _| x << 16);
        // Products of two bf16 are exact, so it does not matter whether they are fused.
        self.fma(low(a), low(b), self.fma(high(a), high(b), c))
    }
    /// Reads the first `LANES` bf16 as f32; panics where the slice is shorter.
    #[inline(always)]
    fn load_bf16(self, from: &[bf16]) -> Self::F32 {
        let from = &from[..Self::LANES];
        // SAFETY: the slice has LANES items.
        unsafe { self.load_bf16_at(from.as_ptr()) }
    }
    /// Writes the first `LANES` items, rounded to bf16; panics where the slice is shorter.
    #[inline(always)]
    fn store_bf16(self, to: &mut [bf16], x: Self::F32) {
        let to = &mut to[..Self::LANES];
        // SAFETY: the slice has LANES items.
        unsafe { self.store_bf16_at(to.as_mut_ptr(), x) }
    }
    /// Reads a slice of at most `LANES` bf16 as f32; the other lanes are 0.
    #[inline(always)]
    fn load_bf16_part(self, from: &[bf16]) -> Self::F32 {
        let count = from.len().min(Self::LANES);
        // SAFETY: `count` items are there.
        unsafe { self.load_bf16_part_at(from.as_ptr(), count) }
    }
    /// Writes as many lanes as the slice has items, at most `LANES`, rounded to bf16.
    #[inline(always)]
    fn store_bf16_part(self, to: &mut [bf16], x: Self::F32) {
        let count = to.len().min(Self::LANES);
        // SAFETY: `count` items are there.
        unsafe { self.store_bf16_part_at(to.as_mut_ptr(), count, x) }
    }

    /// Transposes a block of `LANES` rows of `LANES` numbers; rows are `from_step` and `to_step` apart.
    ///
    /// # Safety
    /// `LANES` rows of `LANES` f32 must be readable at `from` and writable at `to`, which must not overlap.
    #[inline(always)]
    unsafe fn transpose_at(self, from: *const f32, from_step: usize, to: *mut f32, to_step: usize) {
        for i in 0..Self::LANES {
            for j in 0..Self::LANES {
                // SAFETY: the caller's promise.
                unsafe { *to.add(i * to_step + j) = *from.add(j * from_step + i) };
            }
        }
    }
    /// As [`transpose_at`](Isa::transpose_at), past the caches where the CPU can: for what is too large to stay in them. [`finish_past_caches`](Isa::finish_past_caches) must
    /// follow on the same thread before another one reads the result.
    ///
    /// # Safety
    /// As [`transpose_at`](Isa::transpose_at); every row of `to` must be aligned to a vector.
    #[inline(always)]
    unsafe fn transpose_past_caches_at(self, from: *const f32, from_step: usize, to: *mut f32, to_step: usize) {
        // SAFETY: the caller's promise.
        unsafe { self.transpose_at(from, from_step, to, to_step) }
    }
    /// Orders writes past the caches before all later ones.
    #[inline(always)]
    fn finish_past_caches(self) {}
    /// As [`transpose_at`](Isa::transpose_at); panics where a row leaves its slice.
    #[inline(always)]
    fn transpose(self, from: &[f32], from_step: usize, to: &mut [f32], to_step: usize) {
        let needed = |step: usize| (Self::LANES - 1).saturating_mul(step).saturating_add(Self::LANES);
        assert!(from.len() >= needed(from_step) && to.len() >= needed(to_step), "a block leaves its slice");
        // SAFETY: all rows lie in the slices, which do not overlap.
        unsafe { self.transpose_at(from.as_ptr(), from_step, to.as_mut_ptr(), to_step) }
    }
    /// Lane `i` gets lane `from[i]` of `a`, for `i` below [`LANES`](Isa::LANES); `from` should be a constant.
    #[inline(always)]
    fn permute(self, a: Self::F32, from: &'static [u32; MOST_LANES]) -> Self::F32 {
        let (mut before, mut after) = ([0.0f32; MOST_LANES], [0.0f32; MOST_LANES]);
        self.store(&mut before, a);
        for (after, from) in after[..Self::LANES].iter_mut().zip(from) {
            *after = before[*from as usize % Self::LANES];
        }
        self.load(&after)
    }
    /// Asks for the cache line at `at`, which may be any address, to be brought into the nearest cache.
    #[inline(always)]
    fn prefetch(self, _at: *const f32) {}
    /// As [`prefetch`](Isa::prefetch), to the second-level cache: for more than the nearest can hold.
    #[inline(always)]
    fn prefetch_far(self, _at: *const f32) {}

    /// All lanes 0.
    #[inline(always)]
    fn zero(self) -> Self::F32 {
        self.splat(0.0)
    }
    /// Reads the first `LANES` items; panics where the slice is shorter.
    #[inline(always)]
    fn load(self, from: &[f32]) -> Self::F32 {
        let from = &from[..Self::LANES];
        // SAFETY: the slice has LANES items.
        unsafe { self.load_at(from.as_ptr()) }
    }
    /// Writes the first `LANES` items; panics where the slice is shorter.
    #[inline(always)]
    fn store(self, to: &mut [f32], x: Self::F32) {
        let to = &mut to[..Self::LANES];
        // SAFETY: the slice has LANES items.
        unsafe { self.store_at(to.as_mut_ptr(), x) }
    }
    /// Reads a slice of at most `LANES` items; the other lanes are 0.
    #[inline(always)]
    fn load_part(self, from: &[f32]) -> Self::F32 {
        let count = from.len().min(Self::LANES);
        // SAFETY: `count` items are there.
        unsafe { self.load_part_at(from.as_ptr(), count) }
    }
    /// Writes as many lanes as the slice has items, at most `LANES`.
    #[inline(always)]
    fn store_part(self, to: &mut [f32], x: Self::F32) {
        let count = to.len().min(Self::LANES);
        // SAFETY: `count` items are there.
        unsafe { self.store_part_at(to.as_mut_ptr(), count, x) }
    }
    /// 0 where `a` is negative; NaN stays NaN
    #[inline(always)]
    fn relu(self, a: Self::F32) -> Self::F32 {
        self.max(self.zero(), a)
    }
}

/// No instruction set has more lanes of f32.
pub const MOST_LANES: usize = 16;

/// For [`Isa::permute`]: lane `i` of each group of `depth` neighbouring lanes gets lane `(i + by) % depth` of the group.
pub const fn rotation_in_groups(depth: usize, by: usize) -> [u32; MOST_LANES] {
    let mut from = [0; MOST_LANES];
    let mut lane = 0;
    while lane < MOST_LANES {
        from[lane] = (lane / depth * depth + (lane + by) % depth) as u32;
        lane += 1;
    }
    from
}

/// Calls that keep the instruction set, so that large kernels are compiled once and not once a call site.
pub trait Outline: Sized {
    /// Runs a kernel as a function of its own, with the instructions of this token.
    fn outline<K: Kernel>(self, kernel: K) -> K::Output;
}

/// A computation that is generic over the instruction set. `run` and all that it calls must be `#[inline(always)]`.
pub trait Kernel {
    /// What the computation returns.
    type Output;
    /// Whether it uses the dot products of int8 or bf16. Other kernels run with the instructions below those, so that two instruction sets share their code.
    const DOT_PRODUCTS: bool = false;
    /// Runs it with the instructions that `isa` proves.
    fn run<I: Isa>(self, isa: I) -> Self::Output;
}

macro_rules! isa_table {
    ($($(#[$when:meta])* $id:ident $name:literal $module:ident::$token:ident, f32 $base:ident [$($feature:tt),*] $doc:literal;)*) => {
        /// The instruction sets that have kernels, on any CPU.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum IsaId {
            $($(#[$when])* #[doc = $doc] $id,)*
        }

        /// All of this architecture, best first.
        const ALL: &[IsaId] = &[$($(#[$when])* IsaId::$id),*];

        impl IsaId {
            /// The name that `QUARTZ_ISA` takes.
            pub fn name(self) -> &'static str {
                match self { $($(#[$when])* IsaId::$id => $name,)* }
            }

            /// f32 lanes of a vector.
            pub fn lanes(self) -> usize {
                match self { $($(#[$when])* IsaId::$id => <$module::$token as Isa>::LANES,)* }
            }

            fn is_supported(self) -> bool {
                match self { $($(#[$when])* IsaId::$id => true $(&& isa_table!(@detect $feature))*,)* }
            }
        }

        /// Runs a kernel with an instruction set of [`available`].
        ///
        /// # Panics
        /// The CPU does not have it.
        pub fn dispatch_on<K: Kernel>(id: IsaId, kernel: K) -> K::Output {
            assert!(id.is_supported(), "this CPU does not have {}", id.name());
            // SAFETY: support was just checked.
            unsafe { enter(id, kernel) }
        }

        /// # Safety
        /// The CPU must support `id`.
        unsafe fn enter<K: Kernel>(id: IsaId, kernel: K) -> K::Output {
            match id {
                $($(#[$when])* IsaId::$id => if K::DOT_PRODUCTS {
                    // SAFETY: as promised by the caller.
                    unsafe { $module::$token::assume() }.outline(kernel)
                } else {
                    // SAFETY: as promised by the caller: a row's features include those of its f32 token.
                    unsafe { $module::$base::assume() }.outline(kernel)
                },)*
            }
        }

        $($(#[$when])*
        impl Outline for $module::$token {
            #[inline(always)]
            fn outline<K: Kernel>(self, kernel: K) -> K::Output {
                // Inlined, its choices could be lifted out of the caller's loops, which copies them for each.
                #[inline(never)]
                $(#[target_feature(enable = $feature)])*
                unsafe fn stamped<K: Kernel>(token: $module::$token, kernel: K) -> K::Output {
                    kernel.run(token)
                }
                // SAFETY: the token proves that the CPU has the instructions.
                #[allow(unused_unsafe)]
                unsafe { stamped(self, kernel) }
            }
        })*
    };
    (@detect $feature:tt) => {{
        #[cfg(target_arch = "x86_64")]
        { std::arch::is_x86_feature_detected!($feature) }
        #[cfg(target_arch = "aarch64")]
        { std::arch::is_aarch64_feature_detected!($feature) }
    }};
}

// To add a CPU: one row here, and a token in a file of its own. `f32` names the token of kernels without dot products.
// With `--cfg quartz_quick_build` only the rows for AVX-512 and plain Rust are compiled, which halves the time of a build while a kernel is being written.
isa_table! {
    #[cfg(target_arch = "x86_64")] Avx512Vnni "avx512vnni" avx512::Avx512Vnni, f32 Avx512
        ["avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512vnni", "avx512bf16", "fma"] "AVX-512 with int8 and bf16 dot products";
    #[cfg(target_arch = "x86_64")] Avx512 "avx512" avx512::Avx512, f32 Avx512
        ["avx512f", "avx512bw", "avx512dq", "avx512vl", "fma"] "AVX-512 of the Skylake server and later";
    #[cfg(all(target_arch = "x86_64", not(quartz_quick_build)))] Avx2 "avx2" avx2::Avx2, f32 Avx2 ["avx2", "fma"] "AVX2 with fused multiply-add";
    #[cfg(target_arch = "aarch64")] Neon "neon" neon::Neon, f32 Neon ["neon"] "NEON of 64-bit Arm";
    Portable "portable" portable::Portable, f32 Portable [] "plain Rust, for any CPU";
}

/// The instruction sets that this CPU can run, best first.
pub fn available() -> impl Iterator<Item = IsaId> {
    ALL.iter().copied().filter(|id| id.is_supported())
}

/// The instruction set in use.
///
/// # Errors
/// `QUARTZ_ISA` names one that is unknown or that this CPU does not have; the message lists those that would do.
pub fn chosen() -> Result<IsaId, qtensor::Error> {
    static CHOSEN: OnceLock<Result<IsaId, String>> = OnceLock::new();
    let choice = CHOSEN.get_or_init(|| {
        let best = available().next().unwrap_or(IsaId::Portable);
        let Ok(name) = std::env::var("QUARTZ_ISA") else { return Ok(best) };
        available().find(|id| id.name() == name).ok_or_else(|| {
            let names: Vec<&str> = available().map(IsaId::name).collect();
            format!("{name:?} is not an instruction set of this CPU; available: {}", names.join(", "))
        })
    });
    choice.clone().map_err(|message| qtensor::Error::argument("QUARTZ_ISA", message))
}

/// The instruction set in use: [`chosen`], or the best available where `QUARTZ_ISA` is wrong. Programs report the error of `chosen` at their start.
pub fn current() -> IsaId {
    chosen().unwrap_or_else(|_| available().next().unwrap_or(IsaId::Portable))
}

/// Runs a kernel with the instruction set in use.
#[inline]
pub fn dispatch<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: `current` is one of `available`.
    unsafe { enter(current(), kernel) }
}

#[cfg(test)]
mod tests;

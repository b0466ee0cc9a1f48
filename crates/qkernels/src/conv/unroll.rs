//! Loops over the sums of a register tile, unrolled by hand.

/// Runs `$body` for each constant `$i` of a list that meets the condition, without a loop: the compiler does not unroll long loops reliably by itself, and
/// then the sums would leave the registers. What the condition excludes is not even compiled.
macro_rules! unrolled {
    ($i:ident in [$($n:literal)*] if $wanted:expr => $body:block) => {$({
        const $i: usize = $n;
        if const { $wanted } $body
    })*};
}

pub(crate) use unrolled;

//! Loops over the rows of a register tile, unrolled by hand.

/// Runs `$body` for the constant `$i` in `0..$rows`, or for each of a list, without a loop: the compiler does not unroll long loops reliably by itself, and
/// then the sums would leave the registers.
macro_rules! unrolled {
    ($i:ident < $rows:ident $body:block) => {
        unrolled!(@ $i $rows $body 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27)
    };
    ($i:ident in [$($n:literal)*] $body:block) => {$({
        const $i: usize = $n;
        $body
    })*};
    (@ $i:ident $rows:ident $body:block $($n:literal)*) => {$({
        const $i: usize = $n;
        if $i < $rows $body
    })*};
}

pub(super) use unrolled;

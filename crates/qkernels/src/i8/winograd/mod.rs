//! Winograd's algorithm F(4×4, 3×3) with whole numbers: 3×3 convolutions of stride 1 with a quarter of the products, in 16 bits.
//!
//! Pixels and filters at the points fit 16 bits, so their products are sums of pairs in 32 bits, half as many at a time as products of bytes. The filters carry the denominators of the transforms
//! as factors. The way back multiplies sums by up to 9 · 2^6 and stays exact modulo 2^32: 9 has an inverse there, and the powers of two leave 25 bits and a sign for the sum. Filters
//! whose sums might be larger are left to the direct algorithm, so both give the same bits.

mod correlate;
mod filters;
mod transform;

use super::ending::Ending;
use super::weights::PackedWeights;
use crate::conv::{Geometry, Tiles};
use correlate::Correlation;
pub(super) use filters::Points;
use qtensor::Result;
use transform::{POINTS, TILE};

/// What a vector of pairs of channels of a tile costs to transform, and a vector of filters to transform back, in products of vectors: two a cycle.
const INPUT: usize = 400;
const OUTPUT: usize = 400;
/// What a product at a point costs, as a fraction: its sums are short, and are stored and read again.
const PRODUCT: [usize; 2] = [11, 10];

/// Runs the convolution of channels-last `images` where the algorithm fits and is cheaper than the direct one; tells whether it did.
///
/// # Errors
/// A size overflows.
pub(super) fn run(
    g: &Geometry,
    weights: &PackedWeights,
    images: &[u8],
    zero_point: u8,
    ending: &Ending,
) -> Result<bool> {
    let vector = crate::isa::current().lanes();
    let Some(points) = weights.points().filter(|_| is_cheaper(g, weights, vector)) else { return Ok(false) };
    let tiles = Tiles::new(g.batch, g.out, TILE);
    let panels = weights.group_panels();
    let packed = points.packed(&panels, vector)?.memory::<i32>()?;
    Correlation { g, tiles, images, zero_point, panels: &panels, packed, ending }.run(vector)?;
    Ok(true)
}

/// Whether images of a shape are whole vectors of channels, in tiles that cost less than their pixels.
fn is_cheaper(g: &Geometry, weights: &PackedWeights, vector: usize) -> bool {
    let [_, lanes] = weights.group_lanes();
    let (pairs, vectors) = (g.channels / 2, lanes / vector);
    let products = POINTS * pairs * vectors * PRODUCT[0] / PRODUCT[1];
    let tile = products + INPUT * pairs / vector + OUTPUT * vectors;
    let pixel = weights.runs().depth() * vectors;
    let tiles = Tiles::new(g.batch, g.out, TILE).count;
    let pixels = g.batch * g.out[0] * g.out[1];
    g.channels.is_multiple_of(2 * vector) && tiles.saturating_mul(tile) < pixels.saturating_mul(pixel)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conv::Conv2dParams;
    use qtensor::Tensor;

    /// Whether a layer of square images takes the algorithm: channels, filters, side, value of all weights.
    fn takes([channels, filters, side]: [usize; 3], weight: i8, params: &Conv2dParams) -> bool {
        let w = Tensor::full::<i8>([filters, channels, 3, 3], weight).unwrap();
        let weights = PackedWeights::filters(&w, &[1.0], params).unwrap();
        let g = Geometry::new("test", &[1, channels, side, side], w.shape(), params).unwrap();
        weights.points().is_some() && is_cheaper(&g, &weights, crate::isa::current().lanes())
    }

    #[test]
    fn wide_layers_take_it_and_others_do_not() {
        let params = Conv2dParams { padding: [1; 2], ..Default::default() };
        assert!(takes([64, 64, 16], 1, &params));
        assert!(takes([96, 96, 12], -128, &params), "sums of 25 bits");
        assert!(!takes([160, 96, 12], -128, &params), "sums of 26 bits");
        assert!(!takes([3, 64, 32], 1, &params) && !takes([64, 64, 1], 1, &params));
        for stride_or_dilation in [
            Conv2dParams { stride: [2, 1], ..params },
            Conv2dParams { dilation: [1, 2], ..params },
            Conv2dParams { winograd: false, ..params },
        ] {
            assert!(!takes([64, 64, 16], 1, &stride_or_dilation));
        }
    }
}

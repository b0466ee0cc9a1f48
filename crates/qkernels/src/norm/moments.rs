//! Means and variances, and what pieces of a tensor tell of them.

use qtensor::{Error, Result};

/// Mean and biased variance of each channel of a tensor, which the kernel took that wrote it: see [`conv2d_measured`](crate::conv::conv2d_measured).
///
/// Of joined tensors all channels of the first come first, then all of the second, and so on.
#[derive(Clone, Debug, PartialEq)]
pub struct Moments {
    /// Values of a channel.
    count: usize,
    mean: Vec<f64>,
    var: Vec<f64>,
}

impl Moments {
    /// Those of a whole whose pieces are given in an order of its own.
    pub(crate) fn of_pieces(channels: usize, pieces: &[Piece]) -> Moments {
        let mut count = vec![0; channels];
        let mut mean = vec![0.0; channels];
        let mut squares = vec![0.0; channels];
        for (c, piece, [m, _]) in pieces.iter().flat_map(Piece::by_channel) {
            count[c] += piece.count;
            mean[c] += piece.count as f64 * m;
        }
        let of = |c: usize, sum: f64| sum / count[c].max(1) as f64;
        mean.iter_mut().enumerate().for_each(|(c, mean)| *mean = of(c, *mean));
        for (c, piece, [m, square]) in pieces.iter().flat_map(Piece::by_channel) {
            squares[c] += square + piece.count as f64 * (m - mean[c]).powi(2);
        }
        let var = squares.iter().enumerate().map(|(c, square)| of(c, *square).max(0.0)).collect();
        Moments { count: count.first().copied().unwrap_or(0), mean, var }
    }

    /// Those of tensors of one shape, joined in this order; `None` of none.
    pub fn joined(parts: impl IntoIterator<Item = Moments>) -> Option<Moments> {
        parts.into_iter().reduce(|mut all, part| {
            all.mean.extend(part.mean);
            all.var.extend(part.var);
            all
        })
    }

    /// Means and variances of `channels` channels of `count` values each.
    ///
    /// # Errors
    /// They are those of another tensor.
    pub(crate) fn of(&self, op: &'static str, [channels, count]: [usize; 2]) -> Result<(Vec<f64>, Vec<f64>)> {
        if self.mean.len() != channels || self.count != count {
            let message = format!(
                "the statistics are those of {} channels of {} values, not of {channels} of {count}",
                self.mean.len(),
                self.count
            );
            return Err(Error::argument(op, message));
        }
        Ok((self.mean.clone(), self.var.clone()))
    }

    /// Means and variances.
    pub(crate) fn into_parts(self) -> (Vec<f64>, Vec<f64>) {
        (self.mean, self.var)
    }
}

/// What a part of the values tells of some neighbouring channels.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    /// The first of the channels.
    pub(crate) first: usize,
    /// Values of each channel.
    pub(crate) count: usize,
    /// Of each channel the mean, and the sum of the squares of the deviations from it.
    pub(crate) values: Vec<[f64; 2]>,
}

impl Piece {
    fn by_channel(&self) -> impl Iterator<Item = (usize, &Piece, [f64; 2])> {
        self.values.iter().enumerate().map(move |(i, value)| (self.first + i, self, *value))
    }
}

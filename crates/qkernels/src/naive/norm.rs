//! Batch normalisation over row-major `[N, C, inner]`.

/// Shape of the normalised tensor: `[outer, channels, inner]`.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// Samples.
    pub outer: usize,
    /// Channels, each normalised on its own.
    pub channels: usize,
    /// Places of one sample.
    pub inner: usize,
}

impl Extent {
    /// Values that each channel is averaged over.
    pub fn count(&self) -> usize {
        self.outer * self.inner
    }

    fn channel(&self, c: usize) -> impl Iterator<Item = usize> + Clone {
        let Extent { outer, channels, inner } = *self;
        (0..outer).flat_map(move |n| (0..inner).map(move |i| (n * channels + c) * inner + i))
    }
}

/// Mean and biased variance of each channel.
pub fn statistics(x: &[f64], e: Extent) -> (Vec<f64>, Vec<f64>) {
    let count = e.count() as f64;
    (0..e.channels)
        .map(|c| {
            let mean = e.channel(c).map(|i| x[i]).sum::<f64>() / count;
            let var = e.channel(c).map(|i| (x[i] - mean).powi(2)).sum::<f64>() / count;
            (mean, var)
        })
        .unzip()
}

/// `x · scale + shift` by channel.
pub fn affine(x: &[f64], scale: &[f64], shift: &[f64], e: Extent) -> Vec<f64> {
    let mut y = vec![0.0; x.len()];
    for c in 0..e.channels {
        e.channel(c).for_each(|i| y[i] = x[i] * scale[c] + shift[c]);
    }
    y
}

/// `(dx, dgamma, dbeta)` of the normalisation with the batch's own statistics.
pub fn grad(x: &[f64], dy: &[f64], [gamma, mean, inv_std]: [&[f64]; 3], e: Extent) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
    let count = e.count() as f64;
    let mut dx = vec![0.0; x.len()];
    let (dgamma, dbeta): (Vec<f64>, Vec<f64>) = (0..e.channels)
        .map(|c| {
            let hat = |i: usize| (x[i] - mean[c]) * inv_std[c];
            let dgamma: f64 = e.channel(c).map(|i| dy[i] * hat(i)).sum();
            let dbeta: f64 = e.channel(c).map(|i| dy[i]).sum();
            e.channel(c).for_each(|i| {
                dx[i] = gamma[c] * inv_std[c] * (dy[i] - dbeta / count - hat(i) * dgamma / count);
            });
            (dgamma, dbeta)
        })
        .unzip();
    (dx, dgamma, dbeta)
}

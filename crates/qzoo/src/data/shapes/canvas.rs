use qtensor::random::Stream;

/// Rows and columns of the image.
pub(super) const SIDE: usize = 32;

/// Red, green and blue in 0 to 255.
pub(super) type Colour = [f32; 3];

/// The square root of x² + y²; `hypot` guards against overflow, which cannot happen here, at several times the cost.
pub(super) fn length(x: f32, y: f32) -> f32 {
    (x * x + y * y).sqrt()
}

/// An image to paint on; coordinates are (x, y) in pixels from the top left corner.
pub(super) struct Canvas {
    pixels: Vec<Colour>,
}

impl Canvas {
    /// Runs from one colour to the other in the direction of `angle`.
    pub(super) fn gradient(from: Colour, to: Colour, angle: f32) -> Self {
        let (sin, cos) = angle.sin_cos();
        let reach = SIDE as f32 * 0.5 * (sin.abs() + cos.abs());
        let mut canvas = Canvas { pixels: vec![from; SIDE * SIDE] };
        canvas.paint(|x, y| {
            let along = (x - SIDE as f32 * 0.5) * cos + (y - SIDE as f32 * 0.5) * sin;
            Some((to, 0.5 + 0.5 * along / reach))
        });
        canvas
    }

    /// A straight line with rounded ends.
    pub(super) fn line(&mut self, [from, to]: [[f32; 2]; 2], half_width: f32, colour: Colour) {
        let (dx, dy) = (to[0] - from[0], to[1] - from[1]);
        let square = (dx * dx + dy * dy).max(1e-6);
        self.paint(|x, y| {
            let along = (((x - from[0]) * dx + (y - from[1]) * dy) / square).clamp(0.0, 1.0);
            let distance = length(x - from[0] - along * dx, y - from[1] - along * dy);
            Some((colour, half_width + 0.5 - distance))
        });
    }

    /// A disc.
    pub(super) fn blob(&mut self, centre: [f32; 2], radius: f32, colour: Colour) {
        self.paint(|x, y| Some((colour, radius + 0.5 - length(x - centre[0], y - centre[1]))));
    }

    /// Mixes into every pixel the colour that `layer` gives for its centre, as far as the opacity beside it says.
    pub(super) fn paint(&mut self, layer: impl Fn(f32, f32) -> Option<(Colour, f32)>) {
        for (i, pixel) in self.pixels.iter_mut().enumerate() {
            let Some((colour, opacity)) = layer((i % SIDE) as f32 + 0.5, (i / SIDE) as f32 + 0.5) else { continue };
            let opacity = opacity.clamp(0.0, 1.0);
            pixel.iter_mut().zip(colour).for_each(|(v, c)| *v += opacity * (c - *v));
        }
    }

    /// Adds noise of that standard deviation and writes planes of red, green and blue.
    pub(super) fn write(&self, planes: &mut [u8], noise: f32, random: &mut Stream) {
        // The sum of four random bytes is near enough to a normal value, and one random word gives it.
        const MEAN: f32 = 4.0 * 127.5;
        const DEVIATION: f32 = 147.8;
        for (channel, plane) in planes.chunks_exact_mut(SIDE * SIDE).enumerate() {
            for (to, pixel) in plane.iter_mut().zip(&self.pixels) {
                let sum: u32 = random.next_u32().to_le_bytes().into_iter().map(u32::from).sum();
                *to = (pixel[channel] + noise / DEVIATION * (sum as f32 - MEAN)).round().clamp(0.0, 255.0) as u8;
            }
        }
    }
}

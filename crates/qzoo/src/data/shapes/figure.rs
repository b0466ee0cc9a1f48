use super::canvas::{Canvas, Colour, SIDE, length};
use qtensor::random::Stream;
use std::f32::consts::{PI, TAU};

/// Directions in which the sides of an equilateral triangle face.
const TRIANGLE: [[f32; 2]; 3] = [[0.0, -1.0], [0.866_025_4, 0.5], [-0.866_025_4, 0.5]];

/// A shape or a patch of texture at a place, of a size, at an angle.
pub(super) struct Figure {
    class: u32,
    centre: [f32; 2],
    radius: f32,
    /// Cosine and sine of the angle.
    turn: [f32; 2],
    /// Width of the figure as a multiple of its height.
    aspect: f32,
    /// Textures: length of a repetition in pixels, and where it begins.
    period: f32,
    phase: [f32; 2],
    /// Textures: the patch is a square, not a disc.
    square_patch: bool,
}

impl Figure {
    /// A figure of a class, with the rest drawn at random.
    pub(super) fn draw(class: u32, random: &mut Stream) -> Self {
        let radius = if class < 7 { random.uniform_in(7.0, 12.0) } else { random.uniform_in(9.0, 14.0) };
        // Most of the figure stays in the image.
        let margin = 0.85 * radius;
        let place = |random: &mut Stream| random.uniform_in(margin, SIDE as f32 - margin);
        let centre = [place(random), place(random)];
        let angle = random.uniform_in(0.0, TAU);
        Figure {
            class,
            centre,
            radius,
            turn: [angle.cos(), angle.sin()],
            aspect: random.uniform_in(0.85, 1.18),
            period: random.uniform_in(4.5, 7.0),
            phase: [random.uniform(), random.uniform()],
            square_patch: random.chance(0.5),
        }
    }

    /// Paints shapes with a gradient of the first two colours, textures with the first and the third.
    pub(super) fn paint(&self, canvas: &mut Canvas, [from, to, other]: [Colour; 3]) {
        // Nine points of every pixel are looked at.
        const STEPS: [f32; 3] = [-1.0 / 3.0, 0.0, 1.0 / 3.0];
        canvas.paint(|x, y| {
            if length(x - self.centre[0], y - self.centre[1]) > 1.6 * self.radius {
                return None;
            }
            let (mut inside, mut second) = (0.0f32, 0.0f32);
            for dy in STEPS {
                for dx in STEPS {
                    let (u, v) = self.local(x + dx, y + dy);
                    let (hit, mark) = if self.class < 7 { (self.shape(u, v), false) } else { self.texture(u, v) };
                    inside += f32::from(u8::from(hit));
                    second += f32::from(u8::from(hit && mark));
                }
            }
            let share = if inside > 0.0 { second / inside } else { 0.0 };
            let along = (0.5 + 0.5 * self.local(x, y).1).clamp(0.0, 1.0);
            let colour = std::array::from_fn(|c| {
                let base = from[c] + along * (to[c] - from[c]);
                base + share * (other[c] - base)
            });
            Some((colour, inside / 9.0))
        });
    }

    /// Coordinates in which the figure is upright and about 1 in radius.
    fn local(&self, x: f32, y: f32) -> (f32, f32) {
        let (dx, dy) = ((x - self.centre[0]) / self.radius, (y - self.centre[1]) / self.radius);
        let [cos, sin] = self.turn;
        ((dx * cos + dy * sin) / self.aspect, dy * cos - dx * sin)
    }

    fn shape(&self, u: f32, v: f32) -> bool {
        let r = length(u, v);
        match self.class {
            0 => r < 0.9,
            1 => (0.55..0.97).contains(&r),
            2 => u.abs().max(v.abs()) < 0.8,
            3 => TRIANGLE.iter().all(|[x, y]| u * x + v * y < 0.55),
            4 => r < star_radius(v.atan2(u)),
            5 => u.abs().min(v.abs()) < 0.28 && u.abs().max(v.abs()) < 1.0,
            _ => r < 0.97 && length(u - 0.5, v) > 0.72,
        }
    }

    /// Whether a point is in the patch, and whether it has the second colour.
    fn texture(&self, u: f32, v: f32) -> (bool, bool) {
        let inside = if self.square_patch { u.abs().max(v.abs()) < 0.82 } else { length(u, v) < 0.95 };
        let [a, b] = [u * self.radius / self.period + self.phase[0], v * self.radius / self.period + self.phase[1]];
        let [a, b] = [a - a.floor(), b - b.floor()];
        let mark = match self.class {
            7 => a < 0.5,
            8 => (a < 0.5) != (b < 0.5),
            _ => length(a - 0.5, b - 0.5) < 0.32,
        };
        (inside, mark)
    }
}

/// Distance from the centre of a five-pointed star to its edge in a direction.
fn star_radius(angle: f32) -> f32 {
    const OUTER: f32 = 1.08;
    const INNER: f32 = 0.42;
    // The edge between a tip at angle 0 and a notch at angle pi/5 is straight.
    let (sin, cos) = (PI / 5.0).sin_cos();
    let within = (angle.rem_euclid(TAU / 5.0) - PI / 5.0).abs();
    let from_tip = PI / 5.0 - within;
    let (nx, ny) = (INNER * sin, OUTER - INNER * cos);
    OUTER * nx / (nx * from_tip.cos() + ny * from_tip.sin())
}

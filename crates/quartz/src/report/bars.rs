//! Marks with ranges, one a name, as SVG text.

use super::plots::{COLOURS, DrawResult, INK, short};
use plotters::coord::ranged1d::{Ranged, ValueFormatter};
use plotters::prelude::*;

/// One mark.
pub(super) struct Mark {
    /// Below the mark.
    pub(super) name: String,
    /// The value.
    pub(super) value: f64,
    /// The ends of its range.
    pub(super) range: [f64; 2],
}

/// How the vertical axis is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Axis {
    /// Bars from 0.
    Linear,
    /// Points on a scale of powers of ten; values that are not above 0 are left out.
    Logarithmic,
}

/// A chart of all marks; `None` where there is nothing to draw.
pub(super) fn bars(marks: &[Mark], y: &str, axis: Axis) -> Option<String> {
    let usable = |value: f64| value.is_finite() && (axis == Axis::Linear || value > 0.0);
    let drawn = |mark: &&Mark| [mark.value, mark.range[0], mark.range[1]].into_iter().all(usable);
    let marks: Vec<&Mark> = marks.iter().filter(drawn).collect();
    let ends = marks.iter().flat_map(|mark| [mark.value, mark.range[0], mark.range[1]]);
    let (low, high) = ends.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
    if marks.is_empty() {
        return None;
    }
    let (mut svg, count) = (String::new(), marks.len());
    let size = ((48 * count as u32 + 120).max(560), 320);
    {
        let canvas = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        let mut builder = ChartBuilder::on(&canvas);
        builder.margin(8).margin_right(16).x_label_area_size(30).y_label_area_size(66);
        let xs = -0.5..count as f64 - 0.5;
        let drawn = match axis {
            Axis::Linear => {
                let room = 0.05 * (high.max(0.0) - low.min(0.0)).max(1e-9);
                let ys = low.min(0.0) - room..high.max(0.0) + room;
                builder
                    .build_cartesian_2d(xs, ys)
                    .map_err(Into::into)
                    .and_then(|chart| draw(chart, &marks, y, Some(0.0)))
            }
            Axis::Logarithmic => {
                let ys = (low / 2.0..high * 2.0).log_scale();
                builder.build_cartesian_2d(xs, ys).map_err(Into::into).and_then(|chart| draw(chart, &marks, y, None))
            }
        };
        drawn.ok()?;
        canvas.present().ok()?;
    }
    // Inside HTML an image needs no namespace, and the page names no address.
    Some(svg.replace(" xmlns=\"http://www.w3.org/2000/svg\"", ""))
}

type Chart<'a, 'b, X, Y> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<X, Y>>;

fn draw<X, Y>(mut chart: Chart<'_, '_, X, Y>, marks: &[&Mark], y: &str, floor: Option<f64>) -> DrawResult
where
    X: Ranged<ValueType = f64> + ValueFormatter<f64>,
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let text = ("sans-serif", 13).into_font().color(&INK);
    let name = |x: &f64| {
        let place = x.round();
        let mark = if (x - place).abs() < 0.01 && place >= 0.0 { marks.get(place as usize) } else { None };
        mark.map_or_else(String::new, |mark| mark.name.clone())
    };
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(2 * marks.len() + 1)
        .y_desc(y)
        .axis_style(INK.mix(0.5))
        .bold_line_style(INK.mix(0.12))
        .light_line_style(TRANSPARENT)
        .x_label_style(("sans-serif", 12).into_font().color(&INK))
        .y_label_style(text.clone())
        .axis_desc_style(text)
        .x_label_formatter(&name)
        .y_label_formatter(&|v| short(*v))
        .draw()?;
    for (place, mark) in marks.iter().enumerate() {
        let x = place as f64;
        if let Some(floor) = floor {
            chart.draw_series([Rectangle::new(
                [(x - 0.3, floor), (x + 0.3, mark.value)],
                COLOURS[0].mix(0.35).filled(),
            )])?;
        }
        let [low, high] = mark.range;
        chart.draw_series([PathElement::new([(x, low), (x, high)], COLOURS[1].stroke_width(2))])?;
        chart.draw_series([Circle::new((x, mark.value), 4, COLOURS[0].filled())])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(value: f64, range: [f64; 2]) -> Mark {
        Mark { name: format!("m<{value}"), value, range }
    }

    #[test]
    fn every_mark_is_drawn_with_its_range() {
        let marks = [mark(1e-3, [5e-4, 2e-3]), mark(1.0, [1.0, 1.0]), mark(20.0, [-1.0, 30.0])];
        let linear = bars(&marks, "y", Axis::Linear).unwrap();
        assert_eq!((linear.matches("<circle").count(), linear.contains("http")), (3, false));
        assert!(linear.contains("m&lt;20") && !linear.contains("m<20"), "names are text");
        let logarithmic = bars(&marks, "y", Axis::Logarithmic).unwrap();
        assert_eq!(logarithmic.matches("<circle").count(), 2, "a range below 0 has no place on a scale of powers");
        assert!(bars(&marks[2..], "y", Axis::Logarithmic).is_none());
        assert!(bars(&[mark(f64::NAN, [0.0, 1.0])], "y", Axis::Linear).is_none());
    }
}

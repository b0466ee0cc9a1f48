//! Curves and matrices as SVG text.

use plotters::prelude::*;
use plotters::series::DashedLineSeries;
use std::fmt::Write as _;

/// Colours of the series, told apart also by people who see few colours (after Okabe and Ito).
pub(super) const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
];
pub(super) const INK: RGBColor = RGBColor(70, 76, 90);
const SIZE: (u32, u32) = (560, 300);

/// One curve.
pub(super) struct Series<'a> {
    /// Shown in the legend.
    pub(super) name: &'a str,
    /// Places in the plot; values that are not finite are left out.
    pub(super) points: Vec<(f64, f64)>,
    /// How it is drawn.
    pub(super) style: Style,
}

/// How a curve is drawn.
#[derive(Clone, Copy, Default)]
pub(super) struct Style {
    /// One of [`COLOURS`], or that of the curve's place where there is none.
    pub(super) colour: Option<RGBColor>,
    /// In dashes.
    pub(super) dashed: bool,
}

impl Series<'_> {
    fn colour(&self, place: usize) -> RGBColor {
        self.style.colour.unwrap_or(COLOURS[place % COLOURS.len()])
    }
}

/// A chart's words.
pub(super) struct Labels {
    /// Below the horizontal axis.
    pub(super) x: &'static str,
    /// Beside the vertical axis.
    pub(super) y: &'static str,
    /// Whether the vertical values are shares, shown in percent.
    pub(super) percent: bool,
}

/// A chart with all series in one frame; `None` where there is nothing to draw.
pub(super) fn curves(series: &[Series<'_>], labels: &Labels) -> Option<String> {
    framed(series, labels, series.len() > 1)
}

/// As [`curves`], with the names of the series below the frame, where they hide nothing.
pub(super) fn keyed_curves(series: &[Series<'_>], labels: &Labels) -> Option<String> {
    let key = |(index, one): (usize, &Series<'_>)| {
        let RGBColor(red, green, blue) = one.colour(index);
        let line = if one.style.dashed { "dashed" } else { "solid" };
        let name = super::html::escape(one.name);
        format!("<span class=\"key\" style=\"--key:rgb({red},{green},{blue});--line-style:{line}\">{name}</span>")
    };
    let keys: String = series.iter().enumerate().map(key).collect();
    Some(format!("{}<div class=\"keys\">{keys}</div>", framed(series, labels, false)?))
}

fn framed(series: &[Series<'_>], labels: &Labels, has_legend: bool) -> Option<String> {
    let points = || series.iter().flat_map(|s| &s.points).filter(|(x, y)| x.is_finite() && y.is_finite());
    let range = |value: fn(&(f64, f64)) -> f64| {
        let values = points().map(value);
        values.fold(None, |range: Option<(f64, f64)>, v| Some(range.map_or((v, v), |(a, b)| (a.min(v), b.max(v)))))
    };
    let ((x0, x1), (y0, y1)) = (widen(range(|p| p.0)?, 0.0), widen(range(|p| p.1)?, 0.05));
    let mut svg = String::new();
    draw(&mut svg, (series, has_legend), labels, (x0..x1, y0..y1)).ok()?;
    // Inside HTML an image needs no namespace, and the page names no address.
    Some(svg.replace(" xmlns=\"http://www.w3.org/2000/svg\"", ""))
}

/// Some room around a range, and a width where it has none.
fn widen((low, high): (f64, f64), share: f64) -> (f64, f64) {
    let width = high - low;
    if width <= f64::EPSILON * high.abs().max(1.0) {
        let room = (high.abs() * 0.1).max(1e-9);
        return (low - room, high + room);
    }
    (low - share * width, high + share * width)
}

type Frame = (std::ops::Range<f64>, std::ops::Range<f64>);
pub(super) type DrawResult = Result<(), Box<dyn std::error::Error>>;

fn draw(svg: &mut String, (series, has_legend): (&[Series<'_>], bool), labels: &Labels, (xs, ys): Frame) -> DrawResult {
    let canvas = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    let text = ("sans-serif", 13).into_font().color(&INK);
    // Neighbouring labels differ.
    let decimals = [0.06, 0.006].iter().filter(|range| ys.end - ys.start < **range).count();
    let mut chart = ChartBuilder::on(&canvas)
        .margin(8)
        .margin_right(16)
        .x_label_area_size(38)
        .y_label_area_size(if decimals > 0 { 70 } else { 58 })
        .build_cartesian_2d(xs.clone(), ys.clone())?;
    let number = |v: &f64| if labels.percent { format!("{:.*} %", decimals, v * 100.0) } else { short(*v) };
    let xs_of = || series.iter().flat_map(|s| &s.points).map(|(x, _)| *x);
    let span = xs.end - xs.start;
    // Between whole numbers there is nothing to read off.
    let ticks = if xs_of().all(|x| x.fract() == 0.0) && span <= 10.0 { span as usize + 1 } else { 11 };
    chart
        .configure_mesh()
        .x_desc(labels.x)
        .y_desc(labels.y)
        .x_labels(ticks)
        .axis_style(INK.mix(0.5))
        .bold_line_style(INK.mix(0.12))
        .light_line_style(TRANSPARENT)
        .label_style(text.clone())
        .axis_desc_style(text.clone())
        .x_label_formatter(&|v| short(*v))
        .y_label_formatter(&number)
        .draw()?;
    for (index, one) in series.iter().enumerate() {
        let (colour, style) = (one.colour(index), one.colour(index).stroke_width(2));
        let points: Vec<(f64, f64)> =
            one.points.iter().copied().filter(|(x, y)| x.is_finite() && y.is_finite()).collect();
        if let [point] = points[..] {
            chart.draw_series([Circle::new(point, 3, colour.filled())])?;
        }
        let drawn = if one.style.dashed {
            chart.draw_series(DashedLineSeries::new(points, 6, 4, style))?
        } else {
            chart.draw_series(LineSeries::new(points, style))?
        };
        drawn.label(one.name).legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
    }
    if has_legend {
        chart
            .configure_series_labels()
            .background_style(WHITE.mix(0.85))
            .border_style(INK.mix(0.2))
            .label_font(text)
            .draw()?;
    }
    canvas.present()?;
    Ok(())
}

/// A number as people write it on an axis.
pub(super) fn short(value: f64) -> String {
    let size = value.abs();
    if size < 1e-12 {
        "0".into()
    } else if !(1e-3..1e6).contains(&size) {
        format!("{value:.1e}")
    } else {
        let digits = if size >= 100.0 { 0 } else { (2 - size.log10().floor() as i32).clamp(0, 5) as usize };
        let text = format!("{value:.digits$}");
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_string() } else { text }
    }
}

/// A confusion matrix as a heat map: rows are true classes, columns are answers, shades are shares of the row.
pub(super) fn confusion(counts: &[Vec<u64>], names: &[String]) -> String {
    let classes = counts.len();
    let numbers = classes <= 20;
    let cell = if numbers { 40 } else { (800 / classes.max(1)).max(4) };
    let margin = if numbers { 96 } else { 8 };
    let side = margin + classes * cell + 8;
    let mut svg =
        format!("<svg viewBox=\"0 0 {side} {side}\" role=\"img\" aria-label=\"confusion matrix\" class=\"matrix\">");
    for (row, line) in counts.iter().enumerate() {
        let total = line.iter().sum::<u64>().max(1) as f64;
        let name = |class: usize| super::html::escape(names.get(class).map_or("", String::as_str));
        for (column, &count) in line.iter().enumerate() {
            let share = count as f64 / total;
            let (x, y) = (margin + column * cell, margin + row * cell);
            let colour = if row == column { "0,114,178" } else { "213,94,0" };
            let opacity = if count == 0 { 0.03 } else { 0.08 + 0.92 * share.sqrt() };
            let _ = write!(
                svg,
                "<rect x=\"{x}\" y=\"{y}\" width=\"{cell}\" height=\"{cell}\" fill=\"rgba({colour},{opacity:.3})\"><title>{} taken for {}: {count} ({:.1} %)</title></rect>",
                name(row),
                name(column),
                share * 100.0
            );
            if numbers && count > 0 {
                let ink = if opacity > 0.6 { "#fff" } else { "currentColor" };
                let (x, y) = (x + cell / 2, y + cell / 2 + 4);
                let _ = write!(svg, "<text x=\"{x}\" y=\"{y}\" fill=\"{ink}\" text-anchor=\"middle\">{count}</text>");
            }
        }
        if numbers {
            let middle = margin + row * cell + cell / 2 + 4;
            let _ = write!(
                svg,
                "<text x=\"{}\" y=\"{middle}\" text-anchor=\"end\" fill=\"currentColor\">{}</text>",
                margin - 6,
                name(row)
            );
            let _ = write!(
                svg,
                "<text transform=\"translate({middle},{}) rotate(-45)\" fill=\"currentColor\">{}</text>",
                margin - 6,
                name(row)
            );
        }
    }
    svg.push_str("</svg>");
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axis_numbers_are_short() {
        let cases = [
            (0.0, "0"),
            (0.1, "0.1"),
            (2.5, "2.5"),
            (1200.0, "1200"),
            (1e-4, "1.0e-4"),
            (0.0125, "0.0125"),
            (-3.0, "-3"),
        ];
        for (value, text) in cases {
            assert_eq!(short(value), text);
        }
    }

    #[test]
    fn curves_survive_one_point_equal_values_and_nan() {
        let chart = |points: &[(f64, f64)]| {
            let series = [Series { name: "loss", points: points.to_vec(), style: Style::default() }];
            curves(&series, &Labels { x: "epoch", y: "loss", percent: false })
        };
        assert!(chart(&[]).is_none());
        assert!(chart(&[(1.0, f64::NAN)]).is_none());
        assert!(chart(&[(1.0, 2.0)]).is_some_and(|svg| svg.contains("<circle")));
        assert!(chart(&[(0.0, 2.0), (1.0, 2.0), (2.0, f64::INFINITY)]).is_some_and(|svg| svg.contains("<polyline")));
    }

    #[test]
    fn confusion_names_are_escaped() {
        let svg = confusion(&[vec![3, 1], vec![0, 4]], &["a<b".into(), "c".into()]);
        assert!(svg.contains("a&lt;b taken for c: 1 (25.0 %)") && !svg.contains("a<b"));
    }
}

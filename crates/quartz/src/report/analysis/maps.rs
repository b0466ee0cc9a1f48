//! The maps of every image.

use super::super::html::{escape, table};
use super::super::{heat, pixels};
use super::{Page, Shown, place_name, window_in_words};
use crate::format::percent;
use image::RgbImage;
use qzoo::analysis::{LayerMaps, Map, OUTPUT};
use qzoo::nn::marks;

/// A table for each image: a row a layer, the parts beside each other.
pub(super) fn of_images(analysis: &Page<'_>) -> String {
    let tables: String = analysis.shown.iter().map(|shown| of_image(analysis, shown)).collect();
    if tables.is_empty() {
        return tables;
    }
    let about = format!(
        "Means over the channels, then single channels. Each map has its own colours: from dark (0) to yellow (its maximum), or with negative values from blue over white (0) to brown, ends below. \
         Overlays show the output over a grey copy of the image. Percentages are the share of the energy inside the box. {}",
        window_in_words(analysis)
    );
    format!("<p class=\"dim\">{}</p>{tables}", escape(&about))
}

fn of_image(analysis: &Page<'_>, shown: &Shown) -> String {
    let image = pixels::of_planes(&shown.picture.planes, analysis.shape);
    let class = shown.picture.class.as_ref().map_or_else(String::new, |class| format!(" ({class})"));
    let mut rows = Vec::new();
    for (index, layer) in shown.maps.iter().enumerate() {
        let beside = shown.beside.get(index);
        let mut channels: Vec<Option<usize>> = layer.maps.iter().map(|map| map.channel).collect();
        channels.dedup();
        for channel in channels {
            rows.push(row(layer, channel, beside.filter(|_| channel.is_none()), &image, analysis.beside.is_some()));
        }
    }
    let mut head = vec!["layer".to_string(), "overlay".into()];
    head.extend([OUTPUT, marks::SECOND_ORDER, marks::LINEAR].map(place_name));
    if let Some(beside) = &analysis.beside {
        head.extend([format!("{}: overlay", beside.name), "output".into()]);
    }
    let head: Vec<&str> = head.iter().map(String::as_str).collect();
    let picture = framed(&image, &format!("{}{class}", shown.picture.label), "");
    format!("<h3>{}{}</h3>{picture}{}", escape(&shown.picture.label), escape(&class), table(&head, &rows))
}

fn row(
    layer: &LayerMaps,
    channel: Option<usize>,
    beside: Option<&LayerMaps>,
    image: &RgbImage,
    has_beside: bool,
) -> Vec<String> {
    let find = |maps: &LayerMaps, place: &str| {
        maps.maps.iter().find(|map| (map.place, map.channel) == (place, channel)).cloned()
    };
    let name = match channel {
        Some(channel) => format!("{} channel {channel}", layer.layer.name),
        None => format!("{} mean", layer.layer.name),
    };
    let over = |map: Option<&Map>, name: &str, words: &str| {
        let alternative = format!("{name} over the image");
        map.map_or_else(|| "–".into(), |map| framed(&heat::overlay(map, image), &alternative, words))
    };
    let output = find(layer, OUTPUT);
    let mut cells = vec![escape(&name), over(output.as_ref(), &name, "")];
    for place in [OUTPUT, marks::SECOND_ORDER, marks::LINEAR] {
        cells.push(find(layer, place).map_or_else(|| "–".into(), |map| drawn(&map, &place_name(place))));
    }
    if let Some(beside) = beside {
        let (map, name) = (find(beside, OUTPUT), &beside.layer.name);
        cells.push(over(map.as_ref(), name, name));
        cells.push(map.map_or_else(|| "–".into(), |map| drawn(&map, name)));
    } else if has_beside {
        cells.extend([String::new(), String::new()]);
    }
    cells
}

/// A map with its range and energy.
fn drawn(map: &Map, name: &str) -> String {
    let [height, width] = map.size;
    let about = match map.energy {
        Some(energy) => {
            let [least, most] = heat::Scale::of(map).ends().map(|x| super::number(f64::from(x)));
            format!("{name}: {least} to {most}, {height}×{width}, {}", percent(energy.share))
        }
        None => format!("{name}: nothing but 0, {height}×{width}"),
    };
    framed(&heat::picture(map), &about, &about)
}

/// A picture with words below, and others for those who do not see it.
fn framed(picture: &RgbImage, alternative: &str, words: &str) -> String {
    let Some(png) = pixels::png(picture) else { return String::new() };
    let (source, alternative, words) = (pixels::embedded(&png), escape(alternative), escape(words));
    format!("<div class=\"map\"><img alt=\"{alternative}\" src=\"{source}\">{words}</div>")
}

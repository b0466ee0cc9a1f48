//! Pictures inside a page.

use base64::Engine as _;
use image::{ImageFormat, Rgb, RgbImage};
use qzoo::data::ImageShape;

/// Planes of bytes as a picture; grey where there is one channel.
pub(super) fn of_planes(planes: &[u8], shape: ImageShape) -> RgbImage {
    let pixel = |x: u32, y: u32, channel: usize| {
        let place =
            channel.min(shape.channels.saturating_sub(1)) * shape.plane() + y as usize * shape.width + x as usize;
        planes.get(place).copied().unwrap_or(0)
    };
    let size = |n: usize| u32::try_from(n).unwrap_or(0);
    RgbImage::from_fn(size(shape.width), size(shape.height), |x, y| Rgb([0, 1, 2].map(|channel| pixel(x, y, channel))))
}

/// The bytes of a PNG file.
pub(super) fn png(picture: &RgbImage) -> Option<Vec<u8>> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut bytes, ImageFormat::Png).ok()?;
    Some(bytes.into_inner())
}

/// A PNG file as the source of an image in a page.
pub(super) fn embedded(png: &[u8]) -> String {
    format!("data:image/png;base64,{}", base64::engine::general_purpose::STANDARD.encode(png))
}

//! Readers of outside bytes: they give back what was written, and refuse everything else without a panic.

use flate2::{Compression, write::GzEncoder};
use proptest::prelude::*;
use qtensor::random::{Purpose, Stream, StreamKey};
use qzoo::data::cifar::{RecordFormat, read_records};
use qzoo::data::idx::{read_images, read_labels};
use qzoo::data::{DataError, Framing, ImageShape, Input, decode_image};
use std::io::Write;
use std::path::Path;

const SHAPE: ImageShape = ImageShape { channels: 1, height: 3, width: 2 };
const COLOUR: ImageShape = ImageShape { channels: 3, height: 2, width: 2 };
const CLASSES: usize = 10;

fn idx(dims: &[u32], bytes: &[u8]) -> Vec<u8> {
    let mut file = vec![0, 0, 8, dims.len() as u8];
    dims.iter().for_each(|dim| file.extend(dim.to_be_bytes()));
    file.extend(bytes);
    file
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn input(bytes: &[u8]) -> Input<'_> {
    Input::from_bytes(Path::new("some.file"), bytes).unwrap()
}

fn images(bytes: &[u8]) -> Result<Vec<u8>, DataError> {
    read_images(input(bytes), SHAPE, 100)
}

fn labels(bytes: &[u8]) -> Result<Vec<u8>, DataError> {
    read_labels(input(bytes), CLASSES, 100)
}

fn record_format(coarse_label: bool) -> RecordFormat {
    RecordFormat { shape: COLOUR, classes: CLASSES, coarse_label, most: 5 }
}

fn records(bytes: &[u8], coarse_label: bool) -> Result<(Vec<u8>, Vec<u32>), DataError> {
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    read_records(input(bytes), record_format(coarse_label), &mut pixels, &mut labels)?;
    Ok((pixels, labels))
}

/// The error names the file and a byte inside it.
fn assert_telling<T>(result: Result<T, DataError>, length: usize) {
    match result.err().expect("the file should be refused") {
        DataError::Damaged { path, offset, message } => {
            assert_eq!(path, Path::new("some.file"));
            assert!(offset <= length as u64 && !message.is_empty(), "{message} (byte {offset})");
        }
        other => panic!("another error: {other}"),
    }
}

proptest! {
    #[test]
    fn idx_files_give_back_what_was_written(pixels in proptest::collection::vec(any::<[u8; 6]>(), 0..20)) {
        let flat = pixels.concat();
        let file = idx(&[pixels.len() as u32, 3, 2], &flat);
        prop_assert_eq!(&images(&file).unwrap(), &flat);
        prop_assert_eq!(images(&gzip(&file)).unwrap(), flat);
    }

    #[test]
    fn idx_labels_give_back_what_was_written(values in proptest::collection::vec(0u8..10, 0..100)) {
        let file = idx(&[values.len() as u32], &values);
        prop_assert_eq!(&labels(&file).unwrap(), &values);
        prop_assert_eq!(labels(&gzip(&file)).unwrap(), values);
    }

    #[test]
    fn cifar_files_give_back_what_was_written(
        samples in proptest::collection::vec((any::<u8>(), 0u8..10, any::<[u8; 12]>()), 1..=5),
        coarse in any::<bool>(),
    ) {
        let mut file = Vec::new();
        for (coarse_label, label, pixels) in &samples {
            // A file of these records must not begin as gzip does.
            file.extend(coarse.then_some(coarse_label % 20));
            file.push(*label);
            file.extend(pixels);
        }
        let (pixels, labels) = records(&file, coarse).unwrap();
        prop_assert_eq!(pixels, samples.iter().flat_map(|s| s.2).collect::<Vec<_>>());
        prop_assert_eq!(labels, samples.iter().map(|s| u32::from(s.1)).collect::<Vec<_>>());
    }

    #[test]
    fn arbitrary_bytes_are_no_reason_to_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = (images(&bytes), labels(&bytes), records(&bytes, true), records(&bytes, false));
        let _ = decode_image(Path::new("some.file"), &bytes, COLOUR);
    }
}

#[test]
fn every_prefix_of_an_idx_file_is_refused() {
    let pixels: Vec<u8> = (0..24).collect();
    for file in [idx(&[4, 3, 2], &pixels), gzip(&idx(&[4, 3, 2], &pixels))] {
        assert_eq!(images(&file).unwrap(), pixels);
        for length in 0..file.len() {
            assert_telling(images(&file[..length]), 40);
        }
        let longer = [&file[..], &[0]].concat();
        assert_telling(images(&longer), 41);
    }
    for file in [idx(&[4], &[0, 9, 2, 3]), gzip(&idx(&[4], &[0, 9, 2, 3]))] {
        for length in 0..file.len() {
            assert_telling(labels(&file[..length]), 12);
        }
    }
}

#[test]
fn every_prefix_of_a_cifar_file_is_refused_unless_it_ends_with_a_record() {
    let file: Vec<u8> = (0..4u8).flat_map(|label| [&[label][..], &[label * 3; 12]].concat()).collect();
    for length in 0..file.len() {
        let result = records(&file[..length], false);
        if length > 0 && length % 13 == 0 {
            assert_eq!(result.unwrap().1.len(), length / 13);
        } else {
            assert_telling(result, length);
        }
    }
    assert_telling(records(&file.repeat(2), false), 5 * 13);
}

#[test]
fn headers_that_claim_too_much_are_refused_before_memory_is_taken() {
    for count in [101, 1 << 20, u32::MAX] {
        assert_telling(images(&idx(&[count, 3, 2], &[0; 24])), 4);
        assert_telling(labels(&idx(&[count], &[0; 24])), 4);
    }
    let vast = ImageShape { channels: 1, height: u32::MAX as usize, width: u32::MAX as usize };
    let file = idx(&[u32::MAX; 3], &[0; 24]);
    assert_telling(read_images(input(&file), vast, u64::MAX), 4);
    let large = ImageShape { channels: 1, height: 1 << 20, width: 1 << 20 };
    for file in [idx(&[1, 1 << 20, 1 << 20], &[0; 24]), gzip(&idx(&[1, 1 << 20, 1 << 20], &[0; 24]))] {
        assert_telling(read_images(input(&file), large, 1), 16);
    }
    assert_telling(images(&idx(&[4, 2, 3], &[0; 24])), 8);
    assert_telling(images(&idx(&[24], &[0; 24])), 0);
    assert_telling(labels(&idx(&[2], &[9, 10])), 9);
}

#[test]
fn a_gzip_bomb_is_read_no_further_than_its_header_says() {
    let bomb = gzip(&[idx(&[4, 3, 2], &[0; 24]), vec![0; 64 << 20]].concat());
    assert!(bomb.len() < 100_000);
    assert_telling(images(&bomb), 40);
}

#[test]
fn flipped_bits_of_gzip_never_give_other_pixels() {
    let pixels: Vec<u8> = (0..60u32).map(|i| (i * 37 % 251) as u8).collect();
    let file = gzip(&idx(&[10, 3, 2], &pixels));
    for bit in 0..file.len() * 8 {
        let mut changed = file.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        if let Ok(read) = images(&changed) {
            assert_eq!(read, pixels, "bit {bit}");
        }
    }
}

/// Changes a few bytes, or cuts or repeats a piece.
fn mutate(file: &[u8], random: &mut Stream) -> Vec<u8> {
    let mut file = file.to_vec();
    let place = |random: &mut Stream, length: usize| random.below(length as u32) as usize;
    for _ in 0..1 + random.below(4) {
        if file.is_empty() {
            break;
        }
        let at = place(random, file.len());
        match random.below(5) {
            0 => file[at] ^= 1 << random.below(8),
            1 => file[at] = [0, 1, 0x7f, 0x80, 0xff][place(random, 5)],
            2 => file[at] = random.next_u32() as u8,
            3 => file.truncate(at),
            _ => {
                let end = at + place(random, (file.len() - at).min(8) + 1);
                let piece = file[at..end].to_vec();
                let to = place(random, file.len());
                file.splice(to..to, piece);
            }
        }
    }
    file
}

/// Gives `count` mutations of the files to `read`; returns how many were accepted.
fn bombard(seed: u64, count: usize, files: &[Vec<u8>], mut read: impl FnMut(&[u8]) -> bool) -> usize {
    let mut random = Stream::new(StreamKey { seed, purpose: Purpose::Test, epoch: 0, index: 0 });
    (0..count).filter(|i| read(&mutate(&files[i % files.len()], &mut random))).count()
}

#[test]
fn mutated_idx_files_do_no_harm() {
    let pixels: Vec<u8> = (0..24).collect();
    let file = idx(&[4, 3, 2], &pixels);
    let accepted =
        bombard(1, 120_000, &[file.clone(), gzip(&file)], |bytes| images(bytes).is_ok_and(|p| p.len() <= 600));
    assert!(accepted > 0 && accepted < 100_000, "{accepted} accepted");
    let file = idx(&[8], &[0, 1, 2, 3, 4, 5, 6, 7]);
    let sound = |bytes: &[u8]| labels(bytes).is_ok_and(|l| l.iter().all(|&label| label < 10));
    let accepted = bombard(2, 120_000, &[file.clone(), gzip(&file)], sound);
    assert!(accepted > 0 && accepted < 100_000, "{accepted} accepted");
}

#[test]
fn mutated_cifar_files_do_no_harm() {
    let plain: Vec<u8> = (0..3u8).flat_map(|label| [&[label][..], &[200; 12]].concat()).collect();
    let coarse: Vec<u8> = (0..3u8).flat_map(|label| [&[19, label][..], &[200; 12]].concat()).collect();
    for (seed, file, coarse) in [(3, plain, false), (4, coarse, true)] {
        let accepted = bombard(seed, 60_000, &[file], |bytes| match records(bytes, coarse) {
            Ok((pixels, labels)) => {
                assert!(pixels.len() == 12 * labels.len() && labels.iter().all(|&label| label < 10));
                true
            }
            Err(_) => false,
        });
        assert!(accepted > 0 && accepted < 50_000, "{accepted} accepted");
    }
}

fn pictures() -> (Vec<u8>, Vec<u8>) {
    let picture = image::RgbImage::from_fn(9, 7, |x, y| image::Rgb([x as u8 * 28, y as u8 * 36, (x * y) as u8 * 4]));
    let (mut png, mut jpeg) = (std::io::Cursor::new(Vec::new()), std::io::Cursor::new(Vec::new()));
    picture.write_to(&mut png, image::ImageFormat::Png).unwrap();
    picture.write_to(&mut jpeg, image::ImageFormat::Jpeg).unwrap();
    (png.into_inner(), jpeg.into_inner())
}

fn decoded(bytes: &[u8]) -> Result<Vec<u8>, DataError> {
    decode_image(Path::new("some.file"), bytes, COLOUR)
}

#[test]
fn every_prefix_of_a_picture_is_refused() {
    let (png, jpeg) = pictures();
    for file in [png, jpeg] {
        assert!(decoded(&file).is_ok() && decoded(&[&file[..], b"more"].concat()).is_ok());
        let accepted: Vec<usize> = (0..file.len()).filter(|&length| decoded(&file[..length]).is_ok()).collect();
        assert!(accepted.is_empty(), "prefixes of {accepted:?} bytes of {} are accepted", file.len());
    }
}

#[test]
fn mutated_pictures_do_no_harm() {
    let (png, jpeg) = pictures();
    for (seed, file) in [(5, png), (6, jpeg)] {
        let accepted = bombard(seed, 100_000, &[file], |bytes| match decoded(bytes) {
            Ok(planes) => {
                assert_eq!(planes.len(), COLOUR.pixels());
                true
            }
            Err(error) => {
                assert!(error.to_string().starts_with("some.file: "), "{error}");
                false
            }
        });
        assert!(accepted < 100_000, "{accepted} accepted");
    }
}

#[test]
fn pictures_that_claim_a_vast_size_are_refused() {
    // PNG: the size is in the first chunk, whose checksum follows.
    let (mut png, _) = pictures();
    png[16..20].copy_from_slice(&60_000u32.to_be_bytes());
    png[20..24].copy_from_slice(&60_000u32.to_be_bytes());
    let checksum = crc32fast::hash(&png[12..29]).to_be_bytes();
    png[29..33].copy_from_slice(&checksum);
    let message = decoded(&png).unwrap_err().to_string();
    assert!(message.contains("60000x60000"), "{message}");
    // JPEG: the size is in the frame header, after its marker, length and precision.
    let (_, mut jpeg) = pictures();
    let frame = jpeg.windows(2).position(|marker| marker == [0xff, 0xc0]).unwrap();
    jpeg[frame + 5..frame + 9].copy_from_slice(&[0xff, 0xfe, 0xff, 0xfe]);
    assert!(decoded(&jpeg).is_err());
}

/// A PNG file of 9x7 grey pixels: `a[y, x] = (37 * x + 91 * y * y + 13 * x * y) % 256`.
fn grey_picture() -> Vec<u8> {
    let picture =
        image::GrayImage::from_fn(9, 7, |x, y| image::Luma([((37 * x + 91 * y * y + 13 * x * y) % 256) as u8]));
    let mut png = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut png, image::ImageFormat::Png).unwrap();
    png.into_inner()
}

/// Values of Pillow 13: `Image.fromarray(a).resize((4, 3), Image.BILINEAR)` with `a[y, x] = (37 * x + 91 * y * y + 13 * x * y) % 256`.
#[test]
fn resizing_agrees_with_pillow() {
    let bytes = grey_picture();
    for (shape, expected) in PILLOW {
        let resized = decode_image(Path::new("some.file"), &bytes, *shape).unwrap();
        let far = resized.iter().zip(*expected).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        assert!(resized.len() == expected.len() && far <= 1, "{resized:?}, Pillow {expected:?}");
    }
}

/// Values of Pillow 13 and torchvision's transforms `Resize(side)` and `CenterCrop` of the same picture.
#[test]
fn the_middle_is_cut_out_as_by_torchvision() {
    let bytes = grey_picture();
    let middle = |width, height, side| {
        let framing = Framing { shape: ImageShape { channels: 1, height, width }, shorter_side: Some(side) };
        decode_image(Path::new("some.file"), &bytes, framing)
    };
    let smaller = [104, 135, 143, 145, 187, 120, 118, 153, 150, 80, 145, 169, 98, 99, 127, 128];
    let larger = [53, 74, 128, 182, 235, 91, 75, 102, 162, 223, 169, 83, 58, 124, 182];
    for (found, expected) in [(middle(4, 4, 5), &smaller[..]), (middle(5, 3, 10), &larger)] {
        let found = found.unwrap();
        let far = found.iter().zip(expected).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        assert!(found.len() == expected.len() && far <= 1, "{found:?}, torchvision {expected:?}");
    }
    assert!(middle(5, 5, 4).unwrap_err().to_string().contains("hold no 5x5"));
    assert!(middle(1, 1, usize::MAX / 1024).is_err());
}

const PILLOW: &[(ImageShape, &[u8])] = &[
    (ImageShape { channels: 1, height: 3, width: 4 }, &[102, 137, 137, 126, 122, 111, 146, 119, 133, 100, 121, 121]),
    (
        ImageShape { channels: 1, height: 10, width: 13 },
        &[
            0, 20, 46, 71, 97, 122, 148, 174, 199, 205, 54, 20, 40, 50, 74, 105, 135, 166, 153, 86, 117, 147, 169, 119,
            123, 147, 95, 124, 161, 198, 195, 149, 52, 90, 126, 158, 150, 173, 201, 107, 141, 184, 227, 120, 66, 101,
            144, 187, 211, 87, 73, 107, 71, 109, 159, 208, 100, 51, 101, 151, 199, 229, 102, 92, 131, 95, 90, 105, 160,
            113, 77, 71, 128, 183, 219, 98, 94, 138, 179, 89, 33, 95, 149, 132, 25, 88, 144, 180, 74, 73, 115, 214,
            130, 80, 148, 98, 73, 97, 166, 160, 106, 129, 95, 44, 217, 137, 94, 168, 85, 61, 136, 131, 116, 104, 178,
            135, 55, 204, 128, 90, 169, 91, 72, 152, 54, 55, 135, 214, 176, 100,
        ],
    ),
];

//! From `[data]` of an experiment to splits: files below a data root, image folders, held-out images.

use image::{Rgb, RgbImage};
use qzoo::data::{DataError, Loader, LoaderOptions, data_root, describe, open, open_test, open_test_file};
use qzoo::experiment::{Data, Dataset};
use std::collections::HashSet;
use std::fs;
use std::path::Path;

fn data(dataset: Dataset) -> Data {
    Data { dataset, ..Data::default() }
}

/// Image `i` of a split has all its pixels equal to a value of its own.
fn write_mnist(root: &Path, folder: &str, [train, test]: [u8; 2]) {
    let folder = root.join(folder);
    fs::create_dir_all(&folder).unwrap();
    for (prefix, count, first) in [("train", train, 0), ("t10k", test, 100)] {
        let mut images = vec![0, 0, 8, 3, 0, 0, 0, count, 0, 0, 0, 28, 0, 0, 0, 28];
        let mut labels = vec![0, 0, 8, 1, 0, 0, 0, count];
        for i in 0..count {
            images.extend([first + i; 784]);
            labels.push(i % 10);
        }
        fs::write(folder.join(format!("{prefix}-images-idx3-ubyte")), images).unwrap();
        fs::write(folder.join(format!("{prefix}-labels-idx1-ubyte")), labels).unwrap();
    }
}

fn first_bytes(dataset: &qzoo::data::Dataset) -> Vec<u8> {
    let mut scratch = Vec::new();
    (0..dataset.len()).map(|i| dataset.image(i, &mut scratch).unwrap()[0]).collect()
}

#[test]
fn idx_sets_are_read_from_their_folders() {
    let root = tempfile::tempdir().unwrap();
    for (dataset, folder) in [(Dataset::Mnist, "mnist"), (Dataset::FashionMnist, "fashion-mnist")] {
        let message = open(&data(dataset), root.path(), 0).unwrap_err().to_string();
        assert!(message.contains(&format!("data fetch {dataset}")) && message.contains(folder), "{message}");
        write_mnist(root.path(), folder, [30, 7]);
        let splits = open(&data(dataset), root.path(), 0).unwrap();
        assert_eq!((splits.train.len(), splits.test.len()), (30, 7));
        assert_eq!(first_bytes(&splits.train), (0..30).collect::<Vec<u8>>());
        assert_eq!(first_bytes(&splits.test), (100..107).collect::<Vec<u8>>());
        assert_eq!((splits.train.label(13), splits.test.label(6)), (3, 6));
        assert!(splits.validation.is_none());
    }
    fs::write(root.path().join("mnist/train-labels-idx1-ubyte"), [0, 0, 8, 1, 0, 0, 0, 1, 5]).unwrap();
    let message = open(&data(Dataset::Mnist), root.path(), 0).unwrap_err().to_string();
    assert!(message.contains("1 labels for the 30 images"), "{message}");
}

#[test]
fn test_images_can_come_from_a_file_and_be_normalised_otherwise() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("some.bin");
    fs::write(&file, [&[3][..], &[255; 3072], &[9], &[0; 3072]].concat()).unwrap();
    let std = Some(vec![0.25, 0.5, 1.0]);
    let wanted = Data { mean: Some(vec![0.5; 3]), std, ..data(Dataset::Cifar10) };
    let dataset = open_test_file(&wanted, &file).unwrap();
    assert_eq!((dataset.len(), dataset.label(0), dataset.label(1)), (2, 3, 9));
    assert_eq!(dataset.info(), &describe(&wanted, root.path()).unwrap());
    let batch =
        Loader::new(dataset, LoaderOptions::evaluation(2)).unwrap().epoch(0, 0).unwrap().next().unwrap().unwrap();
    let pixels = batch.images.contiguous().to_vec::<f32>().unwrap();
    assert_eq!([pixels[0], pixels[1024], pixels[2048], pixels[3072]], [2.0, 1.0, 0.5, -2.0]);

    let short = Data { std: Some(vec![1.0]), ..wanted.clone() };
    assert!(describe(&short, root.path()).unwrap_err().to_string().contains("3 channels"));
    let message = open_test_file(&data(Dataset::Mnist), &file).unwrap_err().to_string();
    assert!(message.contains("only those of CIFAR"), "{message}");
    fs::write(&file, [0; 100]).unwrap();
    assert!(matches!(open_test_file(&wanted, &file), Err(DataError::Damaged { .. })));
}

#[test]
fn cifar_sets_are_read_from_their_folders_in_order() {
    let root = tempfile::tempdir().unwrap();
    let record = |labels: &[u8], value: u8| [labels, &[value; 3072]].concat();
    let ten = root.path().join("cifar-10-batches-bin");
    fs::create_dir_all(&ten).unwrap();
    for batch in 1..=5u8 {
        let records = [record(&[batch], 2 * batch), record(&[batch + 1], 2 * batch + 1)].concat();
        fs::write(ten.join(format!("data_batch_{batch}.bin")), records).unwrap();
    }
    fs::write(ten.join("test_batch.bin"), record(&[9], 77)).unwrap();
    let splits = open(&data(Dataset::Cifar10), root.path(), 0).unwrap();
    assert_eq!(first_bytes(&splits.train), (2..12).collect::<Vec<u8>>());
    assert_eq!((splits.train.label(9), splits.test.label(0)), (6, 9));
    assert_eq!(splits.test.info().classes[9], "truck");

    let hundred = root.path().join("cifar-100-binary");
    fs::create_dir_all(&hundred).unwrap();
    fs::write(hundred.join("train.bin"), record(&[19, 99], 5)).unwrap();
    fs::write(hundred.join("test.bin"), record(&[1, 42], 6)).unwrap();
    let splits = open(&data(Dataset::Cifar100), root.path(), 0).unwrap();
    assert_eq!((splits.train.label(0), splits.test.label(0)), (99, 42));
    assert_eq!(splits.test.info().classes[99], "worm");

    fs::write(ten.join("test_batch.bin"), vec![0; 4000]).unwrap();
    let error = open_test(&data(Dataset::Cifar10), root.path()).unwrap_err();
    assert!(matches!(error, DataError::Damaged { offset: 3073, .. }), "{error}");
}

#[test]
fn held_out_and_limited_images_depend_on_the_seed_only_and_never_overlap() {
    let root = tempfile::tempdir().unwrap();
    write_mnist(root.path(), "mnist", [100, 3]);
    let part = |validation, train_limit, seed| {
        open(&Data { validation, train_limit, ..data(Dataset::Mnist) }, root.path(), seed).unwrap()
    };
    let splits = part(0.2, 0, 1);
    let (train, held) = (first_bytes(&splits.train), first_bytes(&splits.validation.unwrap()));
    assert_eq!((train.len(), held.len()), (80, 20));
    assert_eq!(train.iter().chain(&held).collect::<HashSet<_>>().len(), 100);
    assert_eq!(first_bytes(&part(0.2, 0, 1).train), train);
    assert_ne!(first_bytes(&part(0.2, 0, 2).train), train);

    let limited = part(0.2, 10, 1);
    assert_eq!(first_bytes(&limited.validation.unwrap()), held, "the limit does not move the held-out images");
    assert!(first_bytes(&limited.train).iter().all(|value| train.contains(value)));
    assert_eq!((limited.train.len(), part(0.0, 10, 1).train.len(), part(0.0, 1000, 1).train.len()), (10, 10, 100));
    for validation in [-0.1, 1.0, 0.999, f64::NAN] {
        let impossible = Data { validation, ..data(Dataset::Mnist) };
        assert!(open(&impossible, root.path(), 0).is_err(), "{validation}");
    }
}

#[test]
fn images_are_resized_where_a_size_is_given() {
    let root = tempfile::tempdir().unwrap();
    write_mnist(root.path(), "mnist", [4, 2]);
    let splits = open(&Data { image_size: Some(14), ..data(Dataset::Mnist) }, root.path(), 0).unwrap();
    assert_eq!((splits.train.info().shape.height, splits.test.info().shape.width), (14, 14));
    assert_eq!(first_bytes(&splits.train), [0, 1, 2, 3]);
    for size in [0, 5000] {
        assert!(open(&Data { image_size: Some(size), ..data(Dataset::Mnist) }, root.path(), 0).is_err());
    }
}

fn folder_data() -> Data {
    Data { path: Some("pets".to_string()), image_size: Some(8), ..data(Dataset::Folder) }
}

fn write_picture(path: &Path, size: [u32; 2], colour: [u8; 3]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    RgbImage::from_pixel(size[0], size[1], Rgb(colour)).save(path).unwrap();
}

fn write_pets(root: &Path, held_out: &str) {
    let pets = root.join("pets");
    write_picture(&pets.join("train/dog/b.png"), [8, 8], [255, 0, 0]);
    write_picture(&pets.join("train/dog/a.JPG"), [30, 20], [0, 0, 255]);
    write_picture(&pets.join("train/cat/1.jpeg"), [5, 9], [0, 255, 0]);
    write_picture(&pets.join(held_out).join("dog/x.png"), [8, 8], [9, 8, 7]);
    fs::write(pets.join("train/dog/notes.txt"), "no image").unwrap();
    fs::write(pets.join("train/dog/.hidden.png"), "no image").unwrap();
}

#[test]
fn an_image_folder_is_read_in_the_order_of_its_names() {
    for held_out in ["test", "val"] {
        let root = tempfile::tempdir().unwrap();
        write_pets(root.path(), held_out);
        let splits = open(&folder_data(), root.path(), 0).unwrap();
        assert_eq!(splits.train.info().classes, ["cat", "dog"]);
        assert_eq!([0, 1, 2].map(|i| splits.train.label(i)), [0, 1, 1]);
        assert_eq!((splits.test.len(), splits.test.label(0)), (1, 1));
        let mut scratch = Vec::new();
        // JPEG keeps a plain colour to within a few steps.
        for (i, colour) in [[0, 255, 0], [0, 0, 255], [255, 0, 0]].iter().enumerate() {
            let image = splits.train.image(i, &mut scratch).unwrap();
            assert_eq!(image.len(), 3 * 64);
            for (plane, value) in image.chunks_exact(64).zip(colour) {
                assert!(plane.iter().all(|v| v.abs_diff(*value) <= 3), "{i}: {plane:?}");
            }
        }
        assert_eq!(first_bytes(&splits.test), [9]);
        // Each channel is full in one of three images.
        for channel in 0..3 {
            assert!((splits.test.info().mean[channel] - 1.0 / 3.0).abs() < 0.01);
            assert!((splits.test.info().std[channel] - (2.0f32 / 9.0).sqrt()).abs() < 0.01);
        }
    }
}

#[test]
fn mistakes_in_an_image_folder_are_named() {
    let expect = |change: &dyn Fn(&Path), part: &str| {
        let root = tempfile::tempdir().unwrap();
        write_pets(root.path(), "test");
        change(&root.path().join("pets"));
        let message = open(&folder_data(), root.path(), 0).unwrap_err().to_string();
        assert!(message.contains(part), "{part:?} is not in: {message}");
    };
    expect(&|pets| fs::remove_dir_all(pets.join("test")).unwrap(), "test/ (or val/)");
    expect(&|pets| fs::remove_dir_all(pets.join("train")).unwrap(), "train");
    expect(&|pets| fs::remove_file(pets.join("train/cat/1.jpeg")).unwrap(), "train/cat");
    expect(&|pets| write_picture(&pets.join("test/bird/a.png"), [2, 2], [0; 3]), "test/bird");
    expect(&|pets| fs::write(pets.join("train/cat/2.png"), "no image").unwrap(), "train/cat/2.png");
    let root = tempfile::tempdir().unwrap();
    for path in ["../pets", "/pets", "a/../../pets"] {
        assert!(open(&Data { path: Some(path.to_string()), ..folder_data() }, root.path(), 0).is_err(), "{path}");
    }
    assert!(open(&Data { image_size: None, ..folder_data() }, root.path(), 0).is_err());
}

#[test]
fn a_damaged_image_stops_the_loader_with_its_name() {
    let root = tempfile::tempdir().unwrap();
    write_pets(root.path(), "test");
    fs::write(root.path().join("pets/test/dog/y.png"), "no image").unwrap();
    let test = open_test(&folder_data(), root.path()).unwrap();
    let loader = Loader::new(test, LoaderOptions::evaluation(1)).unwrap();
    let results: Vec<_> = loader.epoch(0, 0).unwrap().collect();
    assert!(results[0].is_ok() && results.len() == 2);
    assert!(results[1].as_ref().unwrap_err().to_string().contains("y.png"));
}

#[test]
fn the_named_data_root_wins() {
    assert_eq!(data_root(Some(Path::new("here"))), Path::new("here"));
}

//! The folder tree of Tiny ImageNet, from a tree of the same layout with three classes.

use image::{GrayImage, Luma, Rgb, RgbImage};
use qzoo::data::{
    DataError, FileState, Manifest, Presence, Progress, describe, fetch, open, open_test, presence, verify,
};
use qzoo::experiment::{Data, Dataset};
use std::fs;
use std::path::{Path, PathBuf};

const WNIDS: [&str; 3] = ["n02124075", "n04067472", "n02002724"];
/// By class.
const COLOURS: [[u8; 3]; 3] = [[255, 0, 0], [0, 255, 0], [0, 0, 255]];

fn data(image_size: Option<usize>) -> Data {
    Data { dataset: Dataset::TinyImagenet, image_size, ..Data::default() }
}

fn picture(path: PathBuf, colour: [u8; 3]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    RgbImage::from_pixel(64, 64, Rgb(colour)).save_with_format(path, image::ImageFormat::Jpeg).unwrap();
}

/// Three training images of each class, of which the last of the first class is in no list, and a grey one among four test images.
fn write_tree(root: &Path) -> PathBuf {
    let tree = root.join("tiny-imagenet-200");
    for (wnid, colour) in WNIDS.iter().zip(COLOURS) {
        let class = tree.join("train").join(wnid);
        for i in 0..3 {
            picture(class.join(format!("images/{wnid}_{i}.JPEG")), colour);
        }
        let listed = if wnid == &WNIDS[0] { 2 } else { 3 };
        let boxes: String = (0..listed).rev().map(|i| format!("{wnid}_{i}.JPEG\t0\t10\t63\t58\n")).collect();
        fs::write(class.join(format!("{wnid}_boxes.txt")), boxes).unwrap();
    }
    let images = tree.join("val/images");
    for (i, class) in [2, 0, 1].into_iter().enumerate() {
        picture(images.join(format!("val_{i}.JPEG")), COLOURS[class]);
    }
    let grey = GrayImage::from_fn(64, 64, |x, _| Luma([if x < 32 { 40 } else { 200 }]));
    grey.save_with_format(images.join("val_3.JPEG"), image::ImageFormat::Jpeg).unwrap();
    let annotations = [("val_1", 0), ("val_0", 2), ("val_3", 1), ("val_2", 1)];
    let lines = annotations.map(|(name, class)| format!("{name}.JPEG\t{}\t0\t32\t44\t62\n", WNIDS[class]));
    fs::write(tree.join("val/val_annotations.txt"), lines.concat()).unwrap();
    fs::write(tree.join("wnids.txt"), WNIDS.join("\n") + "\n").unwrap();
    let words = "n00001740\tentity\nn02124075\tEgyptian cat\nn04067472\treel\nn02002724\tblack stork, Ciconia nigra\n";
    fs::write(tree.join("words.txt"), words).unwrap();
    tree
}

#[test]
fn labels_are_lines_of_wnids_and_names_are_words() {
    let root = tempfile::tempdir().unwrap();
    write_tree(root.path());
    let splits = open(&data(None), root.path(), 0).unwrap();
    let info = splits.train.info();
    assert_eq!(info.classes, ["Egyptian cat", "reel", "black stork"]);
    assert_eq!([info.shape.channels, info.shape.height, info.shape.width], [3, 64, 64]);
    assert_eq!((0..splits.train.len()).map(|i| splits.train.label(i)).collect::<Vec<_>>(), [0, 0, 1, 1, 1, 2, 2, 2]);
    assert_eq!((0..splits.test.len()).map(|i| splits.test.label(i)).collect::<Vec<_>>(), [0, 2, 1, 1]);
    let mut scratch = Vec::new();
    for split in [&splits.train, &splits.test] {
        // The third test image is the grey one.
        for i in (0..split.len()).filter(|i| split.len() != 4 || *i != 2) {
            let image = split.image(i, &mut scratch).unwrap();
            for (plane, value) in image.chunks_exact(64 * 64).zip(COLOURS[split.label(i) as usize]) {
                assert!(plane.iter().all(|v| v.abs_diff(value) <= 3), "image {i}");
            }
        }
    }
    assert_eq!(*info, describe(&data(None), root.path()).unwrap());
    assert_eq!(describe(&data(None), Path::new("nowhere")).unwrap().classes.len(), 200);
}

#[test]
fn grey_images_have_three_channels_and_all_are_resized_with_a_filter() {
    let root = tempfile::tempdir().unwrap();
    write_tree(root.path());
    let test = open_test(&data(Some(32)), root.path()).unwrap();
    assert_eq!(test.info().shape.height, 32);
    assert_eq!(*test.info(), describe(&data(Some(32)), root.path()).unwrap());
    let mut scratch = Vec::new();
    let image = test.image(2, &mut scratch).unwrap();
    let planes: Vec<&[u8]> = image.chunks_exact(32 * 32).collect();
    assert_eq!(planes.len(), 3);
    assert!(planes[0] == planes[1] && planes[1] == planes[2]);
    for row in planes[0].chunks_exact(32) {
        assert!(row[..15].iter().all(|v| v.abs_diff(40) <= 6) && row[17..].iter().all(|v| v.abs_diff(200) <= 6));
        // The edge is smoothed over the two pixels beside it, evenly.
        assert!((40..120).contains(&row[15]) && (120..200).contains(&row[16]), "{} {}", row[15], row[16]);
        assert!((u32::from(row[15]) + u32::from(row[16])).abs_diff(240) <= 8);
    }
}

#[test]
fn mistakes_in_the_tree_are_named() {
    let expect = |change: &dyn Fn(&Path), parts: &[&str]| {
        let root = tempfile::tempdir().unwrap();
        let tree = write_tree(root.path());
        change(&tree);
        let message = open(&data(None), root.path(), 0).unwrap_err().to_string();
        assert!(parts.iter().all(|part| message.contains(part)), "{parts:?} is not in: {message}");
    };
    let append = |path: PathBuf, line: &str| fs::write(&path, fs::read_to_string(&path).unwrap() + line).unwrap();
    for part in ["wnids.txt", "words.txt", "val"] {
        let remove = |tree: &Path| {
            let path = tree.join(part);
            if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
        };
        expect(&remove, &[part, "not found", "data fetch tiny-imagenet"]);
    }
    expect(&|tree| fs::remove_file(tree.join("val/val_annotations.txt")).unwrap(), &["val_annotations.txt", "unpack"]);
    expect(&|tree| append(tree.join("wnids.txt"), "n02124075\n"), &["wnids.txt", "line 4", "twice"]);
    expect(&|tree| append(tree.join("wnids.txt"), "../x\n"), &["wnids.txt", "line 4"]);
    expect(&|tree| append(tree.join("wnids.txt"), "n09999999\n"), &["n09999999", "not found"]);
    expect(&|tree| fs::write(tree.join("wnids.txt"), "\n").unwrap(), &["wnids.txt", "0 classes"]);
    let annotations = |tree: &Path| tree.join("val/val_annotations.txt");
    expect(&|tree| append(annotations(tree), "val_9.JPEG\tn04067472\n"), &["line 5", "val_9.JPEG"]);
    expect(&|tree| append(annotations(tree), "val_0.JPEG\tn1\t0\n"), &["line 5", "n1", "wnids.txt"]);
    expect(&|tree| append(annotations(tree), "val_0.JPEG\n"), &["line 5", "a tab"]);
    expect(&|tree| append(annotations(tree), "../images/val_0.JPEG\tn04067472\n"), &["line 5", "../images"]);
    expect(&|tree| fs::write(annotations(tree), "").unwrap(), &["no images"]);
    expect(&|tree| fs::write(annotations(tree), b"val_0.JPEG\t\xff").unwrap(), &["UTF-8", "byte 11"]);
    let class = |tree: &Path| tree.join("train/n04067472");
    expect(&|tree| append(class(tree).join("n04067472_boxes.txt"), "x.JPEG\t1\n"), &["boxes.txt", "line 4", "x.JPEG"]);
    expect(&|tree| fs::remove_dir_all(class(tree)).unwrap(), &["n04067472", "not found"]);
}

#[test]
fn without_a_list_all_images_of_a_class_count() {
    let root = tempfile::tempdir().unwrap();
    let tree = write_tree(root.path());
    fs::remove_file(tree.join("train/n02124075/n02124075_boxes.txt")).unwrap();
    fs::write(tree.join("train/n02124075/images/notes.txt"), "no image").unwrap();
    assert_eq!(open(&data(None), root.path(), 0).unwrap().train.len(), 9);
    // Words that two classes share do not tell them apart.
    fs::write(tree.join("words.txt"), "n02124075\tcrane, a bird\nn04067472\tcrane, a machine\n").unwrap();
    let names = describe(&data(None), root.path()).unwrap().classes;
    assert_eq!(names, ["crane, a bird", "crane, a machine", "n02002724"]);
}

#[derive(Default)]
struct Notes(Vec<String>);

impl Progress for Notes {
    fn begin(&mut self, name: &str, _: u64, _: u64) {
        panic!("{name} is downloaded");
    }
    fn advance(&mut self, _: u64) {}
    fn note(&mut self, message: &str) {
        self.0.push(message.into());
    }
}

#[test]
fn what_is_there_is_known() {
    let root = tempfile::tempdir().unwrap();
    let manifest = Manifest::of("tiny-imagenet").unwrap();
    assert_eq!(presence(&manifest, root.path()), Presence::Absent);
    let states = |root: &Path| verify(&manifest, root).unwrap().files.into_iter().map(|file| (file.count, file.state));
    assert_eq!(states(root.path()).collect::<Vec<_>>(), [(None, FileState::Missing)]);
    let tree = write_tree(root.path());
    assert_eq!(presence(&manifest, root.path()), Presence::Complete);
    let found: Vec<_> = states(root.path()).collect();
    assert_eq!(found.iter().map(|(count, _)| *count).collect::<Vec<_>>(), [Some(8), Some(4)]);
    assert!(found.iter().all(|(_, state)| matches!(state, FileState::Different(how) if how.contains("published"))));
    let mut notes = Notes::default();
    fetch(&manifest, root.path(), &mut notes).unwrap();
    assert!(notes.0[0].contains("tiny-imagenet-200"), "{:?}", notes.0);
    fs::remove_file(tree.join("words.txt")).unwrap();
    assert_eq!(presence(&manifest, root.path()), Presence::Partial(vec!["words.txt".into()]));
    // An archive that is not the published one is refused before anything is unpacked.
    fs::write(root.path().join("tiny-imagenet-200.zip"), "PK").unwrap();
    let error = fetch(&manifest, root.path(), &mut notes).unwrap_err();
    assert!(matches!(error, DataError::Checksum { .. }), "{error}");
}

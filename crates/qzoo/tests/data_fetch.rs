//! Fetching and verifying, against a server on this machine that misbehaves in every way.
#![cfg(feature = "download")]

use flate2::{Compression, write::GzEncoder};
use qzoo::data::{
    DataError, FileState, Manifest, Presence, Progress, Split, fetch, list, presence, read_split, unpack, verify,
};
use sha2::{Digest, Sha256};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[derive(Default)]
struct Notes {
    lines: Vec<String>,
    begins: Vec<u64>,
    received: u64,
}

impl Progress for Notes {
    fn begin(&mut self, _: &str, done: u64, _: u64) {
        self.begins.push(done);
    }
    fn advance(&mut self, bytes: u64) {
        self.received += bytes;
    }
    fn note(&mut self, message: &str) {
        self.lines.push(message.to_string());
    }
}

/// How the server treats its file.
#[derive(Clone)]
struct Behaviour {
    body: Vec<u8>,
    tag: Option<&'static str>,
    honours_range: bool,
    /// Bytes of a body after which the n-th answer is cut.
    cuts: Vec<usize>,
    status: &'static str,
}

impl Behaviour {
    fn good(body: &[u8]) -> Self {
        Behaviour { body: body.to_vec(), tag: Some("\"v1\""), honours_range: true, cuts: vec![], status: "200 OK" }
    }
}

struct Server {
    port: u16,
    behaviour: Arc<Mutex<Behaviour>>,
    requests: Arc<AtomicUsize>,
}

impl Server {
    fn start(behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (behaviour, requests) = (Arc::new(Mutex::new(behaviour)), Arc::new(AtomicUsize::new(0)));
        let (shared, count) = (Arc::clone(&behaviour), Arc::clone(&requests));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                count.fetch_add(1, Ordering::SeqCst);
                let behaviour = {
                    let mut shared = shared.lock().unwrap();
                    let now = shared.clone();
                    if !shared.cuts.is_empty() {
                        shared.cuts.remove(0);
                    }
                    now
                };
                // A client that hangs up is part of the tests.
                let _ = answer(stream, &behaviour);
            }
        });
        Server { port, behaviour, requests }
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

fn answer(mut stream: TcpStream, behaviour: &Behaviour) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let (mut range, mut condition) = (None, None);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(": ") {
            match name.to_ascii_lowercase().as_str() {
                "range" => range = value.strip_prefix("bytes=").and_then(|v| v.strip_suffix('-')?.parse().ok()),
                "if-range" => condition = Some(value.to_string()),
                _ => {}
            }
        }
    }
    let start: usize = match range {
        Some(start) if behaviour.honours_range && condition.as_deref() == behaviour.tag => start,
        _ => 0,
    };
    let total = behaviour.body.len();
    let body = &behaviour.body[start..];
    let status = if start > 0 { "206 Partial Content" } else { behaviour.status };
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n", body.len())?;
    if let Some(tag) = behaviour.tag {
        write!(stream, "ETag: {tag}\r\n")?;
    }
    if start > 0 {
        write!(stream, "Content-Range: bytes {start}-{}/{total}\r\n", total - 1)?;
    }
    write!(stream, "\r\n")?;
    let sent = behaviour.cuts.first().map_or(body.len(), |&cut| cut.min(body.len()));
    stream.write_all(&body[..sent])
}

/// Two training images and one test image of 2x2 pixels, as IDX, each in a download of its own from `port`.
struct Fixture {
    files: Vec<(&'static str, Vec<u8>)>,
}

fn fixture() -> Fixture {
    let images =
        |count: u8| [&[0, 0, 8, 3, 0, 0, 0, count, 0, 0, 0, 2, 0, 0, 0, 2][..], &vec![7; 4 * count as usize]].concat();
    let labels = |count: u8| [&[0, 0, 8, 1, 0, 0, 0, count][..], &vec![1; count as usize]].concat();
    let files = vec![("a", images(2)), ("b", labels(2)), ("c", images(1)), ("d", labels(1))];
    Fixture { files }
}

impl Fixture {
    fn manifest(&self, downloads: &str) -> Manifest {
        let mut text = String::from(
            "name = 'tiny'\ntitle = 't'\nformat = 'idx'\nfolder = 'tiny'\nshape = [1, 2, 2]\nclasses = ['x', 'y']\nmean = [0.5]\nstd = [0.5]\n",
        );
        for ((name, bytes), (split, holds)) in
            self.files.iter().zip([("train", "images"), ("train", "labels"), ("test", "images"), ("test", "labels")])
        {
            let count = bytes[7];
            text += &format!(
                "[[file]]\nname = '{name}'\nsplit = '{split}'\nholds = '{holds}'\ncount = {count}\nbytes = {}\nsha256 = '{}'\n",
                bytes.len(),
                sha256(bytes)
            );
        }
        Manifest::parse(&(text + downloads)).unwrap()
    }

    fn tar_gz(&self) -> Vec<u8> {
        let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        append(&mut archive, "tiny/readme.html", b"not wanted");
        for (name, bytes) in &self.files {
            append(&mut archive, &format!("tiny/{name}"), bytes);
        }
        archive.into_inner().unwrap().finish().unwrap()
    }
}

fn append<W: Write>(archive: &mut tar::Builder<W>, name: &str, bytes: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    header.set_cksum();
    archive.append_data(&mut header, name, bytes).unwrap();
}

fn download(name: &str, ports: &[u16], published: &[u8], unpack: &str) -> String {
    let urls: Vec<String> = ports.iter().map(|port| format!("'http://127.0.0.1:{port}/{name}'")).collect();
    format!(
        "[[download]]\nname = '{name}'\nurls = [{}]\nbytes = {}\nsha256 = '{}'\nunpack = '{unpack}'\n",
        urls.join(", "),
        published.len(),
        sha256(published)
    )
}

/// A large file that is served, and a manifest whose only download it is: the transfer itself is what is tested.
fn body() -> Vec<u8> {
    (0..300_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

fn fetch_large(server: &Server, root: &Path) -> (Result<(), DataError>, Notes) {
    let manifest = fixture().manifest(&download("large", &[server.port], &body(), "none"));
    let mut notes = Notes::default();
    let result = fetch(&manifest, root, &mut notes);
    (result, notes)
}

#[test]
fn a_transfer_that_is_cut_many_times_goes_on_where_it_ended() {
    let cuts: Vec<usize> = (0..20).map(|i| 1 + i * 7919 % 14_000).collect();
    let server = Server::start(Behaviour { cuts: cuts.clone(), ..Behaviour::good(&body()) });
    let root = tempfile::tempdir().unwrap();
    let (result, notes) = fetch_large(&server, root.path());
    result.unwrap();
    assert_eq!(fs::read(root.path().join("tiny/large")).unwrap(), body());
    assert_eq!(server.requests(), 21);
    assert_eq!(notes.received, body().len() as u64, "nothing is transferred twice");
    let sums: Vec<u64> = (0..=20).map(|n| cuts[..n].iter().map(|&c| c as u64).sum()).collect();
    assert_eq!(notes.begins, sums);
    let left: Vec<_> = fs::read_dir(root.path().join("tiny")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["large"], "no part and no tag is left");
}

#[test]
fn a_later_fetch_resumes_what_an_earlier_one_left() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(Behaviour { cuts: vec![100_000, 0, 0, 0], ..Behaviour::good(&body()) });
    let (result, _) = fetch_large(&server, root.path());
    let message = result.unwrap_err().to_string();
    assert!(message.contains("http://127.0.0.1") && message.contains("300000 bytes"), "{message}");
    assert_eq!(fs::metadata(root.path().join("tiny/large.part")).unwrap().len(), 100_000);
    let (result, notes) = fetch_large(&server, root.path());
    result.unwrap();
    assert_eq!((notes.begins, notes.received), (vec![100_000], 200_000));
    assert_eq!(fs::read(root.path().join("tiny/large")).unwrap(), body());
}

#[test]
fn a_transfer_starts_again_where_the_server_cannot_go_on_or_has_another_file() {
    for (tag, honours_range) in
        [(Some("\"v1\""), false), (Some("\"v2\""), true), (None, true), (Some("W/\"v1\""), true)]
    {
        let root = tempfile::tempdir().unwrap();
        let server = Server::start(Behaviour { cuts: vec![100_000, 0, 0, 0], ..Behaviour::good(&body()) });
        assert!(fetch_large(&server, root.path()).0.is_err());
        // What has arrived is spoilt: only a restart can give the right file.
        fs::write(root.path().join("tiny/large.part"), vec![0; 100_000]).unwrap();
        *server.behaviour.lock().unwrap() = Behaviour { tag, honours_range, ..Behaviour::good(&body()) };
        let (result, notes) = fetch_large(&server, root.path());
        result.unwrap();
        assert_eq!(notes.begins, [0], "{tag:?} {honours_range}");
        assert_eq!(fs::read(root.path().join("tiny/large")).unwrap(), body());
    }
}

#[test]
fn a_wrong_file_is_kept_aside_and_the_next_address_is_tried() {
    let root = tempfile::tempdir().unwrap();
    let mut wrong = body();
    wrong[1234] ^= 1;
    let (bad, good) = (Server::start(Behaviour::good(&wrong)), Server::start(Behaviour::good(&body())));
    let (result, _) = fetch_large(&bad, root.path());
    let Err(DataError::Checksum { path, found, .. }) = result else { panic!("{result:?}") };
    assert_eq!((path.clone(), found), (root.path().join("tiny/large.wrong"), sha256(&wrong)));
    assert_eq!(fs::read(path).unwrap(), wrong);
    assert!(!root.path().join("tiny/large").exists() && !root.path().join("tiny/large.part").exists());

    let manifest = fixture().manifest(&download("large", &[bad.port, good.port], &body(), "none"));
    fetch(&manifest, root.path(), &mut Notes::default()).unwrap();
    assert_eq!(fs::read(root.path().join("tiny/large")).unwrap(), body());
}

#[test]
fn servers_without_the_file_and_no_server_give_the_address_the_size_and_the_place() {
    let unused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let missing = Server::start(Behaviour { status: "404 Not Found", ..Behaviour::good(b"no") });
    let shorter = Server::start(Behaviour::good(&body()[1..]));
    let longer = Server::start(Behaviour::good(&[body(), vec![0]].concat()));
    for (port, reason) in [(unused, ""), (missing.port, "404"), (shorter.port, "299999"), (longer.port, "300001")] {
        let root = tempfile::tempdir().unwrap();
        let manifest = fixture().manifest(&download("large", &[port], &body(), "none"));
        let message = fetch(&manifest, root.path(), &mut Notes::default()).unwrap_err().to_string();
        let target = root.path().join("tiny").join("large").display().to_string();
        for part in [&format!("http://127.0.0.1:{port}/large"), "300000 bytes", &target, reason] {
            assert!(message.contains(part), "{part:?} is not in: {message}");
        }
        assert!(!root.path().join("tiny/large").exists());
    }
}

#[test]
fn an_archive_is_fetched_unpacked_and_verified() {
    let (root, fixture) = (tempfile::tempdir().unwrap(), fixture());
    let archive = fixture.tar_gz();
    let server = Server::start(Behaviour::good(&archive));
    let manifest = fixture.manifest(&download("tiny.tar.gz", &[server.port], &archive, "tar_gz"));
    assert_eq!(presence(&manifest, root.path()), Presence::Absent);
    assert!(verify(&manifest, root.path()).unwrap().files.iter().all(|file| file.state == FileState::Missing));

    fetch(&manifest, root.path(), &mut Notes::default()).unwrap();
    assert_eq!(presence(&manifest, root.path()), Presence::Complete);
    assert!(verify(&manifest, root.path()).unwrap().passed());
    assert_eq!(read_split(&manifest, root.path(), Split::Train).unwrap().len(), 2);
    assert!(!root.path().join("tiny.tar.gz").exists());
    let mut names: Vec<_> = fs::read_dir(root.path().join("tiny")).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["a", "b", "c", "d"]);

    let requests = server.requests();
    fetch(&manifest, root.path(), &mut Notes::default()).unwrap();
    assert_eq!(server.requests(), requests, "what is there is not fetched again");
}

#[test]
fn an_archive_put_there_by_hand_is_used_without_the_network() {
    let (root, fixture) = (tempfile::tempdir().unwrap(), fixture());
    let archive = fixture.tar_gz();
    let manifest = fixture.manifest(&download("tiny.tar.gz", &[1], &archive, "tar_gz"));
    fs::write(root.path().join("tiny.tar.gz"), b"something else").unwrap();
    assert!(matches!(fetch(&manifest, root.path(), &mut Notes::default()), Err(DataError::Checksum { .. })));
    fs::write(root.path().join("tiny.tar.gz"), &archive).unwrap();
    fetch(&manifest, root.path(), &mut Notes::default()).unwrap();
    assert!(verify(&manifest, root.path()).unwrap().passed());
    assert!(root.path().join("tiny.tar.gz").exists(), "a file of the user stays");
}

#[test]
fn verify_tells_published_changed_damaged_and_missing_files_apart() {
    let (root, fixture) = (tempfile::tempdir().unwrap(), fixture());
    let manifest = fixture.manifest("");
    let folder = root.path().join("tiny");
    fs::create_dir(&folder).unwrap();
    // Compressed anew: the bytes on the disk are not the published ones, the unpacked ones are.
    let mut packed = GzEncoder::new(Vec::new(), Compression::none());
    packed.write_all(&fixture.files[0].1).unwrap();
    fs::write(folder.join("a.gz"), packed.finish().unwrap()).unwrap();
    let mut changed = fixture.files[1].1.clone();
    *changed.last_mut().unwrap() = 0;
    fs::write(folder.join("b"), changed).unwrap();
    fs::write(folder.join("c"), &fixture.files[2].1[..18]).unwrap();
    let report = verify(&manifest, root.path()).unwrap();
    assert_eq!(report.files[0].state, FileState::Published);
    assert!(matches!(report.files[1].state, FileState::Different(_)));
    assert!(matches!(&report.files[2].state, FileState::Damaged(why) if why.contains("byte 16")));
    assert_eq!(report.files[3].state, FileState::Missing);
    assert!(!report.passed() && !report.readable());
    assert_eq!(presence(&manifest, root.path()), Presence::Partial(vec!["d".to_string()]));
}

/// What an archive contains beside, or instead of, the files that are wanted.
fn hostile(entries: &[(&str, tar::EntryType, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for (name, kind, bytes) in entries {
        let mut header = tar::Header::new_gnu();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(*kind);
        header.set_size(bytes.len() as u64);
        header.set_link_name("/etc/passwd").unwrap();
        header.set_cksum();
        archive.append(&header, *bytes).unwrap();
    }
    archive.into_inner().unwrap().finish().unwrap()
}

#[test]
fn hostile_archives_leave_nothing_behind() {
    use tar::EntryType::{Char, Link, Regular, Symlink};
    let fixture = fixture();
    let manifest = fixture.manifest("");
    let [a, b, c, d] = [0, 1, 2, 3].map(|i| fixture.files[i].1.as_slice());
    let rest = [("tiny/b", Regular, b), ("tiny/c", Regular, c), ("tiny/d", Regular, d)];
    let with = |first: &[(&'static str, tar::EntryType, &'static [u8])]| {
        let mut entries: Vec<(&str, tar::EntryType, &[u8])> = first.to_vec();
        entries.extend(rest);
        hostile(&entries)
    };
    let archives = [
        with(&[]),
        with(&[("../tiny/a", Regular, b"x")]),
        with(&[("/tiny/a", Regular, b"x")]),
        with(&[("tiny/../tiny/a", Regular, b"x")]),
        with(&[("tiny/a", Symlink, b"")]),
        with(&[("tiny/a", Link, b"")]),
        with(&[("tiny/a", Char, b"")]),
        with(&[("tiny/a", Regular, b"too short")]),
        hostile(&[("tiny/b", Regular, b), ("tiny/b", Regular, b), ("tiny/a", Regular, a)]),
        hostile(&[("tiny/a", Regular, &[7; 24]), rest[0], rest[1], rest[2]]),
    ];
    for (i, archive) in archives.iter().enumerate() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("some.tar.gz");
        fs::write(&path, archive).unwrap();
        let error = unpack(&manifest, root.path(), &path).expect_err(&format!("archive {i} is refused"));
        assert!(error.to_string().contains("some.tar.gz"), "{error}");
        assert_eq!(fs::read_dir(root.path().join("tiny")).unwrap().count(), 0, "archive {i}");
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 2, "archive {i}");
    }
    let sound = hostile(&[("tiny/a", Regular, a), rest[0], rest[1], rest[2]]);
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("some.tar.gz");
    for length in (0..sound.len()).step_by(7) {
        fs::write(&path, &sound[..length]).unwrap();
        if unpack(&manifest, root.path(), &path).is_err() {
            assert_eq!(fs::read_dir(root.path().join("tiny")).unwrap().count(), 0, "prefix {length}");
        }
    }
    fs::write(&path, &sound).unwrap();
    unpack(&manifest, root.path(), &path).unwrap();
}

#[test]
fn the_manifests_of_the_binary_are_listed() {
    let root = tempfile::tempdir().unwrap();
    let listing = list(root.path()).unwrap();
    let names: Vec<&str> = listing.iter().map(|entry| entry.manifest.name.as_str()).collect();
    assert_eq!(names, ["mnist", "fashion-mnist", "cifar10", "cifar100", "tiny-imagenet", "shapes"]);
    for entry in &listing {
        let generated = entry.manifest.name == "shapes";
        assert_eq!(entry.presence, if generated { Presence::Generated } else { Presence::Absent });
        let published = [Split::Train, Split::Test].map(|split| entry.manifest.samples(split));
        let expected = match names.iter().position(|name| *name == entry.manifest.name).unwrap() {
            0 | 1 => [60_000, 10_000],
            2 | 3 => [50_000, 10_000],
            4 => [100_000, 10_000],
            _ => [10_000, 2_000],
        };
        assert_eq!(published, expected);
    }
    let message = Manifest::of("cifar-10").unwrap_err().to_string();
    assert!(message.contains("did you mean cifar10?"), "{message}");
}

#[test]
fn manifests_with_mistakes_are_refused() {
    let sound = "name = 'n'\ntitle = 't'\nformat = 'cifar'\nfolder = 'n'\nshape = [1, 2, 2]\nclasses = ['x']\nmean = [0.5]\nstd = [0.5]\n\
        [[file]]\nname = 'a'\nsplit = 'train'\ncount = 1\nbytes = 5\n[[file]]\nname = 'b'\nsplit = 'test'\ncount = 1\nbytes = 5\n";
    assert!(Manifest::parse(sound).is_ok());
    for (from, to) in [
        ("folder = 'n'", "folder = '../n'"),
        ("folder = 'n'", "folder = ''"),
        ("name = 'a'", "name = '/etc/a'"),
        ("name = 'a'", "name = '..'"),
        ("shape = [1, 2, 2]", "shape = [4, 2, 2]"),
        ("shape = [1, 2, 2]", "shape = [1, 2]"),
        ("shape = [1, 2, 2]", "shape = [1, 2, 99999999999]"),
        ("std = [0.5]", "std = [0.0]"),
        ("mean = [0.5]", "mean = [0.5, 0.5]"),
        ("split = 'test'", "split = 'train'"),
        ("classes = ['x']", "unnamed_classes = 3"),
        ("classes = ['x']", "classes = ['x']\nunnamed_classes = 3"),
        ("title = 't'", "title = 't'\ncounted = { train = 1, test = 1 }"),
        ("count = 1", "count = -1"),
        ("bytes = 5", "bytes = 5\nsha256 = 'abc'"),
        ("title = 't'", "title = 't'\nwhatever = 1"),
    ] {
        assert!(sound.contains(from) && Manifest::parse(&sound.replace(from, to)).is_err(), "{to}");
    }
}

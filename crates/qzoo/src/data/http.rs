//! Transfers over HTTP that survive a lost connection.
//!
//! Bytes are appended to a `.part` file; beside it lies the entity tag that the server gave. A transfer goes on where it ended only if
//! the server confirms with status 206 that the rest is of the same entity and begins at the byte asked for; otherwise it starts again.

use super::fetch::Progress;
use super::manifest::Download;
use std::path::Path;

/// Transfers `url` to `part`, which may hold the beginning of it from an earlier try.
///
/// # Errors
/// Why the file could not be completed; what has arrived stays in `part`.
#[cfg(feature = "download")]
pub(super) fn transfer(url: &str, download: &Download, part: &Path, progress: &mut dyn Progress) -> Result<(), String> {
    client::Transfer::new(url, download, part).run(progress)
}

/// Without the feature `download` there is no network.
///
/// # Errors
/// Always.
#[cfg(not(feature = "download"))]
pub(super) fn transfer(_: &str, _: &Download, _: &Path, _: &mut dyn Progress) -> Result<(), String> {
    Err("this build has no network access (the feature `download` is off)".to_string())
}

#[cfg(feature = "download")]
mod client {
    use super::super::fetch::{Progress, with_suffix};
    use super::super::manifest::Download;
    use std::fs::{self, File, OpenOptions};
    use std::io::{Read, Write};
    use std::path::{Path, PathBuf};
    use std::time::Duration;
    use ureq::http::{HeaderMap, StatusCode};
    use ureq::tls::{RootCerts, TlsConfig};
    use ureq::{Agent, Body};

    /// Tries in a row that bring no byte.
    const FRUITLESS_TRIES: u32 = 3;
    /// Tries in all.
    const TRIES: u32 = 100;

    pub(super) struct Transfer<'a> {
        url: &'a str,
        download: &'a Download,
        part: &'a Path,
        /// The file with the entity tag.
        tag: PathBuf,
        agent: Agent,
    }

    impl<'a> Transfer<'a> {
        pub(super) fn new(url: &'a str, download: &'a Download, part: &'a Path) -> Self {
            // The certificates that the machine trusts, not a list of the day this was built.
            let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
            let config = Agent::config_builder()
                .tls_config(tls)
                .http_status_as_error(false)
                .user_agent(concat!("quartz/", env!("CARGO_PKG_VERSION")))
                .accept_encoding("identity")
                .timeout_connect(Some(Duration::from_secs(20)))
                .timeout_recv_response(Some(Duration::from_secs(60)))
                .timeout_per_read(Some(Duration::from_secs(60)))
                .build();
            Transfer { url, download, part, tag: with_suffix(part, ".etag"), agent: Agent::new_with_config(config) }
        }

        pub(super) fn run(&self, progress: &mut dyn Progress) -> Result<(), String> {
            let mut fruitless = 0;
            for _ in 0..TRIES {
                let before = self.done();
                let error = match self.attempt(progress) {
                    Ok(()) => {
                        // Nothing is left to resume.
                        drop(fs::remove_file(&self.tag));
                        return Ok(());
                    }
                    Err(error) => error,
                };
                fruitless = if self.done() > before { 0 } else { fruitless + 1 };
                if error.is_final || fruitless == FRUITLESS_TRIES {
                    return Err(error.message);
                }
                progress.note(&format!("{}; trying again", error.message));
            }
            Err(format!("the connection was lost {TRIES} times"))
        }

        /// Bytes that have arrived.
        fn done(&self) -> u64 {
            fs::metadata(self.part).map_or(0, |metadata| metadata.len())
        }

        fn attempt(&self, progress: &mut dyn Progress) -> Result<(), Failure> {
            let total = self.download.bytes;
            let known = fs::read_to_string(&self.tag).ok().filter(|tag| is_strong(tag));
            let done = match &known {
                Some(_) if self.done() <= total => self.done(),
                _ => 0,
            };
            if done == total {
                return Ok(());
            }
            let mut request = self.agent.get(self.url);
            if let Some(tag) = known.as_ref().filter(|_| done > 0) {
                request = request.header("range", format!("bytes={done}-")).header("if-range", tag);
            }
            let response = request.call().map_err(|error| Failure::passing(error.to_string()))?;
            let (status, headers) = (response.status(), response.headers());
            let tag = header(headers, "etag");
            let goes_on = status == StatusCode::PARTIAL_CONTENT
                && tag == known.as_deref()
                && header(headers, "content-range").is_some_and(|range| range == expected_range(done, total));
            if done > 0 && goes_on {
                return self.receive(response.into_body(), done, progress);
            }
            if status == StatusCode::PARTIAL_CONTENT || status == StatusCode::RANGE_NOT_SATISFIABLE {
                self.forget()?;
                return Err(Failure::passing("the server does not have the rest of this file".to_string()));
            }
            if status != StatusCode::OK {
                return Err(Failure { message: format!("the server answers {status}"), is_final: true });
            }
            if let Some(length) = response.body().content_length().filter(|length| *length != total) {
                let message = format!("the server has a file of {length} bytes, the published one has {total}");
                return Err(Failure { message, is_final: true });
            }
            self.forget()?;
            if let Some(tag) = tag.filter(|tag| is_strong(tag)) {
                fs::write(&self.tag, tag).map_err(|error| self.refused(&error))?;
            }
            self.receive(response.into_body(), 0, progress)
        }

        fn receive(&self, body: Body, mut done: u64, progress: &mut dyn Progress) -> Result<(), Failure> {
            let total = self.download.bytes;
            let mut file =
                OpenOptions::new().create(true).append(true).open(self.part).map_err(|error| self.refused(&error))?;
            progress.begin(&self.download.name, done, total);
            let mut reader = body.into_with_config().limit(u64::MAX).reader();
            let mut buffer = vec![0; 1 << 16];
            loop {
                let read = reader.read(&mut buffer).map_err(|error| Failure::passing(error.to_string()))?;
                if read == 0 {
                    break;
                }
                done += read as u64;
                if done > total {
                    self.forget()?;
                    let message = format!("the server sends more than the {total} bytes of the published file");
                    return Err(Failure { message, is_final: true });
                }
                file.write_all(&buffer[..read]).map_err(|error| self.refused(&error))?;
                progress.advance(read as u64);
            }
            match done == total {
                true => Ok(()),
                false => Err(Failure::passing(format!("the connection ended after {done} of {total} bytes"))),
            }
        }

        /// Starts from nothing.
        fn forget(&self) -> Result<(), Failure> {
            drop(fs::remove_file(&self.tag));
            File::create(self.part).map(drop).map_err(|error| self.refused(&error))
        }

        fn refused(&self, error: &std::io::Error) -> Failure {
            Failure { message: format!("{}: cannot write: {error}", self.part.display()), is_final: true }
        }
    }

    /// Why a try failed, and whether another one may help.
    struct Failure {
        message: String,
        is_final: bool,
    }

    impl Failure {
        fn passing(message: String) -> Self {
            Failure { message, is_final: false }
        }
    }

    fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
        headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// A weak tag says nothing about bytes.
    fn is_strong(tag: &str) -> bool {
        tag.len() >= 2 && tag.starts_with('"') && tag.ends_with('"')
    }

    fn expected_range(done: u64, total: u64) -> String {
        format!("bytes {done}-{}/{total}", total - 1)
    }
}

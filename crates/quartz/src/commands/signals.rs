//! Ctrl-C and the signals that end a process politely.

use crate::failure::Failure;
use qzoo::train::StopFlag;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// A flag that a signal sets.
pub(crate) struct Stop {
    pub(crate) flag: StopFlag,
    signal: Arc<AtomicU8>,
}

impl Stop {
    /// The number of the signal that asked.
    pub(crate) fn number(&self) -> u8 {
        self.signal.load(Ordering::SeqCst)
    }
}

/// Installs the handler: the first signal asks the run to finish its step and to save, the second ends the process at once.
pub(crate) fn stop_flag() -> Result<Stop, Failure> {
    let stop = Stop { flag: StopFlag::default(), signal: Arc::new(AtomicU8::new(0)) };
    listen(stop.flag.clone(), stop.signal.clone())
        .map_err(|error| Failure::run(format!("cannot listen for signals: {error}")))?;
    Ok(stop)
}

#[cfg(unix)]
fn listen(flag: StopFlag, number: Arc<AtomicU8>) -> std::io::Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    std::thread::spawn(move || {
        for signal in signals.forever() {
            let signal = u8::try_from(signal).unwrap_or(0);
            if flag.is_set() {
                std::process::exit(128 + i32::from(signal));
            }
            number.store(signal, Ordering::SeqCst);
            flag.stop();
            anstream::eprintln!("finishing the step and saving; a second signal ends the program at once");
        }
    });
    Ok(())
}

/// Elsewhere a signal ends the process; the run goes on from its last checkpoint.
#[cfg(not(unix))]
fn listen(_flag: StopFlag, _number: Arc<AtomicU8>) -> std::io::Result<()> {
    Ok(())
}

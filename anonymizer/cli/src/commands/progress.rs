//! What takes long: bars on a terminal, and lines where standard error is none.

use std::io::IsTerminal;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sotto::progress::Bars;
use sotto_storage::FetchProgress;

/// Steps that are over sooner are not told.
const WORTH_TELLING: Duration = Duration::from_secs(2);

/// Progress for `args.quiet`.
pub(super) fn progress(quiet: bool) -> Box<dyn FetchProgress> {
    let lines = !quiet && !std::io::stderr().is_terminal();
    match lines {
        true => Box::new(Lines::new(WORTH_TELLING, |label| eprintln!("anonymize: {label} ..."))),
        false => Box::new(Bars::new(quiet)),
    }
}

/// Tells a step in a line if it is still under way after a while.
struct Lines {
    after: Duration,
    tell: Arc<dyn Fn(&str) + Send + Sync>,
    /// Ends the wait for the step under way.
    ended: Mutex<Option<Sender<()>>>,
}

impl Lines {
    fn new(after: Duration, tell: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self { after, tell: Arc::new(tell), ended: Mutex::new(None) }
    }
}

impl FetchProgress for Lines {
    fn begin(&self, label: &str, _total: Option<u64>, _bytes: bool) {
        let (ended, wait) = mpsc::channel();
        let (after, tell, label) = (self.after, Arc::clone(&self.tell), label.to_owned());
        std::thread::spawn(move || {
            if wait.recv_timeout(after) == Err(RecvTimeoutError::Timeout) {
                tell(&label);
            }
        });
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(ended);
    }

    fn position(&self, _position: u64) {}

    fn end(&self) {
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_steps_are_told_and_short_ones_are_not() {
        let (told, hear) = mpsc::channel();
        let told = Mutex::new(told);
        let lines =
            Lines::new(Duration::ZERO, move |label| told.lock().unwrap().send(label.to_owned()).unwrap());
        lines.begin("fetching", None, false);
        assert_eq!(hear.recv().unwrap(), "fetching");
        lines.end();
        let never = Lines::new(Duration::from_secs(3600), |_| panic!("too soon"));
        never.begin("short", None, false);
        never.end();
    }
}

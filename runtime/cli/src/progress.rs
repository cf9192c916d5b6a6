//! Progress bars on stderr.

use std::io::IsTerminal;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use sotto_storage::FetchProgress;

/// Shows one bar at a time; nothing when stderr is no terminal or the user wants quiet.
#[derive(Clone)]
pub struct Bars {
    enabled: bool,
    current: Arc<Mutex<Option<ProgressBar>>>,
}

impl Bars {
    /// Bars unless `quiet`; indicatif itself stays silent when stderr is no terminal.
    pub fn new(quiet: bool) -> Self {
        Self { enabled: !quiet, current: Arc::default() }
    }

    fn with_current(&self, action: impl FnOnce(&mut Option<ProgressBar>)) {
        let mut current = self.current.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        action(&mut current);
    }
}

/// Whether standard error is a terminal that knows no control codes: it gets a line for each step.
fn is_dumb() -> bool {
    std::env::var_os("TERM").is_some_and(|term| term == "dumb") && std::io::stderr().is_terminal()
}

fn style(total: bool, bytes: bool) -> ProgressStyle {
    let template = match (total, bytes) {
        (true, true) => "{msg} [{bar:30}] {bytes}/{total_bytes} {eta}",
        (true, false) => "{msg} [{bar:30}] {percent}% {eta}",
        (false, true) => "{spinner} {msg} {bytes}",
        (false, false) => "{spinner} {msg} {elapsed}",
    };
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

impl FetchProgress for Bars {
    fn begin(&self, label: &str, total: Option<u64>, bytes: bool) {
        if !self.enabled {
            return;
        }
        if is_dumb() {
            note!("{label} ...");
            return;
        }
        let bar = total.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
        bar.set_style(style(total.is_some(), bytes));
        bar.set_message(label.to_owned());
        if total.is_none() {
            bar.enable_steady_tick(Duration::from_millis(120));
        }
        self.with_current(|current| *current = Some(bar));
    }

    fn position(&self, position: u64) {
        self.with_current(|current| {
            if let Some(bar) = current {
                bar.set_position(position);
            }
        });
    }

    fn end(&self) {
        self.with_current(|current| {
            if let Some(bar) = current.take() {
                bar.finish_and_clear();
            }
        });
    }
}

/// A line on stderr that shows that work goes on, with the seconds since it began. It is gone when this is dropped.
pub struct Waiting {
    bar: ProgressBar,
}

impl Waiting {
    /// Begins to show `label`, if stderr is a terminal.
    pub fn new(label: &str) -> Self {
        if is_dumb() {
            note!("{label} ...");
            return Self { bar: ProgressBar::hidden() };
        }
        let bar = ProgressBar::new_spinner();
        let template = ProgressStyle::with_template("{spinner} {msg} ({elapsed})");
        bar.set_style(template.unwrap_or_else(|_| ProgressStyle::default_spinner()));
        bar.set_message(label.to_owned());
        bar.enable_steady_tick(Duration::from_millis(200));
        Self { bar }
    }

    /// Shows another label.
    pub fn say(&self, label: &str) {
        self.bar.set_message(label.to_owned());
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

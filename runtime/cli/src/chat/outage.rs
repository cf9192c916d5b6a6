//! Says that a server is away while an answer waits for it.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use sotto_client::accounting::{Accounting, Outage};

/// How often to look.
const INTERVAL: Duration = Duration::from_millis(500);

/// Outages shorter than this many looks are not worth a word: a lost connection is made again at once.
const PATIENCE: u32 = 4;

/// Watches until what this returns is dropped.
pub(super) fn watch(accounting: &Arc<Accounting>) -> Option<Sender<()>> {
    let (end, ended) = channel();
    let accounting = Arc::clone(accounting);
    let look = move || {
        let mut looks = 0;
        let mut said = None;
        while ended.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
            let outage = accounting.outage();
            looks = if outage.is_some() { looks + 1 } else { 0 };
            let due = outage == Some(Outage::ShuttingDown) || looks >= PATIENCE;
            if outage.is_none() && said.take().is_some() {
                note!("\n[the server is back]");
            } else if due && said != outage {
                said = outage;
                note!("\n{}", text(outage));
            }
        }
    };
    // Without a thread the turn runs as well, only in silence.
    std::thread::Builder::new().name("sotto-outage".to_owned()).spawn(look).ok().map(|_| end)
}

fn text(outage: Option<Outage>) -> &'static str {
    match outage {
        Some(Outage::ShuttingDown) => "[the server is shutting down; waiting for it to come back]",
        _ => "[the server cannot be reached; trying again]",
    }
}

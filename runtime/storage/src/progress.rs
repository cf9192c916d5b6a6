//! How long-running steps report where they are.

/// Receives progress of a fetch, split or preparation. Calls come from one thread at a time.
pub trait FetchProgress: Send + Sync {
    /// A step called `label` begins; `total` is its size in its own unit (bytes when `bytes`).
    fn begin(&self, label: &str, total: Option<u64>, bytes: bool);
    /// The step stands at `position`.
    fn position(&self, position: u64);
    /// The step is over.
    fn end(&self);
}

/// Reports nothing.
#[derive(Debug, Clone, Copy)]
pub struct NoProgress;

impl FetchProgress for NoProgress {
    fn begin(&self, _label: &str, _total: Option<u64>, _bytes: bool) {}
    fn position(&self, _position: u64) {}
    fn end(&self) {}
}

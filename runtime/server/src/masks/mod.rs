//! The mask half: jobs as the network sees them, the queue that shares passes, sessions with their
//! shared masks, lean batches that stay in memory, and the priority of online work.

pub(crate) mod jobs;
pub(crate) mod kept;
pub(crate) mod priority;
pub(crate) mod queue;
pub(crate) mod sessions;

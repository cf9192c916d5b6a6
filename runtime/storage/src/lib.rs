//! Files of this user: the cache directory with its locks and staging directories, atomic private writes, and the
//! trait by which long-running steps report progress; and how much memory this machine has to spare.
//!
//! Nothing here knows what the files hold. Everything that must appear whole or not at all goes through [`Stage`]
//! (directories) or [`write_atomically`] (files).
//!
//! # Example
//! ```
//! use sotto_storage::{Cache, directory_bytes};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let root = std::env::temp_dir().join(format!("sotto-storage-example-{}", std::process::id()));
//! let cache = Cache::at(&root);
//! let stage = cache.stage("example")?;
//! std::fs::write(stage.path().join("weights"), b"1234")?;
//! cache.install(stage.path(), &cache.model("tiny"))?;
//! assert_eq!(directory_bytes(&cache.model("tiny")), 4);
//! # std::fs::remove_dir_all(&root)?;
//! # Ok(())
//! # }
//! ```
#![warn(missing_docs)]

mod atomic;
mod cache;
mod memory;
mod progress;

pub use atomic::{write_atomically, write_private};
pub use cache::{Cache, CacheLock, Stage, StorageError, directory_bytes};
pub use memory::{ProcessMemory, available_bytes};
pub use progress::{FetchProgress, NoProgress};

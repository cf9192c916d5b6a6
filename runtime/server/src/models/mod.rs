//! What is served: splits on disk, loading and expanding tables, the registry of models.

pub(crate) mod loading;
pub(crate) mod mmap;
pub mod registry;
pub mod split_store;

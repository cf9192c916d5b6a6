//! Which tensors live where: the split of a model between client and server.

pub mod plan;

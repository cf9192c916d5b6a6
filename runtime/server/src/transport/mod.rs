//! The listening side: connections, TLS, who has shown a credential, and refusals as gRPC statuses.

pub(crate) mod connection_auth;
pub(crate) mod grpc_status;
mod introduce;
pub(crate) mod listen;
pub(crate) mod strangers;
pub mod tls;

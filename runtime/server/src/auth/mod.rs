//! Who may use the server and how much: credentials with budgets, leases, and bounds on what one credential holds at once.

pub(crate) mod accounts;
pub(crate) mod admission;
pub mod credentials;
pub mod leases;

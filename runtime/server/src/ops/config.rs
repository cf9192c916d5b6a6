//! What a server is told to do.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use sotto_models::split::plan::PlanKind;

use sotto_protocol::error::{Error, Result};

/// One of the three services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Models, client parts, credentials, leases.
    Catalogue,
    /// The mask half: needs the prepared tables.
    Mask,
    /// The body half: needs the int8 weights.
    Body,
}

impl Role {
    /// All three.
    pub const ALL: [Self; 3] = [Self::Catalogue, Self::Mask, Self::Body];

    /// Reads "all" or a comma-separated list of "catalogue", "mask" and "body".
    ///
    /// # Errors
    /// [`Error::Usage`] naming what is unknown.
    pub fn parse_list(text: &str) -> Result<Vec<Self>> {
        if text == "all" {
            return Ok(Self::ALL.to_vec());
        }
        let mut roles = Vec::new();
        for name in text.split(',') {
            let role = name.parse()?;
            if !roles.contains(&role) {
                roles.push(role);
            }
        }
        Ok(roles)
    }
}

impl FromStr for Role {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "catalogue" => Ok(Self::Catalogue),
            "mask" => Ok(Self::Mask),
            "body" => Ok(Self::Body),
            _ => Err(Error::Usage(format!("unknown role {name:?}; there are catalogue, mask, body and all"))),
        }
    }
}

/// How tables are held in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// NTT form if it fits into the memory that is free, else compact.
    Auto,
    /// 31 KB per row of the default set, 16 KB of the light one; fastest.
    Ntt,
    /// 8 KB per row of the default set, 6.5 KB of the light one; one transform per row, gadget level and pass.
    Compact,
}

/// Configuration of [`crate::Server::start`].
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Splits to serve, as written by `sotto split`.
    pub splits: Vec<PathBuf>,
    /// The plans to serve of each split; empty for all there are.
    pub plans: Vec<PlanKind>,
    /// Addresses to listen on; port 0 takes a free one.
    pub listen: Vec<SocketAddr>,
    /// The services of this process.
    pub roles: Vec<Role>,
    /// Memory form of the tables.
    pub form: Form,
    /// Threads for the mask half, and again for connections and bodies.
    pub threads: usize,
    /// Directory of credentials, and of certificate and signing key without `keys`; `None` keeps them in memory.
    pub state: Option<PathBuf>,
    /// Directory of the certificate and the signing key that the processes of one server share; only read.
    pub keys: Option<PathBuf>,
    /// Make a fresh credential without limits, valid for this process only.
    pub ephemeral_credential: bool,
    /// Address of `/healthz`, `/readyz` and `/metrics`.
    pub metrics: Option<SocketAddr>,
    /// "host:port" that the connect string names, if not the listening address.
    pub public_address: Option<String>,
    /// Further processes with role mask, as clients reach them.
    pub mask_addresses: Vec<String>,
    /// Further processes with role body, as clients reach them.
    pub body_addresses: Vec<String>,
    /// Memory for lean batches in bytes; a share of the free memory when absent.
    pub batch_memory: Option<u64>,
}

impl ServerConfig {
    /// Wire forms on offer, best first. A lean batch can be answered only where its masks were made.
    pub fn forms(&self) -> Vec<&'static str> {
        let both = self.roles.contains(&Role::Mask) && self.roles.contains(&Role::Body);
        if both && self.mask_addresses.is_empty() && self.body_addresses.is_empty() {
            vec!["lean", "stateless", "full"]
        } else {
            vec!["stateless", "full"]
        }
    }
}

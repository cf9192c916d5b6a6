//! `sotto keys`: what the processes of one server share.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use super::output;
use sotto_protocol::error::{Error, Result};
use sotto_server::ops::state::load_or_generate_keys;

/// Arguments of `sotto keys`.
#[derive(Clone, Debug, Args)]
pub struct KeysArgs {
    /// Directory to write; --keys of `sotto serve` takes it. What is there already stays as it is
    #[arg(long, env = "SOTTO_OUT", value_name = "DIR")]
    pub out: PathBuf,
}

/// Writes the keys that are missing and prints the certificate's pin.
///
/// # Errors
/// [`Error::Io`], [`Error::DiskFull`], [`Error::OutputClosed`]; [`Error::Tls`] or [`Error::Malformed`] on files that are there and damaged.
pub fn run(args: &KeysArgs, out: &mut impl Write) -> Result<()> {
    std::fs::create_dir_all(&args.out).map_err(|error| Error::io("create", &args.out, error))?;
    let (identity, _) = load_or_generate_keys(&args.out)?;
    output::line(out, &format!("pin {}", hex::encode(identity.pin().0)))
}

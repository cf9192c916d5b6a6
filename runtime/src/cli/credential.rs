//! `sotto credential add|list|revoke`: who may use a server, and how much.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::output;
use crate::error::{Error, Result};
use crate::server::credentials::{Counter, Store, UNLIMITED, parse_id};
use crate::server::state::CREDENTIALS_FILE;

/// Arguments of `sotto credential`.
#[derive(Clone, Debug, Args)]
pub struct CredentialArgs {
    /// The server's state directory
    #[arg(long, env = "SOTTO_STATE", value_name = "DIR", global = true, default_value = "sotto-state")]
    pub state: PathBuf,

    /// What to do
    #[command(subcommand)]
    pub action: CredentialAction,
}

/// What to do with credentials; a running server notices within seconds.
#[derive(Clone, Debug, Subcommand)]
pub enum CredentialAction {
    /// Make a credential and print it; it is stored as a hash and cannot be shown again
    Add {
        /// Tokens it may use: mask slots and body tokens alike, prompts included; "unlimited" for no limit. A few hundred
        /// give a small model's weights away (`sotto audit extraction`): a budget bounds cost
        #[arg(long, env = "SOTTO_BUDGET", value_name = "N", value_parser = parse_budget)]
        budget: u64,

        /// A note for the list, e.g. whom it is for
        #[arg(long, env = "SOTTO_LABEL", default_value = "")]
        label: String,
    },
    /// List credentials with what is used of their budgets
    List,
    /// Refuse a credential from now on
    Revoke {
        /// The id: the part of the credential before the dot
        id: String,
    },
}

fn parse_budget(text: &str) -> std::result::Result<u64, String> {
    if text == "unlimited" {
        return Ok(UNLIMITED);
    }
    text.parse().map_err(|_| "expected a number of tokens or \"unlimited\"".to_owned())
}

/// Runs the command; output goes to `out`.
///
/// # Errors
/// [`Error::Usage`] on an unknown id, [`Error::Store`], [`Error::DiskFull`], [`Error::Io`], [`Error::OutputClosed`].
pub fn run(args: &CredentialArgs, out: &mut impl Write) -> Result<()> {
    std::fs::create_dir_all(&args.state).map_err(|error| Error::io("create", &args.state, error))?;
    let store = Store::open(&args.state.join(CREDENTIALS_FILE))?;
    let written = match &args.action {
        CredentialAction::Add { budget, label } => {
            let (_, text) = store.add(label, *budget, *budget)?;
            writeln!(out, "{text}")
        }
        CredentialAction::List => list(&store, out)?,
        CredentialAction::Revoke { id } => {
            let id = id.split('.').next().and_then(parse_id);
            let id = id.ok_or_else(|| Error::Usage("the id is 16 hexadecimal digits".to_owned()))?;
            store.revoke(id)?;
            writeln!(out, "revoked {id}")
        }
    };
    written.and_then(|()| out.flush()).map_err(output::failure)
}

fn list(store: &Store, out: &mut impl Write) -> Result<std::io::Result<()>> {
    let shown = |counter: &Counter| match counter.budget {
        UNLIMITED => format!("{}/unlimited", counter.charged),
        budget => format!("{}/{budget}", counter.charged),
    };
    let records = store.list()?;
    let mut write = || -> std::io::Result<()> {
        writeln!(out, "{:16}  {:22}  {:22}  {:7}  label", "id", "mask slots", "body tokens", "state")?;
        for (id, record) in &records {
            let state = if record.revoked { "revoked" } else { "valid" };
            let (masks, bodies) = (shown(&record.mask_slots), shown(&record.body_tokens));
            writeln!(out, "{id:16}  {masks:22}  {bodies:22}  {state:7}  {}", record.label)?;
        }
        Ok(())
    };
    Ok(write())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_in(state: &std::path::Path, action: CredentialAction) -> Result<String> {
        let mut out = Vec::new();
        run(&CredentialArgs { state: state.to_owned(), action }, &mut out)?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn add_list_and_revoke() {
        let dir = tempfile::tempdir().unwrap();
        let add = CredentialAction::Add { budget: 500, label: "anna".to_owned() };
        let text = run_in(dir.path(), add).unwrap();
        let (id, secret) = text.trim().split_once('.').unwrap();
        let listed = run_in(dir.path(), CredentialAction::List).unwrap();
        assert!(listed.contains(id) && listed.contains("0/500") && listed.contains("anna"));
        assert!(!listed.contains(secret));
        run_in(dir.path(), CredentialAction::Revoke { id: text.trim().to_owned() }).unwrap();
        assert!(run_in(dir.path(), CredentialAction::List).unwrap().contains("revoked"));
        let unknown = CredentialAction::Revoke { id: "0".repeat(16) };
        assert!(matches!(run_in(dir.path(), unknown), Err(Error::Usage(_))));
        assert_eq!(parse_budget("unlimited"), Ok(UNLIMITED));
        assert!(parse_budget("-1").is_err());
    }
}

//! `sotto credential add|list|revoke`: credentials and their budgets.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::output;
use sotto_protocol::connect_string::ConnectString;
use sotto_protocol::error::{Error, Result};
use sotto_server::auth::credentials::{Counter, Store, UNLIMITED, parse_id};
use sotto_server::ops::state::CREDENTIALS_FILE;

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

        /// A note for the list, such as the name of its holder
        #[arg(long, env = "SOTTO_LABEL", default_value = "")]
        label: String,

        /// Connect string that `sotto serve` printed: prints it whole, with the credential, as `sotto chat --server` takes it
        #[arg(long, env = "SOTTO_SERVER", value_name = "CONNECT_STRING", hide_env_values = true)]
        server: Option<String>,
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
    let is_new = !args.state.is_dir();
    if is_new && !matches!(args.action, CredentialAction::Add { .. }) {
        return Err(Error::Usage(format!(
            "{} is no state directory; name the server's with --state",
            args.state.display()
        )));
    }
    std::fs::create_dir_all(&args.state).map_err(|error| Error::io("create", &args.state, error))?;
    let store = Store::open(&args.state.join(CREDENTIALS_FILE))?;
    let written = match &args.action {
        CredentialAction::Add { budget, label, server } => {
            let connect = server.as_deref().map(str::parse::<ConnectString>).transpose()?;
            let (_, text) = store.add(label, *budget, *budget)?;
            match connect {
                Some(connect) => writeln!(out, "{}", ConnectString { credential: Some(text), ..connect }),
                None => writeln!(out, "{text}"),
            }
        }
        CredentialAction::List => list(&store, out)?,
        CredentialAction::Revoke { id } => {
            let word = id.split('.').next().unwrap_or_default();
            let id = parse_id(word).ok_or_else(|| {
                Error::Usage(format!(
                    "{word:?} is not a credential id (16 hex digits, see sotto credential list)"
                ))
            })?;
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
        let missing = dir.path().join("missing");
        assert!(matches!(run_in(&missing, CredentialAction::List), Err(Error::Usage(_))));
        assert!(!missing.exists());
        let add = CredentialAction::Add { budget: 500, label: "anna".to_owned(), server: None };
        let text = run_in(dir.path(), add).unwrap();
        let (id, secret) = text.trim().split_once('.').unwrap();
        let listed = run_in(dir.path(), CredentialAction::List).unwrap();
        assert!(listed.contains(id) && listed.contains("0/500") && listed.contains("anna"));
        assert!(!listed.contains(secret));
        run_in(dir.path(), CredentialAction::Revoke { id: text.trim().to_owned() }).unwrap();
        assert!(run_in(dir.path(), CredentialAction::List).unwrap().contains("revoked"));
        let server = format!("sotto://127.0.0.1:1/?pin={}", "07".repeat(32));
        let whole = CredentialAction::Add { budget: 5, label: String::new(), server: Some(server.clone()) };
        let connect: ConnectString = run_in(dir.path(), whole).unwrap().parse().unwrap();
        assert!(connect.credential.is_some() && connect.to_string().starts_with(&server));
        let unknown = CredentialAction::Revoke { id: "0".repeat(16) };
        assert!(matches!(run_in(dir.path(), unknown), Err(Error::Usage(_))));
        assert_eq!(parse_budget("unlimited"), Ok(UNLIMITED));
        assert!(parse_budget("-1").is_err());
    }
}

//! `anonymize restore`.

use super::args::RestoreArgs;
use super::{files, write_text};
use crate::error::{Error, Result};
use crate::vault::Vault;

pub(super) fn run(args: &RestoreArgs) -> Result<()> {
    let Some(path) = &args.vault.vault else {
        return Err(Error::Usage("name the --vault that `anonymize redact` wrote".to_owned()));
    };
    let vault = Vault::open(path, &files::vault_key(&args.vault)?)?;
    let text = files::read_text(args.path.as_deref())?;
    let restored = vault.restore(&text);
    write_text(&restored.text)?;
    for unknown in &restored.unknown {
        eprintln!("anonymize: {unknown} is not in the vault; left as it is");
    }
    Ok(())
}

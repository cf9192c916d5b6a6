//! `anonymize restore`.

use std::path::Path;

use sotto::progress::Bars;

use super::args::RestoreArgs;
use super::redact::{Work, format_of, single};
use super::{files, write_bytes};
use crate::documents::Document;
use crate::error::{Error, Result};
use crate::vault::Vault;

pub(super) fn run(args: &RestoreArgs) -> Result<()> {
    let Some(path) = &args.vault.vault else {
        return Err(Error::Usage("name the --vault that `anonymize redact` wrote".to_owned()));
    };
    let vault = Vault::open(path, &files::vault_key(&args.vault)?)?;
    match single(&args.files)? {
        Some(path) => one(args, &vault, path),
        None => several(args, &vault),
    }
}

fn one(args: &RestoreArgs, vault: &Vault, path: Option<&Path>) -> Result<()> {
    let format = format_of(&args.files, path);
    let document = Document::read(format, &files::place(path), files::read_bytes(path)?)?;
    let (bytes, unknown) = document.restore(vault)?;
    write_bytes(format, &bytes)?;
    tell(&unknown);
    Ok(())
}

fn several(args: &RestoreArgs, vault: &Vault) -> Result<()> {
    let jobs = files::jobs(&args.files, "restored")?;
    let bars = Bars::new(true);
    let mut work = Work::new(&jobs, &bars);
    while let Some(batch) = work.batch(&args.files) {
        for (job, document) in batch {
            let (bytes, unknown) = document.restore(vault)?;
            files::write_whole(&job.output, &bytes)?;
            tell(&unknown);
        }
    }
    work.finish("restore")
}

fn tell(unknown: &[String]) {
    for unknown in unknown {
        eprintln!("anonymize: {unknown} is not in the vault; left as it is");
    }
}

//! `anonymize redact`.

use super::args::RedactArgs;
use super::{check_scripts, files, jsonl, scanner, write_text};
use crate::error::{Error, Result};
use crate::vault::Vault;

/// Code points of texts that are scanned together.
pub(super) const BATCH_CHARS: usize = 64 << 10;

pub(super) fn run(args: &RedactArgs) -> Result<()> {
    if args.jsonl {
        return jsonl::run(args);
    }
    if args.paths.is_empty() {
        return one(args, None);
    }
    let is_single = args.paths.len() == 1 && args.out.is_none() && !args.paths[0].is_dir();
    if is_single {
        return one(args, Some(&args.paths[0]));
    }
    let Some(out) = &args.out else {
        return Err(Error::Usage("several files: name --out DIR to write them to".to_owned()));
    };
    several(args, out)
}

fn one(args: &RedactArgs, path: Option<&std::path::Path>) -> Result<()> {
    let text = files::read_text(path)?;
    let (mut vault, key) = files::open_vault(&args.vault)?;
    let mut scanner = scanner(&args.detection)?;
    check_scripts(&args.detection, &mut scanner, &[&text])?;
    let scan = scanner.scan(&[&text])?;
    let redacted = vault.redact(&text, &scan.spans[0])?;
    // Before anything leaves: what cannot be restored later should not have been sent.
    files::save_vault(&args.vault, &vault, key.as_ref())?;
    match &args.out {
        Some(out) => files::write_below(out, std::path::Path::new("redacted.txt"), &redacted.text),
        None => write_text(&redacted.text),
    }
}

fn several(args: &RedactArgs, out: &std::path::Path) -> Result<()> {
    let files = files::walk(&args.paths)?;
    let (mut vault, key) = files::open_vault(&args.vault)?;
    let mut scanner = scanner(&args.detection)?;
    let mut failed = 0;
    let mut rest = files.iter().peekable();
    while rest.peek().is_some() {
        let mut batch = Vec::new();
        let mut size = 0;
        while size < BATCH_CHARS
            && let Some((path, name)) = rest.next()
        {
            match files::read_text(Some(path)) {
                Ok(text) => {
                    size += text.len();
                    batch.push((name, text));
                }
                Err(error) => {
                    failed += 1;
                    eprintln!("anonymize: {error}");
                }
            }
        }
        let texts: Vec<&str> = batch.iter().map(|(_, text)| text.as_str()).collect();
        check_scripts(&args.detection, &mut scanner, &texts)?;
        let scan = scanner.scan(&texts)?;
        for ((name, text), spans) in batch.iter().zip(&scan.spans) {
            if args.per_document {
                vault = Vault::new();
            }
            let redacted = vault.redact(text, spans)?;
            files::write_below(out, name, &redacted.text)?;
        }
        files::save_vault(&args.vault, &vault, key.as_ref())?;
    }
    if failed > 0 {
        let total = files.len();
        return Err(Error::input("redact", format!("{failed} of {total} files were left out")));
    }
    Ok(())
}

//! `anonymize redact`.

use std::path::Path;

use sotto::progress::Bars;
use sotto_storage::FetchProgress;

use super::args::{FileArgs, RedactArgs};
use super::files::{self, Job, Jobs};
use super::{check_scripts, jsonl, scanner, vault_rules, write_bytes};
use crate::documents::columns::Rules;
use crate::documents::{Document, Format};
use crate::error::{Error, Result};
use crate::vault::Vault;

/// Code points of texts that are scanned together.
pub(super) const BATCH_CHARS: usize = 64 << 10;

pub(super) fn run(args: &RedactArgs) -> Result<()> {
    if args.jsonl {
        return jsonl::run(args);
    }
    let rules = Rules::parse(&args.columns)?;
    match single(&args.files)? {
        Some(path) => one(args, &rules, path),
        None => several(args, &rules),
    }
}

/// The one input that goes to standard output: a path, or none for standard input.
pub(super) fn single(args: &FileArgs) -> Result<Option<Option<&Path>>> {
    let is_written = args.out.is_some() || args.next_to_input;
    match &args.paths[..] {
        [] if is_written => Err(Error::Usage(
            "--out and --next-to-input need files; standard input goes to standard output".to_owned(),
        )),
        [] => Ok(Some(None)),
        [path] if !is_written && !path.is_dir() => Ok(Some(Some(path))),
        _ if !is_written => {
            Err(Error::Usage("several files: name --out DIR to write them to, or --next-to-input".to_owned()))
        }
        _ => Ok(None),
    }
}

/// The format of an input.
pub(super) fn format_of(args: &FileArgs, path: Option<&Path>) -> Format {
    args.format.unwrap_or_else(|| path.map_or(Format::Text, Format::of_name))
}

fn one(args: &RedactArgs, rules: &Rules, path: Option<&Path>) -> Result<()> {
    let format = format_of(&args.files, path);
    let mut document = Document::read(format, &files::place(path), files::read_bytes(path)?)?;
    check_columns(rules, std::slice::from_ref(&document))?;
    let vault_rules = vault_rules(&args.detection, args.ignore_case)?;
    let (mut vault, key) = files::open_vault(&args.vault)?;
    vault.follow(&vault_rules);
    let mut scanner = scanner(&args.detection)?;
    check_scripts(&args.detection, &mut scanner, &document.texts())?;
    let found = Document::scan(std::slice::from_mut(&mut document), &mut scanner, rules)?;
    let redacted = document.redact(&found[0], &mut vault)?;
    // Before anything leaves: what cannot be restored later should not have been sent.
    files::save_vault(&args.vault, &vault, key.as_ref())?;
    tell(&document);
    write_bytes(format, &redacted)
}

fn several(args: &RedactArgs, rules: &Rules) -> Result<()> {
    let jobs = files::jobs(&args.files, "redacted")?;
    let vault_rules = vault_rules(&args.detection, args.ignore_case)?;
    let (mut vault, key) = files::open_vault(&args.vault)?;
    vault.follow(&vault_rules);
    let mut scanner = scanner(&args.detection)?;
    let bars = Bars::new(args.detection.quiet);
    let mut work = Work::new(&jobs, &bars);
    let mut columns_seen = rules.names().next().is_none();
    while let Some(mut batch) = work.batch(&args.files) {
        let texts: Vec<&str> = batch.iter().flat_map(|(_, document)| document.texts()).collect();
        check_scripts(&args.detection, &mut scanner, &texts)?;
        let (jobs, mut documents): (Vec<&Job>, Vec<Document>) = batch.drain(..).unzip();
        columns_seen |= check_columns(rules, &documents).is_ok();
        let found = Document::scan(&mut documents, &mut scanner, rules)?;
        let mut outputs = Vec::new();
        for ((job, document), found) in jobs.iter().zip(&documents).zip(&found) {
            if args.per_document {
                vault = Vault::new();
                vault.follow(&vault_rules);
            }
            match document.redact(found, &mut vault) {
                Ok(bytes) => outputs.push((job, bytes)),
                Err(
                    error @ Error::Pii(sotto_pii::Error::Input { .. } | sotto_pii::Error::Blocked { .. }),
                ) => work.fail(&error),
                Err(error) => return Err(error),
            }
            tell(document);
        }
        files::save_vault(&args.vault, &vault, key.as_ref())?;
        for (job, bytes) in outputs {
            files::write_whole(&job.output, &bytes)?;
        }
    }
    work.finish("redact")?;
    match columns_seen {
        true => Ok(()),
        false => Err(no_columns(rules)),
    }
}

/// Refuses columns that no table has: a misspelt name would leave its values to chance.
fn check_columns(rules: &Rules, documents: &[Document]) -> Result<()> {
    let heads: Vec<String> =
        documents.iter().flat_map(Document::heads).map(|head| head.trim().to_lowercase()).collect();
    let is_known = |name: &str| name.parse::<usize>().is_ok() || heads.iter().any(|head| head == name);
    match rules.names().all(is_known) {
        true => Ok(()),
        false => Err(no_columns(rules)),
    }
}

fn no_columns(rules: &Rules) -> Error {
    let names: Vec<&str> = rules.names().collect();
    Error::Usage(format!("--columns: no table of the input has all of the columns {}", names.join(", ")))
}

/// Says what a file holds that was not looked at.
fn tell(document: &Document) {
    for note in document.notes() {
        eprintln!("anonymize: {}: {note}", document.place());
    }
}

/// Files that are worked through, and what became of them.
pub(super) struct Work<'a> {
    rest: std::slice::Iter<'a, Job>,
    total: usize,
    failed: usize,
    read: u64,
    bars: &'a Bars,
}

impl<'a> Work<'a> {
    pub(super) fn new(jobs: &'a Jobs, bars: &'a Bars) -> Self {
        for reason in &jobs.left_out {
            eprintln!("anonymize: left out: {reason}");
        }
        if jobs.done > 0 {
            eprintln!("anonymize: {} files are done already", jobs.done);
        }
        bars.begin("reading files", Some(jobs.files.iter().map(|job| job.size).sum()), true);
        let total = jobs.files.len() + jobs.left_out.len();
        Self { rest: jobs.files.iter(), total, failed: jobs.left_out.len(), read: 0, bars }
    }

    /// The next files that can be read; `None` at the end.
    pub(super) fn batch(&mut self, args: &FileArgs) -> Option<Vec<(&'a Job, Document)>> {
        self.bars.position(self.read);
        let mut batch = Vec::new();
        let mut size = 0;
        while size < BATCH_CHARS {
            let Some(job) = self.rest.next() else { break };
            self.read += job.size;
            let format = format_of(args, Some(&job.path));
            let document = files::read_bytes(Some(&job.path))
                .and_then(|bytes| Document::read(format, &files::place(Some(&job.path)), bytes));
            match document {
                Ok(document) => {
                    size += document.len();
                    batch.push((job, document));
                }
                Err(error) => self.fail(&error),
            }
        }
        (!batch.is_empty()).then_some(batch)
    }

    /// Notes a file that could not be done.
    pub(super) fn fail(&mut self, error: &Error) {
        self.failed += 1;
        eprintln!("anonymize: left out: {error}");
    }

    /// An error if not all were done.
    pub(super) fn finish(self, what: &str) -> Result<()> {
        self.bars.end();
        match self.failed {
            0 => Ok(()),
            failed => Err(Error::input(what, format!("{failed} of {} files were left out", self.total))),
        }
    }
}

//! `anonymize redact --jsonl`: a document per line.

use std::io::{BufRead, BufReader, Read};

use serde::{Deserialize, Serialize};

use super::args::RedactArgs;
use super::redact::BATCH_CHARS;
use super::{check_scripts, files, scanner, vault_rules, write_out};
use crate::error::{Error, Result};
use crate::scan::Scanner;
use crate::vault::{Placed, Vault, VaultRules};

/// Bytes of the longest line that is read.
const MAX_LINE_BYTES: u64 = 16 << 20;

#[derive(Deserialize)]
struct Document {
    id: serde_json::Value,
    text: String,
}

/// A redacted document; these fields and no others.
#[derive(Serialize)]
struct Record<'a> {
    id: &'a serde_json::Value,
    redacted: &'a str,
    spans: Vec<SpanRecord<'a>>,
}

/// A span as `--jsonl` and the proxy report it.
#[derive(Serialize)]
pub(crate) struct SpanRecord<'a> {
    start: usize,
    end: usize,
    label: &'a str,
    placeholder: &'a str,
    score: f64,
    source: &'a str,
}

impl<'a> From<&'a Placed> for SpanRecord<'a> {
    fn from(placed: &'a Placed) -> Self {
        Self {
            start: placed.span.start,
            end: placed.span.end,
            label: placed.span.label.as_str(),
            placeholder: &placed.placeholder,
            score: (f64::from(placed.span.score) * 1e4).round() / 1e4,
            source: placed.span.source.as_str(),
        }
    }
}

pub(super) fn run(args: &RedactArgs) -> Result<()> {
    if args.files.out.is_some() || args.files.next_to_input || args.files.paths.len() > 1 {
        return Err(Error::Usage("--jsonl reads one stream and writes to standard output".to_owned()));
    }
    let input: Box<dyn Read> = match args.files.paths.first() {
        Some(path) => Box::new(std::fs::File::open(path).map_err(|error| Error::io("reading", path, error))?),
        None => Box::new(std::io::stdin().lock()),
    };
    let mut lines = Lines { input: BufReader::new(input), number: 0 };
    let rules = vault_rules(&args.detection, args.ignore_case)?;
    let (mut vault, key) = files::open_vault(&args.vault)?;
    vault.follow(&rules);
    let mut scanner = scanner(&args.detection)?;
    let mut failed = 0;
    loop {
        let (batch, at_end) = lines.batch(&mut failed)?;
        let out = redact(args, &batch, &mut scanner, &mut vault, &rules)?;
        files::save_vault(&args.vault, &vault, key.as_ref())?;
        write_out(&out)?;
        if at_end {
            break;
        }
    }
    match failed {
        0 => Ok(()),
        _ => Err(Error::input("input", format!("{failed} lines were left out"))),
    }
}

fn redact(
    args: &RedactArgs,
    batch: &[Document],
    scanner: &mut Scanner,
    vault: &mut Vault,
    rules: &VaultRules,
) -> Result<Vec<u8>> {
    let texts: Vec<&str> = batch.iter().map(|document| document.text.as_str()).collect();
    check_scripts(&args.detection, scanner, &texts)?;
    let scan = if texts.is_empty() { Default::default() } else { scanner.scan(&texts)? };
    let mut out = Vec::new();
    for (document, spans) in batch.iter().zip(&scan.spans) {
        if args.per_document {
            *vault = Vault::new();
            vault.follow(rules);
        }
        let redacted = vault.redact(&document.text, spans)?;
        let record = Record {
            id: &document.id,
            redacted: &redacted.text,
            spans: redacted.spans.iter().map(SpanRecord::from).collect(),
        };
        serde_json::to_writer(&mut out, &record)
            .map_err(|error| Error::io_of("writing a record", error.into()))?;
        out.push(b'\n');
    }
    Ok(out)
}

struct Lines<R> {
    input: BufReader<R>,
    number: usize,
}

impl<R: Read> Lines<R> {
    /// The next documents, and whether the input has ended. Lines that are none are reported and counted.
    fn batch(&mut self, failed: &mut usize) -> Result<(Vec<Document>, bool)> {
        let mut batch = Vec::new();
        let mut size = 0;
        while size < BATCH_CHARS {
            let mut line = Vec::new();
            let mut limited = (&mut self.input).take(MAX_LINE_BYTES);
            let read = limited
                .read_until(b'\n', &mut line)
                .map_err(|source| Error::io_of("reading the input", source))?;
            if read == 0 {
                return Ok((batch, true));
            }
            self.number += 1;
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            match self.document(&line) {
                Ok(document) => {
                    size += document.text.len();
                    batch.push(document);
                }
                Err(error) => {
                    *failed += 1;
                    eprintln!("anonymize: {error}");
                }
            }
        }
        Ok((batch, false))
    }

    fn document(&mut self, line: &[u8]) -> Result<Document> {
        let place = format!("line {}", self.number);
        let refused = |reason: String| Error::input(place.clone(), reason);
        if line.len() as u64 == MAX_LINE_BYTES && !line.ends_with(b"\n") {
            self.skip_line()?;
            return Err(refused(format!("longer than {MAX_LINE_BYTES} bytes")));
        }
        if let Err(error) = std::str::from_utf8(line) {
            return Err(refused(format!("not UTF-8 text (byte {})", error.valid_up_to())));
        }
        serde_json::from_slice(line).map_err(|error| {
            let what = match error.classify() {
                serde_json::error::Category::Data => "not an object with \"id\" and \"text\"",
                // Includes surrogates without their other half, which no text can hold.
                _ => "not valid JSON",
            };
            refused(format!("{what} (column {})", error.column()))
        })
    }

    fn skip_line(&mut self) -> Result<()> {
        loop {
            let mut rest = Vec::new();
            let read = (&mut self.input)
                .take(MAX_LINE_BYTES)
                .read_until(b'\n', &mut rest)
                .map_err(|source| Error::io_of("reading the input", source))?;
            if read == 0 || rest.ends_with(b"\n") {
                return Ok(());
            }
        }
    }
}

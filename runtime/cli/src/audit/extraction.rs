//! `sotto audit extraction`: both attacks against one layer, as a table.

use std::fmt::Write as _;
use std::io::Write;

use super::ExtractionArgs;
use crate::output;
use crate::progress::Bars;
use crate::selftest_texts::PROMPTS;
use sotto_engine::audit::{Extraction, ExtractionOptions, extraction};
use sotto_engine::embedded::local_model;
use sotto_engine::fetch::ModelRef;
use sotto_models::split::plan::PlanKind;
use sotto_protocol::error::{Error, Result};
use sotto_server::FIRST_CREDENTIAL_BUDGET;
use sotto_storage::Cache;

/// Bytes of a text that is read.
const MAX_TEXT_BYTES: u64 = 16 << 20;

/// Attacks a layer on this machine and prints what it gave away.
///
/// # Errors
///
/// [`Error::Usage`] for an unknown layer or too short a text; otherwise as `sotto split`.
pub(super) fn run(args: &ExtractionArgs, out: &mut dyn Write) -> Result<()> {
    let text = args.text.as_deref().map(read_text).transpose()?;
    if args.tokens == Some(0) {
        return Err(Error::Usage("--tokens must be at least 1".to_owned()));
    }
    let plan = if args.fused { PlanKind::Fused } else { PlanKind::Plain };
    let binding = sotto_protocol::binding::binding(args.tau)?;
    let bars = Bars::new(args.quiet);
    let local = local_model(&ModelRef::parse(&args.model)?, plan, &binding, &Cache::from_env()?, &bars)?;
    let options = ExtractionOptions {
        layer: args.layer.clone(),
        tokens: args.tokens,
        text,
        prompts: PROMPTS.iter().map(|&prompt| prompt.to_owned()).collect(),
    };
    let found = extraction(&local, &options, &bars)?;
    if args.json {
        let mut report = serde_json::to_value(&found)
            .map_err(|error| Error::Internal(format!("report of the audit: {error}")))?;
        report["first_credential_budget"] = FIRST_CREDENTIAL_BUDGET.into();
        output::line(out, &report.to_string())
    } else {
        output::line(out, table(&found)?.trim_end())
    }
}

fn read_text(path: &std::path::Path) -> Result<String> {
    let size = std::fs::metadata(path).map_err(|error| Error::io("reading", path, error))?.len();
    if size > MAX_TEXT_BYTES {
        return Err(Error::TooLong { field: "text", got: size, limit: MAX_TEXT_BYTES });
    }
    std::fs::read_to_string(path).map_err(|error| Error::io("reading", path, error))
}

fn table(found: &Extraction) -> Result<String> {
    let mut text = String::new();
    write_table(found, &mut text)
        .map_err(|error| Error::Internal(format!("report of the audit: {error}")))?;
    Ok(text)
}

fn write_table(found: &Extraction, out: &mut String) -> std::fmt::Result {
    writeln!(
        out,
        "{} of {} ({} rounds): {} x {} int8 weights, {} ({} bits)\n\
         the layer's own server and client code in this process: no network, no meter\n",
        found.layer, found.model, found.plan, found.rows, found.d_in, found.params, found.security_bits
    )?;
    writeln!(out, "{:<44} {:>7}  weights recovered exactly", "attack", "tokens")?;
    let chosen = &found.chosen;
    let label = "chosen bodies, four weights per reply word";
    writeln!(out, "{label:<44} {:>7}  {:.4} %", chosen.tokens, 100.0 * chosen.fraction)?;
    for form in &found.chosen_by_form {
        let label = format!("chosen bodies, {}", form.wire);
        writeln!(out, "{label:<44} {:>7}  {:.4} %", form.chosen.tokens, 100.0 * form.chosen.fraction)?;
    }
    for (index, point) in found.honest.iter().enumerate() {
        let label = if index == 0 { "honest traffic, least squares" } else { "" };
        writeln!(
            out,
            "{label:<44} {:>7}  {:.4} % (relative error {:.1e})",
            point.tokens,
            100.0 * point.fraction,
            point.relative_error
        )?;
    }
    match found.honest_tokens {
        Some(tokens) => {
            let per_input = tokens as f64 / found.d_in as f64;
            writeln!(
                out,
                "\nhonest traffic gave every weight after {tokens} tokens, {per_input:.2} per input"
            )?;
        }
        None => writeln!(out, "\nhonest traffic did not give every weight; --tokens asks for more of it")?,
    }
    for whole in &found.whole_model {
        writeln!(
            out,
            "the whole model, {:<5} rounds: {:>5} tokens of chosen bodies, lean and stateless {} (widest round {} inputs), all rounds at once",
            whole.plan, whole.chosen_tokens, whole.chosen_slots, whole.widest
        )?;
    }
    writeln!(
        out,
        "a server's first credential: {FIRST_CREDENTIAL_BUDGET} tokens. A budget that is useful for talking does not protect weights: it bounds cost."
    )
}

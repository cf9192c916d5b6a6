//! The `anonymize` command line: arguments, then a resolved configuration, then the work.

pub mod args;
mod eval;
mod explain;
mod files;
mod jsonl;
mod mcp;
mod progress;
mod proxy;
mod redact;
mod restore;
mod secrets;
mod verify;

pub(crate) use jsonl::SpanRecord;

use std::process::ExitCode;
use std::sync::Arc;

use clap::{CommandFactory, Parser};
use sotto::output;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::model::{ModelDetector, ModelOptions};
use crate::scan::{Rules, Scanner};
use crate::vault::VaultRules;
use args::{Cli, Command, DetectionArgs, UnknownScript};

/// Reads the command line, runs it and reports errors; for `main`.
pub fn main() -> ExitCode {
    // Fails only if a provider is installed already, which is as good.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let command = Cli::parse().command;
    match sotto::survive_file_limits().map_err(Error::from).and_then(|()| run(command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if !matches!(error, Error::Runtime(sotto_protocol::Error::OutputClosed)) {
                eprintln!("anonymize: {error}");
            }
            ExitCode::from(error.exit_code())
        }
    }
}

/// Runs one subcommand.
///
/// # Errors
/// What the subcommand reports.
pub fn run(command: Command) -> Result<()> {
    match command {
        Command::Redact(args) => redact::run(&args),
        Command::Restore(args) => restore::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Eval(args) => eval::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Proxy(args) => proxy::run(&args),
        Command::Mcp(args) => mcp::run(&args),
        Command::Serve(args) => Ok(sotto::serve::run(&args)?),
        Command::Completions(args) => {
            Ok(sotto::man::completions(&args, Cli::command(), &mut std::io::stdout().lock())?)
        }
        Command::Man(args) => Ok(sotto::man::run(&args, Cli::command(), &mut std::io::stdout().lock())?),
    }
}

/// The configuration that arguments name, with what they change of it.
fn config(args: &DetectionArgs) -> Result<Config> {
    let mut config = match &args.config {
        Some(path) => Config::open(path)?,
        None => Config::default(),
    };
    if let Some(threshold) = args.threshold {
        config.threshold = threshold;
    }
    Ok(config)
}

/// What the vault does with values.
fn vault_rules(args: &DetectionArgs, ignore_case: bool) -> Result<VaultRules> {
    Ok(VaultRules { ignore_case, operators: Arc::new(config(args)?.operators()?) })
}

/// The scanner that arguments describe.
fn scanner(args: &DetectionArgs) -> Result<Scanner> {
    scanner_without(args, None)
}

/// The scanner that arguments describe, without a rule of detection.
fn scanner_without(args: &DetectionArgs, rule: Option<&str>) -> Result<Scanner> {
    let config = config(args)?;
    let rules = Arc::new(Rules::new(&config)?);
    let mut options = config.detect_options();
    options.disabled_rules.extend(rule.map(str::to_owned));
    let model = ModelDetector::open(&model_options(args)?, options, &*progress::progress(args.quiet))?;
    let model = model.reporting(progress::progress(args.quiet));
    Ok(Scanner::new(rules, Box::new(model)))
}

/// Says how many letters the model cannot read, or refuses the texts for them. Call it before anything is written.
fn check_scripts(args: &DetectionArgs, scanner: &mut Scanner, texts: &[&str]) -> Result<()> {
    let letters = scanner.unknown_letters(texts)?;
    if letters == 0 {
        return Ok(());
    }
    let what =
        format!("{letters} letters of a script that the model does not know; names in it are not found");
    match args.unknown_script {
        UnknownScript::Warn => {
            eprintln!("anonymize: {what}");
            Ok(())
        }
        UnknownScript::Fail => {
            Err(Error::input("input", format!("{what} (--unknown-script warn lets it pass)")))
        }
    }
}

fn model_options(args: &DetectionArgs) -> Result<ModelOptions> {
    let server = secrets::secret("--server", "SOTTO_SERVER", args.server.as_deref())?;
    if server.is_some() && args.backend != crate::model::BackendChoice::Encrypted {
        return Err(Error::Usage(
            "--server is for the encrypted backend; leave it or --backend out".to_owned(),
        ));
    }
    Ok(ModelOptions {
        detector: args.detector.clone(),
        backend: args.backend,
        server: server.map(|server| server.to_string()),
        tau: args.tau,
        program: None,
        trust_server: args.trust_server,
    })
}

/// Writes a file to standard output: what is no text does not go to a terminal.
fn write_bytes(format: crate::documents::Format, bytes: &[u8]) -> Result<()> {
    use std::io::IsTerminal;
    match std::str::from_utf8(bytes) {
        Ok(text) if !format.is_binary() => write_text(text),
        _ if std::io::stdout().is_terminal() => Err(Error::Usage(
            "the output is no text: name --out DIR, or send standard output to a file".to_owned(),
        )),
        _ => write_out(bytes),
    }
}

/// Writes a text to standard output. A terminal would obey some characters of it: overrides of the writing direction, which
/// make a text look like another one, and control characters. It is shown their numbers instead.
fn write_text(text: &str) -> Result<()> {
    use std::io::IsTerminal;
    if std::io::stdout().is_terminal() {
        write_out(visible(text).as_bytes())
    } else {
        write_out(text.as_bytes())
    }
}

fn visible(text: &str) -> String {
    let obeyed = |c: char| {
        let direction = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        direction || c.is_control() && !matches!(c, '\n' | '\r' | '\t')
    };
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if obeyed(c) { shown.extend(c.escape_unicode()) } else { shown.push(c) }
    }
    shown
}

/// Writes to standard output.
fn write_out(bytes: &[u8]) -> Result<()> {
    Ok(output::write(&mut std::io::stdout().lock(), bytes)?)
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_a_terminal_obeys_is_shown() {
        let shown = super::visible("a\u{202e}b\u{1b}[2J\tc\r\nשלום");
        assert_eq!(shown, "a\\u{202e}b\\u{1b}[2J\tc\r\nשלום");
    }
}

//! The help texts, word for word, and what else is made from the definition of the command line.
//! `SOTTO_UPDATE_GOLDEN=1 cargo test --release -p anonymizer --test cli_help` renews the help texts.

use std::path::PathBuf;
use std::process::Command;

use anonymizer::commands::args::Cli;
use clap::CommandFactory;
use sotto_testing::help::{
    completions_are_whole, ends_quietly_unread, help_is_as_in, options_without_variable, pages_are_whole,
};

fn anonymize() -> Command {
    sotto_testing::environment::isolated(Command::new(env!("CARGO_BIN_EXE_anonymize")))
}

#[test]
fn help_is_as_documented() {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/help");
    help_is_as_in(&directory, &Cli::command(), anonymize);
}

#[test]
fn every_option_has_a_variable() {
    assert_eq!(options_without_variable(&Cli::command()), Vec::<String>::new());
}

#[test]
fn completions_know_every_command_and_option() {
    completions_are_whole(&Cli::command(), anonymize);
}

#[test]
fn every_command_has_a_manual_page() {
    pages_are_whole(tempfile::tempdir().unwrap().path(), &Cli::command(), anonymize);
}

#[test]
fn a_variable_says_what_an_option_would() {
    let output = anonymize().arg("restore").env("SOTTO_ANONYMIZE_KEY_FILE", "k").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(errors.contains("--vault"), "a key file goes with a vault: {errors}");
    let output = anonymize().arg("redact").env("SOTTO_ANONYMIZE_THRESHOLD", "1.5").output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("--threshold"), "{output:?}");
}

#[test]
fn commands_end_quietly_when_nobody_reads_them() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "Write to ann@example.org.").unwrap();
    let text = file.path().display().to_string();
    for arguments in [
        &["man"][..],
        &["completions", "fish"],
        &["explain", "--backend", "dense", "--quiet", "--json", &text],
        &["redact", "--backend", "dense", "--quiet", &text],
    ] {
        let mut command = anonymize();
        command.args(arguments);
        ends_quietly_unread(command);
    }
}

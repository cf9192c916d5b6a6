//! The help texts, word for word, and what else is made from the definition of the command line.
//! `SOTTO_UPDATE_GOLDEN=1 cargo test --release -p sotto --test cli_help` renews the help texts.

mod client_support;

use std::path::PathBuf;

use clap::CommandFactory;
use client_support::{smollm2, sotto};
use sotto::Cli;
use sotto_testing::help::{
    completions_are_whole, ends_quietly_unread, help_is_as_in, options_without_variable, pages_are_whole,
};

#[test]
fn help_is_as_documented() {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/help");
    help_is_as_in(&directory, &Cli::command(), sotto);
}

#[test]
fn every_option_has_a_variable() {
    assert_eq!(options_without_variable(&Cli::command()), Vec::<String>::new());
    let lacking = clap::Command::new("a").subcommand(
        clap::Command::new("b")
            .arg(clap::Arg::new("c").long("c").env("SOTTO_C"))
            .arg(clap::Arg::new("d").long("d"))
            .arg(clap::Arg::new("e").long("e").env("E")),
    );
    assert_eq!(options_without_variable(&lacking), ["b --d", "b --e"]);
}

#[test]
fn completions_know_every_command_and_option() {
    completions_are_whole(&Cli::command(), sotto);
}

#[test]
fn the_main_page_is_printed() {
    let output = sotto().arg("man").output().unwrap();
    assert!(output.status.success() && String::from_utf8(output.stdout).unwrap().contains(".TH sotto 1"));
}

#[test]
fn every_command_has_a_manual_page() {
    pages_are_whole(tempfile::tempdir().unwrap().path(), &Cli::command(), sotto);
}

#[test]
fn pages_that_cannot_be_written_say_so() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let output = sotto().arg("man").arg("--out").arg(file.path()).output().unwrap();
    assert!(!output.status.success());
    assert!(client_support::errors(&output).contains(&file.path().display().to_string()));
}

#[test]
fn commands_end_quietly_when_nobody_reads_them() {
    let split = smollm2().directory.display().to_string();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().display().to_string();
    for arguments in [
        &["man"][..],
        &["completions", "bash"],
        &["models", "list"],
        &["models", "list", "--json"],
        &["doctor"],
        &["estimate"],
        &["keys", "--out", &path],
        &["credential", "list", "--state", &path],
        &["credential", "add", "--budget", "64", "--state", &path],
        &["serve", "--split", &split, "--ephemeral-credential", "--listen", "127.0.0.1:0"],
        &["chat", "--quiet", "--backend", "int8", "--prompt", "Name one colour.", "--max-tokens", "4"],
        &["chat", "--quiet", "--backend", "int8", "--prompt", "Name one colour.", "--json"],
    ] {
        let mut command = sotto();
        command.args(arguments);
        ends_quietly_unread(command);
    }
}

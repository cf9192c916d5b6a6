//! The help texts, word for word. `SOTTO_UPDATE_GOLDEN=1 cargo test --release -p runtime --test cli_help` renews them.

mod client_support;

use std::path::PathBuf;

use client_support::sotto;

const COMMANDS: &[&[&str]] = &[
    &[],
    &["chat"],
    &["api"],
    &["split"],
    &["serve"],
    &["credential"],
    &["selftest"],
    &["audit"],
    &["audit", "integrity"],
    &["doctor"],
    &["estimate"],
    &["models"],
    &["completions"],
];

#[test]
fn help_is_as_documented() {
    let mut changed = Vec::new();
    for command in COMMANDS {
        let output = sotto().args(*command).arg("--help").env("COLUMNS", "100").output().unwrap();
        assert!(output.status.success());
        let got = String::from_utf8(output.stdout).unwrap();
        let name = if command.is_empty() { "sotto".to_owned() } else { command.join("-") };
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/help/{name}.txt"));
        if std::env::var_os("SOTTO_UPDATE_GOLDEN").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &got).unwrap();
        } else if std::fs::read_to_string(&path).unwrap_or_default() != got {
            changed.push(name);
        }
    }
    assert!(changed.is_empty(), "the help of {changed:?} changed");
}

#[test]
fn every_option_has_a_variable() {
    use clap::CommandFactory;
    fn check(command: &clap::Command, missing: &mut Vec<String>) {
        for argument in command.get_arguments() {
            let built_in = ["help", "version"].contains(&argument.get_id().as_str());
            let variable = argument.get_env().map(|name| name.to_string_lossy().into_owned());
            let named = variable.is_some_and(|name| name.starts_with("SOTTO_"));
            if argument.get_long().is_some() && !built_in && !named {
                missing.push(format!("{} --{}", command.get_name(), argument.get_long().unwrap_or_default()));
            }
        }
        command.get_subcommands().for_each(|command| check(command, missing));
    }
    let mut missing = Vec::new();
    check(&runtime::cli::Cli::command(), &mut missing);
    assert!(missing.is_empty(), "no variable for {missing:?}");
}

#[test]
fn completions_and_manual_are_printed() {
    for shell in ["bash", "zsh", "fish"] {
        let output = sotto().args(["completions", shell]).output().unwrap();
        assert!(output.status.success() && String::from_utf8(output.stdout).unwrap().contains("selftest"));
    }
    let output = sotto().arg("man").output().unwrap();
    assert!(output.status.success() && String::from_utf8(output.stdout).unwrap().starts_with(".ie"));
}

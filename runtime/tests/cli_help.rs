//! The help texts, word for word. `SOTTO_UPDATE_GOLDEN=1 cargo test --release -p runtime --test cli_help` renews them.

mod client_support;

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::CommandFactory;
use client_support::sotto;

/// Every command that a person may type, as the words behind `sotto`; the program itself first.
fn commands() -> Vec<Vec<String>> {
    fn walk(command: &clap::Command, path: &[String], found: &mut Vec<Vec<String>>) {
        found.push(path.to_vec());
        for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
            walk(sub, &[path, &[sub.get_name().to_owned()]].concat(), found);
        }
    }
    let mut found = Vec::new();
    walk(&runtime::cli::Cli::command(), &[], &mut found);
    found
}

/// The definition of a command, options of its parents included.
fn definition(path: &[String]) -> clap::Command {
    let mut command = runtime::cli::Cli::command();
    command.build();
    path.iter().fold(command, |command, name| command.find_subcommand(name).unwrap().clone())
}

fn file_stem(path: &[String]) -> String {
    if path.is_empty() { "sotto".to_owned() } else { path.join("-") }
}

#[test]
fn help_is_as_documented() {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/help");
    let mut changed = Vec::new();
    let mut known = BTreeSet::new();
    for command in commands() {
        let output = sotto().args(&command).arg("--help").env("COLUMNS", "100").output().unwrap();
        assert!(output.status.success());
        let got = String::from_utf8(output.stdout).unwrap();
        let name = format!("{}.txt", file_stem(&command));
        let path = directory.join(&name);
        if std::env::var_os("SOTTO_UPDATE_GOLDEN").is_some() {
            std::fs::create_dir_all(&directory).unwrap();
            std::fs::write(&path, &got).unwrap();
        } else if std::fs::read_to_string(&path).unwrap_or_default() != got {
            changed.push(name.clone());
        }
        known.insert(name);
    }
    assert!(changed.is_empty(), "the help of {changed:?} changed");
    let files = std::fs::read_dir(directory).unwrap();
    let files: BTreeSet<_> = files.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(files, known, "files of help texts and commands");
}

#[test]
fn every_option_has_a_variable() {
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
fn completions_know_every_command_and_option() {
    for shell in ["bash", "zsh", "fish"] {
        let output = sotto().args(["completions", shell]).output().unwrap();
        assert!(output.status.success());
        let script = String::from_utf8(output.stdout).unwrap();
        for command in commands() {
            for name in &command {
                assert!(script.contains(name.as_str()), "{shell}: {name}");
            }
            for option in definition(&command).get_opts().filter(|option| !option.is_hide_set()) {
                // fish writes options without the dashes.
                let long = option.get_long().unwrap();
                assert!(script.contains(long), "{shell}: {command:?} --{long}");
            }
        }
    }
}

#[test]
fn the_main_page_is_printed() {
    let output = sotto().arg("man").output().unwrap();
    assert!(output.status.success() && String::from_utf8(output.stdout).unwrap().contains(".TH sotto 1"));
}

#[test]
fn every_command_has_a_manual_page() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("not/yet/there");
    let output = sotto().arg("man").arg("--out").arg(&out).output().unwrap();
    assert!(output.status.success(), "{}", client_support::errors(&output));
    let mut expected = BTreeSet::new();
    for command in commands() {
        let name = std::iter::once("sotto").chain(command.iter().map(String::as_str));
        let name = format!("{}.1", name.collect::<Vec<_>>().join("-"));
        // roff writes "-" as "\-".
        let page = std::fs::read_to_string(out.join(&name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        let page = page.replace("\\-", "-").replace("\\*(Aq", "'");
        let definition = definition(&command);
        let about = definition.get_about().unwrap().to_string();
        assert!(page.contains(&about), "{name} does not say {about:?}");
        for option in definition.get_opts().filter(|option| !option.is_hide_set()) {
            let long = format!("--{}", option.get_long().unwrap());
            assert!(page.contains(&long), "{name} lacks {long}");
        }
        expected.insert(name);
    }
    let written = std::fs::read_dir(&out).unwrap();
    let written: BTreeSet<_> =
        written.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(written, expected, "a page without a command");
}

#[test]
fn pages_that_cannot_be_written_say_so() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let output = sotto().arg("man").arg("--out").arg(file.path()).output().unwrap();
    assert!(!output.status.success());
    assert!(client_support::errors(&output).contains(&file.path().display().to_string()));
}

//! What holds for the help texts, variables, pages and completions of every program of this workspace.
use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};

/// Every command that a person may type, as the words behind the program's name; the program itself first.
pub fn commands(program: &clap::Command) -> Vec<Vec<String>> {
    fn walk(command: &clap::Command, path: &[String], found: &mut Vec<Vec<String>>) {
        found.push(path.to_vec());
        for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
            walk(sub, &[path, &[sub.get_name().to_owned()]].concat(), found);
        }
    }
    let mut found = Vec::new();
    walk(program, &[], &mut found);
    found
}

/// The definition of a command, options of its parents included.
pub fn definition(program: &clap::Command, path: &[String]) -> clap::Command {
    let mut command = program.clone();
    command.build();
    path.iter().fold(command, |command, name| command.find_subcommand(name).unwrap().clone())
}

/// Compares the help of every command with the files of `directory`, word for word; `SOTTO_UPDATE_GOLDEN` writes them.
pub fn help_is_as_in(directory: &Path, program: &clap::Command, start: fn() -> Command) {
    let mut changed = Vec::new();
    let mut known = BTreeSet::new();
    for command in commands(program) {
        let output = start().args(&command).arg("--help").env("COLUMNS", "100").output().unwrap();
        assert!(output.status.success());
        let got = String::from_utf8(output.stdout).unwrap();
        let stem = if command.is_empty() { program.get_name().to_owned() } else { command.join("-") };
        let name = format!("{stem}.txt");
        let path = directory.join(&name);
        if std::env::var_os("SOTTO_UPDATE_GOLDEN").is_some() {
            std::fs::create_dir_all(directory).unwrap();
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

/// Options of all commands, hidden ones too, that no variable `SOTTO_*` sets.
pub fn options_without_variable(program: &clap::Command) -> Vec<String> {
    let mut missing = Vec::new();
    for argument in program.get_arguments() {
        let Some(long) = argument.get_long() else { continue };
        let built_in = ["help", "version"].contains(&argument.get_id().as_str());
        let named = argument.get_env().is_some_and(|name| name.to_string_lossy().starts_with("SOTTO_"));
        if !built_in && !named {
            missing.push(format!("{} --{long}", program.get_name()));
        }
    }
    missing.extend(program.get_subcommands().flat_map(options_without_variable));
    missing
}

/// Looks for every command and option in the completion scripts.
pub fn completions_are_whole(program: &clap::Command, start: fn() -> Command) {
    for shell in ["bash", "zsh", "fish"] {
        let output = start().args(["completions", shell]).output().unwrap();
        assert!(output.status.success());
        let script = String::from_utf8(output.stdout).unwrap();
        for command in commands(program) {
            for name in &command {
                assert!(script.contains(name.as_str()), "{shell}: {name}");
            }
            for option in definition(program, &command).get_opts().filter(|option| !option.is_hide_set()) {
                // fish writes options without the dashes.
                let long = option.get_long().unwrap();
                assert!(script.contains(long), "{shell}: {command:?} --{long}");
            }
        }
    }
}

/// Looks for every command and option in the manual pages that `man --out` writes below `folder`.
pub fn pages_are_whole(folder: &Path, program: &clap::Command, start: fn() -> Command) {
    let out = folder.join("not/yet/there");
    let output = start().arg("man").arg("--out").arg(&out).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut expected = BTreeSet::new();
    for command in commands(program) {
        let name = std::iter::once(program.get_name()).chain(command.iter().map(String::as_str));
        let name = format!("{}.1", name.collect::<Vec<_>>().join("-"));
        // roff writes "-" as "\-".
        let page = std::fs::read_to_string(out.join(&name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        let page = page.replace("\\-", "-").replace("\\*(Aq", "'");
        let definition = definition(program, &command);
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

/// Runs `command` with a standard output that nobody reads.
pub fn unread(mut command: Command) -> Output {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    command.stdout(writer).stderr(std::process::Stdio::piped());
    let child = command.spawn().unwrap();
    child.wait_with_output().unwrap()
}

/// Checks that a command ends without a word when nobody reads its output, like one that the signal for it ends.
pub fn ends_quietly_unread(command: Command) {
    let shown = format!("{command:?}");
    let output = unread(command);
    assert_eq!(output.status.code(), Some(141), "{shown}: {output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{shown}");
}

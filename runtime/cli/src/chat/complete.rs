//! Tab: names of commands, options and files.

use rustyline::completion::{Completer, FilenameCompleter, Pair};
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::validate::Validator;
use rustyline::{Context, Helper};

use super::commands::{NAMES, OPTIONS};

/// Completes lines that begin with `/`.
#[derive(Default)]
pub(super) struct CommandCompleter {
    files: FilenameCompleter,
}

impl Completer for CommandCompleter {
    type Candidate = Pair;

    fn complete(
        &self,
        line: &str,
        position: usize,
        context: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<Pair>)> {
        let typed = &line[..position];
        match typed.split_once(char::is_whitespace) {
            None if typed.starts_with('/') => Ok((0, matching(NAMES, typed))),
            Some(("/set", rest)) if !rest.trim_start().contains(char::is_whitespace) => {
                let word = rest.trim_start();
                Ok((position - word.len(), matching(OPTIONS, word)))
            }
            Some(("/save" | "/load", _)) => self.files.complete(line, position, context),
            _ => Ok((position, Vec::new())),
        }
    }
}

fn matching(names: &[&str], typed: &str) -> Vec<Pair> {
    let of = |name: &&str| Pair { display: (*name).to_owned(), replacement: format!("{name} ") };
    names.iter().filter(|name| name.starts_with(typed)).map(of).collect()
}

impl Hinter for CommandCompleter {
    type Hint = String;
}
impl Highlighter for CommandCompleter {}
impl Validator for CommandCompleter {}
impl Helper for CommandCompleter {}

#[cfg(test)]
mod tests {
    use super::*;
    use rustyline::history::MemHistory;

    #[test]
    fn commands_and_options_are_completed() {
        let completed = |line: &str| {
            let history = MemHistory::new();
            let (start, pairs) =
                CommandCompleter::default().complete(line, line.len(), &Context::new(&history)).unwrap();
            pairs
                .into_iter()
                .map(|pair| format!("{}{}", &line[..start], pair.replacement))
                .collect::<Vec<_>>()
        };
        assert_eq!(completed("/reg"), ["/regenerate "]);
        assert_eq!(completed("/s"), ["/save ", "/set ", "/show ", "/stats ", "/system "]);
        assert_eq!(completed("/set top"), ["/set top_k ", "/set top_p "]);
        assert!(completed("hello").is_empty());
    }
}

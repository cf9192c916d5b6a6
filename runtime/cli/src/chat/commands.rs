//! Slash commands of the conversation.

/// One slash command.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Show the commands.
    Help,
    /// Show or replace the system message; a new one starts the conversation over.
    System(Option<String>),
    /// Forget the conversation.
    Clear,
    /// Continue an answer that was cut.
    Continue,
    /// Answer the last message again.
    Regenerate,
    /// Take back the last message and its answer.
    Undo,
    /// Send the last message again, changed.
    Edit(String),
    /// Show the conversation.
    Show,
    /// Write the conversation to a file.
    Save(String),
    /// Read a conversation from a file.
    Load(String),
    /// Show the sampling options, or change one.
    Set(Option<(String, String)>),
    /// Show what the conversation cost so far.
    Stats,
    /// Show the last body as the server saw it.
    Wire,
    /// Leave.
    Exit,
}

/// Names of all commands, for completion.
pub const NAMES: &[&str] = &[
    "/clear",
    "/continue",
    "/edit",
    "/exit",
    "/help",
    "/load",
    "/regenerate",
    "/save",
    "/set",
    "/show",
    "/stats",
    "/system",
    "/undo",
    "/wire",
];

/// Names of the options of `/set`, for completion.
pub const OPTIONS: &[&str] =
    &["ignore_eos", "max_tokens", "min_p", "repeat_penalty", "seed", "temperature", "top_k", "top_p"];

/// Text of `/help`.
pub const HELP: &str = "\
/help               this list
/continue           continue an answer that was cut (also Enter on an empty line)
/regenerate         answer the last message again
/undo               take back the last message and its answer
/edit TEXT          replace the last message and answer it
/show               the conversation so far
/system [TEXT]      show or replace the system message (starts the conversation over)
/clear              forget the conversation
/save FILE          write the conversation to a file
/load FILE          continue a saved conversation
/set [NAME VALUE]   show or change max_tokens, temperature, top_p, top_k, min_p, repeat_penalty, seed, ignore_eos
/stats              bytes, milliseconds and round trips so far
/wire               the last body as the server saw it
/exit               leave (also Ctrl-D)
\"\"\"                 begins and ends a message of several lines
Tab                 completes commands, options and file names
Ctrl-C              cancels the answer";

/// Reads a line that starts with `/`.
///
/// # Errors
///
/// A message for the user when the command is unknown or lacks its argument.
pub fn parse(line: &str) -> Result<Command, String> {
    let line = line.trim();
    let (name, argument) = match line.split_once(char::is_whitespace) {
        Some((name, rest)) => (name, rest.trim()),
        None => (line, ""),
    };
    let argument = (!argument.is_empty()).then(|| argument.to_owned());
    let need = |argument: Option<String>, what: &str| argument.ok_or_else(|| format!("{name} needs {what}"));
    match name {
        "/help" | "/?" => Ok(Command::Help),
        "/system" => Ok(Command::System(argument)),
        "/clear" => Ok(Command::Clear),
        "/continue" => Ok(Command::Continue),
        "/regenerate" | "/retry" => Ok(Command::Regenerate),
        "/undo" => Ok(Command::Undo),
        "/edit" => need(argument, "the new text").map(Command::Edit),
        "/show" => Ok(Command::Show),
        "/save" => need(argument, "a file name").map(|text| Command::Save(file_name(&text))),
        "/load" => need(argument, "a file name").map(|text| Command::Load(file_name(&text))),
        "/set" => match argument {
            None => Ok(Command::Set(None)),
            Some(pair) => {
                let (option, value) =
                    pair.split_once(|c: char| c.is_whitespace() || c == '=').ok_or_else(|| {
                        "/set needs a name and a value, such as /set temperature 0.2".to_owned()
                    })?;
                // `name = value` is as good as `name value`.
                let value = value.trim_start().trim_start_matches('=').trim();
                Ok(Command::Set(Some((option.trim().to_owned(), value.to_owned()))))
            }
        },
        "/stats" => Ok(Command::Stats),
        "/wire" => Ok(Command::Wire),
        "/exit" | "/quit" | "/bye" => Ok(Command::Exit),
        other => Err(format!("unknown command {other}; /help lists them. Between \"\"\" it is a message.")),
    }
}

/// A file name as it was typed: perhaps in quotes, with a backslash before spaces as Tab writes them, or from the home
/// directory.
fn file_name(typed: &str) -> String {
    let quoted = ['"', '\''].into_iter().find_map(|quote| typed.strip_prefix(quote)?.strip_suffix(quote));
    let name = match quoted {
        Some(name) => name.to_owned(),
        None if typed.contains('\\') => {
            let mut name = String::new();
            let mut chars = typed.chars().peekable();
            while let Some(c) = chars.next() {
                match (c, chars.peek()) {
                    ('\\', Some(next))
                        if next.is_whitespace() || "\\\"'()[]{}&;|<>$`*?!#~".contains(*next) => {}
                    _ => {
                        name.push(c);
                        continue;
                    }
                }
                name.extend(chars.next());
            }
            name
        }
        None => typed.to_owned(),
    };
    match (name.strip_prefix("~/"), std::env::var("HOME")) {
        (Some(rest), Ok(home)) if !home.is_empty() => format!("{home}/{rest}"),
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_and_their_arguments() {
        assert_eq!(parse("/help"), Ok(Command::Help));
        assert_eq!(parse("/system  You are terse. "), Ok(Command::System(Some("You are terse.".into()))));
        assert_eq!(parse("/system"), Ok(Command::System(None)));
        assert_eq!(
            parse("/set temperature 0.2"),
            Ok(Command::Set(Some(("temperature".into(), "0.2".into()))))
        );
        for line in ["/set seed=7", "/set seed = 7", "/set  seed   7", "/set seed =7"] {
            assert_eq!(parse(line), Ok(Command::Set(Some(("seed".into(), "7".into())))), "{line}");
        }
        for typed in ["a b.json", "a\\ b.json", "\"a b.json\"", "'a b.json'"] {
            assert_eq!(parse(&format!("/save {typed}")), Ok(Command::Save("a b.json".into())), "{typed}");
        }
        assert_eq!(parse("/load C:\\x"), Ok(Command::Load("C:\\x".into())));
        let home = std::env::var("HOME").unwrap_or_default();
        if !home.is_empty() {
            assert_eq!(parse("/load ~/x"), Ok(Command::Load(format!("{home}/x"))));
        }
        for bad in ["/save", "/load", "/edit", "/set temperature", "/nonesuch", "/"] {
            assert!(parse(bad).is_err(), "{bad} was accepted");
        }
    }

    #[test]
    fn every_name_is_a_command_and_has_a_line_of_help() {
        for name in NAMES {
            assert!(parse(&format!("{name} a b")).is_ok(), "{name}");
            assert!(HELP.lines().any(|line| line.starts_with(name)), "{name}");
        }
    }
}

//! The conversation at a terminal: `sotto chat` on a pseudo-terminal, with the real model and a server of its own.

mod client_support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use client_support::{smollm2, sotto};
use rexpect::process::WaitStatus;
use rexpect::reader::Options;
use rexpect::session::{PtySession, spawn_with_options};

/// Longest wait for anything, in milliseconds.
const PATIENCE_MS: u64 = 120_000;

/// What stands before the cursor when a message can be typed.
const PROMPT: &str = ">>> ";

/// End of the line of statistics after an answer.
const STATS: &str = " s]";

/// `sotto chat` as a shell starts it, with `redirection`, at a terminal of kind `term`.
fn in_shell(redirection: &str, term: &str, arguments: &[&str]) -> Command {
    // The model is split already: no progress bars but those of the masks.
    smollm2();
    let program = sotto();
    let mut command = Command::new("sh");
    let line = format!("echo \"process $$.\"; exec \"$0\" \"$@\" {redirection}");
    command.args(["-c", &line]).arg(program.get_program());
    command.args(["chat", "--temperature", "0"]).args(arguments);
    for (name, value) in program.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.env("TERM", term).env("SOTTO_FORM", "compact");
    command
}

/// A conversation at a terminal.
struct Terminal {
    session: PtySession,
    process: String,
}

impl Terminal {
    /// Starts `sotto chat` and waits for its prompt.
    fn start(arguments: &[&str]) -> Self {
        let command = in_shell("", "xterm", arguments);
        let options = Options::new().timeout_ms(Some(PATIENCE_MS)).strip_ansi_escape_codes(true);
        let mut session = spawn_with_options(command, options).unwrap();
        session.exp_string("process ").unwrap();
        let process = session.exp_string(".").unwrap();
        let mut terminal = Self { session, process };
        terminal.until("Ctrl-D leaves.");
        terminal.until(PROMPT);
        terminal
    }

    /// Types a line.
    fn line(&mut self, text: &str) {
        self.session.send_line(text).unwrap();
    }

    /// Reads on to `text`; returns what came before it.
    fn until(&mut self, text: &str) -> String {
        self.session.exp_string(text).unwrap_or_else(|error| panic!("waiting for {text:?}: {error}"))
    }

    /// Types a command; returns what is shown up to the next prompt.
    fn command(&mut self, text: &str) -> String {
        self.line(text);
        self.until(PROMPT)
    }

    /// Types a message; returns the answer with its echo.
    fn ask(&mut self, text: &str) -> String {
        self.line(text);
        let answer = self.until(STATS);
        self.until(PROMPT);
        answer
    }

    /// Process ids of the program's children.
    fn children(&self) -> Vec<PathBuf> {
        let processes = std::fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
        processes.filter(|process| parent_of(process).as_deref() == Some(self.process.as_str())).collect()
    }

    /// Waits for the program's end; returns its exit code. None of `children` may remain, not even as a zombie.
    fn leaves(mut self, children: &[PathBuf]) -> i32 {
        self.session.exp_eof().unwrap();
        let WaitStatus::Exited(_, code) = self.session.process().wait().unwrap() else {
            panic!("ended by a signal");
        };
        let start = Instant::now();
        while children.iter().any(|child| child.exists()) {
            assert!(start.elapsed() < Duration::from_millis(PATIENCE_MS), "a server is left behind");
            std::thread::sleep(Duration::from_millis(20));
        }
        code
    }
}

/// The parent's id, from `/proc/ID/stat`: the second word behind the name in parentheses.
fn parent_of(process: &Path) -> Option<String> {
    let stat = std::fs::read_to_string(process.join("stat")).ok()?;
    let rest = stat.rsplit_once(") ")?.1;
    rest.split(' ').nth(1).map(ToOwned::to_owned)
}

#[test]
fn a_conversation_at_a_terminal() {
    let mut terminal = Terminal::start(&["--max-tokens", "24"]);
    let children = terminal.children();
    assert_eq!(children.len(), 1, "one server: {children:?}");

    let help = terminal.command("/help");
    for name in
        ["/system", "/clear", "/save", "/load", "/set", "/stats", "/wire", "/exit", "\"\"\"", "Ctrl-C"]
    {
        assert!(help.contains(name), "{name} is not in {help}");
    }
    assert!(terminal.command("/wire").contains("nothing was sent yet"));
    assert!(terminal.command("/nonesuch").contains("unknown command /nonesuch"));

    // A message of several lines is one message.
    terminal.line("\"\"\"What is the capital");
    terminal.until("... ");
    let answer = terminal.ask("of France?\"\"\"");
    assert!(answer.contains("Paris"), "{answer}");

    let stats = terminal.command("/stats");
    assert!(stats.contains("tokens in the cache") && stats.contains("ms: encrypt"), "{stats}");
    assert!(!stats.contains(" 0 round trips"), "{stats}");
    let wire = terminal.command("/wire");
    assert!(wire.contains(" token(s), ") && wire.contains("of which the first 160"), "{wire}");
    // Words of 5 bytes in hexadecimal, and nothing of the text.
    let words = wire.split_whitespace().filter(|word| word.len() == 10 && hex::decode(word).is_ok()).count();
    assert_eq!(words, 32, "{wire}");
    assert!(!wire.contains("Paris"));

    // A slash in it is no command.
    terminal.line("\"\"\"What does this do:");
    terminal.until("... ");
    terminal.line("/exit");
    terminal.until("... ");
    terminal.ask("\"\"\"");

    assert!(terminal.command("/clear").contains("Conversation cleared"));
    let stats = terminal.command("/stats");
    assert!(stats.contains("0 of "), "{stats}");

    // Ctrl-D leaves.
    terminal.session.send_control('d').unwrap();
    assert_eq!(terminal.leaves(&children), 0);
}

#[test]
fn ctrl_c_cancels_the_answer_and_not_the_conversation() {
    let mut terminal = Terminal::start(&["--max-tokens", "400", "--ignore-eos"]);
    let children = terminal.children();
    assert_eq!(children.len(), 1, "one server: {children:?}");
    terminal.line("Count slowly from one to one hundred, in words.");
    // A word of the answer that is neither in the question nor in what is shown while the prompt is read.
    terminal.session.exp_regex(r"(?i) (is|that|and|are|can|two) ").unwrap();
    terminal.session.send_control('c').unwrap();
    terminal.until("[cancelled]");
    let stats = terminal.until(STATS);
    // [23 tokens, 33.1/s; prompt 41 in 0.4
    let tokens: usize = stats
        .split('[')
        .next_back()
        .and_then(|part| part.split(' ').next())
        .and_then(|word| word.parse().ok())
        .unwrap_or_else(|| panic!("{stats}"));
    assert!((1..400).contains(&tokens), "{stats}");
    terminal.until(PROMPT);
    assert_eq!(terminal.children(), children, "the same server goes on");

    assert!(terminal.command("/set max_tokens 16").contains("max_tokens 16"));
    let answer = terminal.ask("What is the capital of France?");
    assert!(answer.contains("16 tokens, ") && !answer.contains("error"), "{answer}");

    // On an empty prompt it says how to leave.
    terminal.session.send_control('c').unwrap();
    terminal.until("Ctrl-D or /exit leaves.");
    terminal.until(PROMPT);
    terminal.line("/exit");
    assert_eq!(terminal.leaves(&children), 0);
}

#[test]
fn a_terminal_that_hangs_up_takes_the_server_with_it() {
    let terminal = Terminal::start(&[]);
    let children = terminal.children();
    assert_eq!(children.len(), 1, "one server: {children:?}");
    drop(terminal);
    let start = Instant::now();
    while children.iter().any(|child| child.exists()) {
        assert!(start.elapsed() < Duration::from_millis(PATIENCE_MS), "a server is left behind");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn typed_ahead_lines_and_unbracketed_pastes_are_all_read() {
    let mut terminal = Terminal::start(&["--backend", "int8"]);
    terminal.session.send("/set\n/system\n/set max_tokens 7\n/set\n").unwrap();
    terminal.session.flush().unwrap();
    terminal.until("temperature 0");
    terminal.until("no system message");
    terminal.until("max_tokens 7");
    terminal.until("ignore_eos false");
    terminal.until(PROMPT);
    terminal.line("/exit");
    assert_eq!(terminal.leaves(&[]), 0);
}

#[test]
fn the_history_is_kept_in_its_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("history");
    std::fs::write(&path, "").unwrap();
    let arguments = ["--backend", "int8", "--max-tokens", "2", "--history", path.to_str().unwrap()];
    let mut terminal = Terminal::start(&arguments);
    terminal.command("/set top_k 3");
    terminal.line("/exit");
    assert_eq!(terminal.leaves(&[]), 0);
    terminal = Terminal::start(&arguments);
    // Up twice: over /exit to what was typed in the run before.
    terminal.session.send("\x1b[A\x1b[A\n").unwrap();
    terminal.session.flush().unwrap();
    terminal.until("top_k 3");
    terminal.until(PROMPT);
    terminal.line("/exit");
    assert_eq!(terminal.leaves(&[]), 0);
}

#[test]
fn a_cut_answer_says_so_and_is_continued_taken_back_and_given_again() {
    let mut terminal = Terminal::start(&["--backend", "int8", "--max-tokens", "8"]);
    let cut = terminal.ask("Explain photosynthesis in two sentences.");
    assert!(cut.contains("[cut at 8 tokens"), "{cut}");
    terminal.line("");
    let rest = terminal.until(STATS);
    assert!(rest.contains("[cut at 8 tokens"), "{rest}");
    terminal.until(PROMPT);
    let shown = terminal.command("/show");
    assert_eq!(shown.matches("assistant: ").count(), 1, "{shown}");
    let again = {
        terminal.line("/regenerate");
        let answer = terminal.until(STATS);
        terminal.until(PROMPT);
        answer
    };
    assert!(again.contains("[cut at 8 tokens"), "{again}");
    assert!(terminal.command("/undo").contains("taken back"));
    assert!(!terminal.command("/show").contains("photosynthesis?"));
    // Tab completes.
    terminal.session.send("/regen\t").unwrap();
    terminal.session.flush().unwrap();
    terminal.until("/regenerate ");
    terminal.session.send_line("").unwrap();
    terminal.until("there is no message to answer again");
    terminal.until(PROMPT);
    terminal.line("/exit");
    assert_eq!(terminal.leaves(&[]), 0);
}

#[test]
fn a_history_that_cannot_be_kept_does_not_end_the_conversation() {
    let mut terminal = Terminal::start(&["--backend", "int8", "--history", "/nonexistent/folder/history"]);
    let first = terminal.command("/set");
    assert!(first.contains("what you type is not kept") && first.contains("temperature"), "{first}");
    let second = terminal.command("/set");
    assert!(!second.contains("not kept"), "{second}");
    terminal.line("/exit");
    assert_eq!(terminal.leaves(&[]), 0);
}

#[test]
fn a_cut_answer_is_continued_after_more_was_allowed() {
    let mut terminal = Terminal::start(&["--backend", "int8", "--max-tokens", "4", "--ignore-eos"]);
    assert!(terminal.ask("Tell me a story.").contains("[cut at 4 tokens"));
    assert!(terminal.command("/set max_tokens = 6").contains("max_tokens 6"));
    terminal.command("/stats");
    terminal.line("");
    let rest = terminal.until(STATS);
    assert!(rest.contains("[cut at 6 tokens"), "{rest}");
    terminal.until(PROMPT);
    assert_eq!(terminal.command("/show").matches("assistant: ").count(), 1);
    terminal.line("/exit");
    assert_eq!(terminal.leaves(&[]), 0);
}

/// One question and /exit, at a terminal of kind `term`: all that is shown, control codes included.
fn shown(redirection: &str, term: &str) -> String {
    let command = in_shell(redirection, term, &["--max-tokens", "2", "--backend", "int8"]);
    let options = Options::new().timeout_ms(Some(PATIENCE_MS)).strip_ansi_escape_codes(false);
    let mut session = spawn_with_options(command, options).unwrap();
    let mut seen = session.exp_string(PROMPT).unwrap();
    session.send_line("Name a colour.").unwrap();
    seen.push_str(&session.exp_string(STATS).unwrap());
    seen.push_str(&session.exp_string(PROMPT).unwrap());
    session.send_line("/exit").unwrap();
    seen + &session.exp_eof().unwrap()
}

#[test]
fn a_dumb_terminal_gets_lines_and_no_control_codes() {
    let seen = shown("", "dumb");
    assert!(seen.contains("waiting for the server ..."), "{seen}");
    assert!(!seen.contains('\u{1b}'), "{seen:?}");
}

#[test]
fn answers_that_go_into_a_file_are_answers_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("answers");
    shown(&format!(">{}", path.display()), "xterm");
    let answers = std::fs::read_to_string(&path).unwrap();
    assert!(!answers.trim().is_empty());
    assert!(
        !answers.contains('\u{1b}') && !answers.contains(">>>") && !answers.contains("colour."),
        "{answers:?}"
    );
}

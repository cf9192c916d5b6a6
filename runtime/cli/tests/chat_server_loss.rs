//! What happens when the server refuses or dies.

mod client_support;

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};

use client_support::{errors, smollm2, sotto};

/// A running `sotto serve`, killed on drop.
struct Server {
    child: Child,
    connect: String,
}

impl Server {
    fn start() -> Self {
        Self::start_with(&["--ephemeral-credential"])
    }

    fn start_with(arguments: &[&str]) -> Self {
        let local = smollm2();
        let mut child = sotto()
            .args(["serve", "--print-credential"])
            .args(arguments)
            .arg("--split")
            .arg(&local.directory)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { child, connect: line.trim().to_owned() }
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn chat(connect: &str, cache: &std::path::Path) -> Command {
    let mut command = sotto();
    command.env("SOTTO_CACHE", cache).args(["chat", "--quiet", "--server", connect]);
    command
}

#[test]
fn a_remote_server_answers_and_wrong_credentials_do_not() {
    let server = Server::start();
    let cache = tempfile::tempdir().unwrap();
    let good = chat(&server.connect, cache.path())
        .args(["-p", "Hello.", "--max-tokens", "3", "--ignore-eos", "--temperature", "0", "--json"])
        .output()
        .unwrap();
    assert!(good.status.success(), "{}", errors(&good));
    assert_eq!(client_support::json(&good)["decode_tokens"], 3);

    let start = server.connect.find("credential=").unwrap() + "credential=".len();
    let wrong = format!("{}0123456789abcdef.{}", &server.connect[..start], "A".repeat(43));
    let output = chat(&wrong, cache.path()).args(["-p", "Hello."]).output().unwrap();
    assert_eq!(output.status.code(), Some(4), "{}", errors(&output));
    assert!(errors(&output).contains("credential"));

    let other_pin = server.connect.replacen("pin=", "pin=00", 1);
    let at = other_pin.find("pin=").unwrap() + 4;
    let other_pin = format!("{}{}", &other_pin[..at + 64], &other_pin[at + 66..]);
    let output = chat(&other_pin, cache.path()).args(["-p", "Hello."]).output().unwrap();
    assert_eq!(output.status.code(), Some(5), "{}", errors(&output));
    assert!(errors(&output).contains("certificate"));
}

#[test]
fn a_budget_that_runs_out_is_named() {
    let state = tempfile::tempdir().unwrap();
    let cache = tempfile::tempdir().unwrap();
    let state_argument = ["--state", state.path().to_str().unwrap()];
    let added =
        sotto().arg("credential").args(state_argument).args(["add", "--budget", "192"]).output().unwrap();
    assert!(added.status.success(), "{}", errors(&added));
    let credential = String::from_utf8(added.stdout).unwrap();
    let server = Server::start_with(&state_argument);
    let connect = format!("{}&credential={}", server.connect, credential.trim());
    let output = chat(&connect, cache.path())
        .args(["-p", "Count.", "--max-tokens", "200", "--ignore-eos", "--temperature", "0"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(4), "{}", errors(&output));
    assert!(errors(&output).contains("budget"), "{}", errors(&output));
    assert!(!output.stdout.is_empty(), "what was paid for was answered");
}

#[test]
fn a_server_killed_in_the_middle_gives_a_clear_error() {
    let mut server = Server::start();
    let cache = tempfile::tempdir().unwrap();
    let mut client = chat(&server.connect, cache.path())
        .args(["-p", "Count to one thousand.", "--max-tokens", "2000", "--ignore-eos", "--temperature", "0"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The first byte of the answer proves that generation is under way.
    let mut first = [0];
    client.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    server.kill();
    let output = client.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", errors(&output));
    assert!(errors(&output).contains("127.0.0.1"), "{}", errors(&output));
    assert!(!errors(&output).contains("panicked"));
}

#[test]
fn an_embedded_server_that_dies_is_reported_and_reaped() {
    smollm2();
    let mut client = sotto()
        .args(["chat", "-q", "-p", "Count to one thousand.", "--max-tokens", "2000", "--ignore-eos"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0];
    client.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    let children = format!("/proc/{0}/task/{0}/children", client.id());
    let child = std::fs::read_to_string(children).unwrap();
    let child = child.split_whitespace().next().expect("an embedded server").to_owned();
    assert!(Command::new("kill").args(["-9", &child]).status().unwrap().success());
    let output = client.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", errors(&output));
    assert!(errors(&output).contains("embedded server ended"), "{}", errors(&output));
    assert!(!std::path::Path::new(&format!("/proc/{child}")).exists(), "a zombie is left");
}

#[test]
fn an_embedded_server_ends_with_its_client() {
    smollm2();
    let mut client = sotto()
        .args(["chat", "-q", "-p", "Count to one thousand.", "--max-tokens", "2000", "--ignore-eos"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut first = [0];
    client.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    let children = format!("/proc/{0}/task/{0}/children", client.id());
    let child = std::fs::read_to_string(children).unwrap().trim().to_owned();
    client.kill().unwrap();
    client.wait().unwrap();
    let process = format!("/proc/{child}/stat");
    let gone = || std::fs::read_to_string(&process).map_or(true, |stat| stat.contains(") Z "));
    let ended = (0..200).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(50));
        gone()
    });
    assert!(ended, "the server outlives its client");
}

#[test]
fn a_server_that_shuts_down_says_so_within_seconds() {
    let mut server = Server::start();
    let cache = tempfile::tempdir().unwrap();
    let mut client = chat(&server.connect, cache.path())
        .args(["-p", "Count to one thousand.", "--max-tokens", "2000", "--ignore-eos", "--temperature", "0"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0];
    client.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    let (told, notices) = std::sync::mpsc::channel();
    let lines = BufReader::new(client.stderr.take().unwrap()).lines();
    std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| drop(told.send(line))));
    let start = std::time::Instant::now();
    assert!(Command::new("kill").arg(server.child.id().to_string()).status().unwrap().success());
    let notice = notices.iter().find(|line| line.contains("server")).expect("a notice");
    // How soon is part of the promise: the user would look at a silent screen.
    assert!(start.elapsed() < std::time::Duration::from_secs(5), "after {:?}", start.elapsed());
    assert!(notice.contains("shutting down"), "{notice}");
    let status = client.wait().unwrap();
    assert_eq!(status.code(), Some(3));
    assert!(start.elapsed() < std::time::Duration::from_secs(40), "after {:?}", start.elapsed());
    let last = notices.iter().filter(|line| !line.is_empty()).last().expect("an error");
    assert!(last.contains("shutting down"), "{last}");
    server.kill();
}

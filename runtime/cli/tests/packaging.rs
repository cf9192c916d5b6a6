//! The packaging files: every flag and variable in them exists, their parts fit together, and the separate roles serve
//! a conversation when they are started as the manifests start them.

mod client_support;
mod packaging_support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clap::CommandFactory;
use client_support::{errors, json, smollm2, sotto};
use packaging_support::{
    Invocation, all, compose, compose_services, folder, kubernetes, strings, text, workloads,
};
use serde_json::Value;

/// Longest wait for something that a process should do soon.
const PATIENCE: Duration = Duration::from_secs(120);

/// Variables that no option has.
const OTHER_VARIABLES: &[&str] = &["SOTTO_CACHE", "SOTTO_ISA"];

/// Variables of the compose file itself.
const COMPOSE_VARIABLES: &[&str] = &["SOTTO_HOST"];

/// The flag that a variable stands for, in a command and its subcommands.
fn flag_of(command: &clap::Command, variable: &str) -> Option<String> {
    let mut arguments = command.get_arguments();
    let found = arguments.find(|argument| argument.get_env().is_some_and(|name| name == variable));
    found.and_then(|argument| argument.get_long()).map(|long| format!("--{long}"))
}

/// What `sotto` says to an invocation, variables given as flags.
fn parse(invocation: &Invocation) -> Result<(), String> {
    let mut cli = sotto::Cli::command();
    cli.build();
    let command = cli.find_subcommand(&invocation.arguments[0]).ok_or("no such subcommand")?;
    let mut words = vec!["sotto".to_owned()];
    words.extend(invocation.arguments.iter().cloned());
    for (name, value) in &invocation.environment {
        let flag = flag_of(command, name)
            .ok_or_else(|| format!("{name} means nothing to {}", command.get_name()))?;
        words.extend([flag, value.clone()]);
    }
    cli.try_get_matches_from(words).map(|_| ()).map_err(|error| error.to_string())
}

#[test]
fn every_flag_and_variable_exists() {
    let invocations = all();
    assert!(invocations.len() >= 11, "only {} command lines found", invocations.len());
    let wrong: Vec<_> = invocations
        .iter()
        .filter_map(|invocation| parse(invocation).err().map(|error| format!("{}: {error}", invocation.from)))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn an_unknown_flag_or_variable_is_noticed() {
    let good = packaging_support::docker();
    let mut flag = good.clone();
    flag.arguments.extend(["--lease-key".to_owned(), "/keys/lease.key".to_owned()]);
    assert!(parse(&flag).unwrap_err().contains("--lease-key"));
    let mut value = good.clone();
    value.arguments.extend(["--form".to_owned(), "huge".to_owned()]);
    assert!(parse(&value).is_err());
    let mut variable = good;
    variable.environment.insert("SOTTO_NONESUCH".to_owned(), "1".to_owned());
    assert!(parse(&variable).unwrap_err().contains("SOTTO_NONESUCH"));
}

/// Words that look like variables of ours.
fn variables_in(text: &str) -> BTreeSet<&str> {
    let legal = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    text.split(|c| !legal(c)).filter(|word| word.starts_with("SOTTO_")).collect()
}

#[test]
fn every_variable_that_is_named_exists() {
    fn known(command: &clap::Command, names: &mut BTreeSet<String>) {
        let variables = command.get_arguments().filter_map(clap::Arg::get_env);
        names.extend(variables.map(|name| name.to_string_lossy().into_owned()));
        command.get_subcommands().for_each(|command| known(command, names));
    }
    let mut names: BTreeSet<String> = OTHER_VARIABLES.iter().map(|&name| name.to_owned()).collect();
    known(&sotto::Cli::command(), &mut names);
    for (file, more) in [
        ("README.md", &[][..]),
        ("docker/Dockerfile", &[]),
        ("docker/compose.yaml", COMPOSE_VARIABLES),
        ("kubernetes/sotto.yaml", &[]),
        ("systemd/sotto.service", &[]),
    ] {
        for name in variables_in(&text(file)) {
            assert!(names.contains(name) || more.contains(&name), "{file}: {name}");
        }
    }
}

fn port(address: &str) -> &str {
    address.rsplit_once(':').unwrap().1
}

/// Absolute paths among the arguments.
fn paths(arguments: &[String]) -> impl Iterator<Item = &String> {
    arguments.iter().filter(|argument| argument.starts_with('/'))
}

#[test]
fn the_compose_file_fits_together() {
    let file = compose();
    let context = folder().join("docker");
    assert!(context.join("../../packaging/docker/Dockerfile").is_file());
    let named: BTreeSet<_> = file["volumes"].as_object().unwrap().keys().cloned().collect();
    for invocation in compose_services() {
        let name = invocation.from.rsplit_once(' ').unwrap().1;
        let service = &file["services"][name];
        assert_eq!(service["build"]["dockerfile"], "packaging/docker/Dockerfile", "{name}");
        let mut targets = Vec::new();
        for volume in strings(&service["volumes"]) {
            let parts: Vec<_> = volume.split(':').collect();
            assert!(parts[0].starts_with("./") || named.contains(parts[0]), "{name}: {volume}");
            targets.push(parts[1].to_owned());
        }
        for path in paths(&invocation.arguments) {
            assert!(
                targets.iter().any(|target| path.starts_with(target.as_str())),
                "{name}: {path} is not mounted"
            );
        }
        if let Some(address) = invocation.option("--listen") {
            let published = format!("{0}:{0}", port(address));
            assert_eq!(strings(&service["ports"]), [published], "{name}");
        }
    }
    // Clients are told the ports that the other services publish.
    let services = compose_services();
    let catalogue = services.iter().find(|service| service.option("--role") == Some("catalogue")).unwrap();
    for role in ["mask", "body"] {
        let service = services.iter().find(|service| service.option("--role") == Some(role)).unwrap();
        let told = &catalogue.environment[&format!("SOTTO_{}_ADDRESS", role.to_uppercase())];
        assert_eq!(port(told), port(service.option("--listen").unwrap()), "{role}");
    }
}

#[test]
fn the_kubernetes_manifest_fits_together() {
    let objects = kubernetes();
    let mut roles = BTreeSet::new();
    for object in workloads() {
        let name = &object["metadata"]["name"];
        let template = &object["spec"]["template"];
        assert_eq!(object["spec"]["selector"]["matchLabels"], template["metadata"]["labels"], "{name}");
        let pod = &template["spec"];
        let names = |list: &Value| -> BTreeSet<String> {
            let items = list.as_array().into_iter().flatten();
            items.map(|item| item["name"].as_str().unwrap().to_owned()).collect()
        };
        let mut volumes = names(&pod["volumes"]);
        for claim in object["spec"]["volumeClaimTemplates"].as_array().into_iter().flatten() {
            volumes.insert(claim["metadata"]["name"].as_str().unwrap().to_owned());
        }
        for container in pod["containers"].as_array().unwrap() {
            assert_eq!(names(&container["volumeMounts"]), volumes, "{name}");
            let ports = container["ports"].as_array().unwrap();
            let numbered =
                |number: &str| ports.iter().any(|port| port["containerPort"].as_u64() == number.parse().ok());
            let arguments = strings(&container["args"]);
            let mounts: Vec<_> = container["volumeMounts"].as_array().unwrap().iter().collect();
            for path in paths(&arguments) {
                assert!(
                    mounts.iter().any(|mount| mount["mountPath"] == *path),
                    "{name}: {path} is not mounted"
                );
            }
            let invocation = Invocation { from: name.to_string(), arguments, environment: BTreeMap::new() };
            for option in ["--listen", "--metrics"] {
                assert!(numbered(port(invocation.option(option).unwrap())), "{name}: {option}");
            }
            for probe in ["readinessProbe", "livenessProbe"] {
                let named = &container[probe]["httpGet"]["port"];
                assert!(ports.iter().any(|port| port["name"] == *named), "{name}: {probe}");
            }
            roles.insert(invocation.option("--role").unwrap().to_owned());
        }
        // Somebody leads clients here.
        let reached = |service: &&Value| {
            service["kind"] == "Service" && service["spec"]["selector"] == template["metadata"]["labels"]
        };
        assert_eq!(objects.iter().filter(reached).count(), 1, "{name} needs one service");
    }
    assert_eq!(roles, BTreeSet::from(["body", "catalogue", "mask"].map(str::to_owned)));
}

/// A running role; killed and reaped when dropped.
struct Process {
    child: Child,
    connect: String,
    metrics: Option<String>,
}

impl Process {
    /// Starts an invocation with its paths and addresses moved to this machine, and waits for its connect string.
    fn start(invocation: &Invocation, place: &Place<'_>, addresses: &BTreeMap<&str, String>) -> Self {
        let mut command = sotto();
        let metrics = invocation.option("--metrics").map(|_| free_address());
        let mut words = invocation.arguments.iter();
        while let Some(word) = words.next() {
            command.arg(word);
            match word.as_str() {
                "--listen" => {
                    words.next();
                    command.arg("127.0.0.1:0");
                }
                "--metrics" => {
                    words.next();
                    command.arg(metrics.as_ref().unwrap());
                }
                "--split" | "--state" | "--keys" => {
                    command.arg(place.local(words.next().unwrap()));
                }
                _ => {}
            }
        }
        for name in invocation.environment.keys() {
            match addresses.get(name.as_str()) {
                Some(address) => command.env(name, address),
                None => &mut command,
            };
        }
        command.env("SOTTO_FORM", "compact").env("SOTTO_THREADS", "2");
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
        let mut connect = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut connect).unwrap();
        assert!(connect.starts_with("sotto://"), "{} printed {connect:?}", invocation.from);
        Self { child, connect: connect.trim().to_owned(), metrics }
    }

    /// Where it listens.
    fn address(&self) -> String {
        self.connect.trim_start_matches("sotto://").split('/').next().unwrap().to_owned()
    }

    /// Asks it to end, as an orchestrator does; returns its exit code.
    fn terminate(mut self) -> Option<i32> {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        self.child.wait().unwrap().code()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What stands for the mounted folders.
struct Place<'a> {
    model: &'a Path,
    keys: &'a Path,
    state: &'a Path,
}

impl Place<'_> {
    fn local(&self, path: &str) -> &Path {
        match path {
            "/model" => self.model,
            "/keys" => self.keys,
            "/state" | "/var/lib/sotto/state" => self.state,
            _ => panic!("{path} is no folder of the image"),
        }
    }
}

/// A loopback address that was free a moment ago.
fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

fn answers_200(address: &str, path: &str) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    };
    ask().is_ok_and(|text| text.starts_with("HTTP/1.1 200"))
}

/// Starts the roles among `invocations` as separate processes and talks to them.
fn converse(invocations: &[Invocation]) {
    let local = smollm2();
    let (keys, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let made = sotto().args(["keys", "--out"]).arg(keys.path()).output().unwrap();
    assert!(made.status.success(), "{}", errors(&made));
    let before = contents(keys.path());
    let place = Place { model: &local.directory, keys: keys.path(), state: state.path() };
    let role = |role: &str| {
        let has = |invocation: &&Invocation| invocation.option("--role") == Some(role);
        invocations.iter().find(has).unwrap_or_else(|| panic!("no process has the role {role}"))
    };
    let mut addresses = BTreeMap::new();
    let mask = Process::start(role("mask"), &place, &addresses);
    let body = Process::start(role("body"), &place, &addresses);
    addresses.insert("SOTTO_MASK_ADDRESS", mask.address());
    addresses.insert("SOTTO_BODY_ADDRESS", body.address());
    let catalogue = Process::start(role("catalogue"), &place, &addresses);
    for process in [&mask, &body, &catalogue] {
        let Some(address) = &process.metrics else { continue };
        let start = Instant::now();
        while !answers_200(address, "/readyz") {
            assert!(start.elapsed() < PATIENCE, "{address} is not ready");
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(answers_200(address, "/healthz"));
    }
    assert!(!catalogue.connect.contains("credential="), "the log of the container holds the credential");
    let cache = tempfile::tempdir().unwrap();
    let chat = sotto()
        .env("SOTTO_CACHE", cache.path())
        .args([
            "chat",
            "--server",
            &format!("@{}", state.path().join("connect-string").display()),
            "--prompt",
            "What is the capital of France?",
        ])
        .args(["--max-tokens", "16", "--temperature", "0", "--json", "--quiet"])
        .output()
        .unwrap();
    assert!(chat.status.success(), "{}", errors(&chat));
    let report = json(&chat);
    assert!(report["text"].as_str().unwrap().contains("Paris"), "{report}");
    // No process but the catalogue wrote anything, and the keys are as they were made.
    assert_eq!(contents(keys.path()), before);
    assert!(state.path().join("credentials.redb").is_file());
    for process in [catalogue, body, mask] {
        assert_eq!(process.terminate(), Some(0), "asked to end, a server drains");
    }
}

fn contents(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(directory).unwrap().map(Result::unwrap);
    entries
        .map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap()))
        .collect()
}

#[test]
fn the_roles_of_the_compose_file_serve_a_conversation() {
    converse(&compose_services());
}

#[test]
fn the_roles_of_the_kubernetes_manifest_serve_a_conversation() {
    converse(&packaging_support::kubernetes_containers());
}

#[test]
fn keys_are_made_once_and_missing_ones_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let make = || {
        let output = sotto().args(["keys", "--out"]).arg(directory.path()).output().unwrap();
        assert!(output.status.success(), "{}", errors(&output));
        output.stdout
    };
    let first = make();
    let files = contents(directory.path());
    assert_eq!(files.keys().collect::<Vec<_>>(), ["signing.key", "tls-cert.pem", "tls-key.pem"]);
    assert_eq!((make(), contents(directory.path())), (first, files), "keys that are there stay");
    std::fs::remove_file(directory.path().join("signing.key")).unwrap();
    let split = smollm2().directory;
    let output = sotto()
        .args(["serve", "--role", "body", "--split"])
        .arg(split)
        .arg("--keys")
        .arg(directory.path())
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert!(errors(&output).contains("signing.key"), "{}", errors(&output));
    assert!(!directory.path().join("signing.key").exists(), "the directory is only read");
}

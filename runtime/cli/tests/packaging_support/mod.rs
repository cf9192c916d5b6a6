//! The command lines in the packaging files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// One way in which a packaging file runs `sotto`.
#[derive(Clone, Debug)]
pub(crate) struct Invocation {
    /// File and place, for messages.
    pub(crate) from: String,
    /// What follows `sotto` on its command line.
    pub(crate) arguments: Vec<String>,
    /// `SOTTO_*` variables that the file sets for it.
    pub(crate) environment: BTreeMap<String, String>,
}

impl Invocation {
    /// The value of `--option`.
    pub(crate) fn option(&self, option: &str) -> Option<&str> {
        let place = self.arguments.iter().position(|argument| argument == option)?;
        self.arguments.get(place + 1).map(String::as_str)
    }
}

/// The folder `packaging`.
pub(crate) fn folder() -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../packaging")).to_owned()
}

/// The text of a packaging file.
pub(crate) fn text(name: &str) -> String {
    let path = folder().join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Strings of a YAML or JSON list.
pub(crate) fn strings(value: &Value) -> Vec<String> {
    let list = value.as_array().unwrap_or_else(|| panic!("{value} is no list"));
    list.iter().map(|item| item.as_str().unwrap_or_else(|| panic!("{item} is no text")).to_owned()).collect()
}

/// The image's default command.
pub(crate) fn docker() -> Invocation {
    let text = text("docker/Dockerfile");
    let list = |instruction: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(instruction)).unwrap();
        strings(&serde_json::from_str(line).unwrap())
    };
    let program = list("ENTRYPOINT ");
    assert!(program.len() == 1 && program[0].ends_with("/sotto"), "{program:?}");
    Invocation { from: "Dockerfile".to_owned(), arguments: list("CMD "), environment: BTreeMap::new() }
}

/// The compose file.
pub(crate) fn compose() -> Value {
    serde_saphyr::from_str(&text("docker/compose.yaml")).unwrap()
}

/// The compose file's services.
pub(crate) fn compose_services() -> Vec<Invocation> {
    let services = compose()["services"].as_object().unwrap().clone();
    let invocation = |(name, service): (String, Value)| Invocation {
        from: format!("compose.yaml, {name}"),
        arguments: strings(&service["command"]),
        environment: variables(&service["environment"]),
    };
    services.into_iter().map(invocation).collect()
}

fn variables(map: &Value) -> BTreeMap<String, String> {
    let pairs = map.as_object().into_iter().flatten();
    pairs.map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned())).collect()
}

/// The objects of the Kubernetes manifest.
pub(crate) fn kubernetes() -> Vec<Value> {
    serde_saphyr::from_multiple(&text("kubernetes/sotto.yaml")).unwrap()
}

/// Those objects that run containers.
pub(crate) fn workloads() -> Vec<Value> {
    kubernetes().into_iter().filter(|object| object["spec"]["template"].is_object()).collect()
}

/// The Kubernetes manifest's containers.
pub(crate) fn kubernetes_containers() -> Vec<Invocation> {
    let objects = kubernetes();
    let map_of = |name: &Value| {
        let named = |object: &&Value| object["kind"] == "ConfigMap" && object["metadata"]["name"] == *name;
        &objects.iter().find(named).unwrap_or_else(|| panic!("no config map {name}"))["data"]
    };
    let mut found = Vec::new();
    for object in workloads() {
        for container in object["spec"]["template"]["spec"]["containers"].as_array().unwrap() {
            let sources = container["envFrom"].as_array().into_iter().flatten();
            found.push(Invocation {
                from: format!("sotto.yaml, {}", object["metadata"]["name"]),
                arguments: strings(&container["args"]),
                environment: sources
                    .flat_map(|source| variables(map_of(&source["configMapRef"]["name"])))
                    .collect(),
            });
        }
    }
    found
}

/// The systemd unit.
pub(crate) fn systemd() -> Invocation {
    let text = text("systemd/sotto.service");
    let line = text.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
    let mut words = line.split_whitespace().map(ToOwned::to_owned);
    assert!(words.next().unwrap().ends_with("/sotto"));
    let set = text.lines().filter_map(|line| line.strip_prefix("Environment="));
    Invocation {
        from: "sotto.service".to_owned(),
        arguments: words.collect(),
        environment: set
            .map(|pair| pair.split_once('=').unwrap())
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
    }
}

/// Commands that comments and documents tell a person to type.
pub(crate) fn told() -> Vec<Invocation> {
    let mut found = Vec::new();
    for name in ["README.md", "docker/Dockerfile", "docker/compose.yaml", "kubernetes/sotto.yaml"] {
        for line in text(name).lines().filter(|line| name.ends_with(".md") || line.starts_with('#')) {
            // A command ends with its code span, at `&&` or with the line.
            for rest in line.split("sotto ").skip(1) {
                let command = rest.split(['`', '&', '|']).next().unwrap();
                let words: Vec<_> = command.split_whitespace().map(ToOwned::to_owned).collect();
                if words.iter().any(|word| word.starts_with("--")) {
                    let from = format!("{name}: {line}");
                    found.push(Invocation { from, arguments: words, environment: BTreeMap::new() });
                }
            }
        }
    }
    found
}

/// Every invocation there is.
pub(crate) fn all() -> Vec<Invocation> {
    let mut all = vec![docker(), systemd()];
    all.extend(compose_services());
    all.extend(kubernetes_containers());
    all.extend(told());
    all
}

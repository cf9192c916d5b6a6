//! `sotto models`: what is on this machine.

use std::io::Write;
use std::path::Path;

use fhe_layers::Set;
use serde_json::json;
use sotto_client::WirePreference;

use super::args::{ModelsAction, ModelsArgs};
use super::estimate::{AssumedLink, Assumptions, Estimate, estimate};
use super::output;
use super::progress::Bars;
use super::speed::Speed;
use sotto_engine::fetch::{BUILTINS, Builtin, ModelRef, Shape, fetch};
use sotto_models::split::ServerPart;
use sotto_protocol::error::{Error, Result};
use sotto_storage::{Cache, available_bytes, directory_bytes};

/// Runs `sotto models`.
///
/// # Errors
///
/// Anything that reading, fetching or deleting can fail with.
pub fn run(args: &ModelsArgs, out: &mut dyn Write) -> Result<()> {
    let cache = Cache::from_env()?;
    match &args.action {
        ModelsAction::List { json } => list(&cache, &Speed::measure()?, *json, out),
        ModelsAction::Fetch { model, quiet } => {
            let model = ModelRef::parse(model)?;
            if let (ModelRef::Builtin(builtin), false) = (&model, *quiet) {
                note!("{}; {}; {}", builtin.description, builtin.licence, builtin.origin);
            }
            let fetched = fetch(&model, &cache, &Bars::new(*quiet))?;
            output::line(out, &fetched.path.display().to_string())
        }
        ModelsAction::Remove { model } => remove(&cache, model, out),
    }
}

/// A model on this machine, or one that could be.
struct Entry {
    name: String,
    model_bytes: u64,
    split_bytes: u64,
    builtin: Option<&'static Builtin>,
    /// Default set, light set; none without a known shape.
    estimates: Option<[Estimate; 2]>,
}

fn entries(cache: &Cache, speed: &Speed) -> Result<Vec<Entry>> {
    let models = cache.root().join("models");
    let splits = cache.root().join("splits");
    let parts = names_in(&cache.clients()).into_iter().map(|digest| Entry {
        name: part_name(&digest),
        model_bytes: 0,
        split_bytes: directory_bytes(&cache.clients().join(&digest)),
        builtin: None,
        estimates: None,
    });
    let mut names: Vec<String> = BUILTINS.iter().map(|builtin| builtin.name.to_owned()).collect();
    for name in names_in(&models).into_iter().chain(names_in(&splits)) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let free = available_bytes();
    let entry = |name: String| {
        let builtin = BUILTINS.iter().find(|builtin| builtin.name == name);
        let shape = builtin.map(|builtin| builtin.shape).or_else(|| shape_of_splits(&splits.join(&name)));
        let estimates = shape.map(|shape| both_sets(&shape, speed, free)).transpose()?;
        Ok(Entry {
            model_bytes: directory_bytes(&models.join(&name)),
            split_bytes: directory_bytes(&splits.join(&name)),
            builtin,
            estimates,
            name,
        })
    };
    names.into_iter().map(entry).chain(parts.map(Ok)).collect()
}

/// What the list calls the client part of a server's model, by its digest.
fn part_name(digest: &str) -> String {
    let short: String = digest.chars().take(12).collect();
    format!("client-{short}")
}

/// The costs on this machine, client and server.
fn both_sets(shape: &Shape, speed: &Speed, free_bytes: Option<u64>) -> Result<[Estimate; 2]> {
    let assume = Assumptions {
        wire: WirePreference::Auto,
        tau: 64,
        link: AssumedLink { up_mbit: f64::INFINITY, down_mbit: f64::INFINITY, rtt_ms: 0.0 },
        prompt_tokens: 500,
        free_bytes,
    };
    let of = |set| estimate(shape, set, speed, &assume);
    Ok([of(Set::Default)?, of(Set::Light)?])
}

/// The shape of the first plain split below `directory`.
fn shape_of_splits(directory: &Path) -> Option<Shape> {
    names_in(directory).into_iter().find_map(|set| {
        let root = directory.join(set);
        let part = ServerPart::open(root.join("server/plain")).ok()?;
        Some(Shape::of_plan(part.plan(), 0, directory_bytes(&root.join("client/plain"))))
    })
}

fn names_in(directory: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let mut names: Vec<String> = entries
        .flatten()
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn list(cache: &Cache, speed: &Speed, as_json: bool, out: &mut dyn Write) -> Result<()> {
    let entries = entries(cache, speed)?;
    if as_json {
        let models: Vec<_> = entries.iter().map(report).collect();
        return output::line(out, &json!({ "cache": cache.root(), "models": models }).to_string());
    }
    let heads = ["name", "model", "split, tables", "memory", "light set", "tokens/s", "light set"];
    let columns = |texts: [&str; 7]| {
        let [name, rest @ ..] = texts;
        let rest = rest.iter().map(|text| format!("{text:>14}")).collect::<String>();
        format!("{name:<24}{rest}")
    };
    output::line(out, &columns(heads))?;
    for entry in &entries {
        let [memory, speed] = match &entry.estimates {
            None => [["-".to_owned(), "-".to_owned()], ["-".to_owned(), "-".to_owned()]],
            Some(sets) => [
                sets.each_ref().map(|estimate| format!("{:.1} GB", memory_here(estimate) as f64 / 1e9)),
                sets.each_ref().map(|estimate| format!("~{:.1}", 1.0 / estimate.seconds_per_token)),
            ],
        };
        let (model, split) = (megabytes(entry.model_bytes), megabytes(entry.split_bytes));
        let line = columns([&entry.name, &model, &split, &memory[0], &memory[1], &speed[0], &speed[1]]);
        output::line(out, &line)?;
        if let Some(builtin) = entry.builtin {
            let download = match entry.model_bytes {
                0 => format!("; {} to download", megabytes(builtin.download_bytes())),
                _ => String::new(),
            };
            output::line(out, &format!("  {}; {}{download}", builtin.description, builtin.licence))?;
            output::line(out, &format!("  {}", builtin.origin))?;
        }
    }
    output::line(
        out,
        &format!(
            "in {}; memory of the server with the tables that fit here, and expected speed with client and server on this \
             machine's {} cores",
            cache.root().display(),
            speed.cores
        ),
    )
}

/// Memory of the server in the form that fits on this machine.
fn memory_here(estimate: &Estimate) -> u64 {
    if estimate.form_here == "ntt" { estimate.server_ram_bytes } else { estimate.server_ram_compact_bytes }
}

fn report(entry: &Entry) -> serde_json::Value {
    let builtin = |field: fn(&Builtin) -> &str| entry.builtin.map(field);
    let set = |estimate: &Estimate| {
        json!({
            "memory_bytes": memory_here(estimate),
            "memory_ntt_bytes": estimate.server_ram_bytes,
            "memory_compact_bytes": estimate.server_ram_compact_bytes,
            "form_here": estimate.form_here,
            "chosen_here": estimate.chosen_here,
            "tokens_per_s": 1.0 / estimate.seconds_per_token,
        })
    };
    let sets = entry
        .estimates
        .as_ref()
        .map(|[default, light]| json!({ "default": set(default), "light": set(light) }));
    json!({
        "name": entry.name,
        "model_bytes": entry.model_bytes,
        "split_bytes": entry.split_bytes,
        "download_bytes": entry.builtin.map(Builtin::download_bytes),
        "description": builtin(|builtin| builtin.description).unwrap_or_default(),
        "licence": builtin(|builtin| builtin.licence),
        "origin": builtin(|builtin| builtin.origin),
        "sets": sets,
    })
}

fn megabytes(bytes: u64) -> String {
    if bytes == 0 { "-".to_owned() } else { format!("{:.1} MB", bytes as f64 / 1e6) }
}

fn remove(cache: &Cache, name: &str, out: &mut dyn Write) -> Result<()> {
    let is_plain = !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\']);
    let mut directories = vec![cache.model(name), cache.split(name)];
    let parts = names_in(&cache.clients()).into_iter().filter(|digest| part_name(digest) == name);
    directories.extend(parts.map(|digest| cache.clients().join(digest)));
    if !is_plain || !directories.iter().any(|directory| directory.is_dir()) {
        return Err(Error::Usage(format!("no model {name:?} here; `sotto models list` shows what there is")));
    }
    let _lock = cache.lock(name)?;
    let mut freed = 0;
    for directory in directories.iter().filter(|directory| directory.is_dir()) {
        freed += directory_bytes(directory);
        std::fs::remove_dir_all(directory).map_err(|source| Error::io("deleting", directory, source))?;
    }
    output::line(out, &format!("removed {name}, {} freed", megabytes(freed)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removing_takes_model_and_split() {
        let root = tempfile::tempdir().unwrap();
        let cache = Cache::at(root.path());
        for directory in [cache.model("m"), cache.split("m"), cache.model("other")] {
            std::fs::create_dir_all(&directory).unwrap();
            std::fs::write(directory.join("file"), b"12345").unwrap();
        }
        let mut out = Vec::new();
        remove(&cache, "m", &mut out).unwrap();
        assert!(!cache.model("m").exists() && !cache.split("m").exists());
        assert!(cache.model("other").exists());
        let digest = "1005873a609959ec".repeat(4);
        let part = cache.clients().join(&digest);
        std::fs::create_dir_all(&part).unwrap();
        assert_eq!(entries(&cache, &speed_of_tests()).unwrap().pop().unwrap().name, "client-1005873a6099");
        remove(&cache, "client-1005873a6099", &mut out).unwrap();
        assert!(!part.exists() && cache.clients().exists());
        for bad in ["m", "", "..", "a/b", "../models/other", "client-", "client-1005873a6099"] {
            assert!(remove(&cache, bad, &mut out).is_err(), "{bad:?} was accepted");
        }
        assert!(cache.model("other").exists());
    }

    fn speed_of_tests() -> Speed {
        Speed {
            body_per_weight: 1e-10,
            default_mask_per_row: [2e-6, 8e-6],
            light_mask_per_row: [1e-6, 4e-6],
            prepare_per_weight: 1e-7,
            cores: 2,
        }
    }

    #[test]
    fn the_list_names_builtins_and_what_is_there() {
        let root = tempfile::tempdir().unwrap();
        let cache = Cache::at(root.path());
        std::fs::create_dir_all(cache.split("mine")).unwrap();
        let mut out = Vec::new();
        list(&cache, &speed_of_tests(), true, &mut out).unwrap();
        let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
        let names: Vec<_> =
            value["models"].as_array().unwrap().iter().map(|m| m["name"].as_str().unwrap()).collect();
        assert!(names.contains(&"smollm2-135m") && names.contains(&"mine"));
        let qwen =
            value["models"].as_array().unwrap().iter().find(|m| m["name"] == "qwen2.5-coder-0.5b").unwrap();
        assert_eq!(qwen["licence"], "Apache-2.0");
        assert!(qwen["download_bytes"].as_u64().unwrap() > 400_000_000);
        let memory = |set: &str| qwen["sets"][set]["memory_ntt_bytes"].as_f64().unwrap();
        assert!(memory("light") < 0.6 * memory("default"));
        let speed = |set: &str| qwen["sets"][set]["tokens_per_s"].as_f64().unwrap();
        assert!(speed("light") >= speed("default"));
        let mut text = Vec::new();
        list(&cache, &speed_of_tests(), false, &mut text).unwrap();
        assert!(String::from_utf8(text).unwrap().contains("Qwen/Qwen2.5-Coder-0.5B-Instruct"));
    }
}

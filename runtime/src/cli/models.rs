//! `sotto models`: what is on this machine.

use std::io::Write;
use std::path::Path;

use serde_json::json;

use super::args::{ModelsAction, ModelsArgs};
use super::output;
use super::progress::Bars;
use crate::error::{Error, Result};
use crate::fetch::{BUILTINS, Cache, ModelRef, directory_bytes, fetch};

/// Runs `sotto models`.
///
/// # Errors
///
/// Anything that reading, fetching or deleting can fail with.
pub fn run(args: &ModelsArgs, out: &mut dyn Write) -> Result<()> {
    let cache = Cache::from_env()?;
    match &args.action {
        ModelsAction::List { json } => list(&cache, *json, out),
        ModelsAction::Fetch { model, quiet } => {
            let fetched = fetch(&ModelRef::parse(model)?, &cache, &Bars::new(*quiet))?;
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
    description: &'static str,
}

fn entries(cache: &Cache) -> Vec<Entry> {
    let models = cache.root().join("models");
    let splits = cache.root().join("splits");
    let mut names: Vec<String> = BUILTINS.iter().map(|builtin| builtin.name.to_owned()).collect();
    for name in names_in(&models).into_iter().chain(names_in(&splits)) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
        .into_iter()
        .map(|name| Entry {
            model_bytes: directory_bytes(&models.join(&name)),
            split_bytes: directory_bytes(&splits.join(&name)),
            description: BUILTINS.iter().find(|b| b.name == name).map_or("", |b| b.description),
            name,
        })
        .collect()
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

fn list(cache: &Cache, as_json: bool, out: &mut dyn Write) -> Result<()> {
    let entries = entries(cache);
    if as_json {
        let models: Vec<_> = entries
            .iter()
            .map(|entry| {
                json!({
                    "name": entry.name,
                    "model_bytes": entry.model_bytes,
                    "split_bytes": entry.split_bytes,
                    "description": entry.description,
                })
            })
            .collect();
        return output::line(out, &json!({ "cache": cache.root(), "models": models }).to_string());
    }
    output::line(out, &format!("{:<28} {:>10} {:>18}", "name", "model", "split and tables"))?;
    for entry in entries {
        let line = format!(
            "{:<28} {:>10} {:>18}  {}",
            entry.name,
            megabytes(entry.model_bytes),
            megabytes(entry.split_bytes),
            entry.description
        );
        output::line(out, line.trim_end())?;
    }
    output::line(out, &format!("in {}", cache.root().display()))
}

fn megabytes(bytes: u64) -> String {
    if bytes == 0 { "-".to_owned() } else { format!("{:.1} MB", bytes as f64 / 1e6) }
}

fn remove(cache: &Cache, name: &str, out: &mut dyn Write) -> Result<()> {
    let is_plain = !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\']);
    let directories = [cache.model(name), cache.split(name)];
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
        for bad in ["m", "", "..", "a/b", "../models/other"] {
            assert!(remove(&cache, bad, &mut out).is_err(), "{bad:?} was accepted");
        }
        assert!(cache.model("other").exists());
    }

    #[test]
    fn the_list_names_builtins_and_what_is_there() {
        let root = tempfile::tempdir().unwrap();
        let cache = Cache::at(root.path());
        std::fs::create_dir_all(cache.split("mine")).unwrap();
        let mut out = Vec::new();
        list(&cache, true, &mut out).unwrap();
        let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
        let names: Vec<_> =
            value["models"].as_array().unwrap().iter().map(|m| m["name"].as_str().unwrap()).collect();
        assert!(names.contains(&"smollm2-135m") && names.contains(&"mine"));
    }
}

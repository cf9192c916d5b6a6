//! Feature checks: each crate compiles by itself, without its default features, and with each of its features alone.
//!
//! A build of the whole workspace unites the features that its crates ask of a library, and so hides a crate that
//! forgot to ask for one; here each crate stands alone.

use crate::shell;
use anyhow::Context;

/// Runs `cargo check` for every combination.
pub(crate) fn run() -> anyhow::Result<()> {
    let text = shell::output("cargo metadata --format-version 1 --no-deps --offline")?;
    let metadata: serde_json::Value = serde_json::from_str(&text).context("cargo metadata is not JSON")?;
    let commands = commands(&metadata).context("cargo metadata lists no packages with their features")?;
    for command in &commands {
        shell::run(command)?;
    }
    println!("features: {} combinations compile", commands.len());
    Ok(())
}

/// One command per crate, and one more per feature.
fn commands(metadata: &serde_json::Value) -> Option<Vec<String>> {
    let mut commands = Vec::new();
    for package in metadata["packages"].as_array()? {
        let name = package["name"].as_str()?;
        let check = format!("cargo check --release --quiet --package {name} --no-default-features");
        commands.push(check.clone());
        let features = package["features"].as_object()?.keys().filter(|feature| *feature != "default");
        commands.extend(features.map(|feature| format!("{check} --features {feature}")));
    }
    Some(commands)
}

#[cfg(test)]
mod tests {
    use super::commands;

    #[test]
    fn each_crate_and_each_feature_is_checked() {
        let metadata = serde_json::json!({ "packages": [
            { "name": "a", "features": {} },
            { "name": "b", "features": { "default": ["x"], "x": [] } },
        ] });
        let check = |rest: &str| format!("cargo check --release --quiet --package {rest}");
        let expected =
            ["a --no-default-features", "b --no-default-features", "b --no-default-features --features x"];
        assert_eq!(commands(&metadata).unwrap(), expected.map(check));
        assert!(commands(&serde_json::json!({})).is_none());
    }
}

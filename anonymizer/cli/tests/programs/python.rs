//! A Python with the packages that tests need. `SOTTO_CLIENTS_PYTHON` names one that has them already.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

/// What is installed where it is missing.
const PACKAGES: [&str; 5] = ["openai", "anthropic", "mcp", "python-docx", "openpyxl"];

/// Pythons to try, the own one last; it is made when a test first needs it.
static OWN: LazyLock<Result<(PathBuf, tempfile::TempDir), String>> = LazyLock::new(|| {
    let root = tempfile::tempdir().map_err(|error| error.to_string())?;
    let run = |command: &mut Command| match command.output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let errors = String::from_utf8_lossy(&output.stderr).into_owned();
            Err(errors.lines().last().unwrap_or("no reason given").to_owned())
        }
        Err(error) => Err(error.to_string()),
    };
    run(Command::new("python3").args(["-m", "venv"]).arg(root.path()))?;
    let python = root.path().join("bin/python");
    run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "--timeout", "20"]).args(PACKAGES))?;
    Ok((python, root))
});

fn has(python: &Path, modules: &[&str]) -> bool {
    let import = format!("import {}", modules.join(", "));
    // LiteLLM asks the network for prices otherwise.
    let ran = Command::new(python)
        .env("LITELLM_LOCAL_MODEL_COST_MAP", "True")
        .args(["-c", &import])
        .stderr(Stdio::null())
        .status();
    ran.is_ok_and(|status| status.success())
}

fn python(modules: &[&str]) -> Result<PathBuf, String> {
    let given = std::env::var_os("SOTTO_CLIENTS_PYTHON").map(PathBuf::from);
    if let Some(python) = given.into_iter().chain(["python3".into()]).find(|python| has(python, modules)) {
        return Ok(python);
    }
    let (python, _) = OWN.as_ref().map_err(Clone::clone)?;
    match has(python, modules) {
        true => Ok(python.clone()),
        false => Err("it is not among the packages that tests install".to_owned()),
    }
}

/// Runs a script that has to succeed. Without Python or the modules nothing is run, which is told.
pub(crate) fn runs(
    modules: &[&str],
    script: &str,
    variables: &[(String, String)],
    directory: &Path,
    input: &[u8],
) -> bool {
    let python = match python(modules) {
        Ok(python) => python,
        Err(reason) => {
            eprintln!("skipped: no Python with {}: {reason}", modules.join(", "));
            return false;
        }
    };
    let mut command = Command::new(python);
    command.env("LITELLM_LOCAL_MODEL_COST_MAP", "True");
    for (name, value) in variables {
        match value.is_empty() {
            true => command.env_remove(name),
            false => command.env(name, value),
        };
    }
    let mut child = command
        .args(["-c", script])
        .current_dir(directory)
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A script that reads nothing closes its input.
    let _ = child.stdin.take().unwrap().write_all(input);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    true
}

//! `sotto doctor`: whether this machine can do what `sotto` needs, and what to change if not.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::json;

use super::args::DoctorArgs;
use super::output;
use sotto_protocol::error::{Error, Result};
use sotto_storage::Cache;

/// Free disk space that the default model needs: wheel, model, split and compact tables.
const DISK_BYTES: u64 = 2_500_000_000;

/// Memory that client and server of the default model need together.
const MEMORY_BYTES: u64 = 7_000_000_000;

/// Outcome of one check.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    what: &'static str,
    level: Level,
    detail: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Good,
    Slow,
    Bad,
}

impl Level {
    fn word(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Slow => "warning",
            Self::Bad => "problem",
        }
    }
}

/// Runs `sotto doctor`.
///
/// # Errors
///
/// [`Error::Usage`] when something will not work, after the report is printed.
pub fn run(args: &DoctorArgs, out: &mut dyn Write) -> Result<()> {
    let mut findings = vec![instructions(), cores(), memory(), python()];
    findings.extend(disk());
    if let Some(server) = &args.server {
        findings.push(reachable(server));
    }
    let healthy = findings.iter().all(|finding| finding.level != Level::Bad);
    if args.json {
        let checks: Vec<_> = findings
            .iter()
            .map(|finding| json!({ "check": finding.what, "result": finding.level.word(), "detail": finding.detail }))
            .collect();
        output::line(out, &json!({ "healthy": healthy, "checks": checks }).to_string())?;
    } else {
        for finding in &findings {
            let line = format!("{:<8} {:<13} {}", finding.level.word(), finding.what, finding.detail);
            output::line(out, &line)?;
        }
    }
    if healthy { Ok(()) } else { Err(Error::Usage("this machine has a problem, see above".to_owned())) }
}

fn instructions() -> Finding {
    let isa = fhe_layers::kernels::Isa::detect();
    let name = isa.to_string();
    let level = if name == "scalar" { Level::Slow } else { Level::Good };
    let detail = match level {
        Level::Good => format!("kernels run with {name}"),
        _ => "no vector instructions found that the kernels know; expect a tenth of the speed".to_owned(),
    };
    Finding { what: "instructions", level, detail }
}

fn cores() -> Finding {
    let count = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let level = if count < 2 { Level::Slow } else { Level::Good };
    Finding { what: "cores", level, detail: format!("{count}") }
}

fn memory() -> Finding {
    let info = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    match field_kb(&info, "MemAvailable:") {
        Some(kilobytes) => {
            let bytes = kilobytes * 1024;
            let level = if bytes < MEMORY_BYTES { Level::Slow } else { Level::Good };
            let advice = if level == Level::Slow {
                "; a server for the default model on this machine needs about 7 GB, use --server or compact tables"
            } else {
                ""
            };
            Finding {
                what: "memory",
                level,
                detail: format!("{:.1} GB available{advice}", bytes as f64 / 1e9),
            }
        }
        None => {
            Finding { what: "memory", level: Level::Slow, detail: "cannot tell on this system".to_owned() }
        }
    }
}

fn field_kb(info: &str, field: &str) -> Option<u64> {
    info.lines().find_map(|line| line.strip_prefix(field)?.trim().strip_suffix("kB")?.trim().parse().ok())
}

fn python() -> Finding {
    let python = std::env::var("SOTTO_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let output = Command::new(&python)
        .args(["-m", "pip", "--version"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    match output {
        Ok(output) if output.status.success() => {
            let text = String::from_utf8_lossy(&output.stdout);
            let version = text.split(" from ").next().unwrap_or_default().trim().to_owned();
            Finding { what: "pip", level: Level::Good, detail: version }
        }
        _ => Finding {
            what: "pip",
            level: Level::Slow,
            detail: format!(
                "`{python} -m pip` does not run; built-in models cannot be fetched, hub ids and paths work"
            ),
        },
    }
}

fn disk() -> Vec<Finding> {
    let cache = match Cache::from_env() {
        Ok(cache) => cache,
        Err(error) => return vec![Finding { what: "cache", level: Level::Bad, detail: error.to_string() }],
    };
    let writable = match cache.stage("doctor") {
        Ok(_) => Finding { what: "cache", level: Level::Good, detail: format!("{}", cache.root().display()) },
        Err(error) => Finding { what: "cache", level: Level::Bad, detail: error.to_string() },
    };
    let output = Command::new("df").arg("-Pk").arg(cache.root()).stderr(Stdio::null()).output();
    let free = output.ok().and_then(|output| free_bytes(&String::from_utf8_lossy(&output.stdout)));
    let space = match free {
        Some(bytes) if bytes < DISK_BYTES => Finding {
            what: "disk",
            level: Level::Slow,
            detail: format!(
                "{:.1} GB free; the default model with its tables takes about 2.5 GB, set SOTTO_CACHE to another disk",
                bytes as f64 / 1e9
            ),
        },
        Some(bytes) => {
            Finding { what: "disk", level: Level::Good, detail: format!("{:.1} GB free", bytes as f64 / 1e9) }
        }
        None => Finding { what: "disk", level: Level::Slow, detail: "cannot tell on this system".to_owned() },
    };
    vec![writable, space]
}

/// The "available" column of `df -Pk`, in bytes.
fn free_bytes(report: &str) -> Option<u64> {
    let kilobytes: u64 = report.lines().nth(1)?.split_whitespace().nth(3)?.parse().ok()?;
    Some(kilobytes * 1024)
}

fn reachable(server: &str) -> Finding {
    match sotto_client::probe(server) {
        Ok(probe) => Finding {
            what: "server",
            level: Level::Good,
            detail: format!(
                "answers in {:.1} ms, offers {}",
                probe.round_trip.as_secs_f64() * 1e3,
                probe.models.join(", ")
            ),
        },
        Err(error) => Finding { what: "server", level: Level::Bad, detail: error.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_reports_are_read() {
        let info = "MemTotal:       24000000 kB\nMemAvailable:   20000000 kB\n";
        assert_eq!(field_kb(info, "MemAvailable:"), Some(20_000_000));
        assert_eq!(field_kb(info, "Nonesuch:"), None);
        let report = "Filesystem 1024-blocks Used Available Capacity Mounted on\n/dev/x 100 40 60 40% /\n";
        assert_eq!(free_bytes(report), Some(61_440));
        assert_eq!(free_bytes(""), None);
    }
}

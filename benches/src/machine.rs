//! What a figure was measured on: cpu, instruction sets, threads, revision, date.

use std::process::Command;

use serde::Serialize;

/// The machine line of a report. Gathered once, at the start of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// Processor name as the system tells it.
    pub cpu: String,
    /// Instruction sets of this project's kernels that the processor has, widest last.
    pub isa: Vec<&'static str>,
    /// Logical cores visible to the process.
    pub cores: usize,
    /// Worker threads the run used.
    pub threads: usize,
    /// Memory of the machine, bytes (0 when unknown).
    pub memory_bytes: u64,
    /// Load average of the last minute at the start: above 1 the figures are of a shared machine.
    pub load_1min: f64,
    /// Operating system and kernel.
    pub os: String,
    /// Short git revision, `-dirty` appended when tracked files differ from it.
    pub git_rev: String,
    /// `rustc --version` of the toolchain in the path.
    pub rustc: String,
    /// UTC date, `YYYY-MM-DD`.
    pub date: String,
}

impl Machine {
    /// Looks at this machine; what cannot be found out is `unknown`, never an error.
    #[must_use]
    pub fn detect(threads: usize) -> Self {
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        Self {
            cpu: cpuinfo
                .lines()
                .find_map(|line| line.strip_prefix("model name")?.split(':').nth(1))
                .map_or_else(|| "unknown".into(), |name| name.trim().to_owned()),
            isa: isa(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            threads,
            memory_bytes: memory_bytes(),
            load_1min: std::fs::read_to_string("/proc/loadavg")
                .ok()
                .and_then(|text| text.split(' ').next()?.parse().ok())
                .unwrap_or(0.0),
            os: first_line(Command::new("uname").args(["-sr"])),
            git_rev: git_rev(),
            rustc: first_line(Command::new("rustc").arg("--version")),
            date: utc_date(),
        }
    }

    /// One line for a README: cpu, cores, instruction sets, system, toolchain, revision, date.
    #[must_use]
    pub fn line(&self) -> String {
        let gib = self.memory_bytes as f64 / (1u64 << 30) as f64;
        format!(
            "{}, {} cores, {gib:.0} GiB, {}; {}; {}; {}; git {}; {}; load {:.1}",
            self.cpu,
            self.cores,
            self.isa.join("+"),
            self.os,
            self.rustc,
            format_args!("{} threads", self.threads),
            self.git_rev,
            self.date,
            self.load_1min
        )
    }

    /// A short word for a folder name: `amd-epyc`.
    #[must_use]
    pub fn slug(&self) -> String {
        let words: Vec<String> = self
            .cpu
            .split(|c: char| !c.is_ascii_alphanumeric())
            .filter(|w| !w.is_empty() && !matches!(*w, "R" | "TM" | "CPU" | "Processor"))
            .take(3)
            .map(str::to_ascii_lowercase)
            .collect();
        if words.is_empty() { "unknown-cpu".into() } else { words.join("-") }
    }
}

fn isa() -> Vec<&'static str> {
    #[cfg(target_arch = "x86_64")]
    {
        let mut found = Vec::new();
        if is_x86_feature_detected!("avx2") {
            found.push("avx2");
        }
        if is_x86_feature_detected!("avx512f") {
            found.push("avx512f");
        }
        if is_x86_feature_detected!("avx512ifma") {
            found.push("avx512ifma");
        }
        if is_x86_feature_detected!("avx512vnni") {
            found.push("avx512vnni");
        }
        found
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        vec![std::env::consts::ARCH]
    }
}

fn memory_bytes() -> u64 {
    std::fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| text.lines().next()?.split_ascii_whitespace().nth(1)?.parse::<u64>().ok())
        .map_or(0, |kib| kib * 1024)
}

fn first_line(command: &mut Command) -> String {
    command
        .output()
        .ok()
        .filter(|out| out.status.success())
        .and_then(|out| String::from_utf8(out.stdout).ok())
        .and_then(|text| text.lines().next().map(str::to_owned))
        .unwrap_or_else(|| "unknown".into())
}

fn git_rev() -> String {
    let rev = first_line(Command::new("git").args(["rev-parse", "--short=10", "HEAD"]));
    let clean = Command::new("git")
        .args(["diff", "--quiet", "HEAD", "--", ".", ":!benches/runs", ":!README.md"])
        .stderr(std::process::Stdio::null())
        .status()
        .is_ok_and(|s| s.success());
    if clean || rev == "unknown" { rev } else { format!("{rev}-dirty") }
}

/// Today in UTC, from the days since 1970 (civil-from-days, Hinnant's algorithm).
fn utc_date() -> String {
    let seconds = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_secs());
    civil_date(i64::try_from(seconds / 86_400).unwrap_or(0))
}

fn civil_date(days_since_1970: i64) -> String {
    let z = days_since_1970 + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_dates() {
        assert_eq!(civil_date(0), "1970-01-01");
        assert_eq!(civil_date(19_782), "2024-02-29");
        assert_eq!(civil_date(20_089), "2025-01-01");
    }
}

//! One linear layer through the split-phase protocol: runs `--bin linear` (which checks its own answers) in a process of
//! its own and reads its report.

use std::process::{Command, Stdio};

use anyhow::Context as _;
use serde_json::Value;

use crate::check::Checks;

/// What to run `--bin linear` on.
#[derive(Clone, Debug)]
pub struct LinearArgs {
    /// Input features.
    pub d_in: usize,
    /// Output features.
    pub d_out: usize,
    /// Tokens per batch of masks, `tau`.
    pub tokens_per_batch: usize,
    /// Worker threads.
    pub threads: usize,
    /// `ntt` or `compact`.
    pub form: &'static str,
    /// `scalar`, `avx2`, `avx512vnni`, `avx512`; `None` lets the kernels choose.
    pub isa: Option<&'static str>,
}

/// A report of `--bin linear`.
#[derive(Clone, Debug)]
pub struct LinearRun {
    /// The report as printed.
    pub raw: Value,
}

impl LinearArgs {
    /// The paved path: 64 tokens per batch, tables in NTT form, best kernels.
    #[must_use]
    pub fn new(d_in: usize, d_out: usize, threads: usize) -> Self {
        Self { d_in, d_out, tokens_per_batch: 64, threads, form: "ntt", isa: None }
    }

    /// Arguments of the command line after `--`.
    #[must_use]
    pub fn words(&self) -> Vec<String> {
        let mut words: Vec<String> = [
            ("--in", self.d_in.to_string()),
            ("--out", self.d_out.to_string()),
            ("--tokens-per-batch", self.tokens_per_batch.to_string()),
            ("--threads", self.threads.to_string()),
            ("--form", self.form.to_string()),
        ]
        .into_iter()
        .flat_map(|(name, value)| [name.to_owned(), value])
        .collect();
        if let Some(isa) = self.isa {
            words.extend(["--isa".to_owned(), isa.to_owned()]);
        }
        words.push("--json".to_owned());
        words
    }

    /// Runs it.
    ///
    /// # Errors
    /// If the binary cannot be built or started, fails (its own checks included) or prints no JSON.
    pub fn run(&self) -> anyhow::Result<LinearRun> {
        Ok(LinearRun { raw: run_bin("linear", &self.words())? })
    }
}

impl LinearRun {
    /// A number of the report; NaN when absent, so that a check on it fails.
    #[must_use]
    pub fn number(&self, key: &str) -> f64 {
        self.raw.get(key).and_then(Value::as_f64).unwrap_or(f64::NAN)
    }

    /// A number of the report's `bytes`.
    #[must_use]
    pub fn bytes(&self, key: &str) -> f64 {
        self.raw.get("bytes").and_then(|b| b.get(key)).and_then(Value::as_f64).unwrap_or(f64::NAN)
    }

    /// Milliseconds of one token once its masks are there: encrypt, body half, decode.
    #[must_use]
    pub fn online_ms(&self) -> f64 {
        (self.number("body_half_us_per_token")
            + self.number("client_encrypt_us_per_token")
            + self.number("client_decode_us_per_token"))
            / 1e3
    }

    /// Milliseconds of one whole batch ahead of time: keys, pads, mask half, decryption of the masks.
    #[must_use]
    pub fn batch_ms(&self) -> f64 {
        self.number("client_keys_ms")
            + self.number("client_pads_ms")
            + self.number("mask_half_ms")
            + self.number("client_decrypt_masks_ms")
    }

    /// Milliseconds of one token, its share of the batch included.
    #[must_use]
    pub fn amortised_ms(&self) -> f64 {
        self.online_ms() + self.batch_ms() / self.number("tokens_per_batch")
    }

    /// Milliseconds of the very first token: keys, a whole batch of masks, then the token.
    #[must_use]
    pub fn cold_ms(&self) -> f64 {
        self.batch_ms() + self.online_ms()
    }

    /// Relative error of the result, from the measured signal-to-noise ratio.
    #[must_use]
    pub fn relative_error(&self) -> f64 {
        (-self.number("snr_bits")).exp2()
    }

    /// Notes the layer's own checks under `name`.
    pub fn check(&self, name: &str, checks: &mut Checks) {
        let exact = self.raw.get("exact_mode_ok").and_then(Value::as_bool) == Some(true);
        checks.that(format!("{name}: exact mode returns the integers"), exact, "exact_mode_ok");
        checks.at_least(format!("{name}: snr_bits"), self.number("snr_bits"), 12.0);
        checks.at_least(format!("{name}: security_bits"), self.number("security_bits"), 128.0);
        checks.that(format!("{name}: times are there"), self.amortised_ms().is_finite(), "no field missing");
    }
}

/// Builds and runs another binary of this crate with `words` and returns the JSON on the last line of its stdout; its
/// stderr passes through.
///
/// # Errors
/// If it cannot be built or started, exits with a failure, or prints no JSON object.
pub fn run_bin(bin: &str, words: &[String]) -> anyhow::Result<Value> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["run", "--release", "-q", "-p", "benches", "--bin", bin, "--"]).args(words);
    run_json(&mut command).with_context(|| format!("{bin} {}", words.join(" ")))
}

/// Runs `command` and returns the JSON on the last line of its stdout.
///
/// # Errors
/// As [`run_bin`].
pub fn run_json(command: &mut Command) -> anyhow::Result<Value> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().context("starting it")?;
    anyhow::ensure!(output.status.success(), "it ended with {}", output.status);
    let text = String::from_utf8(output.stdout).context("its output is not UTF-8")?;
    let line = text.lines().next_back().context("it printed nothing")?;
    serde_json::from_str(line).context("its last line is not JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_add_up() {
        let raw = serde_json::json!({
            "tokens_per_batch": 64, "client_keys_ms": 1.0, "client_pads_ms": 2.0, "mask_half_ms": 60.0,
            "client_decrypt_masks_ms": 1.0, "body_half_us_per_token": 400.0,
            "client_encrypt_us_per_token": 50.0, "client_decode_us_per_token": 50.0
        });
        let run = LinearRun { raw };
        assert!((run.online_ms() - 0.5).abs() < 1e-9);
        assert!((run.amortised_ms() - 1.5).abs() < 1e-9);
        assert!((run.cold_ms() - 64.5).abs() < 1e-9);
        assert!(run.number("absent").is_nan());
    }
}

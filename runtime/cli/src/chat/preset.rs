//! Named settings: a system message and sampling options, from `presets.toml`.
//!
//! ```toml
//! [terse]
//! system = "Answer in one sentence."
//! temperature = 0.3
//! max_tokens = 80
//! ```

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;

use serde::Deserialize;

use crate::args::SamplingArgs;
use sotto_protocol::error::{Error, Result};

/// Largest file of presets that is read, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// One preset.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Preset {
    /// System message.
    pub(super) system: Option<String>,
    /// Maximum number of tokens per answer.
    pub(super) max_tokens: Option<usize>,
    /// Sampling temperature.
    pub(super) temperature: Option<f32>,
    /// Total probability of the tokens that are kept.
    pub(super) top_p: Option<f32>,
    /// Number of tokens that are kept.
    pub(super) top_k: Option<usize>,
    /// Smallest probability relative to the likeliest token.
    pub(super) min_p: Option<f32>,
    /// Penalty on recent tokens.
    pub(super) repeat_penalty: Option<f32>,
    /// Seed of the sampler.
    pub(super) seed: Option<u64>,
}

impl Preset {
    /// The preset called `name`.
    ///
    /// # Errors
    /// [`Error::Usage`] if there is none or the file is malformed; [`Error::Io`] if there is no file.
    pub(super) fn named(name: &str) -> Result<Self> {
        let path = file()?;
        let io = |source| Error::io("reading", &path, source);
        let mut text = String::new();
        // A device tells no length.
        let mut file = std::fs::File::open(&path).map_err(io)?.take(MAX_FILE_BYTES + 1);
        file.read_to_string(&mut text).map_err(io)?;
        if text.len() as u64 > MAX_FILE_BYTES {
            return Err(Error::TooLong {
                field: "presets.toml",
                got: text.len() as u64,
                limit: MAX_FILE_BYTES,
            });
        }
        let text = text.trim_start_matches('\u{feff}');
        Self::read(text, name).map_err(|reason| Error::Usage(format!("{}: {reason}", path.display())))
    }

    fn read(text: &str, name: &str) -> std::result::Result<Self, String> {
        let mut presets: BTreeMap<String, Self> =
            toml::from_str(text).map_err(|error| error.message().to_owned())?;
        presets.remove(name).ok_or_else(|| {
            let known: Vec<&str> = presets.keys().map(String::as_str).collect();
            format!("no preset {name:?}; there are: {}", known.join(", "))
        })
    }

    /// `args` with this preset's values where they have none.
    pub(super) fn fill(&self, args: &SamplingArgs) -> SamplingArgs {
        SamplingArgs {
            max_tokens: args.max_tokens.or(self.max_tokens),
            temperature: args.temperature.or(self.temperature),
            top_p: args.top_p.or(self.top_p),
            top_k: args.top_k.or(self.top_k),
            min_p: args.min_p.or(self.min_p),
            repeat_penalty: args.repeat_penalty.or(self.repeat_penalty),
            seed: args.seed.or(self.seed),
            ignore_eos: args.ignore_eos,
        }
    }
}

/// `SOTTO_PRESETS`, or `sotto/presets.toml` in the configuration directory.
fn file() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("SOTTO_PRESETS").filter(|path| !path.is_empty()) {
        return Ok(path.into());
    }
    let home = || {
        std::env::var_os("HOME")
            .filter(|home| !home.is_empty())
            .map(|home| PathBuf::from(home).join(".config"))
    };
    let config = std::env::var_os("XDG_CONFIG_HOME").filter(|path| !path.is_empty()).map(PathBuf::from);
    match config.or_else(home) {
        Some(config) => Ok(config.join("sotto/presets.toml")),
        None => Err(Error::Usage("set SOTTO_PRESETS to the file of presets: HOME is not set".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        sampling: SamplingArgs,
    }

    #[test]
    fn options_win_over_the_preset() {
        let preset = Preset::read("[a]\nsystem = \"x\"\ntemperature = 0.5\ntop_k = 7", "a").unwrap();
        let line = Line::parse_from(["x", "--top-k", "3"]);
        let filled = preset.fill(&line.sampling);
        assert_eq!((filled.temperature, filled.top_k, filled.seed), (Some(0.5), Some(3), None));
    }

    #[test]
    fn mistakes_are_named() {
        assert!(Preset::read("[a]\n[b]", "c").unwrap_err().contains("a, b"));
        assert!(Preset::read("[a]\ntemprature = 1", "a").unwrap_err().contains("temprature"));
    }
}

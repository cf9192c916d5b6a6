//! Sampling options of a conversation, changeable with `/set`.

use sotto_models::generate::sampler::SamplerConfig;

use crate::args::{SamplingArgs, parse_max_tokens, parse_seed, parse_top_k};
use sotto_engine::session::GenerateOptions;
use sotto_protocol::error::{Error, Result};

/// Maximum number of tokens of an answer if none is given.
const DEFAULT_MAX_TOKENS: usize = 512;

/// Options of the answers to come.
#[derive(Clone, Debug)]
pub struct Settings {
    max_tokens: usize,
    sampler: SamplerConfig,
    seed: Option<u64>,
    ignore_eos: bool,
}

impl Settings {
    /// Options as given on the command line.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] naming the option that is out of range.
    pub fn from_args(args: &SamplingArgs) -> Result<Self> {
        let defaults = SamplerConfig::from_options(args.temperature, args.repeat_penalty);
        let settings = Self {
            max_tokens: args.max_tokens.unwrap_or(DEFAULT_MAX_TOKENS),
            sampler: SamplerConfig {
                top_k: args.top_k.unwrap_or(defaults.top_k),
                top_p: args.top_p.unwrap_or(defaults.top_p),
                min_p: args.min_p.unwrap_or(defaults.min_p),
                ..defaults
            },
            seed: args.seed,
            ignore_eos: args.ignore_eos,
        };
        settings.check()?;
        Ok(settings)
    }

    fn check(&self) -> Result<()> {
        if self.max_tokens == 0 {
            return Err(Error::OutOfRange {
                what: "max_tokens",
                range: "at least 1".to_owned(),
                got: "0".to_owned(),
            });
        }
        self.sampler.validate().map_err(|error| Error::Usage(error.to_string()))
    }

    /// Options for the next answer; without a seed each answer gets a fresh one.
    pub fn generate(&self) -> GenerateOptions {
        GenerateOptions {
            max_tokens: self.max_tokens,
            sampler: self.sampler.clone(),
            seed: self.seed.unwrap_or_else(rand::random),
            ignore_eos: self.ignore_eos,
            ..GenerateOptions::default()
        }
    }

    /// Changes one option.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] for an unknown name or a value out of range; nothing changes then.
    pub fn set(&mut self, name: &str, value: &str) -> Result<()> {
        let mut changed = self.clone();
        match name {
            "max_tokens" => changed.max_tokens = parsed(name, parse_max_tokens(value))?,
            "temperature" => changed.sampler.temperature = number(name, value)?,
            "top_p" => changed.sampler.top_p = number(name, value)?,
            "top_k" => changed.sampler.top_k = parsed(name, parse_top_k(value))?,
            "min_p" => changed.sampler.min_p = number(name, value)?,
            "repeat_penalty" => changed.sampler.repeat_penalty = number(name, value)?,
            "seed" if matches!(value, "none" | "-1") => changed.seed = None,
            "seed" => changed.seed = Some(parsed(name, parse_seed(value))?),
            "ignore_eos" => changed.ignore_eos = number(name, value)?,
            _ => return Err(Error::Usage(format!("no option {name}; /set shows them"))),
        }
        changed.check()?;
        *self = changed;
        Ok(())
    }

    /// All options, one per line.
    pub fn describe(&self) -> String {
        let seed = self.seed.map_or_else(|| "none".to_owned(), |seed| seed.to_string());
        let max_tokens = match self.max_tokens {
            usize::MAX => "-1".to_owned(),
            max_tokens => max_tokens.to_string(),
        };
        format!(
            "max_tokens {max_tokens}\ntemperature {}\ntop_p {}\ntop_k {}\nmin_p {}\nrepeat_penalty {}\nseed {seed}\nignore_eos {}",
            self.sampler.temperature,
            self.sampler.top_p,
            self.sampler.top_k,
            self.sampler.min_p,
            self.sampler.repeat_penalty,
            self.ignore_eos,
        )
    }
}

fn parsed<T>(name: &str, result: std::result::Result<T, String>) -> Result<T> {
    result.map_err(|reason| Error::Usage(format!("{name}: {reason}")))
}

fn number<T: std::str::FromStr>(name: &str, value: &str) -> Result<T> {
    value.parse().map_err(|_| Error::Usage(format!("{name} must be {}, got {value:?}", kind(name))))
}

/// What the value of an option is.
fn kind(name: &str) -> &'static str {
    match name {
        "ignore_eos" => "true or false",
        _ => "a number",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings { max_tokens: 5, sampler: SamplerConfig::default(), seed: None, ignore_eos: false }
    }

    #[test]
    fn options_change_within_their_range() {
        let mut settings = settings();
        settings.set("temperature", "0.5").unwrap();
        settings.set("seed", "7").unwrap();
        assert_eq!(settings.generate().seed, 7);
        for (name, value) in
            [("temperature", "-1"), ("top_p", "0"), ("max_tokens", "0"), ("seed", "x"), ("colour", "1")]
        {
            assert!(settings.set(name, value).is_err(), "{name} {value} was accepted");
        }
        assert!(settings.describe().contains("temperature 0.5"));
        settings.set("max_tokens", "-1").unwrap();
        settings.set("top_k", "-1").unwrap();
        assert_eq!(settings.generate().max_tokens, usize::MAX);
        assert!(settings.describe().contains("max_tokens -1\n") && settings.describe().contains("top_k 0\n"));
        for odd in ["", " ", "nan", "inf", "1e400", "-0.1", "0,5"] {
            assert!(settings.set("temperature", odd).is_err(), "{odd:?} was accepted");
        }
    }
}

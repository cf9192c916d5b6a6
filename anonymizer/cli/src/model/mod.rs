//! The token classifier that a scan uses: in clear, in int8, or with its linear layers encrypted on a server.

mod bundled;
mod lane;
mod second;

use std::path::PathBuf;
use std::sync::Arc;

use clap::ValueEnum;
use sotto_client::accounting::Totals;
use sotto_engine::fetch::ModelRef;
use sotto_models::linear::LinearBackend;
use sotto_pii::detect::route::{Parts, Route, is_foreign, parts, route};
use sotto_pii::detect::{DetectOptions, Detection, Detector, Span};
use sotto_storage::{Cache, FetchProgress};

pub use self::lane::local;
use self::lane::{Lane, Served};
use self::second::Second;
use crate::error::Result;
use crate::scan::{DetectNow, Health, TextDetector};

/// Detector for text in Latin script.
pub const MODEL: &str = "rampart";
/// The detector that this program carries, for 30 languages in their own scripts.
pub const TRAINED: &str = "trained";
/// Both, each for the scripts that it is better at: what is used when no detector is named.
pub const BOTH: &str = "auto";
/// Tokens per batch of masks: a pass of the detector.
pub const TAU: usize = 256;

/// Where and how the linear layers are computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum BackendChoice {
    /// Here, in clear, in f32
    Dense,
    /// Here, in clear, with the server's int8 weights
    Int8,
    /// On a server that sees neither text nor labels
    #[default]
    Encrypted,
}

/// Which model to open, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelOptions {
    /// The token classifier: [`BOTH`], [`TRAINED`], the name of a built-in model, a directory, or a hub id.
    pub detector: String,
    /// How the linear layers are computed.
    pub backend: BackendChoice,
    /// Connect string of the server; without one, the encrypted backend starts its own on this machine.
    pub server: Option<String>,
    /// Program whose `serve` subcommand is that server; the running one if absent.
    pub program: Option<PathBuf>,
    /// Tokens per batch of masks of a server of one's own.
    pub tau: usize,
    /// Whether a server is believed which model it runs, and that it runs it.
    pub trust_server: bool,
}

impl Default for ModelOptions {
    fn default() -> Self {
        Self {
            detector: BOTH.to_owned(),
            backend: BackendChoice::default(),
            server: None,
            program: None,
            tau: TAU,
            trust_server: false,
        }
    }
}

/// The token classifiers, ready to scan.
pub struct ModelDetector {
    first: Lane,
    second: Second,
    /// Whether the first one knows Latin script only.
    latin: bool,
}

impl ModelDetector {
    /// Opens the model: fetches and splits it if this machine has none, starts or reaches the server. If there is a second
    /// one, it is opened when a text needs it.
    ///
    /// Call it from the thread that will use it: a server of one's own ends with that thread.
    ///
    /// # Errors
    /// What fetching, splitting or connecting can fail with.
    pub fn open(options: &ModelOptions, detect: DetectOptions, progress: &dyn FetchProgress) -> Result<Self> {
        let cache = Cache::from_env().map_err(sotto_protocol::Error::from)?;
        let name = reference(&options.detector, &cache)?;
        // A directory may have any name on the server; its digest is insisted on.
        let builtin = matches!(ModelRef::parse(&name)?, ModelRef::Builtin(_));
        let served = Served::Named(builtin.then(|| name.clone()));
        let first = Lane::open(&name, served, options, detect.clone(), progress)?;
        let second = match options.detector.as_str() {
            BOTH => Second::later(options.clone(), detect),
            _ => Second::None,
        };
        Ok(Self { first, second, latin: name == MODEL })
    }

    /// Has the opening of the second model reported to `progress`.
    #[must_use]
    pub fn reporting(mut self, progress: Box<dyn FetchProgress>) -> Self {
        self.second.report(progress);
        self
    }

    /// Bytes, round trips and milliseconds of the encrypted linear layers of the first model so far; zero in clear.
    pub fn totals(&self) -> Totals {
        self.first.accounting.totals()
    }

    /// The first detector, and the backend to run it on.
    pub fn parts_mut(&mut self) -> (&Detector, &mut dyn LinearBackend) {
        (&self.first.detector, &mut self.first.backend)
    }
}

/// What [`ModelRef::parse`] takes, of the name of a detector; of both detectors, the first.
fn reference(detector: &str, cache: &Cache) -> Result<String> {
    Ok(match detector {
        BOTH => MODEL.to_owned(),
        TRAINED => bundled::unpack(cache)?.to_string_lossy().into_owned(),
        named => named.to_owned(),
    })
}

/// What the second detector reads of each text, if there is one and it is needed.
fn routes(texts: &[&str], second: &mut Second) -> Result<Vec<Option<Route>>> {
    let routes: Vec<Option<Route>> = match second {
        Second::None => vec![None; texts.len()],
        _ => texts.iter().map(|text| route(text)).collect(),
    };
    let needed = routes.iter().any(Option::is_some);
    Ok(if needed && second.opened()?.is_none() { vec![None; texts.len()] } else { routes })
}

/// Reads texts with a first detector, and what it cannot read with the second.
fn detect_now(
    first: (&Detector, &mut dyn LinearBackend),
    second: Option<(&Detector, &mut dyn LinearBackend)>,
    texts: &[&str],
    recognized: &[Vec<Span>],
    routes: &[Option<Route>],
) -> sotto_pii::Result<Detection> {
    let (detector, backend) = first;
    let (mine, others) = parts(texts, routes);
    let mut reading = detector.read(texts, Some(&mine), backend, &mut |_, _| {})?;
    if let Some((other, backend)) = second {
        let more = other.read(texts, Some(&others), backend, &mut |_, _| {})?;
        reading = reading.merge(more, texts, routes);
    }
    Ok(detector.judge(texts, recognized, reading))
}

impl TextDetector for ModelDetector {
    fn detect(&mut self, texts: &[&str], recognized: &[Vec<Span>]) -> sotto_pii::Result<Detection> {
        self.detect_in_turns(texts, recognized, &mut |_| {})
    }

    fn detect_in_turns(
        &mut self,
        texts: &[&str],
        recognized: &[Vec<Span>],
        between: &mut dyn FnMut(&mut DetectNow<'_>),
    ) -> sotto_pii::Result<Detection> {
        let Self { first, second, .. } = self;
        let routes = routes(texts, second)?;
        let (mine, others): (Parts, Parts) = parts(texts, &routes);
        let mut reading = first.read(texts, &mine, &mut |detector, backend| {
            between(&mut |texts, recognized| {
                let routes = self::routes(texts, second)?;
                let needed = routes.iter().any(Option::is_some);
                let lent = if needed { second.opened()?.map(Lane::lent) } else { None };
                detect_now((detector, &mut *backend), lent, texts, recognized, &routes)
            });
        })?;
        if routes.iter().any(Option::is_some)
            && let Some(second) = second.opened()?
        {
            let Lane { detector, backend, .. } = &mut *first;
            let more = second.read(texts, &others, &mut |other, other_backend| {
                between(&mut |texts, recognized| {
                    let routes: Vec<Option<Route>> = texts.iter().map(|text| route(text)).collect();
                    let other_backend: &mut dyn LinearBackend = &mut *other_backend;
                    let second = Some((other, other_backend));
                    detect_now((detector, &mut *backend), second, texts, recognized, &routes)
                });
            })?;
            reading = reading.merge(more, texts, &routes);
            // Not before the pass has ended: when a server is told what it got wrong must not depend on the text.
            second.verdict()?;
        }
        first.verdict()?;
        Ok(first.detector.judge(texts, recognized, reading))
    }

    fn unknown_letters(&mut self, text: &str) -> sotto_pii::Result<usize> {
        if !self.latin {
            return Ok(self.first.detector.unknown_letters(text)?);
        }
        // The first model's vocabulary has letters of other scripts, but it was not trained on words of them.
        if route(text).is_none() {
            return Ok(self.first.detector.unknown_letters(text)?);
        }
        match self.second.opened()? {
            Some(second) => Ok(second.detector.unknown_letters(text)?),
            None => Ok(text.chars().filter(|c| is_foreign(*c)).count()),
        }
    }

    fn health(&self) -> Option<Health> {
        let (first, second) = (self.first.health()?, self.second.health());
        Some(Arc::new(move || first() && second()))
    }
}

//! Reaching a server: handshake, choice of the model, client part, backend.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use fhe_layers::{Client, ClientOptions, Instance};
use models::config::Family;
use models::split::plan::PlanKind;
use models::split::{ClientPart, LoadedClientPart};

use super::accounting::Accounting;
use super::bodies::BodyLink;
use super::catalogue;
use super::connection::Connection;
use super::masks::SlotSource;
use super::target::{Liveness, Target};
use super::trust::{KnownModels, Verdict};
use crate::backend::{RemoteBackend, RemoteBackendOptions, RoundScales};
use crate::connect_string::ConnectString;
use crate::error::{Error, Result};
use crate::fetch::{Cache, FetchProgress};
use crate::protocol::wire::ModelEntry;

/// Int8 products per second to assume of a server when choosing a plan: one core's body half.
const BODY_WEIGHTS_PER_SECOND: f64 = 11e9;

/// A plan with fewer round trips must be this much faster to be preferred over the plain one,
/// whose products are closer to the model's own.
const FUSED_GAIN: f64 = 0.9;

/// Calls to measure the round-trip time with.
const PROBE_CALLS: usize = 5;

/// Which plan to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoundsPreference {
    /// This one.
    Only(PlanKind),
    /// Whichever suits the measured round-trip time.
    Auto,
}

/// A server offers another model than at the last visit.
#[derive(Clone, Debug)]
pub struct ChangedModel {
    /// Name of the model.
    pub name: String,
    /// Digest remembered, hexadecimal.
    pub remembered: String,
    /// Digest offered now, hexadecimal.
    pub offered: String,
}

/// How to connect.
pub struct RemoteOptions {
    /// Where client parts and known digests are kept.
    pub cache: Cache,
    /// Name of the model wanted; any when absent.
    pub model: Option<String>,
    /// Model families that will do; any when empty.
    pub families: Vec<Family>,
    /// Which plan to use.
    pub rounds: RoundsPreference,
    /// A local copy of the client part, if there is one: nothing is downloaded or remembered then.
    pub client_directory: Option<PathBuf>,
    /// Decides whether a changed model is accepted.
    pub accept_change: Box<dyn Fn(&ChangedModel) -> bool + Send>,
    /// Ends a pass when raised.
    pub cancelled: Arc<AtomicBool>,
    /// Longest wait for slots without a sign of progress.
    pub mask_timeout: Duration,
    /// Keep the public polynomials in memory: faster batches for about 100 MB per 100,000 columns.
    pub cache_public: bool,
}

impl RemoteOptions {
    /// Options with defaults: any model, automatic rounds, changed models refused.
    pub fn new(cache: Cache) -> Self {
        Self {
            cache,
            model: None,
            families: Vec::new(),
            rounds: RoundsPreference::Auto,
            client_directory: None,
            accept_change: Box::new(|_| false),
            cancelled: Arc::default(),
            mask_timeout: Duration::from_secs(120),
            cache_public: true,
        }
    }
}

/// A model at a server, ready to run.
pub struct Connected {
    /// Runs the linear layers.
    pub backend: RemoteBackend,
    /// The rest of the model.
    pub part: ClientPart,
    /// Where costs are counted.
    pub accounting: Arc<Accounting>,
    /// Name of the model.
    pub name: String,
    /// The plan in use.
    pub plan: PlanKind,
    /// Round-trip time measured while connecting.
    pub round_trip: Duration,
}

/// What a server answers to [`probe`].
#[derive(Clone, Debug)]
pub struct Probe {
    /// Best of a few round trips.
    pub round_trip: Duration,
    /// Models on offer, as "name (plan)".
    pub models: Vec<String>,
}

/// Reaches the server of a connect string and prepares to run one of its models. Masks are
/// requested at once, in the background.
///
/// # Errors
///
/// What the server refuses or the network prevents; [`Error::Digest`] when the model is not the one
/// that the connect string or memory names.
pub fn connect(
    connect: &ConnectString,
    options: RemoteOptions,
    progress: &dyn FetchProgress,
) -> Result<Connected> {
    connect_alive(connect, options, None, progress)
}

/// As [`connect`], with a way to tell that a server started by this process is gone.
pub(crate) fn connect_alive(
    connect: &ConnectString,
    options: RemoteOptions,
    liveness: Option<Liveness>,
    progress: &dyn FetchProgress,
) -> Result<Connected> {
    let mut target = Target::server(connect, liveness)?;
    let runtime = runtime()?;
    let (entry, round_trip, directory) = runtime.block_on(async {
        let connection = Connection::open(&target).await.map_err(|error| target.explain(error))?;
        target.learn(&connection.hello().await?)?;
        let round_trip = measure(&connection).await?;
        let offers = connection.list_models().await?;
        let entry = choose(&offers, connect.model.as_ref(), &options, round_trip)?;
        target.choose(&entry)?;
        let directory = match &options.client_directory {
            Some(directory) => directory.clone(),
            None => {
                check_digest(connect, &entry, &options)?;
                catalogue::client_part(&connection, &entry, &options.cache, progress).await?
            }
        };
        Ok::<_, Error>((entry, round_trip, directory))
    })?;
    drop(runtime);
    let loaded = load_part(&entry, target.digest(), &directory).inspect_err(|_| {
        if options.client_directory.is_none() {
            // Kept, it would stand in the way of the right one, at whichever server has it.
            std::fs::remove_dir_all(&directory).ok();
        }
    })?;
    assemble(target, &entry, options, round_trip, loaded)
}

/// The client part in `directory`, if it is that of `digest`.
fn load_part(entry: &ModelEntry, digest: &[u8; 32], directory: &Path) -> Result<LoadedClientPart> {
    let loaded = ClientPart::load(directory)?;
    if loaded.digest.0 != *digest {
        return Err(Error::Digest {
            what: format!("client part of {}", entry.name),
            expected: hex::encode(digest),
            got: loaded.digest.to_string(),
        });
    }
    Ok(loaded)
}

fn assemble(
    mut target: Target,
    entry: &ModelEntry,
    options: RemoteOptions,
    round_trip: Duration,
    loaded: LoadedClientPart,
) -> Result<Connected> {
    let instance = instance(&loaded)?;
    target.shape(&instance);
    let part = loaded.part;
    let plan = part.plan.clone();
    let kind = plan.kind;
    let scales = RoundScales::of_plan(&plan, &part.scales)?;
    let accounting = Arc::new(Accounting::default());
    let client = Arc::new(Client::new(Arc::new(instance), ClientOptions { cache_a: options.cache_public }));
    let target = Arc::new(target);
    let source = SlotSource::shared(&target, &client, &accounting)?;
    let link = BodyLink::new(target, Arc::clone(&accounting), Arc::clone(&options.cancelled))?;
    let backend_options = RemoteBackendOptions {
        accounting: Arc::clone(&accounting),
        cancelled: options.cancelled,
        mask_timeout: options.mask_timeout,
    };
    let backend = RemoteBackend::new(plan, scales, source, link, backend_options)?;
    Ok(Connected { backend, part, accounting, name: entry.name.clone(), plan: kind, round_trip })
}

/// The instance of the protocol that a client part belongs to.
///
/// # Errors
///
/// [`Error::Malformed`] for an unknown parameter set, [`Error::FheLayers`] for shapes it does not allow.
pub fn instance(loaded: &LoadedClientPart) -> Result<Instance> {
    crate::split_store::instance(&loaded.part.plan, &loaded.protocol, loaded.digest.0)
}

/// Asks a server what it offers and how far away it is.
///
/// # Errors
///
/// What the server refuses or the network prevents.
pub fn probe(connect: &str) -> Result<Probe> {
    let connect: ConnectString = connect.parse()?;
    let target = Target::server(&connect, None)?;
    runtime()?.block_on(async {
        let connection = Connection::open(&target).await?;
        connection.hello().await?;
        let round_trip = measure(&connection).await?;
        let offers = connection.list_models().await?;
        let models = offers.iter().map(|entry| format!("{} ({})", entry.name, entry.plan)).collect();
        Ok(Probe { round_trip, models })
    })
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::Io { context: "starting the network runtime".to_owned(), source })
}

async fn measure(connection: &Connection) -> Result<Duration> {
    let mut best = Duration::MAX;
    for _ in 0..PROBE_CALLS {
        let start = Instant::now();
        connection.health().await?;
        best = best.min(start.elapsed());
    }
    Ok(best)
}

/// The offer to use: the pinned model, in the wanted plan.
fn choose(
    offers: &[ModelEntry],
    pinned: Option<&[u8; 32]>,
    options: &RemoteOptions,
    round_trip: Duration,
) -> Result<ModelEntry> {
    let pinned = match pinned {
        None => None,
        Some(digest) => Some(
            offers
                .iter()
                .find(|entry| entry.digest == digest[..])
                .ok_or_else(|| Error::UnknownModel { digest: hex::encode(digest) })?,
        ),
    };
    let name = pinned.map(|entry| entry.name.as_str()).or(options.model.as_deref());
    let of_family = |entry: &ModelEntry| {
        let family = entry.architecture.parse::<Family>();
        options.families.is_empty() || family.is_ok_and(|family| options.families.contains(&family))
    };
    let named: Vec<_> = offers
        .iter()
        .filter(|entry| name.is_none_or(|name| entry.name == name) && of_family(entry))
        .collect();
    let wanted = |entry: &&ModelEntry| match options.rounds {
        RoundsPreference::Only(kind) => entry.plan == kind.as_str(),
        RoundsPreference::Auto => true,
    };
    let seconds = |entry: &ModelEntry| {
        let penalty = if entry.plan == PlanKind::Plain.as_str() { FUSED_GAIN } else { 1.0 };
        let body = entry.weight_bytes as f64 / BODY_WEIGHTS_PER_SECOND;
        penalty * (f64::from(entry.rounds) * round_trip.as_secs_f64() + body)
    };
    // A model whose tables are still being prepared is fine: its mask jobs wait on the server.
    let fitting = named.iter().copied().filter(wanted);
    match fitting.min_by(|a, b| seconds(a).total_cmp(&seconds(b))) {
        Some(entry) => Ok(entry.clone()),
        None => Err(Error::Usage(format!(
            "the server offers {}; choose among these with --model and --rounds",
            offers
                .iter()
                .map(|entry| format!("{} ({})", entry.name, entry.plan))
                .collect::<Vec<_>>()
                .join(", ")
        ))),
    }
}

/// Compares the offered digest with the given or remembered one.
fn check_digest(connect: &ConnectString, entry: &ModelEntry, options: &RemoteOptions) -> Result<()> {
    let offered = hex::encode(&entry.digest);
    if connect.model.is_some_and(|digest| digest[..] == entry.digest) {
        return Ok(());
    }
    let server = hex::encode(connect.pin.0);
    let model = format!("{} {} tau {}", entry.name, entry.plan, entry.tau);
    let known = KnownModels::load(&options.cache.known_models())?;
    match known.verdict(&server, &model, &offered) {
        Verdict::Known => Ok(()),
        Verdict::New => known.remember(&server, &model, &offered),
        Verdict::Changed { remembered } => {
            let change = ChangedModel {
                name: entry.name.clone(),
                remembered: remembered.clone(),
                offered: offered.clone(),
            };
            if (options.accept_change)(&change) {
                return known.remember(&server, &model, &offered);
            }
            Err(Error::Digest {
                what: format!(
                    "{} at this server changed since the last visit (--accept-changed-model takes the new one)",
                    entry.name
                ),
                expected: remembered,
                got: offered,
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(name: &str, plan: &str, rounds: u32, weight_bytes: u64, byte: u8) -> ModelEntry {
        ModelEntry {
            name: name.to_owned(),
            digest: vec![byte; 32].into(),
            plan: plan.to_owned(),
            architecture: "llama".to_owned(),
            tau: 64,
            rounds,
            weight_bytes,
            ready: true,
            ..ModelEntry::default()
        }
    }

    fn offers() -> Vec<ModelEntry> {
        vec![offer("a", "plain", 120, 106 << 20, 1), offer("a", "fused", 61, 201 << 20, 2)]
    }

    fn options(rounds: RoundsPreference) -> RemoteOptions {
        RemoteOptions { rounds, ..RemoteOptions::new(Cache::at("/nonexistent")) }
    }

    #[test]
    fn the_plan_follows_the_round_trip_time() {
        let auto = options(RoundsPreference::Auto);
        let plan = |ms| choose(&offers(), None, &auto, Duration::from_micros(ms)).unwrap().plan;
        assert_eq!(plan(50), "plain");
        assert_eq!(plan(20_000), "fused");
        let only = options(RoundsPreference::Only(PlanKind::Plain));
        assert_eq!(choose(&offers(), None, &only, Duration::from_secs(1)).unwrap().plan, "plain");
    }

    #[test]
    fn a_pinned_or_named_model_must_be_there() {
        let auto = options(RoundsPreference::Auto);
        let missing = choose(&offers(), Some(&[9; 32]), &auto, Duration::ZERO);
        assert!(matches!(missing, Err(Error::UnknownModel { .. })));
        let encoder = RemoteOptions { families: vec![Family::Bert], ..options(RoundsPreference::Auto) };
        assert!(matches!(choose(&offers(), None, &encoder, Duration::ZERO), Err(Error::Usage(_))));
        let other = RemoteOptions { model: Some("b".to_owned()), ..auto };
        assert!(matches!(choose(&offers(), None, &other, Duration::ZERO), Err(Error::Usage(_))));
    }
}

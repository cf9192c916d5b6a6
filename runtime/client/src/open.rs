//! Reaching a server: handshake, choice of the model, client part, backend.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use fhe_layers::{Client, ClientOptions, Instance, Set};
use sotto_models::families::{FamilyId, ModelKind};
use sotto_models::split::plan::PlanKind;
use sotto_models::split::{ClientPart, LinearPart, LoadedClientPart, ProtocolBinding};

use super::accounting::Accounting;
use super::bodies::BodyLink;
use super::catalogue;
use super::connection::Connection;
use super::masks::SlotSource;
use super::published::{self, Published};
use super::session_cache::SessionCache;
use super::target::{Liveness, Target};
use super::trust::{KnownModels, Verdict};
use crate::WirePreference;
use crate::remote::{RemoteBackend, RemoteBackendOptions};
use crate::scales::RoundScales;
use sotto_protocol::binding::SetPreference;
use sotto_protocol::connect_string::ConnectString;
use sotto_protocol::error::{Error, Result};
use sotto_protocol::wire::ModelEntry;
use sotto_storage::{Cache, FetchProgress};

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

/// A known server offers a model that it did not have at earlier visits.
#[derive(Clone, Debug)]
pub struct ChangedModel {
    /// Name of the model.
    pub name: String,
    /// Digests remembered of this server, hexadecimal, with the names that it gave them.
    pub remembered: Vec<(String, String)>,
    /// Digest offered now, hexadecimal.
    pub offered: String,
}

/// How to connect.
pub struct RemoteOptions {
    /// Where client parts and known digests are kept.
    pub cache: Cache,
    /// Name of the model wanted; any when absent.
    pub model: Option<String>,
    /// Digests that will do; any when empty. A digest in the connect string replaces them.
    pub pins: Vec<[u8; 32]>,
    /// What the model must do; any model when absent.
    pub kind: Option<ModelKind>,
    /// Which plan to use.
    pub rounds: RoundsPreference,
    /// A local copy of the client part, if there is one: nothing is downloaded or remembered then.
    pub client_directory: Option<PathBuf>,
    /// Decides whether a model that a known server did not have before is accepted.
    pub accept_change: Box<dyn Fn(&ChangedModel) -> bool + Send>,
    /// Ends a pass when raised.
    pub cancelled: Arc<AtomicBool>,
    /// Longest wait for slots without a sign of progress.
    pub mask_timeout: Duration,
    /// Keep the public polynomials in memory: faster batches for about 100 MB per 100,000 columns.
    pub cache_public: bool,
    /// Which wire form to use.
    pub wire: WirePreference,
    /// Which parameter set to use, of those that the server offers the model in.
    pub set: SetPreference,
    /// Replies will be checked ([`RemoteBackend::check_weights`]): a form that cannot be checked is refused.
    pub check_weights: bool,
}

impl RemoteOptions {
    /// Options with defaults: any model, automatic rounds, changed models refused.
    pub fn new(cache: Cache) -> Self {
        Self {
            cache,
            model: None,
            pins: Vec::new(),
            kind: None,
            rounds: RoundsPreference::Auto,
            client_directory: None,
            accept_change: Box::new(|_| false),
            cancelled: Arc::default(),
            mask_timeout: Duration::from_secs(120),
            cache_public: true,
            wire: WirePreference::Auto,
            set: SetPreference::Auto,
            check_weights: false,
        }
    }
}

/// A model at a server, ready to run: a language model unless `P` says otherwise.
pub struct Connected<P = ClientPart> {
    /// Runs the linear layers.
    pub backend: RemoteBackend,
    /// The rest of the model.
    pub part: P,
    /// Where costs are counted.
    pub accounting: Arc<Accounting>,
    /// Name of the model.
    pub name: String,
    /// The plan in use.
    pub plan: PlanKind,
    /// Tokens per batch and parameter set.
    pub protocol: ProtocolBinding,
    /// Round-trip time measured while connecting.
    pub round_trip: Duration,
    /// The digest of the model.
    pub digest: [u8; 32],
    /// The published split that this is; `None` for one that only its server vouches for.
    pub published: Option<&'static Published>,
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
pub fn connect<P: LinearPart>(
    connect: &ConnectString,
    options: RemoteOptions,
    progress: &dyn FetchProgress,
) -> Result<Connected<P>> {
    connect_alive(connect, options, None, progress)
}

/// As [`connect`], with a way to tell that a server started by this process is gone.
pub fn connect_alive<P: LinearPart>(
    connect: &ConnectString,
    options: RemoteOptions,
    liveness: Option<Liveness>,
    progress: &dyn FetchProgress,
) -> Result<Connected<P>> {
    let mut target = Target::server(connect, liveness)?;
    let runtime = runtime()?;
    let (entry, round_trip, directory) = runtime.block_on(async {
        let connection = Connection::open(&target).await.map_err(|error| target.explain(error))?;
        target.learn(&connection.hello().await?)?;
        let round_trip = measure(&connection).await?;
        let offers = connection.list_models().await?;
        let pins = match &connect.model {
            Some(digest) => std::slice::from_ref(digest),
            None => options.pins.as_slice(),
        };
        let entry = choose(&offers, pins, &options, round_trip)?;
        target.choose(&entry)?;
        let directory = match &options.client_directory {
            Some(directory) => directory.clone(),
            None => {
                if pins.is_empty() {
                    check_digest(connect, &offers, &entry, &options)?;
                }
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
    check_listing(&entry, &loaded)?;
    assemble(target, &entry, options, round_trip, loaded, progress)
}

/// Compares what the server listed with the manifest that the digest names. The listing chose the model and was shown
/// to the user, so one that differs is a lie.
fn check_listing<P: LinearPart>(entry: &ModelEntry, loaded: &LoadedClientPart<P>) -> Result<()> {
    let differs = |field: &'static str, expected: String, got: &dyn std::fmt::Display| Error::Malformed {
        field,
        expected: format!("{expected}, as in the manifest of {}", loaded.digest),
        got: got.to_string(),
    };
    let (name, plan, tau) = (loaded.part.name(), loaded.part.plan().kind.as_str(), loaded.protocol.tau);
    let set = &loaded.protocol.params_id;
    if entry.name != name {
        return Err(differs("name of the listed model", name.to_owned(), &entry.name));
    }
    if entry.plan != plan {
        return Err(differs("plan of the listed model", plan.to_owned(), &entry.plan));
    }
    if entry.tau as usize != tau {
        return Err(differs("tau of the listed model", tau.to_string(), &entry.tau));
    }
    if entry.params_id != *set {
        return Err(differs("parameter set of the listed model", set.clone(), &entry.params_id));
    }
    Ok(())
}

/// The client part in `directory`, if it is that of `digest`.
fn load_part<P: LinearPart>(
    entry: &ModelEntry,
    digest: &[u8; 32],
    directory: &Path,
) -> Result<LoadedClientPart<P>> {
    let loaded = P::load(directory)?;
    if loaded.digest.0 != *digest {
        return Err(Error::Digest {
            what: format!("client part of {}", entry.name),
            expected: hex::encode(digest),
            got: loaded.digest.to_string(),
        });
    }
    Ok(loaded)
}

fn assemble<P: LinearPart>(
    mut target: Target,
    entry: &ModelEntry,
    options: RemoteOptions,
    round_trip: Duration,
    loaded: LoadedClientPart<P>,
    progress: &dyn FetchProgress,
) -> Result<Connected<P>> {
    let instance = instance(&loaded)?;
    let one_process = target.is_one_process();
    let form = options.wire.choose(&entry.forms, instance.params(), one_process, options.check_weights)?;
    target.shape(&instance);
    let (part, protocol) = (loaded.part, loaded.protocol);
    let plan = part.plan().clone();
    let kind = plan.kind;
    let scales = RoundScales::of_plan(&plan, part.scales())?;
    let accounting = Arc::new(Accounting::default());
    let client = Arc::new(Client::new(Arc::new(instance), ClientOptions { cache_a: options.cache_public }));
    let target = Arc::new(target);
    // A server that ends with this process has no use for a cache, and its masks come over loopback.
    let cache = (!target.ends_with_us()).then(|| SessionCache::new(&options.cache, &target, form));
    let source = SlotSource::shared(&target, &client, &accounting, form, cache)?;
    if form.widths().is_some() && !target.ends_with_us() {
        source.wait_session(options.mask_timeout, progress);
    }
    let link = BodyLink::new(target, form, Arc::clone(&accounting), Arc::clone(&options.cancelled))?;
    let backend_options = RemoteBackendOptions {
        accounting: Arc::clone(&accounting),
        cancelled: options.cancelled,
        mask_timeout: options.mask_timeout,
    };
    let backend = RemoteBackend::new(plan, scales, source, link, backend_options)?;
    let digest = loaded.digest.0;
    let published = published::find(&digest);
    let name = entry.name.clone();
    Ok(Connected { backend, part, accounting, name, plan: kind, protocol, round_trip, digest, published })
}

/// The instance of the protocol that a client part belongs to.
///
/// # Errors
///
/// [`Error::Malformed`] for an unknown parameter set, [`Error::FheLayers`] for shapes it does not allow.
pub fn instance<P: LinearPart>(loaded: &LoadedClientPart<P>) -> Result<Instance> {
    sotto_protocol::binding::instance(loaded.part.plan(), &loaded.protocol, loaded.digest.0)
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

/// The offer to use: of the digests in `pins` if there are any, in the wanted plan.
fn choose(
    offers: &[ModelEntry],
    pins: &[[u8; 32]],
    options: &RemoteOptions,
    round_trip: Duration,
) -> Result<ModelEntry> {
    let pinned = |entry: &ModelEntry| pins.is_empty() || pins.iter().any(|pin| entry.digest == pin[..]);
    if let [pin, ..] = pins
        && !offers.iter().any(pinned)
    {
        return Err(Error::UnknownModel { digest: hex::encode(pin) });
    }
    let of_family = |entry: &ModelEntry| {
        let family = entry.architecture.parse::<FamilyId>();
        options.kind.is_none_or(|kind| family.is_ok_and(|family| family.kind() == kind))
    };
    let name = options.model.as_deref();
    let named: Vec<_> = offers
        .iter()
        .filter(|entry| pinned(entry) && name.is_none_or(|name| entry.name == name) && of_family(entry))
        .collect();
    let in_set = |entry: &ModelEntry| match options.set {
        SetPreference::Only(set) => Set::of_id(&entry.params_id, entry.tau as usize) == Some(set),
        SetPreference::Auto => true,
    };
    let wanted = |entry: &&ModelEntry| match options.rounds {
        RoundsPreference::Only(kind) => entry.plan == kind.as_str() && in_set(entry),
        RoundsPreference::Auto => in_set(entry),
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
            "the server offers {}; choose among these with --model, --rounds and --set",
            offers
                .iter()
                .map(|entry| format!("{} ({}, {})", entry.name, entry.plan, entry.params_id))
                .collect::<Vec<_>>()
                .join(", ")
        ))),
    }
}

/// Compares the offered digest with those remembered of this server's certificate. At the first visit everything on
/// offer is remembered; at later ones the user is asked about a digest that was not among it.
fn check_digest(
    connect: &ConnectString,
    offers: &[ModelEntry],
    entry: &ModelEntry,
    options: &RemoteOptions,
) -> Result<()> {
    let server = hex::encode(connect.pin.0);
    let offered = hex::encode(&entry.digest);
    let label = |entry: &ModelEntry| format!("{} {} tau {}", entry.name, entry.plan, entry.tau);
    let known = KnownModels::load(&options.cache.known_models())?;
    let remembered = match known.verdict(&server, &offered) {
        Verdict::Known => return Ok(()),
        Verdict::New => {
            let models: Vec<_> =
                offers.iter().map(|entry| (hex::encode(&entry.digest), label(entry))).collect();
            return known.remember(&server, &models);
        }
        Verdict::Unseen { remembered } => remembered,
    };
    let change = ChangedModel { name: entry.name.clone(), remembered, offered: offered.clone() };
    if (options.accept_change)(&change) {
        return known.remember(&server, &[(offered, label(entry))]);
    }
    let expected = change.remembered.iter().map(|(digest, _)| digest.as_str()).collect::<Vec<_>>();
    Err(Error::Digest {
        what: format!(
            "{} was not at this server at earlier visits (--accept-changed-model takes it)",
            entry.name
        ),
        expected: expected.join(" or "),
        got: offered,
    })
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
        let plan = |ms| choose(&offers(), &[], &auto, Duration::from_micros(ms)).unwrap().plan;
        assert_eq!(plan(50), "plain");
        assert_eq!(plan(20_000), "fused");
        let only = options(RoundsPreference::Only(PlanKind::Plain));
        assert_eq!(choose(&offers(), &[], &only, Duration::from_secs(1)).unwrap().plan, "plain");
    }

    #[test]
    fn a_set_can_be_insisted_on() {
        let of = |set: &str, byte| ModelEntry {
            params_id: format!("{set}-tau64"),
            ..offer("a", "plain", 120, 106 << 20, byte)
        };
        let offers = [of("n2048-q50-t4-l1", 1), of("n2048-q50-t5", 2)];
        let chosen = |set| {
            let options = RemoteOptions { set, ..options(RoundsPreference::Auto) };
            choose(&offers, &[], &options, Duration::ZERO).map(|entry| entry.digest[0])
        };
        assert_eq!(chosen(SetPreference::Auto).ok(), Some(1), "the server's first");
        assert_eq!(chosen(SetPreference::Only(Set::Light)).ok(), Some(1));
        assert_eq!(chosen(SetPreference::Only(Set::Default)).ok(), Some(2));
        let only = RemoteOptions {
            set: SetPreference::Only(Set::Default),
            ..options(RoundsPreference::Only(PlanKind::Plain))
        };
        let refused = choose(&offers[..1], &[], &only, Duration::ZERO).unwrap_err().to_string();
        assert!(refused.contains("n2048-q50-t4-l1") && refused.contains("--set"), "{refused}");
    }

    #[test]
    fn a_pinned_or_named_model_must_be_there() {
        let auto = options(RoundsPreference::Auto);
        let missing = choose(&offers(), &[[9; 32]], &auto, Duration::ZERO);
        assert!(matches!(missing, Err(Error::UnknownModel { .. })));
        let encoder = RemoteOptions { kind: Some(ModelKind::Encoder), ..options(RoundsPreference::Auto) };
        assert!(matches!(choose(&offers(), &[], &encoder, Duration::ZERO), Err(Error::Usage(_))));
        let other = RemoteOptions { model: Some("b".to_owned()), ..auto };
        assert!(matches!(choose(&offers(), &[], &other, Duration::ZERO), Err(Error::Usage(_))));
    }
    #[test]
    fn a_pin_is_insisted_on() {
        // The server lists a cheaper model of the same name next to the pinned one.
        let mut offers = offers();
        offers.push(offer("a", "plain", 1, 1, 3));
        for (pin, rtt_us) in [(1, 20_000), (2, 50), (1, 0)] {
            for rounds in [RoundsPreference::Auto, RoundsPreference::Only(PlanKind::Plain)] {
                let chosen = choose(&offers, &[[pin; 32]], &options(rounds), Duration::from_micros(rtt_us));
                match chosen {
                    Ok(entry) => assert_eq!(entry.digest[..], [pin; 32]),
                    Err(error) => assert!(pin == 2 && rounds != RoundsPreference::Auto, "{error}"),
                }
            }
        }
        let encoder = RemoteOptions { kind: Some(ModelKind::Encoder), ..options(RoundsPreference::Auto) };
        assert!(choose(&offers, &[[1; 32]], &encoder, Duration::ZERO).is_err());
    }

    fn memory(offers: &[ModelEntry], chosen: usize, options: &RemoteOptions) -> Result<()> {
        let text = format!("sotto://127.0.0.1:1/?pin={}", "ab".repeat(32));
        let connect: ConnectString = text.parse()?;
        check_digest(&connect, offers, &offers[chosen], options)
    }

    #[test]
    fn another_name_does_not_make_an_unseen_model_of_a_known_server_new() {
        let root = tempfile::tempdir().unwrap();
        let strict = RemoteOptions::new(Cache::at(root.path()));
        memory(&offers(), 0, &strict).unwrap();
        memory(&offers(), 1, &strict).unwrap();
        for name in ["a", "b", "a "] {
            let renamed = [offer(name, "plain", 120, 1, 7)];
            assert!(matches!(memory(&renamed, 0, &strict), Err(Error::Digest { .. })), "{name:?}");
            let retaken = [ModelEntry { tau: 128, ..renamed[0].clone() }];
            assert!(matches!(memory(&retaken, 0, &strict), Err(Error::Digest { .. })), "{name:?}");
        }
        let asked = RemoteOptions {
            accept_change: Box::new(|change| change.remembered.len() == 2),
            ..RemoteOptions::new(Cache::at(root.path()))
        };
        memory(&[offer("b", "plain", 120, 1, 7)], 0, &asked).unwrap();
        memory(&[offer("c", "plain", 120, 1, 7)], 0, &strict).unwrap();
    }
}

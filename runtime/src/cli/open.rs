//! From arguments to a session: own server or somebody else's, encrypted or a reference.

use std::io::{BufRead, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use models::bert::Bert;
use models::config::Family;
use models::layers::head::HeadPrecision;
use models::linear::dense::DenseBackend;
use models::source::ModelSource;
use models::split::plan::PlanKind;
use models::split::{ClientPart, ServerPart};
use models::tokenizer::Tokenizer;

use super::args::{BackendChoice, RoundsChoice, ServerArgs};
use crate::audit::{CheckTally, WeightCheck};
use crate::backend::{Backend, BackendKind, Int8Backend, SimulatedBackend};
use crate::client::accounting::Accounting;
use crate::client::{ChangedModel, Connected, RemoteOptions, RoundsPreference};
use crate::connect_string::ConnectString;
use crate::embedded::{Embedded, EmbeddedOptions, LocalModel, local_model};
use crate::error::{Error, Result};
use crate::fetch::{Cache, FetchProgress, ModelRef};
use crate::session::Session;

/// A session and, when there is one, the server that belongs to it.
pub struct Opened {
    /// The conversation.
    pub session: Session,
    /// Name of the model.
    pub name: String,
    /// One line about model and server.
    pub description: String,
    /// The server started by this process; dropped behind the session.
    embedded: Option<Embedded>,
    /// The vectors that replies are checked with, for a server that is started again.
    check: Option<Arc<WeightCheck>>,
}

impl Opened {
    /// Starts an embedded server again when it has ended; the conversation goes on.
    ///
    /// # Errors
    ///
    /// What starting it can fail with.
    pub fn revive(&mut self) -> Result<()> {
        if let Some(embedded) = &mut self.embedded
            && let Some(mut connected) = embedded.revive()?
        {
            if let Some(check) = &self.check {
                connected.backend.check_weights(Arc::clone(check))?;
            }
            let backend = Backend::new(BackendKind::Remote(Box::new(connected.backend)));
            self.session.replace_backend(backend, connected.accounting);
        }
        Ok(())
    }

    /// What was checked so far against the pinned weights; `None` without `--check-weights`. It depends on decrypted
    /// values: show it to the local user when the traffic of a turn has ended, and to nobody else.
    pub fn check_tally(&self) -> Option<CheckTally> {
        match self.session.backend().kind() {
            BackendKind::Remote(remote) => remote.check_tally(),
            _ => None,
        }
    }
}

/// Opens what the arguments describe. Raising `cancelled` ends a pass at its next round.
///
/// # Errors
///
/// Anything from an unknown model to a server that refuses; each error says what to do.
pub fn open(args: &ServerArgs, progress: &dyn FetchProgress, cancelled: Arc<AtomicBool>) -> Result<Opened> {
    let cache = Cache::from_env()?;
    match (&args.server, args.backend) {
        (_, choice) if args.check_weights && choice != BackendChoice::Remote => {
            Err(Error::Usage("--check-weights checks a server; leave out --backend".to_owned()))
        }
        (Some(server), BackendChoice::Remote) => remote(server, args, cache, progress, cancelled),
        (Some(_), _) => Err(Error::Usage(
            "the reference backends run on this machine; leave out --server or --backend".to_owned(),
        )),
        (None, BackendChoice::Remote) => embedded(args, cache, progress, cancelled),
        (None, _) => reference(args, &cache, progress),
    }
}

fn remote(
    server: &str,
    args: &ServerArgs,
    cache: Cache,
    progress: &dyn FetchProgress,
    cancelled: Arc<AtomicBool>,
) -> Result<Opened> {
    let connect: ConnectString = server.parse()?;
    let accept = args.accept_changed_model;
    let options = RemoteOptions {
        families: vec![Family::Llama, Family::Qwen2, Family::Qwen3, Family::Gpt2],
        rounds: preference(args.rounds),
        accept_change: Box::new(move |change| accept || ask(change)),
        cancelled,
        mask_timeout: args.mask_timeout_s,
        ..RemoteOptions::new(cache.clone())
    };
    let mut connected = crate::client::connect(&connect, options, progress)?;
    let check = check_own_copy(args, &args.model, &cache, &mut connected, progress)?;
    let description = format!(
        "{} ({} rounds) on {}, {:.1} ms away",
        connected.name,
        connected.plan,
        connect.address,
        connected.round_trip.as_secs_f64() * 1e3
    );
    let name = connected.name.clone();
    Ok(Opened { session: session(connected)?, name, description, embedded: None, check })
}

fn embedded(
    args: &ServerArgs,
    cache: Cache,
    progress: &dyn FetchProgress,
    cancelled: Arc<AtomicBool>,
) -> Result<Opened> {
    let local = local(args, &cache, progress)?;
    let options =
        EmbeddedOptions { cancelled, mask_timeout: args.mask_timeout_s, ..EmbeddedOptions::new(cache) };
    let (embedded, mut connected) = Embedded::start(&local, options, progress)?;
    let check = check_split(args, &local, &mut connected, progress)?;
    let description = format!("{} ({} rounds) on this machine, encrypted", local.name, local.plan);
    let (session, name) = (session(connected)?, local.name);
    Ok(Opened { session, name, description, embedded: Some(embedded), check })
}

fn reference(args: &ServerArgs, cache: &Cache, progress: &dyn FetchProgress) -> Result<Opened> {
    let local = local(args, cache, progress)?;
    let loaded = ClientPart::load(local.client_directory())?;
    let part = &loaded.part;
    let backend = match args.backend {
        BackendChoice::Dense => {
            let source = ModelSource::open(&local.source)?;
            let family = source.config.split_family();
            let dense = DenseBackend::from_source(family, &*source.weights, family.plan(local.plan)?)?;
            BackendKind::Dense(Box::new(dense))
        }
        BackendChoice::Simulated => {
            let instance = Arc::new(crate::client::instance(&loaded)?);
            let server = ServerPart::open(local.server_directory())?;
            BackendKind::Simulated(Box::new(SimulatedBackend::new(instance, &server, &part.scales)?))
        }
        BackendChoice::Int8 | BackendChoice::Remote => {
            let server = ServerPart::open(local.server_directory())?;
            BackendKind::Int8(Box::new(Int8Backend::new(&server, &part.scales)?))
        }
    };
    let model = part.causal_model(HeadPrecision::default())?;
    let template = part.chat_template.as_ref().map(|_| part.template()).transpose()?;
    let accounting = Arc::new(Accounting::default());
    let session = Session::new(model, Backend::new(backend), part.tokenizer.clone(), template, accounting);
    let description = format!("{} on this machine, in clear ({:?} reference)", local.name, args.backend);
    Ok(Opened { session, name: local.name, description, embedded: None, check: None })
}

/// A sentence encoder with its backend.
pub struct OpenedEncoder {
    /// The encoder.
    pub encoder: Bert,
    /// Where its linear layers run.
    pub backend: Backend,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// Name of the model.
    pub name: String,
    /// The server started by this process; dropped behind the backend.
    _embedded: Option<Embedded>,
}

/// Opens the encoder `model` on this machine, or a sentence encoder of the server that the arguments name.
///
/// # Errors
///
/// As [`open`].
pub fn open_encoder(args: &ServerArgs, model: &str, progress: &dyn FetchProgress) -> Result<OpenedEncoder> {
    let cache = Cache::from_env()?;
    let accept = args.accept_changed_model;
    let (connected, embedded) = match &args.server {
        Some(server) => {
            // The digest in the string names the chat model; the encoder is checked against memory.
            let connect = ConnectString { model: None, ..server.parse()? };
            let options = RemoteOptions {
                families: vec![Family::Bert],
                rounds: preference(args.rounds),
                accept_change: Box::new(move |_| accept),
                mask_timeout: args.mask_timeout_s,
                ..RemoteOptions::new(cache.clone())
            };
            let mut connected = crate::client::connect(&connect, options, progress)?;
            check_own_copy(args, model, &cache, &mut connected, progress)?;
            (connected, None)
        }
        None => {
            let args = ServerArgs { model: model.to_owned(), ..args.clone() };
            let local = local(&args, &cache, progress)?;
            let options =
                EmbeddedOptions { mask_timeout: args.mask_timeout_s, ..EmbeddedOptions::new(cache) };
            let (embedded, mut connected) = Embedded::start(&local, options, progress)?;
            check_split(&args, &local, &mut connected, progress)?;
            (connected, Some(embedded))
        }
    };
    Ok(OpenedEncoder {
        encoder: connected.part.encoder()?,
        backend: Backend::new(BackendKind::Remote(Box::new(connected.backend))),
        tokenizer: connected.part.tokenizer,
        name: connected.name,
        _embedded: embedded,
    })
}

/// With `--check-weights`, checks a server against this machine's own copy of `model`, split here when it is not yet.
fn check_own_copy(
    args: &ServerArgs,
    model: &str,
    cache: &Cache,
    connected: &mut Connected,
    progress: &dyn FetchProgress,
) -> Result<Option<Arc<WeightCheck>>> {
    if !args.check_weights {
        return Ok(None);
    }
    let binding = crate::split_store::binding(connected.backend.tau())?;
    let local = local_model(&ModelRef::parse(model)?, connected.plan, &binding, cache, progress)?;
    check_split(args, &local, connected, progress)
}

/// With `--check-weights`, checks a server against the server part of `local`.
fn check_split(
    args: &ServerArgs,
    local: &LocalModel,
    connected: &mut Connected,
    progress: &dyn FetchProgress,
) -> Result<Option<Arc<WeightCheck>>> {
    if !args.check_weights {
        return Ok(None);
    }
    progress.begin("drawing test vectors", None, false);
    let check = Arc::new(WeightCheck::of_split(&local.server_directory())?);
    progress.end();
    connected.backend.check_weights(Arc::clone(&check))?;
    Ok(Some(check))
}

fn session(connected: Connected) -> Result<Session> {
    let Connected { backend, part, accounting, .. } = connected;
    let model = part.causal_model(HeadPrecision::default())?;
    let template = part.chat_template.as_ref().map(|_| part.template()).transpose()?;
    let backend = Backend::new(BackendKind::Remote(Box::new(backend)));
    Ok(Session::new(model, backend, part.tokenizer, template, accounting))
}

/// The model and split on this machine that the arguments name.
///
/// # Errors
///
/// What fetching or splitting can fail with.
pub fn local(args: &ServerArgs, cache: &Cache, progress: &dyn FetchProgress) -> Result<LocalModel> {
    let model = ModelRef::parse(&args.model)?;
    // On loopback a round trip costs little, and the plain plan's products are the closer ones.
    let plan = match args.rounds {
        RoundsChoice::Fused => PlanKind::Fused,
        RoundsChoice::Plain | RoundsChoice::Auto => PlanKind::Plain,
    };
    let binding = crate::split_store::binding(args.tau)?;
    local_model(&model, plan, &binding, cache, progress)
}

fn preference(rounds: RoundsChoice) -> RoundsPreference {
    match rounds {
        RoundsChoice::Plain => RoundsPreference::Only(PlanKind::Plain),
        RoundsChoice::Fused => RoundsPreference::Only(PlanKind::Fused),
        RoundsChoice::Auto => RoundsPreference::Auto,
    }
}

/// Asks the person whether a changed model is fine; no terminal means no.
fn ask(change: &ChangedModel) -> bool {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return false;
    }
    eprint!(
        "The server offers another {} than at the last visit.\n  then {}\n  now  {}\nUse it? [y/N] ",
        change.name, change.remembered, change.offered
    );
    let _ = std::io::stderr().flush();
    let mut line = String::new();
    stdin.lock().read_line(&mut line).is_ok() && matches!(line.trim(), "y" | "Y" | "yes")
}

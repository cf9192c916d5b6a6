//! The one door to a model: from a [`ModelRef`] and a [`BackendSpec`] to something that runs.
//!
//! [`Model::open`] fetches and splits what is missing, starts or reaches the server and loads the client part. A program that
//! classifies takes [`Model`] as it is; one that chats calls [`Model::into_chat`].
//!
//! # Example
//! ```no_run
//! use sotto_engine::fetch::ModelRef;
//! use sotto_engine::open::{BackendSpec, Model, OpenOptions};
//! use sotto_storage::{Cache, NoProgress};
//!
//! let options = OpenOptions::new(Cache::from_env()?);
//! let model = Model::open(&ModelRef::parse("smollm2-135m")?, BackendSpec::Embedded, options, &NoProgress)?;
//! println!("{}", model.description());
//! # Ok::<(), sotto_protocol::Error>(())
//! ```

use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use sotto_client::accounting::{Accounting, Totals};
use sotto_client::{
    ChangedModel, CheckTally, Connected, RemoteOptions, RoundsPreference, WeightCheck, WirePreference,
};
use sotto_models::families::ModelKind;
use sotto_models::linear::LinearBackend;
use sotto_models::linear::dense::DenseBackend;
use sotto_models::local_ops::head::HeadPrecision;
use sotto_models::source::ModelSource;
use sotto_models::split::plan::PlanKind;
use sotto_models::split::{ClientPart, ServerPart};
use sotto_protocol::binding::SetPreference;
use sotto_protocol::connect_string::ConnectString;
use sotto_protocol::error::{Error, Result};
use sotto_storage::{Cache, FetchProgress, NoProgress};

use crate::backend::{Backend, BackendKind, Int8Backend, SimulatedBackend};
use crate::embedded::{Embedded, EmbeddedOptions, LocalModel, Route, local_model, local_model_in};
use crate::fetch::ModelRef;
use crate::origin;
use crate::session::{Conversations, DraftLength, DraftModel, Padding, Session};

/// Which arithmetic carries the linear layers, as the user names it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum BackendChoice {
    /// Encrypted, on a server
    #[default]
    Remote,
    /// In clear on this machine, with the server's int8 weights (a reference)
    Int8,
    /// In clear on this machine, with the original weights in f32 (a reference)
    Dense,
    /// In clear on this machine, with the noise of the encrypted path added (a reference)
    Simulated,
}

/// Where and how the linear layers run.
#[derive(Clone, Debug)]
pub enum BackendSpec {
    /// Encrypted, on the server that a connect string names.
    Remote(Box<ConnectString>),
    /// Encrypted, on a server that this process starts on loopback.
    Embedded,
    /// In clear, here: int8 weights and 16-bit activations.
    Int8,
    /// In clear, here: f32.
    Dense,
    /// In clear, here: int8 weights plus the noise of the encrypted path.
    Simulated,
}

impl BackendSpec {
    /// Combines a choice with the server's connect string; without one, `Remote` means a server of this process.
    ///
    /// # Errors
    /// [`Error::Usage`] for a reference backend with a server; [`Error::ConnectString`] for a malformed string.
    pub fn new(choice: BackendChoice, server: Option<&str>) -> Result<Self> {
        match (choice, server) {
            (BackendChoice::Remote, Some(server)) => Ok(Self::Remote(Box::new(server.parse()?))),
            (BackendChoice::Remote, None) => Ok(Self::Embedded),
            (_, Some(_)) => Err(Error::Usage(
                "the reference backends run on this machine; leave out --server or --backend".to_owned(),
            )),
            (BackendChoice::Int8, None) => Ok(Self::Int8),
            (BackendChoice::Dense, None) => Ok(Self::Dense),
            (BackendChoice::Simulated, None) => Ok(Self::Simulated),
        }
    }

    /// Whether a server computes the linear layers.
    pub fn is_remote(&self) -> bool {
        matches!(self, Self::Remote(_) | Self::Embedded)
    }

    fn as_str(&self) -> &'static str {
        match self {
            Self::Remote(_) | Self::Embedded => "remote",
            Self::Int8 => "int8",
            Self::Dense => "dense",
            Self::Simulated => "simulated",
        }
    }
}

/// How to open a model; [`OpenOptions::new`] gives what most programs want.
pub struct OpenOptions {
    /// Where models, splits and client parts are kept.
    pub cache: Cache,
    /// Families that will do at a server; any if empty.
    pub kind: Option<ModelKind>,
    /// Whether a server must offer the model under its own name. If not, any model of this `kind` will do.
    pub by_name: bool,
    /// Grouping of the round trips. `Auto` follows the measured round-trip time and means plain on this machine.
    pub rounds: RoundsPreference,
    /// Tokens per batch of masks, for a split made here.
    pub tau: usize,
    /// Parameter set: for a split made here, or of the models that a server offers.
    pub set: SetPreference,
    /// Further arguments of the embedded server's `serve`, such as its form of tables and its threads.
    pub serve_arguments: Vec<OsString>,
    /// Hears, when an embedded server ends, how far it is with saving the tables that it prepared.
    pub saving: Arc<dyn FetchProgress>,
    /// Program whose `serve` subcommand is the embedded server; the running one if absent.
    pub program: Option<PathBuf>,
    /// Another way to the embedded server's address, such as a proxy that emulates a link.
    pub route: Option<Route>,
    /// Decides whether a server's changed model is accepted.
    pub accept_change: Box<dyn Fn(&ChangedModel) -> bool + Send>,
    /// Ends a pass at its next round when raised.
    pub cancelled: Arc<AtomicBool>,
    /// Longest wait for masks without a sign of progress.
    pub mask_timeout: Duration,
    /// Check every reply against this machine's own copy of the model.
    pub check_weights: bool,
    /// Wire form; also whose noise a simulated backend has.
    pub wire: WirePreference,
    /// Digests that will do at a server; any if empty. A digest in the connect string replaces them.
    pub pins: Vec<[u8; 32]>,
    /// Round the tokens of prompts up to a multiple of this at a server. If absent, only where the client part is not a
    /// published one.
    pub pad_prompt: Option<usize>,
    /// Round the passes of answers up to a multiple of this at a server; as `pad_prompt`.
    pub pad_answer: Option<usize>,
}

impl OpenOptions {
    /// Any model of any family, plain or automatic rounds, 64 tokens per batch, changed models refused, nothing checked.
    pub fn new(cache: Cache) -> Self {
        Self {
            cache,
            kind: None,
            by_name: false,
            rounds: RoundsPreference::Auto,
            tau: 64,
            set: SetPreference::Auto,
            serve_arguments: Vec::new(),
            saving: Arc::new(NoProgress),
            program: None,
            route: None,
            accept_change: Box::new(|_| false),
            cancelled: Arc::default(),
            mask_timeout: Duration::from_secs(120),
            check_weights: false,
            wire: WirePreference::Auto,
            pins: Vec::new(),
            pad_prompt: None,
            pad_answer: None,
        }
    }

    /// The model and its split on this machine, made if missing.
    ///
    /// # Errors
    /// What fetching or splitting can fail with.
    pub fn local(&self, model: &ModelRef, progress: &dyn FetchProgress) -> Result<LocalModel> {
        // On loopback a round trip costs little, and the products of the plain plan are closer to the model's own.
        let plan = match self.rounds {
            RoundsPreference::Only(plan) => plan,
            RoundsPreference::Auto => PlanKind::Plain,
        };
        local_model_in(model, plan, self.set, self.tau, &self.cache, progress)
    }
}

/// An open model: its client part and the backend that runs its linear layers.
///
/// Open it on the thread that uses it: an embedded server ends with the thread that started it.
pub struct Model {
    part: ClientPart,
    backend: Backend,
    accounting: Arc<Accounting>,
    name: String,
    description: String,
    padding: Padding,
    /// To the server, if there is one.
    round_trip: Option<Duration>,
    /// Dropped after the backend, whose connections would otherwise report the server's end.
    server: ServerLink,
}

impl Model {
    /// Opens `model` as `spec` says: fetches and splits what this machine lacks, starts or reaches the server.
    ///
    /// # Errors
    /// Anything from an unknown model to a server that refuses; each error says what to do.
    pub fn open(
        model: &ModelRef,
        spec: BackendSpec,
        options: OpenOptions,
        progress: &dyn FetchProgress,
    ) -> Result<Self> {
        if let BackendSpec::Remote(server) = &spec {
            return Self::at_server(model, server, options, progress);
        }
        let local = options.local(model, progress)?;
        Self::open_local(&local, &spec, options, progress)
    }

    /// Opens a split that is on this machine already.
    ///
    /// # Errors
    /// As [`open`](Self::open); [`Error::Usage`] for a `spec` that names a server elsewhere, whose model is its own.
    pub fn open_local(
        local: &LocalModel,
        spec: &BackendSpec,
        options: OpenOptions,
        progress: &dyn FetchProgress,
    ) -> Result<Self> {
        if options.check_weights && !spec.is_remote() {
            return Err(Error::Usage("--check-weights checks a server; leave out --backend".to_owned()));
        }
        match spec {
            BackendSpec::Remote(_) => {
                Err(Error::Usage("a split on this machine is not opened at another server".to_owned()))
            }
            BackendSpec::Embedded => Self::with_embedded_server(local, options, progress),
            BackendSpec::Int8 | BackendSpec::Dense | BackendSpec::Simulated => {
                Self::in_clear(local, spec, options.wire)
            }
        }
    }

    fn at_server(
        model: &ModelRef,
        server: &ConnectString,
        options: OpenOptions,
        progress: &dyn FetchProgress,
    ) -> Result<Self> {
        let OpenOptions { cache, kind, by_name, rounds, accept_change, cancelled, mask_timeout, .. } =
            options;
        let remote = RemoteOptions {
            model: by_name.then(|| model.slug()),
            kind,
            rounds,
            accept_change,
            cancelled,
            mask_timeout,
            wire: options.wire,
            set: options.set,
            check_weights: options.check_weights,
            pins: options.pins,
            ..RemoteOptions::new(cache.clone())
        };
        let mut connected = sotto_client::connect(server, remote, progress)?;
        let check = match options.check_weights {
            false => None,
            true => {
                let local = local_model(model, connected.plan, &connected.protocol, &cache, progress)?;
                Some(check_weights(&local, &mut connected, progress)?)
            }
        };
        let default = if connected.published.is_some() { Padding::NONE } else { Padding::UNPUBLISHED };
        let padding = Padding {
            prompt: options.pad_prompt.unwrap_or(default.prompt),
            answer: options.pad_answer.unwrap_or(default.answer),
        };
        let mut description = format!(
            "{} ({} rounds, {} set) on {}, {:.1} ms away\n{}",
            connected.name,
            connected.plan,
            sotto_protocol::binding::set(&connected.protocol)?,
            server.address,
            connected.round_trip.as_secs_f64() * 1e3,
            origin::describe(&connected, padding)
        );
        if let Some(own) = origin::own_copy(&cache, &connected).filter(|_| check.is_none()) {
            description += &format!(
                "\nthis machine has a copy of this model ({own}): --check-weights compares every reply with the copy \
                 that --model names"
            );
        }
        let name = connected.name.clone();
        let link = ServerLink { embedded: None, check };
        Ok(Self { padding, ..Self::connected(connected, name, description, link) })
    }

    fn with_embedded_server(
        local: &LocalModel,
        options: OpenOptions,
        progress: &dyn FetchProgress,
    ) -> Result<Self> {
        let embedded = EmbeddedOptions {
            program: options.program,
            route: options.route,
            cancelled: options.cancelled,
            mask_timeout: options.mask_timeout,
            wire: options.wire,
            check_weights: options.check_weights,
            serve_arguments: options.serve_arguments,
            saving: options.saving,
            ..EmbeddedOptions::new(options.cache)
        };
        progress.begin("starting the local server", None, false);
        let started = Embedded::start(local, embedded, progress);
        progress.end();
        let (embedded, mut connected) = started?;
        let check =
            options.check_weights.then(|| check_weights(local, &mut connected, progress)).transpose()?;
        let set = sotto_protocol::binding::set(&connected.protocol)?;
        let description =
            format!("{} ({} rounds, {set} set) on this machine, encrypted", local.name, local.plan);
        let link = ServerLink { embedded: Some(embedded), check };
        Ok(Self::connected(connected, local.name.clone(), description, link))
    }

    fn connected(connected: Connected, name: String, description: String, server: ServerLink) -> Self {
        let Connected { backend, part, accounting, round_trip, .. } = connected;
        let round_trip = Some(round_trip);
        let backend = Backend::new(BackendKind::Remote(Box::new(backend)));
        Self { part, backend, accounting, name, description, padding: Padding::NONE, round_trip, server }
    }

    fn in_clear(local: &LocalModel, spec: &BackendSpec, wire: WirePreference) -> Result<Self> {
        let loaded = ClientPart::load(local.client_directory())?;
        let part = &loaded.part;
        let kind = match spec {
            BackendSpec::Dense => {
                let source = ModelSource::open(&local.source)?;
                let family = &source.config;
                let dense = DenseBackend::from_source(family, &*source.weights, family.plan(local.plan)?)?;
                BackendKind::Dense(Box::new(dense))
            }
            BackendSpec::Simulated => {
                let instance = Arc::new(sotto_client::instance(&loaded)?);
                let server = ServerPart::open(local.server_directory())?;
                let form = wire.on_this_machine(instance.params());
                let simulated = SimulatedBackend::new(instance, &server, &part.scales, form)?;
                BackendKind::Simulated(Box::new(simulated))
            }
            _ => {
                let server = ServerPart::open(local.server_directory())?;
                BackendKind::Int8(Box::new(Int8Backend::new(&server, &part.scales)?))
            }
        };
        let description = format!("{} on this machine, in clear ({} reference)", local.name, spec.as_str());
        Ok(Self {
            part: loaded.part,
            backend: Backend::new(kind),
            accounting: Arc::default(),
            name: local.name.clone(),
            description,
            padding: Padding::NONE,
            round_trip: None,
            server: ServerLink { embedded: None, check: None },
        })
    }

    /// The model's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// About model and server: one line, and at a server further ones about whose client part it is.
    pub fn description(&self) -> &str {
        &self.description
    }

    /// The client part: configuration, tokenizer, embeddings, scales.
    pub fn part(&self) -> &ClientPart {
        &self.part
    }

    /// The backend, to run the model with.
    pub fn backend(&mut self) -> &mut Backend {
        &mut self.backend
    }

    /// The client part and the backend at once.
    pub fn parts_mut(&mut self) -> (&ClientPart, &mut dyn LinearBackend) {
        (&self.part, &mut self.backend)
    }

    /// Bytes, round trips and milliseconds so far; zero for the references.
    pub fn totals(&self) -> Totals {
        self.accounting.totals()
    }

    /// What was checked so far against the pinned weights; `None` without `check_weights`. It depends on decrypted values:
    /// show it to the local user when the traffic of a request has ended, and to nobody else.
    pub fn check_tally(&self) -> Option<CheckTally> {
        tally(&self.backend)
    }

    /// Process id of the embedded server, if there is one.
    pub fn server_process_id(&self) -> Option<u32> {
        self.server.process_id()
    }

    /// Starts an embedded server again if it has ended. Returns whether it did; costs then count anew.
    ///
    /// # Errors
    /// What starting it can fail with.
    pub fn restart(&mut self) -> Result<bool> {
        let Some((backend, accounting)) = self.server.restart()? else { return Ok(false) };
        (self.backend, self.accounting) = (backend, accounting);
        Ok(true)
    }

    /// The parts, for programs that run passes of their own. Keep the last one for as long as the backend is used.
    pub fn into_parts(self) -> (ClientPart, Backend, Arc<Accounting>, ServerLink) {
        (self.part, self.backend, self.accounting, self.server)
    }

    /// A conversation with the model.
    ///
    /// # Errors
    /// If the model generates no text, or its template is malformed.
    pub fn into_chat(self) -> Result<Chat> {
        let Self { part, backend, accounting, name, description, padding, round_trip, server } = self;
        let model = part.causal_model(HeadPrecision::default())?;
        let template = part.chat_template.as_ref().map(|_| part.template()).transpose()?;
        let mut session = Session::new(model, backend, part.tokenizer, template, accounting);
        session.set_padding(padding);
        session.set_round_trips(round_trip.unwrap_or_default(), part.plan.rounds.len());
        Ok(Chat { session, name, description, server })
    }
}

/// A conversation and, when there is one, the server that belongs to it.
pub struct Chat {
    /// The conversation.
    pub session: Session,
    /// The model's name.
    pub name: String,
    /// One line about model and server.
    pub description: String,
    /// Dropped after the session.
    server: ServerLink,
}

impl Chat {
    /// Starts an embedded server again if it has ended; the conversation continues.
    ///
    /// # Errors
    /// What starting it can fail with.
    pub fn restart(&mut self) -> Result<()> {
        if let Some((backend, accounting)) = self.server.restart()? {
            self.session.replace_backend(backend, accounting);
        }
        Ok(())
    }

    /// As [`Model::check_tally`].
    pub fn check_tally(&self) -> Option<CheckTally> {
        tally(self.session.backend())
    }

    /// Drafts from now on as `source` says.
    ///
    /// # Errors
    /// What opening a draft model fails with; [`Error::Usage`] if it has another tokenizer.
    pub fn draft(
        &mut self,
        source: &DraftSource,
        length: DraftLength,
        cache: &Cache,
        progress: &dyn FetchProgress,
    ) -> Result<()> {
        match source {
            DraftSource::Off => self.session.draft_nothing(),
            DraftSource::Ngram => self.session.draft_from_text(length),
            DraftSource::Model(model) => {
                let options = OpenOptions::new(cache.clone());
                let (part, backend, ..) =
                    Model::open(model, BackendSpec::Int8, options, progress)?.into_parts();
                let own = part.causal_model(HeadPrecision::default())?;
                let vocabulary = self.session.parts_mut().0.vocab_size();
                let other = self.session.tokenizer();
                let drafts = DraftModel::new(own, backend, &part.tokenizer, other, vocabulary)?;
                self.session.draft_with(drafts, length);
            }
        }
        Ok(())
    }

    /// Several conversations that share passes, instead of this one.
    pub fn into_shared(self) -> SharedChat {
        let Self { session, server, .. } = self;
        SharedChat { conversations: session.into_conversations(), server }
    }

    /// Process id of the embedded server, if there is one.
    pub fn server_process_id(&self) -> Option<u32> {
        self.server.process_id()
    }
}

/// Several conversations with a model and, when there is one, the server that belongs to it.
pub struct SharedChat {
    /// The conversations.
    pub conversations: Conversations,
    /// Dropped after the conversations.
    server: ServerLink,
}

impl SharedChat {
    /// Starts an embedded server again if it has ended; the conversations continue.
    ///
    /// # Errors
    /// What starting it can fail with.
    pub fn restart(&mut self) -> Result<()> {
        if let Some((backend, accounting)) = self.server.restart()? {
            self.conversations.replace_backend(backend, accounting);
        }
        Ok(())
    }

    /// As [`Model::check_tally`].
    pub fn check_tally(&self) -> Option<CheckTally> {
        tally(self.conversations.backend())
    }
}

/// Where drafts of the next tokens come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DraftSource {
    /// Nowhere: each pass brings one token.
    Off,
    /// The text so far.
    Ngram,
    /// A small model that runs on this machine, in clear.
    Model(ModelRef),
}

impl FromStr for DraftSource {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "off" => Ok(Self::Off),
            "ngram" => Ok(Self::Ngram),
            _ => ModelRef::parse(text).map(Self::Model).map_err(|error| error.to_string()),
        }
    }
}

/// What this process keeps of a server: the child, and the vectors that its replies are checked with. The embedded server
/// ends when this is dropped.
pub struct ServerLink {
    embedded: Option<Embedded>,
    check: Option<Arc<WeightCheck>>,
}

impl ServerLink {
    /// Process id of the embedded server, if there is one.
    pub fn process_id(&self) -> Option<u32> {
        self.embedded.as_ref().map(Embedded::process_id)
    }

    /// A backend at a new server, if the embedded one has ended.
    fn restart(&mut self) -> Result<Option<(Backend, Arc<Accounting>)>> {
        let Some(embedded) = &mut self.embedded else { return Ok(None) };
        let Some(mut connected) = embedded.restart::<ClientPart>()? else { return Ok(None) };
        if let Some(check) = &self.check {
            connected.backend.check_weights(Arc::clone(check))?;
        }
        let backend = Backend::new(BackendKind::Remote(Box::new(connected.backend)));
        Ok(Some((backend, connected.accounting)))
    }
}

fn tally(backend: &Backend) -> Option<CheckTally> {
    match backend.kind() {
        BackendKind::Remote(remote) => remote.check_tally(),
        _ => None,
    }
}

/// Lets every reply be checked against the server part of `local`.
fn check_weights(
    local: &LocalModel,
    connected: &mut Connected,
    progress: &dyn FetchProgress,
) -> Result<Arc<WeightCheck>> {
    progress.begin("drawing test vectors", None, false);
    let check = WeightCheck::of_split(&local.server_directory());
    progress.end();
    let check = Arc::new(check?);
    connected.backend.check_weights(Arc::clone(&check))?;
    Ok(check)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_backend_takes_no_server() {
        let server = Some("sotto://127.0.0.1:1/");
        for choice in [BackendChoice::Int8, BackendChoice::Dense, BackendChoice::Simulated] {
            assert!(matches!(BackendSpec::new(choice, server), Err(Error::Usage(_))), "{choice:?}");
            assert!(!BackendSpec::new(choice, None).unwrap().is_remote(), "{choice:?}");
        }
        assert!(matches!(BackendSpec::new(BackendChoice::Remote, None), Ok(BackendSpec::Embedded)));
        assert!(matches!(
            BackendSpec::new(BackendChoice::Remote, Some("http://x")),
            Err(Error::ConnectString(_))
        ));
    }
}

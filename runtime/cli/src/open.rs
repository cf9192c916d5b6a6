//! From arguments to an open model.

use std::io::{BufRead, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use sotto_client::{ChangedModel, RoundsPreference, published};
use sotto_engine::fetch::ModelRef;
use sotto_engine::open::{BackendSpec, Chat, Model, OpenOptions};
use sotto_models::families::ModelKind;
use sotto_models::split::plan::PlanKind;
use sotto_protocol::connect_string::ConnectString;
use sotto_protocol::error::{Error, Result};
use sotto_storage::Cache;

use super::args::{RoundsChoice, ServerArgs};
use super::progress::Bars;

/// Opens the chat model that the arguments describe. Raising `cancelled` ends a pass at its next round.
///
/// # Errors
///
/// Anything from an unknown model to a server that refuses; each error says what to do.
pub fn open(args: &ServerArgs, progress: &Bars, cancelled: Arc<AtomicBool>) -> Result<Chat> {
    let accept = args.accept_changed_model;
    let options = OpenOptions {
        kind: Some(ModelKind::Decoder),
        accept_change: Box::new(move |change| accept || ask(change)),
        cancelled,
        ..options(args, progress)?
    };
    let spec = BackendSpec::new(args.backend, args.server.as_deref())?;
    Model::open(&ModelRef::parse(&args.model)?, spec, options, progress)?.into_chat()
}

/// Opens the chat model `model` as the arguments say for theirs: on this machine, or by its name at the server.
///
/// # Errors
///
/// As [`open`].
pub fn open_named(
    args: &ServerArgs,
    model: &ModelRef,
    progress: &Bars,
    cancelled: Arc<AtomicBool>,
) -> Result<Chat> {
    let accept = args.accept_changed_model;
    let options = OpenOptions {
        kind: Some(ModelKind::Decoder),
        by_name: true,
        accept_change: Box::new(move |change| accept || ask(change)),
        cancelled,
        ..options(args, progress)?
    };
    let spec = BackendSpec::new(args.backend, args.server.as_deref())?;
    Model::open(model, spec, options, progress)?.into_chat()
}

/// Opens the encoder `model` on this machine, or a sentence encoder of the server that the arguments name.
///
/// # Errors
///
/// As [`open`].
pub fn open_encoder(args: &ServerArgs, model: &str, progress: &Bars) -> Result<Model> {
    let accept = args.accept_changed_model;
    let mut options = OpenOptions {
        kind: Some(ModelKind::Encoder),
        accept_change: Box::new(move |change| accept || ask(change)),
        ..options(args, progress)?
    };
    let mut spec = BackendSpec::new(Default::default(), args.server.as_deref())?;
    if let BackendSpec::Remote(connect) = &mut spec {
        options.pins = encoder_pins(connect, model)?;
    }
    Model::open(&ModelRef::parse(model)?, spec, options, progress)
}

/// The digests that an encoder at a server may have. A digest in the connect string names the chat model and goes; it says
/// that the user insists on digests, so the encoder must be a published split of `model` then.
///
/// # Errors
///
/// [`Error::Usage`] when there is none.
fn encoder_pins(connect: &mut ConnectString, model: &str) -> Result<Vec<[u8; 32]>> {
    if connect.model.take().is_none() {
        return Ok(Vec::new());
    }
    let pins = published::digests_of(model);
    if pins.is_empty() {
        return Err(Error::Usage(format!(
            "the connect string pins the chat model, and no digest of {model} is published to pin the encoder with; \
             take model=... out of the string to trust the server at first use, or leave out --server"
        )));
    }
    Ok(pins)
}

/// What the arguments say for any model.
///
/// # Errors
///
/// If no cache directory can be named.
pub fn options(args: &ServerArgs, progress: &Bars) -> Result<OpenOptions> {
    Ok(OpenOptions {
        rounds: preference(args.rounds),
        tau: args.tau,
        set: args.set,
        serve_arguments: args.serve_arguments(),
        saving: Arc::new(progress.clone()),
        mask_timeout: args.mask_timeout_s,
        check_weights: args.check_weights,
        wire: args.wire,
        pad_prompt: args.pad_prompt,
        pad_answer: args.pad_answer,
        ..OpenOptions::new(Cache::from_env()?)
    })
}

fn preference(rounds: RoundsChoice) -> RoundsPreference {
    match rounds {
        RoundsChoice::Plain => RoundsPreference::Only(PlanKind::Plain),
        RoundsChoice::Fused => RoundsPreference::Only(PlanKind::Fused),
        RoundsChoice::Auto => RoundsPreference::Auto,
    }
}

/// Asks the user whether a model that a known server did not have before is fine; no terminal means no.
fn ask(change: &ChangedModel) -> bool {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return false;
    }
    note!("The server offers a {} that it did not have at earlier visits.", change.name);
    for (digest, label) in &change.remembered {
        note!("  then {digest} ({label})");
    }
    let mut errors = std::io::stderr();
    let _ = write!(errors, "  now  {}\nUse it? [y/N] ", change.offered).and_then(|()| errors.flush());
    let mut line = String::new();
    stdin.lock().read_line(&mut line).is_ok() && matches!(line.trim(), "y" | "Y" | "yes")
}

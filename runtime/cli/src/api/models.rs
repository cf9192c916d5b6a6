//! The chat models of the endpoint: loaded when a request names them, unloaded when others need the memory.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use serde_json::{Value, json};
use sotto_engine::fetch::ModelRef;
use sotto_engine::open::{Chat, DraftSource};
use sotto_http::error::ApiError;
use sotto_protocol::error::Error;
use sotto_storage::Cache;

use super::error::{refusal, thread_ended};
use super::generation::{GenerationThread, Stop};
use super::metrics::Metrics;
use super::prompt::PromptBuilder;
use crate::args::ApiArgs;
use crate::open::{open, open_named};
use crate::progress::Bars;

/// Result of this module.
type Result<T, E = Error> = std::result::Result<T, E>;

/// When to ask again if all models that could make room are answering.
const ROOM_RETRY: Duration = Duration::from_secs(5);

/// A model that answers.
pub(super) struct Loaded {
    pub(super) thread: GenerationThread,
    pub(super) prompts: PromptBuilder,
    /// Bytes by which this process grew when it was loaded.
    own: u64,
    /// The process of its server, if that is one of this machine's.
    server: Option<u32>,
}

impl Loaded {
    /// Bytes that it takes now.
    fn memory(&self) -> u64 {
        self.own + self.server.map_or(0, |process| resident(&format!("/proc/{process}/status")))
    }
}

struct Entry {
    /// What requests call it.
    name: String,
    /// Opens it once more; the first model may have no further server to come from.
    model: ModelRef,
    /// Whether it is the one that the command line names first.
    is_first: bool,
    loaded: tokio::sync::Mutex<Option<Arc<Loaded>>>,
    /// Milliseconds from the start of the endpoint to its last use.
    used: AtomicU64,
    /// What it took when it was seen the last time; 0 if never.
    memory: AtomicU64,
}

/// All chat models.
pub(super) struct Models {
    entries: Vec<Entry>,
    args: ApiArgs,
    /// Bytes that loaded models may take together.
    budget: u64,
    start: Instant,
    metrics: Arc<Metrics>,
    /// Those that run, for the end of the endpoint.
    stops: Mutex<Vec<Stop>>,
}

impl Models {
    /// The models that `args` name, none of them loaded; `first` is what requests call the first chat
    /// model, if there is one.
    ///
    /// # Errors
    /// [`Error::Usage`] for two models of one name.
    pub(super) fn new(args: &ApiArgs, first: Option<&str>, metrics: Arc<Metrics>) -> Result<Self> {
        let entry = |name: String, model: ModelRef, is_first: bool| Entry {
            name,
            model,
            is_first,
            loaded: tokio::sync::Mutex::default(),
            used: AtomicU64::new(0),
            memory: AtomicU64::new(0),
        };
        let mut entries = Vec::new();
        if let Some(first) = first {
            entries.push(entry(first.to_owned(), ModelRef::parse(&args.server.model)?, true));
        }
        for also in &args.also {
            if entries.iter().any(|known| known.name == also.name) || also.name == args.embedding_model {
                return Err(Error::Usage(format!(
                    "--also: there are two models called {:?}; give one another name: --also NAME=MODEL",
                    also.name
                )));
            }
            entries.push(entry(also.name.clone(), ModelRef::parse(&also.model)?, false));
        }
        let budget = args.model_memory.map_or(u64::MAX, |mebibytes| mebibytes.saturating_mul(1 << 20));
        Ok(Self {
            entries,
            args: args.clone(),
            budget,
            start: Instant::now(),
            metrics,
            stops: Mutex::default(),
        })
    }

    /// What requests call the models, the first one first.
    pub(super) fn names(&self) -> Vec<&str> {
        self.entries.iter().map(|entry| entry.name.as_str()).collect()
    }

    /// Takes over the first model, which was opened with `stop` when this process had `before` bytes.
    ///
    /// # Errors
    /// [`Error::Io`] if no thread can be started.
    pub(super) async fn adopt_first(&self, chat: Chat, stop: Stop, before: u64) -> Result<(), ApiError> {
        let loaded = self.load(move || Ok(chat), stop, before).await?;
        *self.entries[0].loaded.lock().await = Some(loaded);
        Ok(())
    }

    /// The model called `name`, or the first one, loaded if it is not.
    ///
    /// # Errors
    /// 404 for an unknown name; 503 if those that are loaded leave no room and are answering; what opening it fails with.
    pub(super) async fn get(self: &Arc<Self>, name: Option<&str>) -> Result<Arc<Loaded>, ApiError> {
        let index = match name {
            None if self.entries.is_empty() => {
                let message = "this endpoint has no chat model; start it without --no-chat";
                return Err(ApiError::new(StatusCode::NOT_FOUND, message)
                    .with_code("model_not_found")
                    .with_param("model"));
            }
            None => Some(0),
            Some(name) => self.entries.iter().position(|entry| entry.name == name),
        };
        let Some(index) = index else {
            let mut known = self.names();
            known.push(&self.args.embedding_model);
            return Err(ApiError::unknown_model(name.unwrap_or_default(), &known));
        };
        let models = Arc::clone(self);
        // A task of its own: a client that leaves does not waste what is loaded already.
        tokio::spawn(async move { models.get_at(index).await }).await.map_err(|_| thread_ended())?
    }

    async fn get_at(&self, index: usize) -> Result<Arc<Loaded>, ApiError> {
        let entry = &self.entries[index];
        let mut slot = entry.loaded.lock().await;
        if let Some(loaded) = slot.as_ref().filter(|loaded| loaded.thread.is_running()) {
            let loaded = Arc::clone(loaded);
            self.touch(entry);
            return Ok(loaded);
        }
        *slot = None;
        self.make_room(index, entry.memory.load(Ordering::Relaxed)).await?;
        let (args, model, is_first) = (self.args.clone(), entry.model.clone(), entry.is_first);
        let stop = Stop::default();
        let cancelled = stop.flag();
        let open_it = move || {
            let bars = Bars::new(true);
            let mut chat = match is_first {
                true => open(&args.server, &bars, cancelled)?,
                false => open_named(&args.server, &model, &bars, cancelled)?,
            };
            let drafts = &args.drafts;
            // A draft model must have the tokenizer of the model it drafts for; for the others, the text so far will do.
            let drafted = chat.draft(&drafts.draft, drafts.draft_length, &Cache::from_env()?, &bars);
            match drafted {
                Err(Error::Usage(_)) if !is_first => {
                    chat.draft(&DraftSource::Ngram, drafts.draft_length, &Cache::from_env()?, &bars)?;
                }
                drafted => drafted?,
            }
            Ok(chat)
        };
        let loaded = self.load(open_it, stop, own_memory()).await?;
        *slot = Some(Arc::clone(&loaded));
        self.touch(entry);
        drop(slot);
        // Now that it is known what the model takes. If the others are answering, they stay until the next one comes.
        let _ = self.make_room(index, loaded.memory()).await;
        Ok(loaded)
    }

    fn touch(&self, entry: &Entry) {
        let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        entry.used.store(now, Ordering::Relaxed);
    }

    async fn load(
        &self,
        open: impl FnOnce() -> Result<Chat> + Send + 'static,
        stop: Stop,
        before: u64,
    ) -> Result<Arc<Loaded>, ApiError> {
        let started = GenerationThread::start(open, stop.clone(), Arc::clone(&self.metrics));
        let (thread, ready) = started.map_err(refusal)?;
        let (prompts, server) = ready.await.map_err(|_| thread_ended())?.map_err(refusal)?;
        let own = own_memory().saturating_sub(before);
        self.stops.lock().unwrap_or_else(PoisonError::into_inner).push(stop);
        Ok(Arc::new(Loaded { thread, prompts, own, server }))
    }

    /// Unloads models other than `index`, the longest unused first, until `needed` bytes are left of the budget.
    async fn make_room(&self, index: usize, needed: u64) -> Result<(), ApiError> {
        if self.budget == u64::MAX {
            return Ok(());
        }
        loop {
            let mut total = needed;
            let mut idle: Option<(u64, usize)> = None;
            let mut busy = false;
            for (other, entry) in self.entries.iter().enumerate().filter(|(other, _)| *other != index) {
                // One that is being loaded is in use.
                let Ok(slot) = entry.loaded.try_lock() else {
                    busy = true;
                    continue;
                };
                let Some(loaded) = slot.as_ref() else { continue };
                let memory = loaded.memory();
                entry.memory.store(memory, Ordering::Relaxed);
                total = total.saturating_add(memory);
                if Arc::strong_count(loaded) > 1 || loaded.thread.is_busy() {
                    busy = true;
                } else {
                    let used = entry.used.load(Ordering::Relaxed);
                    idle = idle.into_iter().chain([(used, other)]).min();
                }
            }
            if total <= self.budget {
                return Ok(());
            }
            let Some((_, other)) = idle else {
                if !busy {
                    // It alone is more than the budget: one model there must be.
                    return Ok(());
                }
                let message =
                    "the models that are loaded are answering, and --model-memory leaves no room for another";
                return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message)
                    .with_code("busy")
                    .with_retry_after(ROOM_RETRY));
            };
            if let Ok(mut slot) = self.entries[other].loaded.try_lock()
                && let Some(loaded) = slot.take()
            {
                drop(slot);
                // Its memory is free when its thread has ended.
                if let Some(loaded) = Arc::into_inner(loaded) {
                    let _ = tokio::task::spawn_blocking(move || loaded.thread.end()).await;
                }
            }
        }
    }

    /// Ends all answers; their readers are told.
    pub(super) fn stop(&self) {
        for stop in self.stops.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            stop.raise();
        }
    }

    /// Unloads the models that no request holds, which lets their servers end as they should.
    pub(super) fn end(&self) {
        for entry in &self.entries {
            let loaded = entry.loaded.try_lock().ok().and_then(|mut slot| slot.take());
            if let Some(loaded) = loaded.and_then(Arc::into_inner) {
                loaded.thread.end();
            }
        }
    }

    /// The context of the model called `name`, if it is loaded.
    pub(super) fn context_length(&self, name: &str) -> Option<usize> {
        let entry = self.entries.iter().find(|entry| entry.name == name)?;
        let slot = entry.loaded.try_lock().ok()?;
        slot.as_ref().map(|loaded| loaded.prompts.context_length())
    }

    /// What `sotto ps` shows.
    pub(super) fn status(&self) -> Vec<Value> {
        let now = self.start.elapsed().as_millis() as u64;
        let of = |entry: &Entry| {
            let (state, memory, requests) = match entry.loaded.try_lock() {
                Err(_) => ("loading", 0, 0),
                Ok(slot) => match slot.as_ref() {
                    None => ("not loaded", 0, 0),
                    Some(loaded) => ("loaded", loaded.memory(), loaded.thread.open_requests()),
                },
            };
            let idle =
                (state == "loaded").then(|| now.saturating_sub(entry.used.load(Ordering::Relaxed)) / 1000);
            json!({
                "name": entry.name,
                "state": state,
                "memory_bytes": memory,
                "requests": requests,
                "unused_s": idle,
            })
        };
        self.entries.iter().map(of).collect()
    }
}

/// Bytes of memory that this process has in use.
pub(super) fn own_memory() -> u64 {
    resident("/proc/self/status")
}

/// `VmRSS` of a status file, in bytes; 0 where the system has none.
fn resident(status: &str) -> u64 {
    let text = std::fs::read_to_string(status).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kibibytes.unwrap_or(0).saturating_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_a_process_is_read() {
        if std::path::Path::new("/proc/self/status").exists() {
            assert!(own_memory() > 1 << 20);
        }
        assert_eq!(resident("/nonexistent"), 0);
    }
}

//! `/v1/embeddings`: a sentence encoder whose linear layers run, encrypted, on the server.
//!
//! It is opened on the first request, on a thread of its own that then owns it.

use std::sync::{Mutex, PoisonError, mpsc};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::wire::ApiError;
use crate::backend::{BackendKind, backend_error};
use crate::cli::args::ServerArgs;
use crate::cli::open::{OpenedEncoder, open_encoder};
use crate::error::{Error, Result};
use crate::fetch::NoProgress;
use crate::session::MAX_PASS_TOKENS;

/// Texts per request.
const MAX_TEXTS: usize = 512;

/// Requests that may wait.
const MAX_WAITING: usize = 32;

/// A request for embeddings; fields that are not listed are ignored.
#[derive(Debug, Deserialize)]
pub(super) struct EmbeddingRequest {
    input: Input,
    encoding_format: Option<String>,
    dimensions: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Input {
    One(String),
    Many(Vec<String>),
}

impl EmbeddingRequest {
    /// Whether vectors are to be base64 of little-endian f32.
    pub(super) fn wants_base64(&self) -> bool {
        self.encoding_format.as_deref() == Some("base64")
    }

    /// The texts.
    pub(super) fn parse(self) -> std::result::Result<Vec<String>, ApiError> {
        if self.dimensions.is_some() {
            return Err(ApiError::bad("dimensions is not supported by this model"));
        }
        if !matches!(self.encoding_format.as_deref(), None | Some("float" | "base64")) {
            return Err(ApiError::bad("encoding_format must be float or base64"));
        }
        let texts = match self.input {
            Input::One(text) => vec![text],
            Input::Many(texts) => texts,
        };
        if texts.is_empty() || texts.len() > MAX_TEXTS || texts.iter().any(String::is_empty) {
            return Err(ApiError::bad(format!("input must be 1 to {MAX_TEXTS} texts, none of them empty")));
        }
        Ok(texts)
    }
}

/// Vectors of length 1, one per text.
pub(super) struct Embedded {
    model: String,
    vectors: Vec<Vec<f32>>,
    tokens: usize,
}

impl Embedded {
    /// The object that answers a request.
    pub(super) fn object(&self, base64: bool) -> Value {
        let data: Vec<_> = self
            .vectors
            .iter()
            .enumerate()
            .map(|(index, vector)| {
                let embedding = if base64 {
                    let bytes: Vec<u8> = vector.iter().flat_map(|value| value.to_le_bytes()).collect();
                    json!(STANDARD.encode(bytes))
                } else {
                    json!(vector)
                };
                json!({ "object": "embedding", "index": index, "embedding": embedding })
            })
            .collect();
        json!({
            "object": "list",
            "data": data,
            "model": self.model,
            "usage": { "prompt_tokens": self.tokens, "total_tokens": self.tokens },
        })
    }
}

struct Job {
    texts: Vec<String>,
    answer: oneshot::Sender<Result<Embedded>>,
}

/// Hands texts to the encoder's thread.
pub(super) struct Embedder {
    server: ServerArgs,
    model: String,
    /// The thread's queue, once there is one.
    jobs: Mutex<Option<mpsc::SyncSender<Job>>>,
}

impl Embedder {
    /// An encoder that is not opened yet.
    pub(super) fn new(server: &ServerArgs, model: &str) -> Self {
        Self { server: server.clone(), model: model.to_owned(), jobs: Mutex::new(None) }
    }

    /// The vectors of `texts`.
    ///
    /// # Errors
    ///
    /// What opening or running the encoder fails with; [`Error::Busy`] when too many requests wait.
    pub(super) async fn embed(&self, texts: Vec<String>) -> Result<Embedded> {
        let (answer, receiver) = oneshot::channel();
        self.submit(Job { texts, answer })?;
        receiver.await.map_err(|_| Error::Internal("the encoder's thread ended".to_owned()))?
    }

    fn submit(&self, job: Job) -> Result<()> {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        if jobs.is_none() {
            *jobs = Some(self.start()?);
        }
        let sent = jobs.as_ref().map(|jobs| jobs.try_send(job));
        match sent {
            Some(Ok(())) => Ok(()),
            Some(Err(mpsc::TrySendError::Full(_))) => {
                Err(Error::Busy { what: "the queue", retry_after: std::time::Duration::from_secs(5) })
            }
            _ => {
                // The thread ended because the encoder could not be opened; the next request tries again.
                *jobs = None;
                Err(Error::Internal("the encoder is not available; try again".to_owned()))
            }
        }
    }

    fn start(&self) -> Result<mpsc::SyncSender<Job>> {
        let (jobs, waiting) = mpsc::sync_channel::<Job>(MAX_WAITING);
        let (server, model) = (self.server.clone(), self.model.clone());
        std::thread::Builder::new()
            .name("sotto-encoder".to_owned())
            .spawn(move || match open_encoder(&server, &model, &NoProgress) {
                Ok(mut opened) => {
                    while let Ok(job) = waiting.recv() {
                        // Whoever asked may be gone.
                        let _ = job.answer.send(run(&mut opened, &job.texts));
                    }
                }
                Err(error) => {
                    if let Ok(job) = waiting.recv() {
                        let _ = job.answer.send(Err(error));
                    }
                }
            })
            .map_err(|source| Error::Io { context: "starting the encoder's thread".to_owned(), source })?;
        Ok(jobs)
    }
}

/// Embeds `texts` in passes of as many as fit.
fn run(opened: &mut OpenedEncoder, texts: &[String]) -> Result<Embedded> {
    let longest = opened.encoder.config().max_positions.min(MAX_PASS_TOKENS);
    let sequences = texts.iter().map(|text| tokens(opened, text, longest)).collect::<Result<Vec<_>>>()?;
    let mut vectors = Vec::with_capacity(texts.len());
    let mut rest = &sequences[..];
    while !rest.is_empty() {
        let (pass, behind) = rest.split_at(fitting(rest));
        let refs: Vec<&[u32]> = pass.iter().map(Vec::as_slice).collect();
        let count = pass.iter().map(Vec::len).sum();
        let encoder = &opened.encoder;
        let result =
            models::linear::run_pass(&mut opened.backend, count, |backend| encoder.embed(&refs, backend));
        vectors.extend(result.map_err(backend_error)?.to_vec2::<f32>()?);
        rest = behind;
    }
    if let BackendKind::Remote(remote) = opened.backend.kind()
        && let Some(Err(error)) = remote.check_tally().map(|tally| tally.verdict())
    {
        // For whoever runs this endpoint: what the reader does next, the server may see.
        eprintln!("warning: {error}");
    }
    let tokens = sequences.iter().map(Vec::len).sum();
    Ok(Embedded { model: opened.name.clone(), vectors, tokens })
}

/// Ids of a text between the encoder's special tokens, cut to `longest`.
fn tokens(opened: &OpenedEncoder, text: &str, longest: usize) -> Result<Vec<u32>> {
    let special = |name: &str| {
        opened.tokenizer.token_id(name).ok_or_else(|| {
            Error::Models(models::Error::Tokenizer { reason: format!("the encoder has no token {name}") })
        })
    };
    let (first, last) = (special("[CLS]")?, special("[SEP]")?);
    let mut ids = vec![first];
    ids.extend(opened.tokenizer.encode(text)?);
    ids.truncate(longest - 1);
    ids.push(last);
    Ok(ids)
}

/// How many of the first sequences fit one pass, at least one.
fn fitting(sequences: &[Vec<u32>]) -> usize {
    let mut tokens = 0;
    let fit = sequences.iter().take_while(|ids| {
        tokens += ids.len();
        tokens <= MAX_PASS_TOKENS
    });
    fit.count().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_hold_what_fits() {
        let of = |lengths: &[usize]| lengths.iter().map(|&length| vec![0; length]).collect::<Vec<_>>();
        assert_eq!(fitting(&of(&[100, 100, 100])), 2);
        assert_eq!(fitting(&of(&[256, 1])), 1);
        assert_eq!(fitting(&of(&[300])), 1);
        assert_eq!(fitting(&of(&[1; 10])), 10);
    }

    #[test]
    fn requests_are_checked() {
        let parse = |json: &str| serde_json::from_str::<EmbeddingRequest>(json).unwrap().parse();
        assert_eq!(parse(r#"{"input":"a"}"#).unwrap(), ["a"]);
        assert_eq!(parse(r#"{"input":["a","b"],"encoding_format":"base64"}"#).unwrap(), ["a", "b"]);
        for bad in [
            r#"{"input":[]}"#,
            r#"{"input":["a",""]}"#,
            r#"{"input":"a","dimensions":5}"#,
            r#"{"input":"a","encoding_format":"int8"}"#,
        ] {
            assert!(parse(bad).is_err(), "{bad} was accepted");
        }
    }
}

//! The sentence encoder: opened on the first request, on a separate thread that then owns it.

use std::sync::{Mutex, OnceLock, PoisonError, mpsc};

use sotto_engine::backend::backend_error;
use sotto_engine::open::Model;
use sotto_engine::session::MAX_PASS_TOKENS;
use sotto_http::completion::Prompt;
use sotto_http::error::ApiError;
use sotto_models::families::Encoder as SentenceEncoder;
use sotto_models::tokenizer::Tokenizer;
use sotto_protocol::error::Error;
use tokio::sync::oneshot;

use super::error::refusal;
use crate::args::{ApiArgs, ServerArgs, TokenVocabulary};
use crate::open::open_encoder;
use crate::progress::Bars;

/// Result of this module.
type Result<T, E = Error> = std::result::Result<T, E>;

/// Requests that may wait.
const MAX_WAITING: usize = 32;

/// Vectors of length 1, one per text.
pub(super) struct Vectors {
    pub(super) vectors: Vec<Vec<f32>>,
    /// Tokens of all texts.
    pub(super) tokens: usize,
}

struct Job {
    inputs: Vec<Prompt>,
    /// What the tokens of inputs are of.
    vocabulary: TokenVocabulary,
    answer: oneshot::Sender<Result<Vectors, ApiError>>,
}

/// Hands texts to the encoder's thread.
pub(super) struct Encoder {
    server: ServerArgs,
    model: String,
    vocabulary: TokenVocabulary,
    /// The thread's queue, once there is one.
    jobs: Mutex<Option<mpsc::SyncSender<Job>>>,
}

impl Encoder {
    /// An encoder that is not opened yet.
    pub(super) fn new(args: &ApiArgs) -> Self {
        Self {
            server: args.server.clone(),
            model: args.embedding_model.clone(),
            vocabulary: args.embedding_tokens,
            jobs: Mutex::new(None),
        }
    }

    /// Whether its thread was started.
    pub(super) fn is_open(&self) -> bool {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// The vectors of `inputs`.
    ///
    /// # Errors
    ///
    /// What opening or running the encoder fails with; 503 when too many requests wait.
    pub(super) async fn embed(&self, inputs: Vec<Prompt>) -> Result<Vectors, ApiError> {
        let (answer, receiver) = oneshot::channel();
        self.submit(Job { inputs, vocabulary: self.vocabulary, answer }).map_err(refusal)?;
        receiver.await.map_err(|_| refusal(Error::Internal("the encoder's thread ended".to_owned())))?
    }

    fn submit(&self, job: Job) -> Result<()> {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        let sender = match jobs.take() {
            Some(sender) => sender,
            None => self.start()?,
        };
        let job = match sender.try_send(job) {
            // The thread ended because the encoder could not be opened; this request tries again.
            Err(mpsc::TrySendError::Disconnected(job)) => job,
            sent => {
                *jobs = Some(sender);
                let busy = Error::Busy { what: "the queue", retry_after: std::time::Duration::from_secs(5) };
                return sent.map_err(|_| busy);
            }
        };
        let sender = jobs.insert(self.start()?);
        sender.try_send(job).map_err(|_| Error::Internal("the encoder is not available".to_owned()))
    }

    fn start(&self) -> Result<mpsc::SyncSender<Job>> {
        let (jobs, waiting) = mpsc::sync_channel::<Job>(MAX_WAITING);
        let (server, model) = (self.server.clone(), self.model.clone());
        std::thread::Builder::new()
            .name("sotto-encoder".to_owned())
            .spawn(move || match open(&server, &model) {
                Ok((mut model, encoder)) => {
                    while let Ok(job) = waiting.recv() {
                        // A client that left, now or while the passes run, is not worked for.
                        if !job.answer.is_closed() {
                            let result = run(&mut model, &encoder, &job);
                            let _ = job.answer.send(result);
                        }
                    }
                }
                Err(error) => {
                    if let Ok(job) = waiting.recv() {
                        let _ = job.answer.send(Err(refusal(error)));
                    }
                }
            })
            .map_err(|source| Error::Io { context: "starting the encoder's thread".to_owned(), source })?;
        Ok(jobs)
    }
}

fn open(server: &ServerArgs, model: &str) -> Result<(Model, SentenceEncoder)> {
    let model = open_encoder(server, model, &Bars::new(true))?;
    let encoder = model.part().encoder()?;
    Ok((model, encoder))
}

/// Embeds `inputs`; starts an embedded server again that has ended, also in the middle.
fn run(model: &mut Model, encoder: &SentenceEncoder, job: &Job) -> Result<Vectors, ApiError> {
    model.restart().map_err(refusal)?;
    let longest = encoder.max_positions().min(MAX_PASS_TOKENS);
    let vocab = encoder.config().vocab_size;
    let tokenizer = model.part().tokenizer.clone();
    let sequences = job
        .inputs
        .iter()
        .enumerate()
        .map(|(index, input)| tokens(&tokenizer, input, job.vocabulary, index, longest, vocab))
        .collect::<Result<Vec<_>, _>>()?;
    let has_left = || job.answer.is_closed();
    let vectors = match passes(model, encoder, &sequences, &has_left) {
        Ok(vectors) => vectors,
        Err(error) => match model.restart() {
            Ok(true) => passes(model, encoder, &sequences, &has_left).map_err(refusal)?,
            _ => return Err(refusal(error)),
        },
    };
    if let Some(Err(error)) = model.check_tally().map(|tally| tally.verdict()) {
        // For the operator of this endpoint: what the reader does next, the server may see.
        note!("warning: {error}");
    }
    Ok(Vectors { vectors, tokens: sequences.iter().map(Vec::len).sum() })
}

/// Runs `sequences` in passes of as many as fit, until `has_left`.
fn passes(
    model: &mut Model,
    encoder: &SentenceEncoder,
    sequences: &[Vec<u32>],
    has_left: &dyn Fn() -> bool,
) -> Result<Vec<Vec<f32>>> {
    let mut vectors = Vec::with_capacity(sequences.len());
    let mut rest = sequences;
    while !rest.is_empty() {
        if has_left() {
            return Err(Error::Cancelled);
        }
        let (pass, next) = rest.split_at(fitting(rest));
        let refs: Vec<&[u32]> = pass.iter().map(Vec::as_slice).collect();
        let count = pass.iter().map(Vec::len).sum();
        let result =
            sotto_models::linear::run_pass(model.backend(), count, |backend| encoder.embed(&refs, backend));
        vectors.extend(result.map_err(backend_error)?.to_vec2::<f32>()?);
        rest = next;
    }
    Ok(vectors)
}

/// Ids of an input between the encoder's special tokens.
///
/// # Errors
/// 400 if it is longer than the model reads, or holds ids of another vocabulary.
fn tokens(
    tokenizer: &Tokenizer,
    input: &Prompt,
    vocabulary: TokenVocabulary,
    index: usize,
    longest: usize,
    vocab: usize,
) -> Result<Vec<u32>, ApiError> {
    let whole = |text: &str| {
        tokenizer.encode_sequence(text, usize::MAX).map_err(|error| refusal(Error::Models(error)))
    };
    let param = format!("input[{index}]");
    let ids = match input {
        Prompt::Text(text) => whole(text)?,
        Prompt::Tokens(ids) if vocabulary == TokenVocabulary::Openai => {
            let text = openai_text(ids).ok_or_else(|| {
                let expected = "must hold tokens of OpenAI's cl100k_base, or start `sotto api` with --embedding-tokens model";
                ApiError::field(&*param, expected)
            })?;
            whole(&text)?
        }
        Prompt::Tokens(ids) => {
            let frame = whole("")?;
            let (first, last) = frame.split_at(frame.len() / 2);
            let own = ids.iter().copied().filter(|id| !frame.contains(id));
            first.iter().copied().chain(own).chain(last.iter().copied()).collect()
        }
    };
    if let Some(id) = ids.iter().find(|&&id| id as usize >= vocab) {
        let expected = format!(
            "must hold token ids of this model's vocabulary, below {vocab}, got {id}; send text instead"
        );
        return Err(ApiError::field(param, expected));
    }
    if ids.len() > longest {
        let message = format!("{param} has {} tokens; the model reads up to {longest}", ids.len());
        return Err(ApiError::context_exceeded(message, &param));
    }
    Ok(ids)
}

/// The text of tokens of OpenAI's embedding models, which clients of theirs send in place of texts; `None` if one is unknown.
fn openai_text(ids: &[u32]) -> Option<String> {
    static VOCABULARY: OnceLock<Option<tiktoken_rs::CoreBPE>> = OnceLock::new();
    let vocabulary = VOCABULARY.get_or_init(|| tiktoken_rs::cl100k_base().ok()).as_ref()?;
    let bytes = vocabulary.decode_bytes(ids).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
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
    fn tokens_of_openai_are_text() {
        // As OpenAI's tokenizer has "Hello, world!" and a character of three bytes in two tokens.
        assert_eq!(openai_text(&[9906, 11, 1917, 0]).as_deref(), Some("Hello, world!"));
        assert_eq!(openai_text(&[]).as_deref(), Some(""));
        assert_eq!(openai_text(&[999_999]), None);
    }

    #[test]
    fn passes_hold_what_fits() {
        let of = |lengths: &[usize]| lengths.iter().map(|&length| vec![0; length]).collect::<Vec<_>>();
        assert_eq!(fitting(&of(&[100, 100, 100])), 2);
        assert_eq!(fitting(&of(&[256, 1])), 1);
        assert_eq!(fitting(&of(&[300])), 1);
        assert_eq!(fitting(&of(&[1; 10])), 10);
    }
}

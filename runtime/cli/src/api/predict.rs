//! `POST /v1/predict`: trees, linear models and networks, each opened on its first request, on a thread that then owns it.

use std::sync::mpsc::{self, SyncSender, TrySendError};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State as Extract;
use axum::http::StatusCode;
use serde_json::{Value, json};
use sotto_engine::open::BackendSpec;
use sotto_engine::predict::{OpenPredictor, PredictOptions};
use sotto_http::error::ApiError;
use sotto_http::predict::PredictRequest;
use sotto_http::read;
use sotto_models::classical::{Prediction, Predictor, columns};
use sotto_protocol::error::Error;
use sotto_storage::{Cache, NoProgress};
use tokio::sync::oneshot;

use super::error::refusal;
use super::routes::{State, in_background};
use crate::args::{ApiArgs, PredictorArg, PredictorSource, ServerArgs};

/// Result of this module.
type Result<T, E = ApiError> = std::result::Result<T, E>;

/// Requests of a predictor that may wait.
const MAX_WAITING: usize = 32;

/// Rows between two looks at whether the client is still there.
const CHUNK: usize = 1024;

/// `POST /v1/predict`.
pub(super) async fn predict(Extract(state): Extract<Arc<State>>, body: Bytes) -> Result<Json<Value>> {
    let request = in_background(move || PredictRequest::read(read::parse(&body)?)).await?;
    let served = state.predictors.get(request.model.as_deref())?;
    Ok(Json(served.predict(request).await?))
}

/// All predictors of the endpoint.
pub(super) struct Predictors(Vec<Served>);

impl Predictors {
    /// Those that `args` name, none of them opened.
    ///
    /// # Errors
    /// [`Error::Usage`] for two models of one name, or a file that is not there.
    pub(super) fn new(args: &ApiArgs, taken: &[&str]) -> Result<Self, Error> {
        let mut all: Vec<Served> = Vec::with_capacity(args.predictor.len());
        for argument in &args.predictor {
            let name = &argument.name;
            if taken.contains(&name.as_str()) || all.iter().any(|known| known.argument.name == *name) {
                let reason = format!(
                    "--predictor: there are two models called {name:?}; give one another name: --predictor NAME=FILE"
                );
                return Err(Error::Usage(reason));
            }
            if let PredictorSource::File(path) = &argument.source
                && !path.is_file()
            {
                return Err(Error::Usage(format!("--predictor: there is no file {}", path.display())));
            }
            all.push(Served {
                argument: argument.clone(),
                server: args.server.clone(),
                jobs: Mutex::new(None),
                shape: Arc::default(),
            });
        }
        Ok(Self(all))
    }

    /// What requests call them.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|served| served.argument.name.as_str())
    }

    /// What `sotto ps` shows.
    pub(super) fn status(&self) -> impl Iterator<Item = Value> {
        self.0.iter().map(|served| {
            let state = if served.shape.get().is_some() { "loaded" } else { "not loaded" };
            json!({ "name": served.argument.name, "state": state })
        })
    }

    /// What `GET /v1/models` adds for one that was opened: `features`, `classes`.
    pub(super) fn shape(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|served| served.argument.name == name)?.shape.get()
    }

    fn get(&self, name: Option<&str>) -> Result<&Served> {
        let found = match name {
            None => self.0.first(),
            Some(name) => self.0.iter().find(|served| served.argument.name == name),
        };
        found.ok_or_else(|| match name {
            Some(name) if !self.0.is_empty() => {
                ApiError::unknown_model(name, &self.names().collect::<Vec<_>>())
            }
            _ => {
                let message = "this endpoint has no predictor; start it with --predictor FILE";
                ApiError::new(StatusCode::NOT_FOUND, message).with_code("model_not_found").with_param("model")
            }
        })
    }
}

struct Job {
    request: PredictRequest,
    answer: oneshot::Sender<Result<Value>>,
}

/// A predictor: its thread's queue, once there is one.
struct Served {
    argument: PredictorArg,
    server: ServerArgs,
    jobs: Mutex<Option<SyncSender<Job>>>,
    /// Set when it is opened.
    shape: Arc<OnceLock<Value>>,
}

impl Served {
    async fn predict(&self, request: PredictRequest) -> Result<Value> {
        let (answer, receiver) = oneshot::channel();
        self.submit(Job { request, answer }).map_err(refusal)?;
        receiver.await.map_err(|_| super::error::thread_ended())?
    }

    fn submit(&self, job: Job) -> Result<(), Error> {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        let sender = match jobs.take() {
            Some(sender) => sender,
            None => self.start()?,
        };
        let sent = match sender.try_send(job) {
            Err(TrySendError::Disconnected(job)) => {
                // The thread ended by a panic.
                let again = self.start()?;
                let sent = again.try_send(job);
                *jobs = Some(again);
                sent
            }
            sent => {
                *jobs = Some(sender);
                sent
            }
        };
        sent.map_err(|_| Error::Busy { what: "the queue", retry_after: Duration::from_secs(5) })
    }

    fn start(&self) -> Result<SyncSender<Job>, Error> {
        let (jobs, waiting) = mpsc::sync_channel::<Job>(MAX_WAITING);
        let mut worker = Worker {
            argument: self.argument.clone(),
            server: self.server.clone(),
            shape: Arc::clone(&self.shape),
            open: None,
            lied: false,
        };
        std::thread::Builder::new()
            .name("sotto-predictor".to_owned())
            .spawn(move || {
                while let Ok(job) = waiting.recv() {
                    // A client that left is not worked for.
                    if !job.answer.is_closed() {
                        let answer = worker.answer(&job);
                        let _ = job.answer.send(answer);
                    }
                }
            })
            .map_err(|source| Error::Io { context: "starting the predictor's thread".to_owned(), source })?;
        Ok(jobs)
    }
}

/// Owns an open predictor.
struct Worker {
    argument: PredictorArg,
    server: ServerArgs,
    shape: Arc<OnceLock<Value>>,
    open: Option<OpenPredictor>,
    /// Whether a server's products were once not what its model can give. A new connection does not undo it.
    lied: bool,
}

impl Worker {
    fn open(&self) -> Result<OpenPredictor, Error> {
        let (server, accept) = (&self.server, self.server.accept_changed_model);
        let options = PredictOptions {
            tau: server.tau,
            set: server.set,
            wire: server.wire,
            serve_arguments: server.serve_arguments(),
            accept_change: Box::new(move |_| accept),
            mask_timeout: server.mask_timeout_s,
            ..PredictOptions::new(Cache::from_env()?)
        };
        let opened = match &self.argument.source {
            PredictorSource::Server(connect) => OpenPredictor::open(
                None,
                &BackendSpec::Remote(Box::new(connect.clone())),
                options,
                &NoProgress,
            )?,
            PredictorSource::File(path) => {
                let spec = BackendSpec::new(server.backend, None)?;
                OpenPredictor::open(Some(path), &spec, options, &NoProgress)?
            }
        };
        let predictor = opened.predictor();
        let mut shape = json!({ "features": predictor.features() });
        if !predictor.labels().is_empty() {
            shape["classes"] = json!(predictor.labels());
        }
        // It may have been opened before.
        let _ = self.shape.set(shape);
        Ok(opened)
    }

    fn answer(&mut self, job: &Job) -> Result<Value> {
        let was_open = self.open.is_some();
        match self.attempt(job) {
            Err(Failure::Request(error)) => Err(error),
            Err(Failure::Server(error)) => {
                // It is opened anew by the next request, or by this one if its server on this machine ended meanwhile.
                self.open = None;
                let is_here = matches!(self.argument.source, PredictorSource::File(_));
                let again = if was_open && is_here { self.attempt(job) } else { Err(Failure::Server(error)) };
                again.map_err(|failure| match failure {
                    Failure::Request(error) => error,
                    Failure::Server(error) => {
                        self.open = None;
                        refusal(error)
                    }
                })
            }
            Ok(answer) => Ok(answer),
        }
    }

    fn attempt(&mut self, job: &Job) -> Result<Value, Failure> {
        if self.open.is_none() {
            self.open = Some(self.open().map_err(Failure::Server)?);
        }
        let open = self.open.as_mut().ok_or_else(|| Failure::Request(super::error::thread_ended()))?;
        let labels = open.predictor().labels().to_vec();
        let proba = match job.request.proba {
            Some(true) if !open.predictor().output().has_probabilities() => {
                let expected = "must be false: this model gives no probabilities";
                return Err(Failure::Request(ApiError::field("proba", expected)));
            }
            wanted => wanted.unwrap_or_else(|| open.predictor().output().has_probabilities()),
        };
        let (rows, left_out) = rows(&job.request, open.predictor()).map_err(Failure::Request)?;
        let (mut predictions, mut probabilities) = (Vec::with_capacity(rows.len()), Vec::new());
        for chunk in rows.chunks(CHUNK) {
            if job.answer.is_closed() {
                return Err(Failure::Request(refusal(Error::Cancelled)));
            }
            for prediction in open.predict(chunk, &mut |_| ()).map_err(Failure::Server)? {
                predictions.push(prediction.to_json(&labels));
                if let Prediction::Class { probabilities: Some(of_classes), .. } = prediction
                    && proba
                {
                    probabilities.push(of_classes);
                }
            }
        }
        self.lied |= open.verdict().is_err();
        if self.lied {
            // A status that clients do not try again: the server would see that.
            let message = "the server's products were not those of its model: do not trust its predictions";
            let error = ApiError::new(StatusCode::FAILED_DEPENDENCY, message).with_code("inexact");
            return Err(Failure::Request(error));
        }
        let mut answer = json!({
            "object": "predictions",
            "model": self.argument.name,
            "predictions": predictions,
            "usage": { "rows": rows.len() },
        });
        if !labels.is_empty() {
            answer["classes"] = json!(labels);
        }
        if proba {
            answer["probabilities"] = json!(probabilities);
        }
        if !left_out.is_empty() {
            answer["left_out"] = json!(left_out);
        }
        Ok(answer)
    }
}

/// Why there is no answer.
enum Failure {
    /// What was asked, or a verdict on it; the predictor stays open.
    Request(ApiError),
    /// Opening it, or the way to its server.
    Server(Error),
}

/// The rows as the model's features, and columns that are none.
fn rows(request: &PredictRequest, predictor: &Predictor) -> Result<(Vec<Vec<f64>>, Vec<String>)> {
    let features = predictor.features();
    let reads_missing = predictor.reads_missing();
    let in_order: Vec<usize> = (0..features.len()).collect();
    if let Some(names) = &request.columns {
        let found = columns::find(&features, names).map_err(|error| ApiError::field("columns", error))?;
        let rows = request.features(&features, &found.places, names.len(), reads_missing)?;
        return Ok((rows, found.left_out));
    }
    let left_out = match request.names() {
        None => Vec::new(),
        Some(names) => {
            let known: std::collections::HashSet<&str> = features.iter().copied().collect();
            names.into_iter().filter(|name| !known.contains(name.as_str())).collect()
        }
    };
    Ok((request.features(&features, &in_order, features.len(), reads_missing)?, left_out))
}

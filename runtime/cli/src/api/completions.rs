//! `POST /v1/completions`.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State as Extract;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use sotto_engine::session::{Answer, TokenLogprob};
use sotto_engine::token_bytes::TokenBytes;
use sotto_http::completion::{CompletionRequest, Prompt};
use sotto_http::error::ApiError;
use sotto_http::read;
use sotto_http::request_id::new_id;
use sotto_http::sse::Message;

use super::chat::{Counts, finish_reason};
use super::generation::Work;
use super::routes::{State, in_background, now};
use super::stream::{self, Narrator};

/// Continues texts.
pub(super) async fn completions(
    Extract(state): Extract<Arc<State>>,
    body: Bytes,
) -> Result<Response, ApiError> {
    let request = in_background(move || CompletionRequest::read(&read::parse(&body)?)).await?;
    let model = state.models.get(request.model.as_deref()).await?;
    let name = request.model.clone().unwrap_or_else(|| state.models.names()[0].to_owned());
    let (request, work, echoes, model) = in_background(move || {
        let prompts: Vec<Vec<u32>> = request
            .prompts
            .iter()
            .map(|prompt| match &request.suffix {
                Some(suffix) => model.prompts.filling(prompt, suffix),
                None => model.prompts.plain(prompt),
            })
            .collect::<Result<_, _>>()?;
        let echo = |prompt: &Prompt| match prompt {
            // The text as it was sent, which its tokens need not give back to the letter.
            Prompt::Text(text) => Ok(text.clone()),
            Prompt::Tokens(ids) => model.prompts.decode(ids),
        };
        let echoes = match request.echo {
            true => request.prompts.iter().map(echo).collect::<Result<_, _>>()?,
            false => vec![String::new(); prompts.len()],
        };
        let mut options = model.prompts.options(&request.sampling, request.logprobs, None)?;
        if request.suffix.is_some() {
            // What the model writes after the part that was to be filled in.
            options.stop_ids = model.prompts.filling_ends();
        }
        let work = Work { prompts, answers: request.sampling.answers, options };
        Ok((request, work, echoes, model))
    })
    .await?;
    let answers_each = work.answers;
    let total = work.prompts.len() * answers_each;
    let events = model.thread.submit(work)?;
    let mut pieces = Pieces {
        id: new_id("cmpl"),
        created: now(),
        model: name,
        bytes: model.prompts.bytes().clone(),
        usage: request.include_usage,
        logprobs: request.logprobs.is_some(),
        answers_each,
        echoes,
        total,
        counts: Counts::default(),
        offsets: vec![0; total],
    };
    if request.stream {
        return Ok(stream::respond(events, pieces));
    }
    let answers = stream::whole(events).await?;
    let choices: Vec<Value> = answers
        .iter()
        .enumerate()
        .map(|(index, answer)| {
            pieces.counts.add(index % answers_each, answer);
            let text = format!("{}{}", pieces.echoes[index / answers_each], answer.text);
            let finish = Some(finish_reason(answer.finish));
            pieces.choice(index, &text, &answer.logprobs, finish)
        })
        .collect();
    let usage = pieces.counts.object();
    Ok(Json(pieces.object(&json!(choices), Some(usage))).into_response())
}

/// The choices of a response, whole or in pieces.
struct Pieces {
    id: String,
    created: u64,
    model: String,
    bytes: TokenBytes,
    usage: bool,
    logprobs: bool,
    answers_each: usize,
    /// What the text of the answers to each prompt begins with.
    echoes: Vec<String>,
    total: usize,
    counts: Counts,
    /// Bytes of text so far, per answer.
    offsets: Vec<usize>,
}

impl Pieces {
    fn object(&self, choices: &Value, usage: Option<Value>) -> Value {
        let mut object = json!({
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": self.model,
            "choices": choices,
        });
        if let Some(usage) = usage {
            object["usage"] = usage;
        }
        object
    }

    fn choice(&mut self, index: usize, text: &str, tokens: &[TokenLogprob], finish: Option<&str>) -> Value {
        let logprobs = if self.logprobs { self.logprob_object(index, tokens) } else { Value::Null };
        json!({ "index": index, "text": text, "logprobs": logprobs, "finish_reason": finish })
    }

    /// Log-probabilities in the form of this endpoint: columns.
    fn logprob_object(&mut self, index: usize, tokens: &[TokenLogprob]) -> Value {
        let text = |id: u32| String::from_utf8_lossy(&self.bytes.of(id)).into_owned();
        let mut offsets = Vec::with_capacity(tokens.len());
        for token in tokens {
            if let Some(offset) = self.offsets.get_mut(index) {
                offsets.push(*offset);
                *offset += self.bytes.of(token.id).len();
            }
        }
        let top: Vec<Value> = tokens
            .iter()
            .map(|token| {
                let entries: Map<String, Value> =
                    token.top.iter().map(|&(id, logprob)| (text(id), json!(logprob.max(-9999.0)))).collect();
                Value::Object(entries)
            })
            .collect();
        json!({
            "tokens": tokens.iter().map(|token| text(token.id)).collect::<Vec<_>>(),
            "token_logprobs": tokens.iter().map(|token| token.logprob.max(-9999.0)).collect::<Vec<_>>(),
            "top_logprobs": top,
            "text_offset": offsets,
        })
    }
}

impl Narrator for Pieces {
    fn begin(&mut self) -> Vec<Message> {
        let mut messages = Vec::new();
        for index in 0..self.total {
            let echo = self.echoes[index / self.answers_each].clone();
            if !echo.is_empty() {
                let choice = self.choice(index, &echo, &[], None);
                messages.push(Message::data(self.object(&json!([choice]), None).to_string()));
            }
        }
        messages
    }

    fn text(&mut self, index: usize, text: &str, tokens: &[TokenLogprob]) -> Vec<Message> {
        let choice = self.choice(index, text, tokens, None);
        vec![Message::data(self.object(&json!([choice]), None).to_string())]
    }

    fn done(&mut self, index: usize, answer: &Answer) -> Vec<Message> {
        self.counts.add(index % self.answers_each, answer);
        let choice = self.choice(index, "", &[], Some(finish_reason(answer.finish)));
        vec![Message::data(self.object(&json!([choice]), None).to_string())]
    }

    fn end(&mut self) -> Vec<Message> {
        let mut messages = Vec::new();
        if self.usage {
            let usage = self.counts.object();
            messages.push(Message::data(self.object(&json!([]), Some(usage)).to_string()));
        }
        messages.push(Message::data("[DONE]"));
        messages
    }

    fn failed(&mut self, error: &ApiError) -> Vec<Message> {
        vec![Message::data(error.object().to_string()), Message::data("[DONE]")]
    }
}

//! From requests to the tokens and options of the session.

use std::sync::{Mutex, PoisonError};

use sotto_engine::constrain::{Constrainer, Grammar};
use sotto_engine::filling::Filling;
use sotto_engine::prompt::{Ending, Prompter};
use sotto_engine::session::{Adjustments, GenerateOptions, Session};
use sotto_engine::token_bytes::TokenBytes;
use sotto_http::chat::{ChatMessage, Role};
use sotto_http::completion::Prompt;
use sotto_http::error::ApiError;
use sotto_http::sampling::{Form, Sampling};
use sotto_http::tool::{Tool, ToolChoice};
use sotto_models::chat_template::Message;
use sotto_models::generate::sampler::SamplerConfig;
use sotto_protocol::error::Error;

use super::error::refusal;
use super::generation::Work;
use super::tools::{self, Calls};

/// A conversation to answer, whichever endpoint it came to.
pub(super) struct Conversation<'a> {
    pub(super) messages: &'a [ChatMessage],
    pub(super) tools: &'a [Tool],
    pub(super) tool_choice: &'a ToolChoice,
    pub(super) sampling: &'a Sampling,
    /// Log-probabilities, with this many of the likeliest tokens each.
    pub(super) logprobs: Option<usize>,
    /// The form of the answer, and the field that asks for it.
    pub(super) form: (&'a Form, &'a str),
}

/// What is known about the model without the session.
pub(super) struct PromptBuilder {
    prompter: Prompter,
    bytes: TokenBytes,
    context_length: usize,
    vocab_size: usize,
    /// Bytes of text that one token stands for, no more; `None` if the tokenizer leaves out some of a text.
    longest_token: Option<usize>,
    filling: Option<Filling>,
    /// Made for the first answer that must have a form.
    constrainer: Mutex<Option<Constrainer>>,
}

impl PromptBuilder {
    pub(super) fn new(session: &mut Session) -> Self {
        let vocab_size = session.parts_mut().0.vocab_size();
        let bytes = TokenBytes::new(session.tokenizer());
        let longest_token = bytes.is_lossless().then(|| {
            let lengths = (0..vocab_size as u32).map(|id| bytes.of(id).len());
            lengths.max().unwrap_or(0).max(1)
        });
        Self {
            prompter: session.prompter().clone(),
            bytes,
            longest_token,
            filling: Filling::of(session.tokenizer()),
            context_length: session.context_length(),
            vocab_size,
            constrainer: Mutex::default(),
        }
    }

    /// The bytes of each token.
    pub(super) fn bytes(&self) -> &TokenBytes {
        &self.bytes
    }

    /// Tokens that the model can hold.
    pub(super) fn context_length(&self) -> usize {
        self.context_length
    }

    /// What to do for a conversation, and what its answer may hold.
    ///
    /// # Errors
    /// 400 that names the field.
    pub(super) fn work(&self, conversation: &Conversation<'_>) -> Result<(Work, Calls), ApiError> {
        let Conversation { messages, tools, tool_choice, sampling, logprobs, form } = *conversation;
        let tokens = self.conversation(messages, tools, tool_choice)?;
        let grammar = match tools::forced_call(tools, tool_choice) {
            Some(schema) => Some((Grammar::JsonSchema(schema), "tools")),
            None => grammar(form.0, form.1),
        };
        let options = self.options(sampling, logprobs, grammar)?;
        let work = Work { prompts: vec![tokens], answers: sampling.answers, options };
        Ok((work, Calls::of(tools, tool_choice)))
    }

    /// Tokens of a conversation. If the last message is the assistant's, the answer continues it.
    ///
    /// # Errors
    /// 400 if the template refuses the conversation or it does not fit.
    pub(super) fn conversation(
        &self,
        messages: &[ChatMessage],
        tools: &[Tool],
        choice: &ToolChoice,
    ) -> Result<Vec<u32>, ApiError> {
        // An empty beginning of an answer, as some clients send it, is none.
        let is_blank = |message: &ChatMessage| {
            message.role == Role::Assistant && message.calls.is_empty() && message.text.trim().is_empty()
        };
        let end = messages.iter().rposition(|message| !is_blank(message)).map_or(0, |last| last + 1);
        let messages = &messages[..end];
        let Some(last) = messages.last() else {
            return Err(ApiError::field("messages", "must contain a message to answer"));
        };
        let offered: &[Tool] = if *choice == ToolChoice::Never { &[] } else { tools };
        let rendered = rendered(messages, offered);
        self.check_bytes(rendered.iter().map(|message| message.content.len()).sum(), "messages")?;
        let continues = last.role == Role::Assistant && last.calls.is_empty();
        let ending = if continues { Ending::Continue } else { Ending::Answer };
        let mut tokens = self.prompter.tokens(&rendered, ending).map_err(refusal)?;
        if tools::forced_call(offered, choice).is_some() {
            tokens.extend(self.encode(&format!("{}\n", tools::BEGIN))?);
        }
        self.check_length(tokens, "messages")
    }

    /// Tokens of a text to continue.
    ///
    /// # Errors
    /// 400 if an id is outside the vocabulary or the prompt does not fit.
    pub(super) fn plain(&self, prompt: &Prompt) -> Result<Vec<u32>, ApiError> {
        let tokens = match prompt {
            Prompt::Text(text) => {
                self.check_bytes(text.len(), "prompt")?;
                self.prompter.tokenizer().encode_plain(text).map_err(|error| refusal(error.into()))?
            }
            Prompt::Tokens(ids) => ids.clone(),
        };
        if let Some(id) = tokens.iter().find(|&&id| id as usize >= self.vocab_size) {
            let expected = format!("must hold token ids below {}, got {id}", self.vocab_size);
            return Err(ApiError::field("prompt", expected));
        }
        if tokens.is_empty() {
            return Err(ApiError::field(
                "prompt",
                "must not be empty: this model has no token to begin with",
            ));
        }
        self.check_length(tokens, "prompt")
    }

    /// Tokens of a text with a gap, which the answer fills.
    ///
    /// # Errors
    /// As [`plain`](Self::plain); 400 if the model has no tokens for that.
    pub(super) fn filling(&self, beginning: &Prompt, end: &str) -> Result<Vec<u32>, ApiError> {
        let Some(filling) = &self.filling else {
            return Err(ApiError::unsupported("suffix", "the model has no tokens for filling in"));
        };
        self.check_bytes(end.len(), "suffix")?;
        // What the tokenizer puts before a text belongs before all of it, so it is left out here.
        let tokenizer = self.prompter.tokenizer();
        let beginning = match beginning {
            Prompt::Text(text) if text.is_empty() => Vec::new(),
            Prompt::Text(text) => {
                self.check_bytes(text.len(), "prompt")?;
                self.encode(text)?
            }
            Prompt::Tokens(_) => self.plain(beginning)?,
        };
        let tokens = filling.prompt(tokenizer, &beginning, end).map_err(refusal)?;
        self.check_length(tokens, "prompt")
    }

    /// Tokens that end what fills a gap.
    pub(super) fn filling_ends(&self) -> Vec<u32> {
        self.filling.as_ref().map(|filling| filling.ends().to_vec()).unwrap_or_default()
    }

    /// Refuses a text that is far too long without the time to tokenize it.
    fn check_bytes(&self, bytes: usize, param: &str) -> Result<(), ApiError> {
        let limit = self.context_length;
        let least = self.longest_token.map_or(0, |longest| bytes / longest);
        if least <= limit {
            return Ok(());
        }
        let message = format!("{param} has more than {least} tokens. The model can hold {limit}.");
        Err(ApiError::context_exceeded(message, param))
    }

    fn check_length(&self, tokens: Vec<u32>, param: &str) -> Result<Vec<u32>, ApiError> {
        let limit = self.context_length;
        if tokens.len() < limit {
            return Ok(tokens);
        }
        let error = Error::ContextExceeded { tokens: tokens.len(), limit, reserved: 1 };
        Err(ApiError::context_exceeded(error.to_string(), param))
    }

    /// Ids of a text, control tokens included.
    ///
    /// # Errors
    /// 400 if the tokenizer refuses it.
    pub(super) fn encode(&self, text: &str) -> Result<Vec<u32>, ApiError> {
        self.prompter.tokenizer().encode(text).map_err(|error| refusal(error.into()))
    }

    /// Text of some ids.
    ///
    /// # Errors
    /// 400 if one is unknown.
    pub(super) fn decode(&self, ids: &[u32]) -> Result<String, ApiError> {
        if ids.iter().any(|&id| id as usize >= self.vocab_size) {
            return Err(ApiError::field("tokens", format!("must hold token ids below {}", self.vocab_size)));
        }
        self.prompter.tokenizer().decode(ids).map_err(|error| refusal(error.into()))
    }

    /// Options of the session for a request.
    ///
    /// # Errors
    /// 400 if a value is out of range or a schema is not supported.
    pub(super) fn options(
        &self,
        sampling: &Sampling,
        logprobs: Option<usize>,
        grammar: Option<(Grammar, &str)>,
    ) -> Result<GenerateOptions, ApiError> {
        // The default penalty on repeats would work against the braces and quotes of a form.
        let unasked_penalty = grammar.as_ref().map(|_| 1.0);
        let defaults =
            SamplerConfig::from_options(sampling.temperature, sampling.repeat_penalty.or(unasked_penalty));
        let sampler = SamplerConfig {
            top_p: sampling.top_p.unwrap_or(defaults.top_p),
            top_k: sampling.top_k.unwrap_or(defaults.top_k),
            min_p: sampling.min_p.unwrap_or(defaults.min_p),
            ..defaults
        };
        sampler.validate().map_err(|error| refusal(error.into()))?;
        if let Some(&(id, _)) = sampling.bias.iter().find(|(id, _)| *id as usize >= self.vocab_size) {
            let expected = format!("must name token ids below {}, got {id}", self.vocab_size);
            return Err(ApiError::field("logit_bias", expected));
        }
        if let Some((grammar, param)) = &grammar {
            self.check_grammar(grammar)
                .map_err(|error| ApiError::field(*param, format!("cannot be used: {error}")))?;
        }
        Ok(GenerateOptions {
            max_tokens: sampling.max_tokens.unwrap_or(self.context_length),
            sampler,
            seed: sampling.seed.unwrap_or_else(rand::random),
            ignore_eos: false,
            stop: sampling.stop.clone(),
            stop_ids: Vec::new(),
            adjustments: Adjustments {
                bias: sampling.bias.clone(),
                presence_penalty: sampling.presence_penalty,
                frequency_penalty: sampling.frequency_penalty,
            },
            logprobs,
            grammar: grammar.map(|(grammar, _)| grammar),
        })
    }

    /// Refuses what the session would refuse only after the response has begun.
    fn check_grammar(&self, grammar: &Grammar) -> Result<(), Error> {
        let mut slot = self.constrainer.lock().unwrap_or_else(PoisonError::into_inner);
        let constrainer = match slot.take() {
            Some(constrainer) => constrainer,
            None => Constrainer::new(self.prompter.tokenizer(), self.vocab_size)?,
        };
        slot.insert(constrainer).constraint(grammar).map(|_| ())
    }
}

/// The grammar of a form, with the field that asked for it.
fn grammar<'a>(form: &Form, param: &'a str) -> Option<(Grammar, &'a str)> {
    match form {
        Form::Text => None,
        Form::JsonObject => Some((Grammar::JsonObject, param)),
        Form::JsonSchema(schema) => Some((Grammar::JsonSchema(schema.clone()), param)),
    }
}

/// Messages as the template takes them: tools, calls and their results are text.
fn rendered(messages: &[ChatMessage], tools: &[Tool]) -> Vec<Message> {
    let mut rendered: Vec<Message> = Vec::new();
    if !tools.is_empty() {
        let system = messages.first().filter(|message| message.role == Role::System);
        let text = match system {
            Some(message) => format!("{}\n\n{}", message.text, tools::instructions(tools)),
            None => tools::instructions(tools),
        };
        rendered.push(Message::new("system", text));
    }
    let skipped = usize::from(
        !tools.is_empty() && messages.first().is_some_and(|message| message.role == Role::System),
    );
    for message in &messages[skipped..] {
        match message.role {
            Role::System => rendered.push(Message::new("system", message.text.clone())),
            Role::User => rendered.push(Message::new("user", message.text.clone())),
            Role::Assistant => {
                let calls = message.calls.iter().map(tools::call_text);
                let text = (!message.text.is_empty()).then(|| message.text.clone());
                let text: Vec<String> = text.into_iter().chain(calls).collect();
                rendered.push(Message::new("assistant", text.join("\n")));
            }
            Role::Tool => {
                let text = tools::result_text(&message.text);
                // Results of several calls are one turn.
                match rendered.last_mut() {
                    Some(last) if last.role == "user" && last.content.starts_with("<tool_response>") => {
                        last.content.push('\n');
                        last.content.push_str(&text);
                    }
                    _ => rendered.push(Message::new("user", text)),
                }
            }
        }
    }
    rendered
}

#[cfg(test)]
mod tests {
    use super::*;
    use sotto_http::tool::ToolCall;

    #[test]
    fn tools_calls_and_results_become_text() {
        let message = |role, text: &str| ChatMessage { role, text: text.to_owned(), calls: Vec::new() };
        let call = ToolCall { name: "f".to_owned(), arguments: "{}".to_owned() };
        let messages = [
            message(Role::System, "Be brief."),
            message(Role::User, "Go."),
            ChatMessage { role: Role::Assistant, text: String::new(), calls: vec![call] },
            message(Role::Tool, "1"),
            message(Role::Tool, "2"),
        ];
        let tool = Tool {
            name: "f".to_owned(),
            description: String::new(),
            parameters: serde_json::json!({ "type": "object" }),
        };
        let rendered = rendered(&messages, &[tool]);
        let roles: Vec<_> = rendered.iter().map(|message| message.role.as_str()).collect();
        assert_eq!(roles, ["system", "user", "assistant", "user"]);
        assert!(rendered[0].content.starts_with("Be brief.\n\n# Tools"));
        assert!(rendered[2].content.contains("\"name\":\"f\""));
        assert_eq!(rendered[3].content.matches("<tool_response>").count(), 2);
    }
}

//! From requests to the tokens and options of the session.

use std::sync::{Mutex, PoisonError};

use sotto_engine::constrain::{Constrainer, Grammar};
use sotto_engine::prompt::{Ending, Prompter};
use sotto_engine::session::{Adjustments, GenerateOptions, Session};
use sotto_engine::token_bytes::TokenBytes;
use sotto_http::chat::{ChatMessage, Role, Tool, ToolChoice};
use sotto_http::completion::Prompt;
use sotto_http::error::ApiError;
use sotto_http::sampling::{Form, Sampling};
use sotto_models::chat_template::Message;
use sotto_models::generate::sampler::SamplerConfig;
use sotto_protocol::error::Error;

use super::error::refusal;
use super::tools;

/// What is known about the model without the session.
pub(super) struct PromptBuilder {
    prompter: Prompter,
    bytes: TokenBytes,
    context_length: usize,
    vocab_size: usize,
    /// Made for the first answer that must have a form.
    constrainer: Mutex<Option<Constrainer>>,
}

impl PromptBuilder {
    pub(super) fn new(session: &mut Session) -> Self {
        let vocab_size = session.parts_mut().0.vocab_size();
        Self {
            prompter: session.prompter().clone(),
            bytes: TokenBytes::new(session.tokenizer()),
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
        let offered: &[Tool] = if *choice == ToolChoice::Never { &[] } else { tools };
        let rendered = rendered(messages, offered);
        let continues = messages.last().is_some_and(|message| message.role == Role::Assistant)
            && messages.last().is_some_and(|message| message.calls.is_empty());
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
pub(super) fn grammar<'a>(form: &Form, param: &'a str) -> Option<(Grammar, &'a str)> {
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
    use sotto_http::chat::ToolCall;

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

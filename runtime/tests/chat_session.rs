//! Conversations over several turns, on the int8 reference.

mod client_support;

use std::sync::Arc;

use client_support::smollm2;
use models::chat_template::Message;
use models::generate::sampler::SamplerConfig;
use models::layers::head::HeadPrecision;
use models::split::{ClientPart, ServerPart};
use runtime::backend::{Backend, BackendKind, Int8Backend};
use runtime::session::{Finish, GenerateOptions, Session};

fn session() -> Session {
    let local = smollm2();
    let part = ClientPart::load(local.client_directory()).unwrap().part;
    let server = ServerPart::open(local.server_directory()).unwrap();
    let int8 = Int8Backend::new(&server, &part.scales).unwrap();
    let model = part.causal_model(HeadPrecision::default()).unwrap();
    let template = Some(part.template().unwrap());
    let backend = Backend::new(BackendKind::Int8(Box::new(int8)));
    Session::new(model, backend, part.tokenizer, template, Arc::default())
}

fn options(max_tokens: usize) -> GenerateOptions {
    GenerateOptions {
        max_tokens,
        sampler: SamplerConfig::default(),
        seed: 0,
        ignore_eos: false,
        stop: Vec::new(),
    }
}

#[test]
fn earlier_turns_stay_in_the_cache() {
    let mut session = session();
    session.push_user("Name a colour.");
    let first = session.answer(&options(8), &|| false, &mut |_| {}).unwrap();
    assert_eq!(first.prefilled_tokens, first.prompt_tokens);
    session.push_user("Name another one.");
    let second = session.answer(&options(8), &|| false, &mut |_| {}).unwrap();
    assert!(second.prompt_tokens > first.prompt_tokens + first.token_ids.len());
    // Only the new message with its template, and the answer's last token, had to be run.
    assert!(second.prefilled_tokens < 24, "{}", second.prefilled_tokens);

    let mut fresh = self::session();
    fresh.set_messages(session.messages()[..3].to_vec());
    let again = fresh.answer(&options(8), &|| false, &mut |_| {}).unwrap();
    assert_eq!(again.token_ids, second.token_ids, "the cache changes nothing");
}

#[test]
fn streamed_pieces_are_the_text() {
    let mut session = session();
    session.push_user("Write one line about the sea, with an emoji.");
    let mut streamed = String::new();
    let answer = session.answer(&options(24), &|| false, &mut |piece| streamed.push_str(piece)).unwrap();
    assert_eq!(streamed, answer.text);
    assert!(!streamed.is_empty());
}

#[test]
fn a_cancelled_turn_keeps_the_conversation() {
    let mut session = session();
    session.push_user("Count to one hundred.");
    let count = std::cell::Cell::new(0);
    let cancelled = || count.replace(count.get() + 1) > 6;
    let answer = session.answer(&options(100), &cancelled, &mut |_| {}).unwrap();
    assert_eq!(answer.finish, Finish::Cancelled);
    assert!(!answer.token_ids.is_empty());
    assert_eq!(session.messages().len(), 2);
    session.push_user("Go on.");
    assert_eq!(session.answer(&options(4), &|| false, &mut |_| {}).unwrap().token_ids.len(), 4);
}

#[test]
fn a_full_context_drops_the_oldest_turns_and_says_so() {
    let mut session = session();
    let limit = 300;
    session.limit_context(limit);
    assert_eq!(session.context_length(), limit);
    let long = "word ".repeat(limit / 3);
    let mut messages = vec![Message::new("system", "You are terse.")];
    for _ in 0..3 {
        messages.push(Message::new("user", long.clone()));
        messages.push(Message::new("assistant", "ok"));
    }
    messages.push(Message::new("user", "Say hello."));
    session.set_messages(messages);
    let answer = session.answer(&options(1), &|| false, &mut |_| {}).unwrap();
    assert!(answer.dropped_messages >= 2);
    assert_eq!(session.messages()[0].role, "system");
    assert_eq!(session.messages()[session.messages().len() - 2].content, "Say hello.");

    session.set_messages(vec![Message::new("user", "word ".repeat(limit + 10))]);
    let error = session.answer(&options(1), &|| false, &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("shorten"), "{error}");
}

#[test]
fn a_stop_text_ends_the_answer_before_it() {
    let mut session = session();
    session.push_user("Explain photosynthesis in two sentences.");
    let stop = GenerateOptions { stop: vec!["process".to_owned()], ..options(40) };
    let answer = session.answer(&stop, &|| false, &mut |_| {}).unwrap();
    assert_eq!(answer.finish, Finish::Stop);
    assert!(!answer.text.contains("process") && !answer.text.is_empty());
    session.push_user("Thanks.");
    session.answer(&options(2), &|| false, &mut |_| {}).unwrap();
}

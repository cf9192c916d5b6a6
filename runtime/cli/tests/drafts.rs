//! Drafts and shared passes change no answer, on the int8 reference, whose products do not depend on what else is in a pass.

mod client_support;

use std::collections::BTreeMap;
use std::sync::OnceLock;

use client_support::smollm2;
use sotto_engine::embedded::LocalModel;
use sotto_engine::open::{BackendSpec, Chat, DraftSource, Model, OpenOptions};
use sotto_engine::session::conversations::Event;
use sotto_engine::session::{Answer, Conversations, DraftLength, GenerateOptions, Progress};
use sotto_models::generate::sampler::SamplerConfig;
use sotto_storage::{Cache, NoProgress};

fn local() -> &'static LocalModel {
    static LOCAL: OnceLock<LocalModel> = OnceLock::new();
    LOCAL.get_or_init(smollm2)
}

fn chat() -> Chat {
    let options = OpenOptions::new(Cache::from_env().unwrap());
    Model::open_local(local(), &BackendSpec::Int8, options, &NoProgress).unwrap().into_chat().unwrap()
}

fn options(temperature: f32, seed: u64) -> GenerateOptions {
    GenerateOptions {
        max_tokens: 24,
        sampler: SamplerConfig { temperature, top_p: 0.95, ..SamplerConfig::default() },
        seed,
        ..GenerateOptions::default()
    }
}

/// One with something to repeat, one without.
const QUESTIONS: [&str; 2] = [
    "Repeat this list twice, word for word: red apples, green pears, yellow plums, red apples, green pears.",
    "What is the sea?",
];

fn answer(chat: &mut Chat, question: &str, options: &GenerateOptions) -> Answer {
    chat.session.clear();
    chat.session.push_user(question);
    chat.session.answer(options, &|| false, &mut |_| {}).unwrap()
}

#[test]
fn drafts_change_no_answer_whatever_the_sampler() {
    let mut chat = chat();
    let cache = Cache::from_env().unwrap();
    let mut expected = Vec::new();
    let settings = [options(0.0, 0), options(1.0, 3), options(1.0, 4)];
    for question in QUESTIONS {
        expected.extend(settings.iter().map(|options| answer(&mut chat, question, options)));
    }
    assert_ne!(expected[1].token_ids, expected[2].token_ids, "the seed matters");
    let model = DraftSource::Model(sotto_engine::fetch::ModelRef::parse("smollm2-135m").unwrap());
    for (source, length) in [
        (DraftSource::Ngram, DraftLength::Fixed(1)),
        (DraftSource::Ngram, DraftLength::Fixed(7)),
        (DraftSource::Ngram, DraftLength::Auto),
        (DraftSource::Ngram, DraftLength::Steady),
        (model, DraftLength::Fixed(4)),
    ] {
        chat.draft(&source, length, &cache, &NoProgress).unwrap();
        let mut drafted = 0;
        for (case, question) in QUESTIONS.iter().enumerate() {
            for (which, options) in settings.iter().enumerate() {
                let got = answer(&mut chat, question, options);
                let wanted = &expected[case * settings.len() + which];
                assert_eq!(got.token_ids, wanted.token_ids, "{source:?} {length:?}");
                assert_eq!(got.text, wanted.text);
                assert_eq!(got.decode_tokens, wanted.decode_tokens);
                assert!(got.accepted_tokens <= got.drafted_tokens);
                // Each pass brings a token besides the drafts that were right, but where a draft ended the text.
                let besides = got.decode_tokens - got.accepted_tokens;
                assert!(besides == got.decode_passes || besides + 1 == got.decode_passes, "{got:?}");
                if which == 0 && matches!(source, DraftSource::Model(_)) {
                    // Drafts of the model itself are right unless the answer ends.
                    assert!(got.accepted_tokens * 10 >= got.drafted_tokens * 8, "{got:?}");
                }
                drafted += got.drafted_tokens;
            }
        }
        // In clear there are no round trips to save.
        assert_eq!(drafted > 0, length != DraftLength::Steady && length != DraftLength::Auto, "{length:?}");
    }
}

#[test]
fn every_pass_of_a_steady_session_has_as_many_tokens() {
    let mut chat = chat();
    chat.draft(&DraftSource::Ngram, DraftLength::Fixed(3), &Cache::from_env().unwrap(), &NoProgress).unwrap();
    for question in QUESTIONS {
        let answer = answer(&mut chat, question, &options(0.0, 0));
        assert_eq!(answer.drafted_tokens, 3 * answer.decode_passes, "{answer:?}");
    }
}

/// Runs all of them together; with `late`, those at an odd place join later.
fn together(
    conversations: &mut Conversations,
    prompts: &[Vec<u32>],
    options: &GenerateOptions,
    late: bool,
) -> Vec<Answer> {
    let mut answers: BTreeMap<u64, Answer> = BTreeMap::new();
    let mut waiting: Vec<u64> = (0..prompts.len() as u64).collect();
    let mut passes = 0;
    while answers.len() < prompts.len() {
        waiting.retain(|&id| {
            let prompt = &prompts[id as usize];
            let late = late && id % 2 == 1 && passes < 3;
            if late || !conversations.has_room_for(prompt) {
                return true;
            }
            conversations.join(id, prompt, options).unwrap();
            false
        });
        conversations
            .pass(&mut |id, event| match event {
                Event::Ended(answer) => {
                    answers.insert(id, *answer.unwrap());
                }
                Event::Progress(Progress::Text { .. } | Progress::Prompt { .. }) => {}
            })
            .unwrap();
        passes += 1;
    }
    answers.into_values().collect()
}

#[test]
fn conversations_that_share_passes_are_answered_as_alone() {
    for length in [None, Some(DraftLength::Fixed(3))] {
        let mut chat = chat();
        let prompts: Vec<Vec<u32>> = ["What is the sea?", QUESTIONS[0], "Name a colour.", "What is the sea?"]
            .iter()
            .map(|text| {
                let message = sotto_models::chat_template::Message::new("user", *text);
                let prompter = chat.session.prompter();
                prompter.tokens(&[message], sotto_engine::prompt::Ending::Answer).unwrap()
            })
            .collect();
        for temperature in [0.0, 1.0] {
            let options = options(temperature, 9);
            let alone: Vec<Vec<u32>> = prompts
                .iter()
                .map(|prompt| {
                    chat.session.clear();
                    let answer = chat.session.answer_tokens(prompt, &options, &|| false, &mut |_| {});
                    answer.unwrap().token_ids
                })
                .collect();
            let mut shared = self::chat();
            if let Some(length) = length {
                let cache = Cache::from_env().unwrap();
                shared.draft(&DraftSource::Ngram, length, &cache, &NoProgress).unwrap();
            }
            let mut shared = shared.into_shared();
            // A prompt that joins later is read in smaller parts, whose sums are rounded otherwise: now and then that decides a draw.
            let late = temperature == 0.0;
            let answers = together(&mut shared.conversations, &prompts, &options, late);
            let got: Vec<Vec<u32>> = answers.iter().map(|answer| answer.token_ids.clone()).collect();
            assert_eq!(got, alone, "temperature {temperature}");
            let missed = answers[3].prefilled_tokens;
            assert_eq!(missed, 1, "the last one's prompt was read by the first");
        }
    }
}

#[test]
fn one_that_leaves_changes_nothing_for_the_others() {
    let mut chat = chat();
    let prompt = |text: &str| chat.session.tokenizer().encode(text).unwrap();
    let (first, second) = (prompt("The harbour was quiet"), prompt("Once upon a time there"));
    let options = options(0.0, 0);
    let alone = chat.session.answer_tokens(&first, &options, &|| false, &mut |_| {}).unwrap();
    let mut conversations = self::chat().into_shared().conversations;
    conversations.join(1, &first, &options).unwrap();
    conversations.join(2, &second, &options).unwrap();
    let (mut got, mut passes) = (None, 0);
    while got.is_none() {
        if passes == 4 {
            conversations.leave(2);
        }
        conversations
            .pass(&mut |id, event| match event {
                Event::Ended(answer) => got = Some(answer.unwrap()),
                Event::Progress(_) => assert!(id == 1 || passes < 4, "it left"),
            })
            .unwrap();
        passes += 1;
    }
    assert_eq!(got.unwrap().token_ids, alone.token_ids);
    assert!(conversations.is_empty());
}

//! Tokenizer, chat template and streaming of a real model.

mod support;

use models::chat_template::{ChatTemplate, Message};
use models::generate::stop::{StopReason, TextStream};
use models::tokenizer::Tokenizer;
use proptest::prelude::*;
use std::sync::OnceLock;

fn tokenizer() -> &'static Tokenizer {
    static TOKENIZER: OnceLock<Tokenizer> = OnceLock::new();
    TOKENIZER.get_or_init(|| support::smollm2().tokenizer)
}

/// The pieces a stream gives for these ids, and why it stopped.
fn streamed(ids: &[u32], stops: &[&str]) -> (Vec<String>, Option<StopReason>) {
    let stops: Vec<String> = stops.iter().map(|stop| (*stop).to_owned()).collect();
    let mut stream = TextStream::new(tokenizer(), &tokenizer().special().eos, &stops);
    let mut pieces: Vec<String> = ids.iter().map(|&id| stream.push(id).unwrap()).collect();
    pieces.push(stream.finish().unwrap());
    (pieces, stream.stopped().cloned())
}

#[test]
fn a_page_of_prose_has_the_ids_of_the_models_own_tokenizer() {
    let (text, ids) = support::prose_text();
    assert_eq!(tokenizer().encode(&text).unwrap(), ids);
    assert_eq!(tokenizer().decode(&ids).unwrap(), text);
}

#[test]
fn digits_stand_alone_and_control_tokens_are_whole() {
    let ids = tokenizer().encode("<|im_start|>user\n2024<|im_end|>").unwrap();
    let texts: Vec<_> = ids.iter().map(|&id| tokenizer().token_text(id).unwrap()).collect();
    assert_eq!(texts, ["<|im_start|>", "user", "Ċ", "2", "0", "2", "4", "<|im_end|>"]);
    assert_eq!(tokenizer().decode(&ids).unwrap(), "user\n2024");
    assert!(tokenizer().special().eos.contains(&2));
    assert!(!tokenizer().special().add_bos);
}

#[test]
fn the_template_is_the_one_in_the_file() {
    let template = support::smollm2().template().unwrap();
    let messages = [Message::new("system", "Be brief."), Message::new("user", "Hi")];
    assert_eq!(
        template.render(&messages, true).unwrap(),
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    );
    let text = template.render(&messages[1..], false).unwrap();
    assert!(text.starts_with("<|im_start|>system\nYou are a helpful AI assistant named SmolLM"), "{text}");
    assert!(text.ends_with("Hi<|im_end|>\n"), "{text}");
}

#[test]
fn templates_use_pythons_methods_and_may_refuse() {
    let source = "{%- for m in messages -%}
        {%- if m['role'] not in ['user', 'assistant'] -%}{{ raise_exception('no ' + m.role) }}{%- endif -%}
        {{ bos_token if loop.first else '' }}[{{ m.role.upper() }}] {{ m['content'].strip() }}{{ eos_token }}
        {%- if not loop.last %} {% endif -%}
        {%- endfor -%}";
    let template = ChatTemplate::new(source, "<s>", "</s>").unwrap();
    let rendered = template.render(&[Message::new("user", " a "), Message::new("assistant", "b")], false);
    assert_eq!(rendered.unwrap(), "<s>[USER] a</s> [ASSISTANT] b</s>");
    let secret = "a private sentence";
    let error = template.render(&[Message::new("tool", secret)], false).unwrap_err().to_string();
    assert!(error.contains("no tool"), "{error}");
    assert!(!error.contains(secret), "{error}");
    assert!(ChatTemplate::new("{% for %}", "", "").is_err());
}

#[test]
fn what_templates_of_newer_models_are_made_of_works() {
    // Backward slices, namespaces, type tests, methods of strings, macros, loop controls; tools that are defined but none.
    let source = "{%- macro head(m) %}<{{ m.role }}>{% endmacro -%}
        {%- if tools is not none %}{{ 'TOOLS' }}{% endif -%}
        {%- if strftime_now is defined %}{{ 'DATE' }}{% endif -%}
        {%- set ns = namespace(last=messages | length, open=true) -%}
        {%- for m in messages[::-1] -%}
            {%- set index = (messages | length - 1) - loop.index0 -%}
            {%- if ns.open and m.role == 'user' and m.content is string and not m.content.startswith('<r>') -%}
                {%- set ns.last = index -%}{%- set ns.open = false -%}
            {%- endif -%}
        {%- endfor -%}
        {%- for m in messages -%}
            {%- if m.role == 'skip' %}{% continue %}{% endif -%}
            {%- set text = m.content -%}
            {%- if m.reasoning_content is string or '</t>' in text -%}
                {%- set text = (text.split('</t>') | last).lstrip('\\n') -%}
            {%- endif -%}
            {{- head(m) + (text | trim) + ('!' if loop.index0 == ns.last else '') + '\n' -}}
        {%- endfor -%}
        {%- if add_generation_prompt -%}
            {{- '<assistant>' -}}
            {%- if enable_thinking is defined and enable_thinking is false %}{{ 'QUIET' }}{% endif -%}
        {%- endif -%}";
    let messages = [
        Message::new("user", " first "),
        Message::new("assistant", "thoughts</t>\nsecond"),
        Message::new("skip", "no"),
        Message::new("user", "third"),
        Message::new("user", "<r>fourth"),
    ];
    let template = ChatTemplate::new(source, "", "").unwrap();
    assert_eq!(
        template.render(&messages, true).unwrap(),
        "<user>first\n<assistant>second\n<user>third!\n<user><r>fourth\n<assistant>"
    );
}

#[test]
fn a_template_cannot_hang_its_reader_or_fill_its_memory() {
    for source in [
        "{% for a in range(90000) %}{% for b in range(90000) %}{{ b }}{% endfor %}{% endfor %}",
        "{{ 'x' * 4000000000 }}",
        "{% set ns = namespace(t='xxxxxxxxxxxxxxxx') %}{% for a in range(99) %}{% set ns.t = ns.t + ns.t %}{% endfor %}",
        "{% macro m(n) %}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}",
    ] {
        let template = ChatTemplate::new(source, "", "").unwrap();
        let error = template.render(&[Message::new("user", "hi")], true).unwrap_err();
        assert!(matches!(error, models::Error::ChatTemplate { .. }), "{source}: {error}");
    }
    // Ten thousand messages are none of this.
    let long: Vec<_> =
        (0..10_000).map(|i| Message::new(["user", "assistant"][i % 2], "word ".repeat(20))).collect();
    assert!(support::smollm2().template().unwrap().render(&long, true).unwrap().len() > 1_000_000);
}

#[test]
fn no_piece_ends_inside_a_character() {
    let text = "naïve 🦀🐣 größer 日本語\n";
    let ids = tokenizer().encode(text).unwrap();
    assert!(ids.len() > text.chars().count() / 2, "some characters take several tokens");
    let (pieces, stopped) = streamed(&ids, &[]);
    assert!(pieces.iter().all(|piece| !piece.contains('\u{fffd}')), "{pieces:?}");
    assert_eq!(pieces.concat(), text);
    assert_eq!(stopped, None);
    assert!(pieces.iter().filter(|piece| !piece.is_empty()).count() > 5, "{pieces:?}");
}

#[test]
fn an_unfinished_character_at_the_end_is_shown_as_such() {
    let ids = tokenizer().encode("a 🦀").unwrap();
    let (pieces, _) = streamed(&ids[..ids.len() - 1], &[]);
    assert!(pieces.concat().starts_with("a "));
    assert!(pieces.last().unwrap().contains('\u{fffd}'), "{pieces:?}");
}

#[test]
fn stop_strings_are_cut_out_even_across_tokens() {
    let ids = tokenizer().encode("one two\nUser: three four").unwrap();
    let (pieces, stopped) = streamed(&ids, &["\nUser:", ""]);
    assert_eq!(pieces.concat(), "one two");
    assert_eq!(stopped, Some(StopReason::StopString("\nUser:".into())));
    // The beginning of a stop string that does not come true is shown after all.
    let ids = tokenizer().encode("one two\nUse three").unwrap();
    let (pieces, stopped) = streamed(&ids, &["\nUser:"]);
    assert_eq!(pieces.concat(), "one two\nUse three");
    assert_eq!(stopped, None);
    // Of several stops the earliest counts.
    let ids = tokenizer().encode("abc def").unwrap();
    assert_eq!(streamed(&ids, &["def", "c d"]).0.concat(), "ab");
}

#[test]
fn the_end_of_text_stops_and_nothing_comes_after() {
    let mut ids = tokenizer().encode("Yes.").unwrap();
    ids.push(2);
    ids.extend(tokenizer().encode(" No.").unwrap());
    let (pieces, stopped) = streamed(&ids, &[]);
    assert_eq!(pieces.concat(), "Yes.");
    assert_eq!(stopped, Some(StopReason::EndOfText));
}

proptest! {
    #[test]
    fn pieces_add_up_to_the_text(text in "(?s)[a-z0-9 \\n]{0,12}.{0,20}") {
        let ids = tokenizer().encode(&text).unwrap();
        let (pieces, _) = streamed(&ids, &["zzzz"]);
        prop_assert_eq!(pieces.concat(), tokenizer().decode(&ids).unwrap());
    }

    #[test]
    fn a_stop_string_leaves_what_is_before_it(text in "[ab ]{0,20}", stop in "[ab]{1,3}") {
        let ids = tokenizer().encode(&text).unwrap();
        let (pieces, _) = streamed(&ids, &[&stop]);
        let expected = text.split(stop.as_str()).next().unwrap();
        prop_assert_eq!(pieces.concat(), expected);
    }
}

//! Templates that put constants between messages, found by asking them.
//!
//! Most templates in use (ChatML, Llama 3, Mistral, Gemma, Phi, Zephyr, ...) write a constant before a message that depends
//! on its role and on the role of the message before it, and a constant at the end. These constants are found by rendering
//! conversations of made-up words; then longer conversations, words between spaces and words after a closed `<think>` must
//! come out as the constants say, or the template counts as unknown.

use super::{Message, Rendered};
use crate::{Error, Result};

/// What can come before or after a constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Start,
    System,
    User,
    Assistant,
    /// The end, where the conversation is all.
    End,
    /// The end, where an answer is to begin.
    Prompt,
}

use Place::{Assistant, End, Prompt, Start, System, User};

impl Place {
    fn of(role: &str) -> Option<Self> {
        match role {
            "system" => Some(System),
            "user" => Some(User),
            "assistant" => Some(Assistant),
            _ => None,
        }
    }

    fn role(self) -> &'static str {
        match self {
            System => "system",
            User => "user",
            _ => "assistant",
        }
    }
}

/// What a template does to a message's text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Treatment {
    /// Spaces at both ends are cut off.
    trims: bool,
    /// Everything up to the last `</think>` is cut off, with the line breaks after it.
    forgets_thoughts: bool,
}

impl Treatment {
    fn apply(self, text: &str) -> &str {
        let text = match text.rsplit_once("</think>") {
            Some((_, rest)) if self.forgets_thoughts => rest.trim_start_matches('\n'),
            _ => text,
        };
        if self.trims { text.trim() } else { text }
    }
}

/// The constants of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ChatFormat {
    /// Before, after, and what is between; what is not here the template refuses.
    between: Vec<(Place, Place, String)>,
    /// For system, user and assistant.
    treatments: [Treatment; 3],
}

/// Renders a conversation of made-up words.
type Ask<'a> = &'a dyn Fn(&[Message], bool) -> Result<String>;

/// Made-up words; none is part of another or of a template.
const WORDS: [&str; 8] = ["qzxa", "qzxb", "qzxc", "qzxd", "qzxe", "qzxf", "qzxg", "qzxh"];

fn conversation(places: &[Place]) -> Vec<Message> {
    places.iter().zip(WORDS).map(|(place, word)| Message::new(place.role(), word)).collect()
}

impl ChatFormat {
    /// The constants of a template, if constants are all there is.
    pub(super) fn find(ask: impl Fn(&[Message], bool) -> Result<String>) -> Option<Self> {
        let ask: Ask<'_> = &ask;
        let mut format = Self { between: Vec::new(), treatments: [Treatment::default(); 3] };
        // Every pair of neighbours occurs in one of these, next to pairs that occur before it.
        let shapes: [&[Place]; 9] = [
            &[User],
            &[User, Assistant],
            &[User, Assistant, User],
            &[System, User],
            &[System, User, Assistant],
            &[System],
            &[User, User],
            &[User, Assistant, Assistant],
            &[Assistant],
        ];
        for shape in shapes {
            for prompt in [false, true] {
                // A template may refuse a shape.
                if let Ok(text) = ask(&conversation(shape), prompt) {
                    format.learn(shape, prompt, &text)?;
                }
            }
        }
        // A template that refuses a question and an answer is none that this can imitate.
        format.constant(User, Prompt)?;
        format.treatments = format.find_treatments(ask)?;
        format.explains(ask).then_some(format)
    }

    fn constant(&self, before: Place, after: Place) -> Option<&str> {
        let found = self.between.iter().find(|(b, a, _)| (*b, *a) == (before, after));
        found.map(|(_, _, text)| text.as_str())
    }

    /// Takes the constants from the text of a conversation; `None` if they contradict the known ones.
    fn learn(&mut self, shape: &[Place], prompt: bool, text: &str) -> Option<()> {
        let end = if prompt { Prompt } else { End };
        let mut before = Start;
        let mut rest = text;
        for (place, word) in shape.iter().copied().zip(WORDS) {
            let (constant, after) = rest.split_once(word)?;
            self.keep(before, place, constant)?;
            (before, rest) = (place, after);
        }
        self.keep(before, end, rest)
    }

    fn keep(&mut self, before: Place, after: Place, constant: &str) -> Option<()> {
        match self.constant(before, after) {
            Some(known) => (known == constant).then_some(()),
            None => {
                self.between.push((before, after, constant.to_owned()));
                Some(())
            }
        }
    }

    fn find_treatments(&self, ask: Ask<'_>) -> Option<[Treatment; 3]> {
        let mut treatments = [Treatment::default(); 3];
        for (treatment, place) in treatments.iter_mut().zip([System, User, Assistant]) {
            let shape: &[Place] = match place {
                System => &[System, User],
                User => &[User],
                _ => &[User, Assistant, User],
            };
            let at = shape.iter().position(|of| *of == place)?;
            if ask(&conversation(shape), true).is_err() {
                continue;
            }
            let with = |text: &str| {
                let mut messages = conversation(shape);
                text.clone_into(&mut messages[at].content);
                ask(&messages, true).ok()
            };
            let expected = |text: &str| {
                let mut messages = conversation(shape);
                text.clone_into(&mut messages[at].content);
                self.plain_text(&messages, Prompt)
            };
            let (spaced, thoughtful) = (" \n qzxy \n ", "<think>\nqzxz\n</think>\n\nqzxy");
            treatment.trims = with(spaced)? != expected(spaced)?;
            treatment.forgets_thoughts = with(thoughtful)? != expected(thoughtful)?;
        }
        Some(treatments)
    }

    /// The text of a conversation without any treatment of messages.
    fn plain_text(&self, messages: &[Message], end: Place) -> Option<String> {
        let mut before = Start;
        let mut text = String::new();
        for message in messages {
            let place = Place::of(&message.role)?;
            text.push_str(self.constant(before, place)?);
            text.push_str(&message.content);
            before = place;
        }
        text.push_str(self.constant(before, end)?);
        Some(text)
    }

    /// Whether longer conversations, and messages of odd forms, come out of the template as the constants say.
    fn explains(&self, ask: Ask<'_>) -> bool {
        let shapes: [&[Place]; 4] = [
            &[User, Assistant, User, Assistant, User],
            &[System, User, Assistant, User, Assistant, User],
            &[System, User, Assistant, User, User],
            &[User, Assistant, User, Assistant, User, Assistant],
        ];
        let odd = [
            "qzxy",
            " qzxy",
            "qzxy\n\n",
            "\tqz xy \u{e9}\u{1f980}\n",
            "{{ qzxy }}",
            "a</think>\n\nqzxy",
            "<think>\nqz\n</think>\n\n qzxy\n",
            "",
        ];
        shapes.iter().all(|shape| {
            odd.iter().all(|odd| {
                (0..=shape.len()).all(|at| {
                    let mut messages = conversation(shape);
                    if let Some(message) = messages.get_mut(at) {
                        (*odd).clone_into(&mut message.content);
                    }
                    [false, true].iter().all(|&prompt| {
                        let ours = self.render(&messages, prompt, &[]);
                        match (ask(&messages, prompt), ours) {
                            (Ok(theirs), Ok(ours)) => theirs == ours.text(),
                            // A conversation that only the template takes would be refused for no reason.
                            (Ok(_), Err(_)) => false,
                            (Err(_), _) => true,
                        }
                    })
                })
            })
        })
    }

    /// Puts a conversation together.
    ///
    /// # Errors
    /// If the template refuses its sequence of roles.
    pub(super) fn render(&self, messages: &[Message], prompt: bool, controls: &[String]) -> Result<Rendered> {
        let refused = || Error::ChatTemplate {
            reason: "the template does not take messages of these roles in this order".to_owned(),
        };
        let mut rendered = Rendered::default();
        let mut before = Start;
        for message in messages {
            let place = Place::of(&message.role).ok_or_else(refused)?;
            let constant = self.constant(before, place).ok_or_else(refused)?;
            rendered.push_template_text(constant, controls);
            let [system, user, assistant] = self.treatments;
            let treatment = match place {
                System => system,
                User => user,
                _ => assistant,
            };
            rendered.push_text(treatment.apply(&message.content));
            before = place;
        }
        let end = if prompt { Prompt } else { End };
        rendered.push_template_text(self.constant(before, end).ok_or_else(refused)?, controls);
        Ok(rendered)
    }

    /// What people call the format.
    pub(super) fn name(&self) -> &'static str {
        let prompt = self.constant(User, Prompt).unwrap_or_default();
        let first = self.constant(Start, User).unwrap_or_default();
        let names = [
            ("<|im_start|>", "ChatML"),
            ("<|start_header_id|>", "Llama 3"),
            ("[/INST]", "Mistral"),
            ("<start_of_turn>", "Gemma"),
            ("<|start_of_role|>", "Granite"),
            ("<|START_OF_TURN_TOKEN|>", "Cohere"),
            ("<|end|>", "Phi"),
            ("<|assistant|>", "Zephyr"),
        ];
        let known = names.iter().find(|(mark, _)| prompt.contains(mark) || first.contains(mark));
        known.map_or("constant", |(_, name)| name)
    }
}

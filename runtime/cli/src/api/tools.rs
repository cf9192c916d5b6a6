//! Calls of tools as text, in the form that Qwen and Hermes models were trained on, and back.

use serde_json::{Value, json};
use sotto_engine::session::Answer;
use sotto_http::tool::{Tool, ToolCall, ToolChoice};

/// Begins a call.
pub(super) const BEGIN: &str = "<tool_call>";

/// Ends a call.
const END: &str = "</tool_call>";

/// What the system message says about the tools.
pub(super) fn instructions(tools: &[Tool]) -> String {
    let list: Vec<String> = tools
        .iter()
        .map(|tool| {
            json!({
                "type": "function",
                "function": {
                    "name": tool.name,
                    "description": tool.description,
                    "parameters": tool.parameters,
                },
            })
            .to_string()
        })
        .collect();
    format!(
        "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n\
         You are provided with function signatures within <tools></tools> XML tags:\n<tools>\n{}\n</tools>\n\n\
         For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML \
         tags:\n{BEGIN}\n{{\"name\": <function-name>, \"arguments\": <args-json-object>}}\n{END}",
        list.join("\n")
    )
}

/// A call as the model writes it.
pub(super) fn call_text(call: &ToolCall) -> String {
    let arguments: Value = serde_json::from_str(&call.arguments).unwrap_or_else(|_| json!({}));
    let call = json!({ "name": call.name, "arguments": arguments });
    format!("{BEGIN}\n{call}\n{END}")
}

/// The result of a tool as the model reads it.
pub(super) fn result_text(text: &str) -> String {
    format!("<tool_response>\n{text}\n</tool_response>")
}

/// The schema of the call that must come next; `None` if the model may write what it likes.
pub(super) fn forced_call(tools: &[Tool], choice: &ToolChoice) -> Option<Value> {
    let may = |tool: &&Tool| match choice {
        ToolChoice::Required => true,
        ToolChoice::Named(name) => tool.name == *name,
        ToolChoice::Auto | ToolChoice::Never => false,
    };
    let mut calls: Vec<Value> = tools
        .iter()
        .filter(may)
        .map(|tool| {
            json!({
                "type": "object",
                "properties": { "name": { "const": tool.name }, "arguments": tool.parameters },
                "required": ["name", "arguments"],
                "additionalProperties": false,
            })
        })
        .collect();
    match calls.len() {
        0 => None,
        1 => calls.pop(),
        _ => Some(json!({ "anyOf": calls })),
    }
}

/// One call from its JSON.
pub(super) fn read_call(text: &str) -> Option<ToolCall> {
    let call: Value = serde_json::from_str(text.trim()).ok()?;
    let name = call.get("name")?.as_str()?.to_owned();
    let arguments = call.get("arguments").cloned().unwrap_or_else(|| json!({}));
    Some(ToolCall { name, arguments: arguments.to_string() })
}

/// Whether an answer is one call, may hold calls, or is text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Calls {
    /// It is one call.
    Forced,
    /// It may hold calls.
    Possible,
    /// It is text.
    None,
}

impl Calls {
    /// What the tools of a request, and the choice among them, make of its answer.
    pub(super) fn of(tools: &[Tool], choice: &ToolChoice) -> Self {
        match (forced_call(tools, choice), tools.is_empty() || *choice == ToolChoice::Never) {
            (Some(_), _) => Self::Forced,
            (None, false) => Self::Possible,
            (None, true) => Self::None,
        }
    }

    /// The text and the calls of a whole answer.
    pub(super) fn split(self, answer: &Answer) -> (String, Vec<ToolCall>) {
        let mut splitter = Splitter::new(self);
        let text = splitter.push(&answer.text);
        let (rest, calls) = splitter.finish(answer);
        (text + &rest, calls)
    }
}

/// Separates the text of one answer from its calls, as `calls` says.
pub(super) struct Splitter {
    calls: Calls,
    filter: CallFilter,
}

impl Splitter {
    /// Before the answer.
    pub(super) fn new(calls: Calls) -> Self {
        Self { calls, filter: CallFilter::default() }
    }

    /// Takes a piece; returns what of it is text for the reader.
    pub(super) fn push(&mut self, piece: &str) -> String {
        match self.calls {
            Calls::None => piece.to_owned(),
            Calls::Possible => self.filter.push(piece),
            // All of it is the call, which is sent when it is whole.
            Calls::Forced => String::new(),
        }
    }

    /// The end: what was held back, as text or as calls.
    pub(super) fn finish(&mut self, answer: &Answer) -> (String, Vec<ToolCall>) {
        match self.calls {
            Calls::None => (String::new(), Vec::new()),
            Calls::Possible => std::mem::take(&mut self.filter).finish(),
            Calls::Forced => match read_call(&answer.text) {
                Some(call) => (String::new(), vec![call]),
                // Cut before its end: the text shows how far it came.
                None => (answer.text.clone(), Vec::new()),
            },
        }
    }
}

/// Separates the text of an answer from its calls while it comes.
#[derive(Default)]
pub(super) struct CallFilter {
    held: String,
}

impl CallFilter {
    /// Takes a piece; returns the text that is certainly none of a call.
    pub(super) fn push(&mut self, piece: &str) -> String {
        self.held.push_str(piece);
        let keep_from = match self.held.find(BEGIN) {
            Some(at) => at,
            None => self.held.len() - beginning_of_call(&self.held),
        };
        let rest = self.held.split_off(keep_from);
        std::mem::replace(&mut self.held, rest)
    }

    /// The end: what was held back, as text or as calls.
    pub(super) fn finish(self) -> (String, Vec<ToolCall>) {
        let mut calls = Vec::new();
        for part in self.held.split(BEGIN).skip(1) {
            match read_call(part.split(END).next().unwrap_or_default()) {
                Some(call) => calls.push(call),
                // Not a call after all: better its text than nothing.
                None => return (self.held, Vec::new()),
            }
        }
        if calls.is_empty() { (self.held, calls) } else { (String::new(), calls) }
    }
}

/// Length of the longest end of `text` that is a beginning of [`BEGIN`].
fn beginning_of_call(text: &str) -> usize {
    (1..BEGIN.len()).rev().find(|&length| text.ends_with(&BEGIN[..length])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filtered(pieces: &[&str]) -> (String, Vec<ToolCall>) {
        let mut filter = CallFilter::default();
        let mut text: String = pieces.iter().map(|piece| filter.push(piece)).collect();
        let (rest, calls) = filter.finish();
        text.push_str(&rest);
        (text, calls)
    }

    #[test]
    fn calls_are_found_however_the_text_comes() {
        let whole = "Let me see.<tool_call>\n{\"name\": \"f\", \"arguments\": {\"x\": 1}}\n</tool_call>";
        let call = ToolCall { name: "f".to_owned(), arguments: "{\"x\":1}".to_owned() };
        for size in [1, 3, 7, whole.len()] {
            let pieces: Vec<&str> =
                whole.as_bytes().chunks(size).map(|bytes| std::str::from_utf8(bytes).unwrap()).collect();
            assert_eq!(filtered(&pieces), ("Let me see.".to_owned(), vec![call.clone()]), "{size}");
        }
        for text in ["a <b> c", "a <tool", "<tool_call>no json</tool_call>"] {
            assert_eq!(filtered(&[text]), (text.to_owned(), Vec::new()));
        }
    }

    #[test]
    fn a_call_survives_the_way_there_and_back() {
        let call = ToolCall { name: "f".to_owned(), arguments: "{\"a\":[1]}".to_owned() };
        assert_eq!(filtered(&[&call_text(&call)]).1, [call]);
    }

    #[test]
    fn the_schema_names_the_tools_that_may_be_called() {
        let tool = |name: &str| Tool {
            name: name.to_owned(),
            description: String::new(),
            parameters: json!({ "type": "object" }),
        };
        let tools = [tool("f"), tool("g")];
        assert_eq!(forced_call(&tools, &ToolChoice::Auto), None);
        let named = forced_call(&tools, &ToolChoice::Named("g".to_owned())).unwrap();
        assert_eq!(named["properties"]["name"]["const"], "g");
        assert_eq!(forced_call(&tools, &ToolChoice::Required).unwrap()["anyOf"].as_array().unwrap().len(), 2);
    }
}

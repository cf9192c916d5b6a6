use super::super::protocol::Api;
use super::*;
use proptest::prelude::*;
use serde_json::json;

fn marked(request: Value) -> Result<Value, Refusal> {
    let mut request = request;
    let mut each = |field: TextField| {
        let mark = match field.depth {
            Depth::Full => 'F',
            Depth::Light => 'L',
            Depth::Known => return None,
        };
        Some(format!("{mark}{}", field.value().len()))
    };
    Visitor::new(false, &mut each).request(&mut request, Api::Chat.request())?;
    Ok(request)
}

#[test]
fn every_text_is_seen_and_the_protocol_is_left() {
    let got = marked(json!({
        "model": "gpt", "temperature": 0.5, "stream": true, "user": "ann", "x_new": {"deep": ["abc", 7]},
        "tools": [{"type": "function", "function": {"name": "find", "description": "words"}}],
        "messages": [
            {"role": "system", "content": "four"},
            {"role": "user", "name": "Ann", "content": [{"type": "text", "text": "hello"}]},
            {"role": "assistant", "content": null, "tool_calls": [{"id": "call_abc123456", "type": "function", "function":
                {"name": "find", "arguments": "{\"who\": \"Ann Lee\", \"n\": 3, \"tel\": 4155550132}"}}]},
            {"role": "tool", "tool_call_id": "call_abc123456", "content": "ok"},
        ],
    }))
    .unwrap();
    assert_eq!((&got["model"], &got["L4"]), (&json!("L3"), &json!("F3")));
    assert_eq!(got["L5"], json!({"L4": ["F3", 7]}));
    let tool = &got["tools"][0];
    assert_eq!((&tool["type"], &tool["function"]["name"]), (&json!("function"), &json!("L4")));
    assert_eq!(tool["function"]["L11"], "F5");
    assert_eq!(
        got["messages"][1],
        json!({"role": "user", "L4": "F3", "content": [{"type": "text", "L4": "F5"}]})
    );
    let call = &got["messages"][2]["tool_calls"][0];
    assert_eq!((&call["id"], &call["type"]), (&json!("call_abc123456"), &json!("function")));
    let arguments: Value = serde_json::from_str(call["function"]["arguments"].as_str().unwrap()).unwrap();
    assert_eq!(arguments, json!({"L3": "F10", "L1": 3}));
    assert_eq!(got["messages"][3]["tool_call_id"], "call_abc123456");
}

#[test]
fn schemas_keep_their_keywords_and_give_up_what_they_say() {
    let got = marked(json!({"messages": [], "response_format": {"type": "json_schema", "json_schema": {"name": "n",
        "schema": {"type": "object", "properties": {"ann": {"type": ["string", "null"], "format": "date", "enum": ["Ann Lee"]},
        "Ann Lee": {"type": "string"}}, "required": ["ann"], "additionalProperties": false}}}}))
    .unwrap();
    assert_eq!(
        got["response_format"]["json_schema"]["schema"],
        json!({"type": "object", "properties": {"L3": {"type": ["string", "null"], "format": "date", "enum": ["F7"]},
            "F7": {"type": "string"}}, "required": ["L3"], "additionalProperties": false})
    );
}

#[test]
fn attachments_are_refused_wherever_they_are() {
    let image = json!({"type": "image_url", "image_url": {"url": "data:..."}});
    for request in [
        json!({"messages": [{"role": "user", "content": [image]}]}),
        json!({"messages": [{"role": "user", "content": image}]}),
        json!({"messages": [{"role": "user", "content": "x", "attachments": [{"file_id": "f"}]}]}),
        json!({"messages": [], "prediction": {"type": "content", "content": [image]}}),
        json!({"messages": [], "metadata": {"x": [image]}}),
        json!({"messages": [], "x": "data:image/png;base64,AAAA"}),
        json!({"messages": [], "x": "aB3".repeat(400)}),
    ] {
        assert!(marked(request.clone()).is_err(), "{request}");
    }
    assert!(
        marked(json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}]})).is_ok()
    );
}

#[test]
fn depth_is_refused_not_skipped() {
    let mut deep = json!("mail");
    for _ in 0..MAX_DEPTH + 2 {
        deep = json!([deep]);
    }
    assert!(marked(json!({"messages": [], "metadata": {"a": deep}})).is_err());
    let arguments = deep.to_string();
    let call = json!({"function": {"name": "f", "arguments": arguments}});
    assert!(marked(json!({"messages": [{"role": "assistant", "tool_calls": [call]}]})).is_err());
}

/// Any JSON value, with names and words of the protocol more often than chance has them.
fn any_json() -> impl Strategy<Value = Value> {
    let text = prop_oneof![
        3 => "[A-Za-z0-9 @.éß_-]{0,12}",
        1 => proptest::sample::select(WORDS).prop_map(str::to_owned),
        1 => Just("call_abc12345678".to_owned()),
        1 => any::<String>(),
    ];
    let key = prop_oneof![
        2 => "[A-Za-z @_]{1,8}",
        2 => proptest::sample::select(vec![
            "messages", "content", "role", "type", "id", "tools", "function", "parameters", "properties", "arguments",
            "tool_calls", "metadata", "response_format", "json_schema", "schema", "name", "text", "input", "model",
            "logit_bias", "tool_choice", "description", "format", "object", "detail", "required", "enum",
        ]).prop_map(str::to_owned),
    ];
    let leaf = prop_oneof![
        4 => text.prop_map(Value::from),
        1 => any::<i64>().prop_map(Value::from),
        1 => any::<bool>().prop_map(Value::from),
        1 => Just(Value::Null),
    ];
    leaf.prop_recursive(6, 60, 6, move |inner| {
        prop_oneof![
            2 => proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            3 => proptest::collection::vec((key.clone(), inner), 0..6)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// Strings and numbers of a value, and keys that no protocol knows.
fn leaves(value: &Value, out: &mut Vec<String>) {
    match value {
        Value::String(text) if !text.is_empty() => out.push(text.clone()),
        Value::Number(number) => out.push(number.to_string()),
        Value::Array(values) => values.iter().for_each(|value| leaves(value, out)),
        Value::Object(fields) => fields.values().for_each(|value| leaves(value, out)),
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn every_string_and_number_of_any_request_is_visited(request in any_json(), which in 0usize..Api::ALL.len()) {
        let mut expected = Vec::new();
        leaves(&request, &mut expected);
        let mut seen = Vec::new();
        let mut walked = request.clone();
        let mut each = |field: TextField| {
            seen.push((field.value(), field.depth));
            None
        };
        let visited = Visitor::new(false, &mut each).request(&mut walked, Api::ALL[which].request());
        prop_assert_eq!(&walked, &request, "a visit that replaces nothing changes nothing");
        // What was refused does not leave.
        prop_assume!(visited.is_ok());
        let inside = |text: &String| seen.iter().any(|(value, _)| value == text);
        for text in expected {
            // Arguments that are JSON are visited value by value.
            let parsed = serde_json::from_str::<Value>(&text).ok().filter(|value| value.is_object() || value.is_array());
            let by_value = parsed.is_some_and(|value| {
                let mut parts = Vec::new();
                leaves(&value, &mut parts);
                parts.iter().all(inside)
            });
            prop_assert!(inside(&text) || by_value, "{:?} was not visited", text);
        }
        // Only exact words, and identities and signatures that providers make, are spared the recognizers.
        for (value, depth) in &seen {
            let number = value.parse::<f64>().is_ok();
            let made = WORDS.contains(&value.as_str()) || is_identity(value) || is_opaque(value) || number;
            prop_assert!(*depth != Depth::Known || made, "{:?} was not scanned", value);
        }
    }

    #[test]
    fn what_replaces_a_text_stands_where_it_was(request in any_json()) {
        let mut walked = request.clone();
        let mut texts = Vec::new();
        let mut collect = |field: TextField| {
            texts.push(field.value());
            None
        };
        let visited = Visitor::new(false, &mut collect).request(&mut walked, Api::Chat.request());
        prop_assume!(visited.is_ok());
        let mut again = texts.clone().into_iter();
        Visitor::new(false, &mut |_| again.next()).request(&mut walked, Api::Chat.request()).unwrap();
        prop_assert_eq!(walked, request);
    }
}

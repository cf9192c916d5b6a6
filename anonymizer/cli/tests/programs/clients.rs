//! Clients of chat APIs as their makers publish them, with the proxy as their base URL.

use std::path::Path;

use crate::python::runs;
use crate::support::{Detecting, KEY, Running};

const TEXT: &str = "Anna met anna@example.org in Z\u{fc}rich";

const OPENAI: &str = r#"
import os
import openai
text, base, key = os.environ["TEXT"], os.environ["BASE"], os.environ["KEY"]
for url in (base + "/v1", base):
    client = openai.OpenAI(base_url=url, api_key=key, max_retries=0)
    messages = [{"role": "user", "content": text}]
    assert client.chat.completions.create(model="m", messages=messages).choices[0].message.content == text
    pieces = client.chat.completions.create(model="m", messages=messages, stream=True)
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == text
response = client.responses.create(model="m", input=text)
assert response.output[0].content[0].text == text, response
events = client.responses.create(model="m", input=text, stream=True)
assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == text
assert client.completions.create(model="m", prompt=text).choices[0].text == text
assert client.embeddings.create(model="m", input=text, encoding_format="float").data[0].embedding == [0.25]
assert client.moderations.create(model="m", input=text).results[0].flagged is False
try:
    client.images.generate(model="m", prompt=text)
    raise SystemExit("images are no endpoint of the proxy")
except openai.NotFoundError as error:
    assert "POST /v1/chat/completions" in str(error), error
try:
    openai.OpenAI(base_url=base + "/v1", api_key="wrong", max_retries=0).models.list()
    raise SystemExit("the key is wrong")
except openai.AuthenticationError:
    pass
"#;

const ANTHROPIC: &str = r#"
import os
import anthropic
text = os.environ["TEXT"]
client = anthropic.Anthropic(base_url=os.environ["BASE"], api_key=os.environ["KEY"], max_retries=0)
messages = [{"role": "user", "content": text}]
assert client.messages.create(model="m", max_tokens=9, messages=messages).content[0].text == text
said = ""
for event in client.messages.create(model="m", max_tokens=9, messages=messages, stream=True):
    if event.type == "content_block_delta":
        said += event.delta.text
assert said == text, said
"#;

const LANGCHAIN: &str = r#"
import os
from langchain_openai import ChatOpenAI
model = ChatOpenAI(model="m", base_url=os.environ["BASE"] + "/v1", api_key=os.environ["KEY"], max_retries=0)
assert model.invoke(os.environ["TEXT"]).content == os.environ["TEXT"]
assert "".join(piece.content for piece in model.stream(os.environ["TEXT"])) == os.environ["TEXT"]
"#;

const LITELLM: &str = r#"
import os
import litellm
messages = [{"role": "user", "content": os.environ["TEXT"]}]
answer = litellm.completion(model="openai/m", api_base=os.environ["BASE"] + "/v1", api_key=os.environ["KEY"], messages=messages)
assert answer.choices[0].message.content == os.environ["TEXT"], answer
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn published_clients_see_values_and_the_provider_placeholders() {
    let running = Running::start(Detecting::Well).await;
    let variables = vec![
        ("TEXT".to_owned(), TEXT.to_owned()),
        ("BASE".to_owned(), running.base.clone()),
        ("KEY".to_owned(), KEY.to_owned()),
    ];
    // The first two are installed for the test, the others are used where they are.
    let clients =
        [("openai", OPENAI), ("anthropic", ANTHROPIC), ("langchain_openai", LANGCHAIN), ("litellm", LITELLM)];
    for (module, script) in clients {
        let variables = variables.clone();
        let run = move || runs(&[module], script, &variables, Path::new("."), b"");
        if tokio::task::spawn_blocking(run).await.unwrap() {
            let seen = running.provider.text();
            assert!(
                seen.contains("[GIVEN_NAME_1]") && !seen.contains("Anna") && !seen.contains("anna@"),
                "{module}"
            );
        }
    }
}

"""Common calls of the clients that people use, against a running `sotto api`.

Usage: calls.py BASE_URL KEY. Prints one line per call: "ok CLIENT CALL", or "FAIL CLIENT CALL: reason".
"""

import json
import os
import subprocess
import sys
import traceback

BASE, KEY = sys.argv[1], sys.argv[2]
MODEL, ENCODER = "smollm2-135m", "minilm"
USER = [{"role": "user", "content": "Name a colour."}]
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer", "maximum": 120}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
TOOL = {"type": "function", "function": {"name": "store", "description": "Stores a person.", "parameters": SCHEMA}}
# Nothing is reported to the makers of the clients.
os.environ.update(LITELLM_LOCAL_MODEL_COST_MAP="True", DO_NOT_TRACK="1", OPENAI_API_KEY=KEY)

CALLS = []


def call(client, name):
    def register(function):
        CALLS.append((client, name, function))
        return function

    return register


def is_person(text):
    person = json.loads(text)
    assert isinstance(person["name"], str) and isinstance(person["age"], int), person


def openai_client():
    import openai

    return openai.OpenAI(base_url=BASE, api_key=KEY)


@call("openai", "models")
def _():
    client = openai_client()
    assert {model.id for model in client.models.list()} == {MODEL, ENCODER}
    assert client.models.retrieve(MODEL).id == MODEL


@call("openai", "chat")
def _():
    answer = openai_client().chat.completions.create(model=MODEL, messages=USER, max_tokens=6, n=2, seed=1, temperature=1)
    assert len(answer.choices) == 2 and answer.usage.completion_tokens <= 12


@call("openai", "chat stream")
def _():
    options = {"include_usage": True}
    chunks = list(
        openai_client().chat.completions.create(model=MODEL, messages=USER, max_tokens=6, stream=True, stream_options=options)
    )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert chunks[-1].usage.completion_tokens <= 6


@call("openai", "logprobs")
def _():
    answer = openai_client().chat.completions.create(model=MODEL, messages=USER, max_tokens=3, logprobs=True, top_logprobs=2)
    assert len(answer.choices[0].logprobs.content[0].top_logprobs) == 2


@call("openai", "structured output")
def _():
    form = {"type": "json_schema", "json_schema": {"name": "person", "schema": SCHEMA, "strict": True}}
    answer = openai_client().chat.completions.create(model=MODEL, messages=USER, max_tokens=80, response_format=form)
    is_person(answer.choices[0].message.content)


@call("openai", "tools")
def _():
    answer = openai_client().chat.completions.create(
        model=MODEL, messages=USER, max_tokens=80, tools=[TOOL], tool_choice="required"
    )
    is_person(answer.choices[0].message.tool_calls[0].function.arguments)


@call("openai", "completions")
def _():
    answer = openai_client().completions.create(model=MODEL, prompt="Once upon", max_tokens=4, echo=True)
    assert answer.choices[0].text.startswith("Once upon")


@call("openai", "responses")
def _():
    client = openai_client()
    assert client.responses.create(model=MODEL, input="Name a colour.", max_output_tokens=6).output_text
    with client.responses.stream(model=MODEL, input="Name a colour.", max_output_tokens=6) as stream:
        assert any(event.type == "response.output_text.delta" for event in stream)


@call("openai", "responses with tools")
def _():
    tools = [{"type": "function", "name": "store", "parameters": SCHEMA, "strict": True}]
    client = openai_client()
    user = {"role": "user", "content": "Store Ana, who is 31."}
    common = {"model": MODEL, "tools": tools, "max_output_tokens": 80}
    answer = client.responses.create(input=[user], tool_choice="required", **common)
    item = answer.output[0]
    is_person(item.arguments)
    output = {"type": "function_call_output", "call_id": item.call_id, "output": "stored"}
    assert client.responses.create(input=[user, item, output], tool_choice="none", **common).output_text
    with client.responses.stream(input=[user], tool_choice="required", **common) as stream:
        is_person(stream.get_final_response().output[0].arguments)


@call("openai", "embeddings")
def _():
    answer = openai_client().embeddings.create(model=ENCODER, input=["a", "b"])
    assert len(answer.data) == 2 and len(answer.data[0].embedding) == 384


@call("openai", "errors")
def _():
    import openai

    client = openai_client()
    for name, code, request in [
        (openai.NotFoundError, "model_not_found", {"model": "nope", "messages": USER}),
        (
            openai.BadRequestError,
            "context_length_exceeded",
            {"model": MODEL, "messages": [{"role": "user", "content": "word " * 9000}]},
        ),
    ]:
        try:
            client.chat.completions.create(**request)
        except name as error:
            assert error.code == code, error.code
            assert error.request_id, "no request id"
        else:
            raise AssertionError(f"{code} was accepted")


@call("anthropic", "messages")
def _():
    import anthropic

    client = anthropic.Anthropic(base_url=BASE.removesuffix("/v1"), api_key=KEY)
    answer = client.messages.create(model=MODEL, max_tokens=6, messages=USER, system="Be brief.")
    assert answer.content[0].text and answer.usage.output_tokens <= 6
    with client.messages.stream(model=MODEL, max_tokens=6, messages=USER) as stream:
        assert "".join(stream.text_stream)


@call("anthropic", "tools and counting")
def _():
    import anthropic

    client = anthropic.Anthropic(base_url=BASE.removesuffix("/v1"), api_key=KEY)
    tools = [{"name": "store", "description": "Stores a person.", "input_schema": SCHEMA}]
    user = [{"role": "user", "content": "Store Ana, who is 31."}]
    common = {"model": MODEL, "max_tokens": 80, "tools": tools}
    answer = client.messages.create(messages=user, tool_choice={"type": "any"}, **common)
    block = answer.content[0]
    assert answer.stop_reason == "tool_use" and isinstance(block.input["age"], int), answer
    result = {"type": "tool_result", "tool_use_id": block.id, "content": "stored"}
    history = [*user, {"role": "assistant", "content": [block]}, {"role": "user", "content": [result]}]
    again = client.messages.create(messages=history, tool_choice={"type": "none"}, **common)
    assert again.content[0].type == "text"
    with client.messages.stream(messages=user, tool_choice={"type": "tool", "name": "store"}, **common) as stream:
        assert isinstance(stream.get_final_message().content[0].input["name"], str)
    assert client.messages.count_tokens(model=MODEL, messages=user).input_tokens > 5


@call("litellm", "chat, text, errors")
def _():
    import litellm

    common = {"api_base": BASE, "api_key": KEY, "max_tokens": 6}
    assert litellm.completion(model=f"openai/{MODEL}", messages=USER, **common).choices[0].message.content
    assert "".join(
        chunk.choices[0].delta.content or ""
        for chunk in litellm.completion(model=f"openai/{MODEL}", messages=USER, stream=True, **common)
    )
    assert litellm.text_completion(model=f"text-completion-openai/{MODEL}", prompt="Once", **common).choices[0].text
    try:
        long = [{"role": "user", "content": "word " * 9000}]
        litellm.completion(model=f"openai/{MODEL}", messages=long, **common)
    except litellm.ContextWindowExceededError:
        pass
    else:
        raise AssertionError("a conversation that is too long was accepted")


def langchain(**options):
    from langchain_openai import ChatOpenAI

    return ChatOpenAI(model=MODEL, base_url=BASE, api_key=KEY, max_tokens=80, **options)


@call("langchain-openai", "chat")
def _():
    assert langchain().invoke("Name a colour.").content
    assert "".join(chunk.content for chunk in langchain().stream("Name a colour."))


@call("langchain-openai", "tools")
def _():
    bound = langchain().bind_tools([TOOL], tool_choice="store")
    person = bound.invoke("Store Ana, who is 31.").tool_calls[0]["args"]
    is_person(json.dumps(person))


@call("langchain-openai", "structured output")
def _():
    schema = {"title": "person", "description": "A person.", **SCHEMA}
    for method in ["json_schema", "function_calling"]:
        is_person(json.dumps(langchain().with_structured_output(schema, method=method).invoke("Invent a person.")))


@call("langchain-openai", "embeddings of text")
def _():
    from langchain_openai import OpenAIEmbeddings

    embeddings = OpenAIEmbeddings(model=ENCODER, base_url=BASE, api_key=KEY, check_embedding_ctx_length=False)
    assert len(embeddings.embed_query("hello")) == 384


@call("langchain-openai", "embeddings in their default form")
def _():
    # By default texts are sent as tokens of OpenAI's vocabulary. Its file is not fetched: litellm has a copy.
    import litellm

    os.environ["TIKTOKEN_CACHE_DIR"] = os.path.join(os.path.dirname(litellm.__file__), "litellm_core_utils", "tokenizers")
    from langchain_openai import OpenAIEmbeddings

    common = {"model": ENCODER, "base_url": BASE, "api_key": KEY}
    tokens, text = OpenAIEmbeddings(**common), OpenAIEmbeddings(**common, check_embedding_ctx_length=False)
    for words in ["hello", "Zażółć gęślą jaźń 🦀", "def f(x):\n    return x"]:
        cosine = sum(a * b for a, b in zip(tokens.embed_query(words), text.embed_query(words)))
        assert cosine > 0.99, (words, cosine)
    assert len(tokens.embed_documents(["a", "b"])) == 2


@call("instructor", "typed answer")
def _():
    import instructor
    from pydantic import BaseModel, ConfigDict, Field

    class Person(BaseModel):
        # As strict mode asks: without it any further field is allowed, and a small model thinks of many.
        model_config = ConfigDict(extra="forbid")
        name: str = Field(max_length=12)
        age: int = Field(le=120)

    for mode in [instructor.Mode.TOOLS, instructor.Mode.JSON_SCHEMA]:
        client = instructor.from_openai(openai_client(), mode=mode)
        person = client.chat.completions.create(
            model=MODEL, messages=USER, response_model=Person, max_tokens=80, max_retries=0
        )
        assert person.age <= 120


@call("pydantic-ai", "text and typed answer")
def _():
    from pydantic import BaseModel, Field
    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    class Person(BaseModel):
        name: str = Field(max_length=12)
        age: int = Field(le=120)

    model = OpenAIChatModel(MODEL, provider=OpenAIProvider(base_url=BASE, api_key=KEY))
    settings = {"max_tokens": 80}
    assert Agent(model, model_settings=settings).run_sync("Name a colour.").output
    assert Agent(model, model_settings=settings, output_type=Person).run_sync("Invent a person.").output.age <= 120


@call("llm", "chat and schema")
def _():
    import pathlib
    import tempfile

    with tempfile.TemporaryDirectory() as home:
        models = pathlib.Path(home) / "extra-openai-models.yaml"
        models.write_text(
            f"- model_id: sotto\n  model_name: {MODEL}\n  api_base: {BASE}\n  supports_schema: true\n  supports_tools: true\n"
            "  api_key_name: sotto\n"
        )
        (pathlib.Path(home) / "keys.json").write_text(json.dumps({"sotto": KEY}))
        environment = dict(os.environ, LLM_USER_PATH=home)

        def run(*arguments):
            command = [sys.executable, "-m", "llm", "-m", "sotto", "-o", "max_tokens", "80", *arguments]
            return subprocess.run(command, env=environment, check=True, capture_output=True, text=True, input="").stdout

        assert run("Name a colour.").strip()
        is_person(run("--schema", json.dumps(SCHEMA), "Invent a person."))


failed = 0
for client, name, function in CALLS:
    try:
        function()
        print(f"ok {client} {name}", flush=True)
    except Exception:
        failed += 1
        reason = traceback.format_exc().strip().splitlines()
        print(f"FAIL {client} {name}: {' | '.join(reason[-6:])}", flush=True)
sys.exit(failed > 0)

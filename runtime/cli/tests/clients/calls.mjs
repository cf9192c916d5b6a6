// Common calls of the npm clients that people use, against a running `sotto api`.
//
// Usage: node calls.mjs BASE_URL KEY, in a folder where package.json's dependencies are installed. Prints one line per call:
// "ok CLIENT CALL", or "FAIL CLIENT CALL: reason".

import assert from "node:assert/strict";
import OpenAI from "openai";
import { generateText, jsonSchema, Output, streamText, tool, embed, embedMany } from "ai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";

const [base, key] = process.argv.slice(2);
const model = "smollm2-135m";
const encoder = "minilm";
const messages = [{ role: "user", content: "Name a colour." }];
const schema = {
  type: "object",
  properties: { name: { type: "string", maxLength: 12 }, age: { type: "integer", maximum: 120 } },
  required: ["name", "age"],
  additionalProperties: false,
};
const openai = new OpenAI({ baseURL: base, apiKey: key, maxRetries: 0 });
const provider = createOpenAICompatible({
  name: "sotto",
  baseURL: base,
  apiKey: key,
  includeUsage: true,
  supportsStructuredOutputs: true,
});
const calls = [];
const call = (client, name, run) => calls.push({ client, name, run });
const isPerson = (person) => assert.ok(typeof person.name === "string" && Number.isInteger(person.age), JSON.stringify(person));

call("openai (npm)", "models", async () => {
  const names = [];
  for await (const entry of openai.models.list()) names.push(entry.id);
  assert.ok(names.includes(model) && names.includes(encoder), names);
});

call("openai (npm)", "chat and stream", async () => {
  const answer = await openai.chat.completions.create({ model, messages, max_tokens: 6 });
  assert.ok(answer.choices[0].message.content);
  let text = "";
  const stream = await openai.chat.completions.create({
    model, messages, max_tokens: 6, stream: true, stream_options: { include_usage: true },
  });
  let usage;
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta?.content ?? "";
    usage = chunk.usage ?? usage;
  }
  assert.equal(text, answer.choices[0].message.content);
  assert.ok(usage.completion_tokens <= 6);
});

call("openai (npm)", "tools", async () => {
  const tools = [{ type: "function", function: { name: "store", parameters: schema } }];
  const answer = await openai.chat.completions.create({ model, messages, max_tokens: 80, tools, tool_choice: "required" });
  isPerson(JSON.parse(answer.choices[0].message.tool_calls[0].function.arguments));
});

call("openai (npm)", "responses, with a tool, streamed", async () => {
  const tools = [{ type: "function", name: "store", parameters: schema, strict: true }];
  const stream = openai.responses.stream({
    model, input: "Store Ana, who is 31.", tools, tool_choice: "required", max_output_tokens: 80,
  });
  let delta = "";
  for await (const event of stream) if (event.type === "response.function_call_arguments.delta") delta += event.delta;
  const response = await stream.finalResponse();
  assert.equal(response.output[0].arguments, delta);
  isPerson(JSON.parse(delta));
  assert.ok((await openai.responses.create({ model, input: "Name a colour.", max_output_tokens: 6 })).output_text);
});

call("openai (npm)", "embeddings", async () => {
  const answer = await openai.embeddings.create({ model: encoder, input: ["a", "b"] });
  assert.deepEqual(answer.data.map((entry) => entry.embedding.length), [384, 384]);
});

call("openai (npm)", "errors", async () => {
  const refused = openai.chat.completions.create({ model: "nope", messages });
  await assert.rejects(refused, (error) => error.status === 404 && error.code === "model_not_found" && Boolean(error.requestID));
});

call("ai + openai-compatible", "text and stream", async () => {
  const { text, usage } = await generateText({ model: provider(model), prompt: "Name a colour.", maxOutputTokens: 6 });
  assert.ok(text && usage.outputTokens <= 6);
  const streamed = streamText({ model: provider(model), prompt: "Name a colour.", maxOutputTokens: 6 });
  let joined = "";
  for await (const part of streamed.textStream) joined += part;
  assert.equal(joined, text);
  assert.ok((await streamed.usage).outputTokens <= 6);
});

call("ai + openai-compatible", "structured output", async () => {
  const { output } = await generateText({
    model: provider(model), prompt: "Invent a person.", maxOutputTokens: 80,
    output: Output.object({ schema: jsonSchema(schema) }),
  });
  isPerson(output);
});

call("ai + openai-compatible", "tools", async () => {
  const store = tool({ description: "Stores a person.", inputSchema: jsonSchema(schema) });
  const { toolCalls } = await generateText({
    model: provider(model), prompt: "Store Ana, who is 31.", maxOutputTokens: 80, tools: { store }, toolChoice: "required",
  });
  isPerson(toolCalls[0].input);
});

call("ai + openai-compatible", "completion", async () => {
  const { text } = await generateText({ model: provider.completionModel(model), prompt: "Once upon", maxOutputTokens: 4 });
  assert.ok(text);
});

call("ai + openai-compatible", "embeddings", async () => {
  const vectors = provider.textEmbeddingModel(encoder);
  assert.equal((await embed({ model: vectors, value: "hello" })).embedding.length, 384);
  assert.equal((await embedMany({ model: vectors, values: ["a", "b", "c"] })).embeddings.length, 3);
});

call("ai + openai-compatible", "errors", async () => {
  const long = "word ".repeat(9000);
  const refused = generateText({ model: provider(model), prompt: long, maxRetries: 0 });
  await assert.rejects(refused, (error) => error.statusCode === 400 && /tokens/.test(error.message));
});

let failed = 0;
for (const { client, name, run } of calls) {
  try {
    await run();
    console.log(`ok ${client} ${name}`);
  } catch (error) {
    failed += 1;
    console.log(`FAIL ${client} ${name}: ${String(error?.stack ?? error).split("\n").slice(0, 6).join(" | ")}`);
  }
}
process.exit(failed > 0 ? 1 : 0);

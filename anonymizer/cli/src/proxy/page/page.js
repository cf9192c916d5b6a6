
"use strict";
const byId = (id) => document.getElementById(id);
const types = { PRIVATE: { kind: "secret", name: "private" }, .../*TYPES*/{} };
const kindOf = (label) => (types[label] || {}).kind || "";
const nameOf = (label) => (types[label] || {}).name || label.toLowerCase().replaceAll("_", " ");
const sources = { model: "language model", context: "the words around it", person: "added by you", repeated: "found elsewhere in the text", deny: "your list" };
const sourceOf = (source) => sources[source] || "its form (" + source + ")";
const session = "page-" + crypto.getRandomValues(new Uint32Array(2)).join("-");
const key = (/[#&]key=([^&]+)/.exec(location.hash) || [])[1] || sessionStorage.getItem("key") || "";
sessionStorage.setItem("key", key);
history.replaceState(null, "", location.pathname);
// Decisions are about values, so they hold whatever becomes of the text around them.
let add = [];
let drop = [];
let checked = "";
let result = null;
let running = null;
let sendingNow = null;

for (const label of Object.keys(types)) {
  const option = document.createElement("option");
  option.value = label;
  option.textContent = nameOf(label);
  byId("type").append(option);
}

// Errors stand where one looks: below the button that was pressed.
function fail(place, message) {
  byId(place).textContent = message;
  byId(place).hidden = !message;
}

async function call(path, body, signal) {
  let response;
  try {
    response = await fetch(path, {
      method: body === undefined ? "GET" : "POST",
      headers: { "content-type": "application/json", authorization: "Bearer " + key },
      body: body === undefined ? undefined : JSON.stringify(body),
      signal,
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The proxy does not answer. Is `anonymize proxy` still running?");
  }
  if (!response.ok) {
    let message = "The proxy answered with status " + response.status + ".";
    try { message = (await response.json()).error.message; } catch { /* the status says enough */ }
    throw new Error(message);
  }
  return response;
}

function mark(text, className, type) {
  const element = document.createElement("mark");
  element.textContent = text;
  element.className = className;
  if (type) element.dataset.type = type;
  return element;
}

// Offsets count code points, as Array.from does.
function show(text, found) {
  const points = Array.from(text);
  const slice = (from, to) => points.slice(from, to).join("");
  const marks = found.spans.map((span) => ({ ...span, on: true }));
  const lower = text.toLowerCase();
  for (const value of drop) {
    for (let at = lower.indexOf(value.toLowerCase()); at >= 0; at = lower.indexOf(value.toLowerCase(), at + 1)) {
      const start = Array.from(text.slice(0, at)).length;
      const end = start + Array.from(value).length;
      if (slice(start, end) === value && !marks.some((other) => other.start < end && start < other.end)) {
        marks.push({ start, end, label: "let through", on: false });
      }
    }
  }
  marks.sort((a, b) => a.start - b.start);
  const active = document.activeElement;
  const focus = active && active.dataset.key;
  const original = byId("original");
  original.replaceChildren();
  let at = 0;
  let refocus = null;
  marks.forEach((span, index) => {
    original.append(slice(at, span.start));
    const value = slice(span.start, span.end);
    const type = span.on ? nameOf(span.label) : "let through";
    const element = mark(value, span.on ? kindOf(span.label) : "off", type);
    element.tabIndex = 0;
    element.setAttribute("role", "button");
    element.setAttribute("aria-pressed", String(span.on));
    element.setAttribute("aria-label", value + ", " + type + (span.on ? ", hidden" : ""));
    element.dataset.key = "mark-" + index;
    element.addEventListener("click", () => toggle(value, span.on));
    element.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); toggle(value, span.on); }
    });
    if (element.dataset.key === focus) refocus = element;
    original.append(element);
    at = span.end;
  });
  original.append(slice(at));
  showRedacted(found);
  showFinds(marks.map((span) => ({ ...span, value: slice(span.start, span.end) })), focus);
  if (refocus) refocus.focus();
  const places = found.spans.length === 1 ? "1 place is hidden." : found.spans.length + " places are hidden.";
  byId("summary").textContent = found.spans.length ? places + " Look for what was missed." : "Nothing was found; that is no proof.";
  byId("nothing").hidden = found.spans.length > 0;
  byId("review").hidden = false;
}

function showRedacted(found) {
  const redacted = byId("redacted");
  redacted.replaceChildren();
  const labels = new Map(found.spans.map((span) => [span.placeholder, span.label]));
  for (const piece of found.redacted.split(/(\[[A-Z][A-Z0-9_]*_[0-9]+\])/)) {
    redacted.append(labels.has(piece) ? mark(piece, kindOf(labels.get(piece))) : piece);
  }
}

function showFinds(marks, focus) {
  const rows = new Map();
  for (const span of marks) {
    const row = rows.get(span.value) || { ...span, count: 0 };
    row.count += 1;
    rows.set(span.value, row);
  }
  const list = byId("finds");
  list.replaceChildren();
  let index = 0;
  for (const row of rows.values()) {
    const item = document.createElement("li");
    const label = document.createElement("label");
    const box = document.createElement("input");
    box.type = "checkbox";
    box.setAttribute("role", "switch");
    box.checked = row.on;
    box.dataset.key = "find-" + index;
    box.addEventListener("change", () => toggle(row.value, row.on));
    const value = document.createElement("bdi");
    value.className = "value";
    value.append(mark(row.value, row.on ? kindOf(row.label) : "off"));
    const what = document.createElement("span");
    what.className = "what";
    const times = row.count > 1 ? ", " + row.count + " times" : "";
    const sure = row.source === "model" || row.source === "context" ? ", " + Math.round(row.score * 100) + " % sure" : "";
    what.textContent = row.on
      ? nameOf(row.label) + times + ", by " + sourceOf(row.source) + sure
      : "let through everywhere" + times;
    label.append(box, value, what);
    item.append(label);
    list.append(item);
    if (box.dataset.key === focus) box.focus();
    index += 1;
  }
}

function toggle(value, isOn) {
  const added = add.findIndex((entry) => entry.value.toLowerCase() === value.toLowerCase());
  if (added >= 0) add.splice(added, 1);
  else if (isOn) drop.push(value);
  else drop = drop.filter((other) => other !== value);
  check();
}

async function check() {
  if (running) running.abort();
  const own = running = new AbortController();
  const text = byId("input").value;
  fail("error-check", "");
  const begun = Date.now();
  const tell = () => { byId("summary").textContent = "Checking, " + Math.round((Date.now() - begun) / 1000) + " s"; };
  byId("summary").textContent = "Checking";
  const clock = setInterval(tell, 1000);
  byId("cancel").hidden = false;
  try {
    const found = await (await call("/check", { text, session, add, drop }, own.signal)).json();
    if (running !== own) return;
    checked = text;
    result = found;
    if (text.trim()) show(text, found);
    else { byId("review").hidden = true; byId("summary").textContent = "There is no text to check."; }
  } catch (error) {
    if (running !== own) return;
    byId("summary").textContent = error.name === "AbortError" ? "Cancelled; what is shown below may be of an earlier text." : "";
    if (error.name !== "AbortError") { byId("review").hidden = true; fail("error-check", error.message); }
  } finally {
    clearInterval(clock);
    if (running === own) { running = null; byId("cancel").hidden = true; }
  }
}

function addValue(event) {
  event.preventDefault();
  fail("error-add", "");
  const value = byId("value").value.trim();
  if (!value) return fail("error-add", "Select words of the text above, or write them.");
  if (!checked.toLowerCase().includes(value.toLowerCase())) return fail("error-add", "The checked text does not hold these words.");
  drop = drop.filter((other) => other.toLowerCase() !== value.toLowerCase());
  add.push({ value, label: byId("type").value });
  byId("value").value = "";
  check();
}

const isStale = () => !result || checked !== byId("input").value;
const stale = "The text has changed since it was checked. Check it again.";

// What is copied is also kept, so that an answer can be restored.
async function copy() {
  fail("error-copy", "");
  byId("copied").textContent = "";
  if (isStale()) return fail("error-copy", stale);
  try {
    const kept = await (await call("/redact", { text: checked, session, add, drop })).json();
    showRedacted(kept);
    await toClipboard(kept.redacted, byId("redacted"));
    byId("copied").textContent = "Copied. Paste the answer below to get the values back.";
  } catch (error) {
    fail("error-copy", error.message);
  }
}

async function toClipboard(text, element) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Without permission, the text is selected to be copied by hand.
    getSelection().selectAllChildren(element);
    if (!document.execCommand("copy")) throw new Error("The browser does not allow copying. The text is selected: press Ctrl+C.");
  }
}

async function restore() {
  fail("error-restore", "");
  byId("restored-summary").textContent = "";
  try {
    const back = await (await call("/restore", { text: byId("pasted").value, session })).json();
    byId("restored").textContent = back.restored;
    byId("restored").hidden = byId("copy-restored").hidden = false;
    const left = back.unknown.length + back.withheld.length;
    byId("restored-summary").textContent = back.replaced + " restored"
      + (left ? ", " + left + " left: unknown, or inside the address of a link" : "");
  } catch (error) {
    fail("error-restore", error.message);
  }
}

async function send() {
  fail("error-send", "");
  if (isStale()) return fail("error-send", stale);
  const text = checked;
  const own = sendingNow = new AbortController();
  byId("send").disabled = true;
  byId("stop").hidden = false;
  byId("sending").textContent = "Waiting for the answer";
  byId("reply").hidden = true;
  delete byId("reply").dataset.state;
  const answer = byId("answer");
  answer.textContent = "";
  try {
    const response = await call("/v1/chat/completions", {
      model: byId("model").value,
      stream: true,
      messages: [{ role: "user", content: text }],
      anonymizer: { session, add, drop },
    }, own.signal);
    byId("reply").hidden = false;
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      rest += value;
      const lines = rest.split("\n");
      rest = lines.pop();
      for (const line of lines) {
        if (!line.startsWith("data: ") || line === "data: [DONE]") continue;
        const chunk = JSON.parse(line.slice(6));
        if (chunk.error) throw new Error(chunk.error.message);
        for (const choice of chunk.choices || []) {
          if (choice.delta && choice.delta.content) answer.append(choice.delta.content);
        }
      }
    }
    byId("reply").dataset.state = "done";
    byId("sending").textContent = "The answer is complete.";
  } catch (error) {
    byId("sending").textContent = error.name === "AbortError" ? "Stopped." : "";
    if (error.name !== "AbortError") fail("error-send", error.message);
  } finally {
    byId("send").disabled = false;
    byId("stop").hidden = true;
  }
}

async function listModels() {
  try {
    const models = (await (await call("/v1/models")).json()).data || [];
    for (const model of models) {
      const option = document.createElement("option");
      option.value = model.id;
      byId("models").append(option);
    }
    if (models.length && byId("model").value === "default") byId("model").value = models[0].id;
  } catch { /* a name can be written by hand */ }
}

async function open(file) {
  fail("error-check", "");
  if (!file) return;
  if (file.size > 1 << 20) return fail("error-check", "The file has more than 1 MB. Use `anonymize redact` for it.");
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer());
    if (text.includes("\0")) throw new TypeError();
    byId("input").value = text;
    check();
  } catch {
    fail("error-check", "The file is no UTF-8 text. For mails, tables and Office files use `anonymize redact`.");
  }
}

const input = byId("input");
byId("check").addEventListener("click", check);
byId("cancel").addEventListener("click", () => running && running.abort());
byId("stop").addEventListener("click", () => sendingNow && sendingNow.abort());
byId("adding").addEventListener("submit", addValue);
byId("copy").addEventListener("click", copy);
byId("restore").addEventListener("click", restore);
byId("copy-restored").addEventListener("click", () => toClipboard(byId("restored").textContent, byId("restored")).catch((error) => fail("error-restore", error.message)));
byId("copy-answer").addEventListener("click", () => toClipboard(byId("answer").textContent, byId("answer")).catch((error) => fail("error-send", error.message)));
byId("send").addEventListener("click", () => send());
byId("file").addEventListener("change", (event) => { open(event.target.files[0]); event.target.value = ""; });
document.addEventListener("selectionchange", () => {
  const selection = getSelection();
  const value = String(selection).trim();
  if (value && byId("original").contains(selection.anchorNode)) byId("value").value = value;
});
input.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); check(); }
});
byId("pasted").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); restore(); }
});
for (const name of ["dragenter", "dragover"]) {
  document.addEventListener(name, (event) => { event.preventDefault(); input.classList.add("drop"); });
}
for (const name of ["dragleave", "drop"]) {
  document.addEventListener(name, (event) => { event.preventDefault(); input.classList.remove("drop"); });
}
document.addEventListener("drop", (event) => open(event.dataTransfer.files[0]));
if (!key) fail("error", "Open this page with the address printed at start: it carries the key.");
else listModels();

/** The same job as a program would ask for it: with curl, this project's Python client, and the clients of others. */

import { base } from "./api.js";
import { copy, h, show } from "./dom.js";

export function callsOf(job) {
  const calls = callsFor(job);
  if (!calls.length) return null;
  const code = h("pre", { class: "raw", tabindex: 0 });
  const tabs = h("div", { class: "tabs", role: "group", "aria-label": "Language" });
  const choose = (chosen) => {
    code.textContent = calls[chosen][1];
    show(
      tabs,
      calls.map(([name], n) => h("button", { "aria-pressed": String(n === chosen), onclick: () => choose(n) }, name)),
    );
  };
  choose(0);
  const bar = h("div", { class: "row between" }, tabs, h("button", { onclick: () => copy(code.textContent) }, "Copy"));
  return h("details", { class: "calls" }, h("summary", {}, "The same call from a program"), bar, code);
}

function callsFor(job) {
  const name = job.input?.[0]?.filename || "file";
  const params = Object.fromEntries(
    Object.entries(job.params || {}).filter(([key, value]) => value !== null && !DEFAULTS.has(`${key}=${value}`)),
  );
  const make = { ocr: [curl, python, mistral], vqa: [curl, python, chat], asr: [curl, python, audio] }[job.type] || [];
  return make.map((write) => write(job, name, params));
}

const DEFAULTS = new Set([
  "format=markdown",
  "detail=auto",
  "temperature=0",
  "task=transcribe",
  "timestamps=segment",
  "target_language=en",
]);
const quoted = (text) => `'${String(text).replaceAll("'", "'\\''")}'`;
const literal = (value) => JSON.stringify(value);

/** Write a value as Python does. */
function python_(value) {
  if (value === null || typeof value === "boolean") return { null: "None", true: "True", false: "False" }[value];
  if (Array.isArray(value)) return `[${value.map(python_).join(", ")}]`;
  if (typeof value !== "object") return literal(value);
  return `{${Object.entries(value)
    .map(([key, inside]) => `${literal(key)}: ${python_(inside)}`)
    .join(", ")}}`;
}

const lines = (...pieces) => pieces.flat().join("\n");
const keyIn = (otherwise) => `os.environ.get("PHI4_API_KEY", ${literal(otherwise)})`;

function curl(job, name, params) {
  const file = quoted(`file=@"${name.replace(/["\\]/g, "\\$&")}"`);
  const given = Object.keys(params).length ? ` -F ${quoted(`params=${JSON.stringify(params)}`)}` : "";
  const call = `curl ${quoted(`${base}/v1/jobs`)} -H "Authorization: Bearer $PHI4_API_KEY" -H 'Prefer: wait=60' \\`;
  return ["curl", lines(call, `  -F type=${job.type} -F ${file}${given}`)];
}

function python(job, name, { question, ...params }) {
  const file = `Path(${literal(name)})`;
  const named = Object.entries(params).map(([key, value]) => `, ${key}=${python_(value)}`);
  const call = { ocr: `ocr(${file}`, vqa: `ask(${literal(question)}, ${file}`, asr: `transcribe(${file}` }[job.type];
  return [
    "Python",
    lines(
      "import os",
      "from pathlib import Path",
      "",
      "from phi4.client import Client",
      "",
      `with Client(${literal(base)}, ${keyIn("")}) as phi4:`,
      `    print(phi4.${call}${named.join("")}).text)`,
    ),
  ];
}

const OPENAI = [
  "import os",
  "",
  "from openai import OpenAI",
  "",
  `client = OpenAI(base_url=${literal(`${base}/v1`)}, api_key=${keyIn("none")})`,
];

/** Lines that make `url`, a data URL of a file. */
const dataUrl = (name, type) => [
  "import base64",
  `data = base64.b64encode(open(${literal(name)}, "rb").read()).decode()`,
  `url = ${literal(`data:${type};base64,`)} + data`,
];

function chat(job, name, params) {
  return [
    "OpenAI",
    lines(
      OPENAI,
      dataUrl(name, job.input?.[0]?.media_type || "image/png"),
      "content = [",
      `    {"type": "text", "text": ${literal(params.question)}},`,
      '    {"type": "image_url", "image_url": {"url": url}},',
      "]",
      "answer = client.chat.completions.create(",
      '    model="phi-4-multimodal", messages=[{"role": "user", "content": content}]',
      ")",
      "print(answer.choices[0].message.content)",
    ),
  ];
}

function audio(job, name, params) {
  const translated = params.task === "translate";
  const language = params.language && !translated ? `, language=${literal(params.language)}` : "";
  const call = `client.audio.${translated ? "translations" : "transcriptions"}.create`;
  return [
    "OpenAI",
    lines(
      OPENAI,
      `with open(${literal(name)}, "rb") as file:`,
      `    print(${call}(model="phi-4-multimodal", file=file${language}).text)`,
    ),
  ];
}

function mistral(job, name) {
  const type = job.input?.[0]?.media_type || "application/pdf";
  const kind = type === "application/pdf" ? "document_url" : "image_url";
  return [
    "Mistral",
    lines(
      "import os",
      "",
      "from mistralai.client import Mistral",
      "",
      `client = Mistral(server_url=${literal(base)}, api_key=${keyIn("none")})`,
      dataUrl(name, type),
      `document = {"type": ${literal(kind)}, ${literal(kind)}: url}`,
      'answer = client.ocr.process(model="phi-4-multimodal", document=document)',
      'print("\\n\\n".join(page.markdown for page in answer.pages))',
    ),
  ];
}

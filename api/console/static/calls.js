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
    show(tabs, calls.map(([name], n) => h("button", { "aria-pressed": String(n === chosen), onclick: () => choose(n) }, name)));
  };
  choose(0);
  const bar = h("div", { class: "row between" }, tabs, h("button", { onclick: () => copy(code.textContent) }, "Copy"));
  return h("details", { class: "calls" }, h("summary", {}, "The same call from a program"), bar, code);
}

function callsFor(job) {
  const name = job.input?.[0]?.filename || "file";
  const params = Object.fromEntries(Object.entries(job.params || {}).filter(([key, value]) => value !== null && !DEFAULTS.has(`${key}=${value}`)));
  const make = { ocr: [curl, python, mistral], vqa: [curl, python, chat], asr: [curl, python, audio] }[job.type] || [];
  return make.map((write) => write(job, name, params));
}

const DEFAULTS = new Set(["format=markdown", "detail=auto", "temperature=0", "task=transcribe", "timestamps=segment", "target_language=en"]);
const quoted = (text) => `'${String(text).replaceAll("'", "'\\''")}'`;
const literal = (value) => JSON.stringify(value);
const python_ = (value) => (value === true ? "True" : value === false ? "False" : JSON.stringify(value));

function curl(job, name, params) {
  const given = Object.keys(params).length ? ` \\\n  -F ${quoted(`params=${JSON.stringify(params)}`)}` : "";
  const file = quoted(`file=@"${name.replace(/["\\]/g, "\\$&")}"`);
  return ["curl", `curl ${quoted(`${base}/v1/jobs`)} -H "Authorization: Bearer $PHI4_KEY" -H 'Prefer: wait=60' \\\n  -F type=${job.type} -F ${file}${given}`];
}

function python(job, name, params) {
  const { question, ...rest } = params;
  const named = Object.entries(rest).map(([key, value]) => `, ${key}=${python_(value)}`).join("");
  const file = `Path(${literal(name)})`;
  const call = {
    ocr: `phi4.ocr(${file}${named}).text`,
    vqa: `phi4.ask(${literal(question)}, ${file}${named}).text`,
    asr: `phi4.transcribe(${file}${named}).text`,
  }[job.type];
  return ["Python", `import os\nfrom pathlib import Path\n\nfrom phi4.client import Client\n\nwith Client(${literal(base)}, os.environ.get("PHI4_KEY", "")) as phi4:\n    print(${call})`];
}

const openai = `import os\n\nfrom openai import OpenAI\n\nclient = OpenAI(base_url=${literal(`${base}/v1`)}, api_key=os.environ.get("PHI4_KEY", "none"))\n`;
const dataUrl = (name, type) => `import base64\n\ndata = base64.b64encode(open(${literal(name)}, "rb").read()).decode()\nurl = ${literal(`data:${type};base64,`)} + data\n\n`;

function chat(job, name, params) {
  const type = job.input?.[0]?.media_type || "image/png";
  const content = `[\n        {"type": "text", "text": ${literal(params.question)}},\n        {"type": "image_url", "image_url": {"url": url}},\n    ]`;
  return ["OpenAI", `${dataUrl(name, type)}${openai}answer = client.chat.completions.create(\n    model="phi-4-multimodal",\n    messages=[{"role": "user", "content": ${content}}],\n)\nprint(answer.choices[0].message.content)`];
}

function audio(job, name, params) {
  const translated = params.task === "translate";
  const language = params.language && !translated ? `, language=${literal(params.language)}` : "";
  const verb = translated ? "translations" : "transcriptions";
  return ["OpenAI", `${openai}\nwith open(${literal(name)}, "rb") as file:\n    print(client.audio.${verb}.create(model="phi-4-multimodal", file=file${language}).text)`];
}

function mistral(job, name) {
  const type = job.input?.[0]?.media_type || "application/pdf";
  const kind = type === "application/pdf" ? "document_url" : "image_url";
  const client = `client = Mistral(server_url=${literal(base)}, api_key=os.environ.get("PHI4_KEY", "none"))`;
  return ["Mistral", `import os\n\nfrom mistralai.client import Mistral\n\n${dataUrl(name, type)}${client}\nanswer = client.ocr.process(model="phi-4-multimodal", document={"type": ${literal(kind)}, ${literal(kind)}: url})\nprint("\\n\\n".join(page.markdown for page in answer.pages))`];
}

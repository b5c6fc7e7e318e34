/** Copies a result, or saves it in the formats that its type has. */

import { request } from "./api.js";
import { copy, h, toast } from "./dom.js";
import { nameOf } from "./words.js";

const FORMATS = {
  ocr: [
    ["markdown", "md"],
    ["text", "txt"],
    ["json", "json"],
  ],
  vqa: [
    ["text", "txt"],
    ["json", "json"],
  ],
  chat: [
    ["text", "txt"],
    ["json", "json"],
  ],
  asr: [
    ["text", "txt"],
    ["srt", "srt"],
    ["vtt", "vtt"],
    ["json", "json"],
  ],
};

export function downloads(job, text) {
  const formats = FORMATS[job.type].map(([format, ending]) =>
    h("button", { "aria-label": `Save as ${ending}`, onclick: () => save(job, format, ending) }, `.${ending}`),
  );
  return [
    h("button", { onclick: () => copy(text()) }, "Copy"),
    h(
      "span",
      { class: "group", role: "group", "aria-label": "Save as" },
      h("span", { class: "quiet" }, "Save"),
      formats,
    ),
  ];
}

async function save(job, format, ending) {
  try {
    const response = await request(`v1/jobs/${job.id}/result?format=${format}`);
    const url = URL.createObjectURL(await response.blob());
    h("a", { href: url, download: `${nameOf(job).replace(/\.\w{1,5}$/, "")}.${ending}` }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10_000);
  } catch (error) {
    toast(error.message);
  }
}

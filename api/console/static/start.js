/** The first view: takes files, asks what to do with them, and submits one job for each. */

import { submit } from "./api.js";
import { choice, h, one, show } from "./dom.js";
import { ACCEPT, kindOf, madeHere, remember } from "./files.js";
import { fileRow } from "./staged.js";
import { recorder } from "./record.js";
import { sessionJobs } from "./jobs.js";

const LANGUAGES = [
  ["en", "English"],
  ["de", "German"],
  ["fr", "French"],
  ["it", "Italian"],
  ["ja", "Japanese"],
  ["es", "Spanish"],
  ["pt", "Portuguese"],
  ["zh", "Chinese"],
];

/** What was chosen stays when the view is left and come back to. */
const wish = {
  page: "ocr",
  sound: "transcribe",
  question: "",
  language: "",
  target: "en",
  pages: "",
  format: "markdown",
};
let staged = [];

export async function startView(main, signal) {
  const list = h("ul", { class: "staged", "aria-label": "Chosen files" });
  const options = h("div", { class: "options" });
  const go = h("button", { class: "primary big", type: "submit" });
  const said = h("p", { class: "said", role: "alert" });
  const drop = dropZone(add);
  const form = h(
    "form",
    { class: "composer", onsubmit: run },
    drop,
    list,
    options,
    h("div", { class: "row" }, go, said),
  );
  const recent = h("section", { class: "recent", "aria-label": "Jobs of this tab" });
  const what = h("div");
  const title = h("h1", {}, "Add a file, get its text");
  show(main, h("div", { class: "start" }, title, form, what, recent));
  document.addEventListener("paste", ({ clipboardData }) => add(clipboardData.files), { signal });
  takeDropsAnywhere(drop, add, signal);
  draw();
  if (madeHere().length) await sessionJobs(recent, signal);

  function add(files) {
    if (!files.length) return;
    const known = [...files].filter(kindOf);
    const others = [...files].filter((file) => !kindOf(file)).map((file) => file.name);
    staged.push(...known);
    draw();
    if (others.length) said.textContent = `Only pictures, PDFs and audio can be read; not ${others.join(", ")}.`;
    if (known.length) (options.querySelector("textarea") || go).focus();
  }

  function draw() {
    said.textContent = "";
    const kinds = new Set(staged.map(kindOf));
    const remove = (file) => {
      staged = staged.filter((other) => other !== file);
      draw();
    };
    show(
      list,
      staged.map((file) => fileRow(file, () => remove(file))),
    );
    show(
      options,
      kinds.has("image") || kinds.has("pdf") ? pageOptions(kinds, draw) : [],
      kinds.has("audio") ? soundOptions(draw) : [],
    );
    form.classList.toggle("filled", staged.length > 0);
    show(what, staged.length || madeHere().length ? [] : tasks());
    go.textContent = label(kinds);
    go.hidden = !staged.length;
  }

  async function run(event) {
    event.preventDefault();
    if (!staged.length) return;
    go.disabled = true;
    said.textContent = "";
    const refused = await submitAll(list, signal);
    go.disabled = false;
    if (!signal.aborted) draw();
    if (document.activeElement === document.body) go.focus();
    said.textContent = refused.join(" ");
  }
}

/** One job a file, in order; gives why some were refused, and those stay on the list. A single job is opened. */
async function submitAll(list, signal) {
  const sending = [...staged];
  const refused = [];
  let job;
  for (const [place, file] of sending.entries()) {
    const row = list.children[place];
    const [type, params] = whatFor(file);
    try {
      job = await submit(type, params, [file], (share) => row?.showSent(share));
      remember(job, file);
      staged = staged.filter((other) => other !== file);
    } catch (error) {
      refused.push(sending.length === 1 ? error.message : `${file.name}: ${error.message}`);
      if (error.status === 401 || !error.status) break;
    }
  }
  if (!signal.aborted && !refused.length) location.hash = sending.length === 1 ? `#/jobs/${job.id}` : "#/jobs";
  return refused;
}

function whatFor(file) {
  if (kindOf(file) === "audio") {
    const language = wish.language ? { language: wish.language } : {};
    return [
      "asr",
      wish.sound === "translate" ? { task: "translate", target_language: wish.target, ...language } : language,
    ];
  }
  const pages = kindOf(file) === "pdf" && wish.pages.trim() ? { pages: wish.pages.trim() } : {};
  if (wish.page === "vqa") return ["vqa", { question: wish.question, ...pages }];
  return ["ocr", { format: wish.format, ...pages }];
}

/** A question is a job of each file, and says so: to some it could mean all of them together. */
function label(kinds) {
  const asksEach = wish.page === "vqa" && staged.filter((file) => kindOf(file) !== "audio").length > 1;
  const verbs = [];
  if (kinds.has("image") || kinds.has("pdf")) verbs.push(wish.page !== "vqa" ? "Read" : asksEach ? "Ask" : "Ask about");
  if (kinds.has("audio")) verbs.push(wish.sound === "translate" ? "Translate" : "Transcribe");
  const count = one(staged.length, "file");
  return `${verbs.join(" and ").replace("and T", "and t")} ${asksEach ? `each of ${count}` : count}`;
}

function pageOptions(kinds, draw) {
  const tasks = [
    ["ocr", "Read the text"],
    ["vqa", "Ask a question"],
  ];
  const task = choice("With pictures and PDFs", "page-task", tasks, wish.page, (value) => again("page", value, draw));
  const pages = kinds.has("pdf") && field("Pages", "all, or 1-3,7", "pages");
  const format =
    wish.page === "ocr" &&
    select("Written as", "format", [
      ["markdown", "Markdown"],
      ["text", "Plain text"],
    ]);
  return [h("div", { class: "row" }, task, pages, format), wish.page === "vqa" && question()];
}

function soundOptions(draw) {
  const tasks = [
    ["transcribe", "Transcribe"],
    ["translate", "Translate"],
  ];
  const task = choice("With recordings", "sound-task", tasks, wish.sound, (value) => again("sound", value, draw));
  const spoken = select("Spoken language", "language", [["", "Detect"], ...LANGUAGES]);
  const target = wish.sound === "translate" && select("Into", "target", LANGUAGES);
  return h("div", { class: "row" }, task, spoken, target);
}

/** The focus stays in the group, where the arrow keys go on; a pointer has chosen to write next. */
function again(name, value, draw) {
  const writes = value === "vqa" && !document.activeElement.matches(":focus-visible");
  wish[name] = value;
  draw();
  document.querySelector(writes ? "textarea" : `input[value="${value}"]`)?.focus();
}

function question() {
  const area = h("textarea", {
    rows: 2,
    required: true,
    value: wish.question,
    placeholder: "What is the total?",
    oninput: (event) => (wish.question = event.target.value),
    onkeydown: (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      event.target.form.requestSubmit();
    },
  });
  return h("label", { class: "wide" }, "Your question", area);
}

function field(name, placeholder, key) {
  return h(
    "label",
    {},
    name,
    h("input", { type: "text", placeholder, value: wish[key], oninput: (event) => (wish[key] = event.target.value) }),
  );
}

function select(name, key, options) {
  const list = h(
    "select",
    { onchange: (event) => (wish[key] = event.target.value) },
    options.map(([value, text]) => h("option", { value }, text)),
  );
  list.value = wish[key];
  return h("label", {}, name, list);
}

/** What can be done, for those who have not done anything yet. */
function tasks() {
  const told = [
    ["Read", "The text of pictures and PDFs, tables too, page by page."],
    ["Ask", "About a picture or a document, one question after the other."],
    ["Transcribe", "What is said in a recording; click a sentence to hear it."],
    ["Translate", "What is said, in another language, where the engine can."],
  ];
  return h(
    "dl",
    { class: "tasks" },
    told.map(([name, words]) => h("div", {}, h("dt", {}, name), h("dd", {}, words))),
  );
}

function dropZone(add) {
  const picker = h("input", {
    type: "file",
    id: "files",
    multiple: true,
    accept: ACCEPT,
    class: "unseen",
    tabindex: -1,
    "aria-label": "Files",
  });
  picker.addEventListener("change", () => {
    add(picker.files);
    picker.value = "";
  });
  const pick = h("button", { type: "button", onclick: () => picker.click() }, "Choose files");
  const words = h(
    "p",
    { class: "invitation" },
    h("strong", {}, "Drop, paste or choose files"),
    h("span", {}, "Pictures, PDFs and recordings"),
  );
  return h("div", { class: "drop" }, words, h("div", { class: "row" }, pick, recorder(add), picker));
}

/** A file that misses the zone must not replace the page. */
function takeDropsAnywhere(zone, add, signal) {
  document.addEventListener("dragover", (event) => (event.preventDefault(), zone.classList.add("over")), { signal });
  document.addEventListener("dragleave", (event) => event.relatedTarget || zone.classList.remove("over"), { signal });
  document.addEventListener(
    "drop",
    (event) => {
      event.preventDefault();
      zone.classList.remove("over");
      add(event.dataTransfer.files);
    },
    { signal },
  );
}

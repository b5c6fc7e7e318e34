/** The view of one job: where it stands, its file, and its result as it comes about. */

import { actions } from "./actions.js";
import { ended, follow, get, pause } from "./api.js";
import { callsOf } from "./calls.js";
import { conversation } from "./conversation.js";
import { h, progressBar, show } from "./dom.js";
import { downloads } from "./downloads.js";
import { fileOf } from "./files.js";
import { pages } from "./pages.js";
import { transcript } from "./transcript.js";
import { deed, facts, failure, nameOf, pill, source, standing } from "./words.js";

const BODIES = { ocr: pages, vqa: conversation, chat: conversation, asr: transcript };
/** Signs of a finished part come with the result so far; asking for it more often than this tells nothing new. */
const LOOK_MS = 800;

export async function jobView(main, signal, id) {
  const first = await get(`v1/jobs/${id}`, signal);
  const [about, bar] = [h("div", { class: "job-head" }), h("div")];
  const state = h("div", { class: "state", "aria-live": "polite" });
  const body = BODIES[first.type]({ job: first, file: fileOf(id), signal });
  show(main, h("article", { class: "job" }, about, bar, state, body.element, callsOf(first)));
  body.opened?.();
  const view = { id, about, bar, state, body, signal, texts: new Map(), fresh: new Set(), job: first, looking: false };
  document.title = `${nameOf(first)} · phi4`;
  take(view, first);
  if (ended(first)) return;
  keepPlaceInLine(view);
  follow(id, { signal, onJob: (job) => take(view, job), onEvent: (event) => hear(view, event) }).catch((error) => {
    if (signal.aborted) return;
    if ([404, 410].includes(error.status)) openAgain();
    else show(state, h("p", { class: "failure", role: "alert" }, error.message));
  });
}

/** Show a job as it is now; the same again changes nothing. */
function take(view, job) {
  const print = JSON.stringify(job);
  if (view.print === print) return;
  view.print = print;
  view.job = job;
  drawHead(view);
  drawState(view);
  if (job.result) view.body.show(job.result, job);
  if (ended(job) && !job.result) view.body.end(job);
}

function hear(view, { name, data }) {
  if (name === "delta") {
    const before = data.offset === 0 ? "" : view.texts.get(data.part) || "";
    view.texts.set(data.part, before + data.text);
    if (!view.fresh.size) requestAnimationFrame(() => write(view));
    view.fresh.add(data.part);
  } else if (name === "status") {
    view.job = { ...view.job, status: data.status };
    drawHead(view);
    drawState(view);
  } else if (name === "progress") {
    view.job = { ...view.job, progress: { completed: data.completed, total: data.total, unit: data.unit } };
    drawState(view);
    if (data.completed) look(view);
  }
}

/** Show the text that came since the last frame, unless the job has ended since. */
function write(view) {
  if (!ended(view.job)) for (const part of view.fresh) view.body.write(part, view.texts.get(part));
  view.fresh.clear();
}

/** Fetch the result so far. */
async function look(view) {
  if (view.looking) return;
  view.looking = true;
  try {
    const job = await get(`v1/jobs/${view.id}?include=partial`, view.signal);
    if (!ended(view.job) && job.result && Object.keys(job.result).length) view.body.show(job.result, job);
    await pause(LOOK_MS, view.signal);
  } catch {
    // The end of the job brings the whole result anyway.
  } finally {
    view.looking = false;
  }
}

/** Events do not tell the place in the line. */
async function keepPlaceInLine(view) {
  try {
    while (view.job.status === "queued") {
      await pause(2000, view.signal);
      const job = await get(`v1/jobs/${view.id}`, view.signal);
      if (view.job.status === "queued") take(view, job);
    }
  } catch {
    // The stream says what there is to say.
  }
}

/** Buttons that are the same stay: one that is made anew under the pointer would lose its click. */
function drawHead(view) {
  const { about, bar, job, body } = view;
  const copies = job.status === "completed" && downloads(job, () => body.text());
  const buttons = h(
    "div",
    { class: "row actions" },
    copies,
    actions(job, (then) => changed(view, then)),
  );
  if (!bar.firstChild?.isEqualNode(buttons)) {
    const hadFocus = bar.contains(document.activeElement);
    show(bar, buttons);
    if (hadFocus) bar.querySelector("button").focus();
  }
  show(
    about,
    h("p", { class: "crumb" }, h("a", { href: "#/jobs" }, "Jobs"), ` / ${deed(job)}`),
    h("h1", { class: nameOf(job).length > 48 ? "long" : null }, nameOf(job)),
    h("p", { class: "facts" }, pill(job.status), facts(job)),
    source(job),
  );
}

function drawState({ state, job }) {
  if (ended(job)) return show(state, job.error && job.status !== "completed" ? failure(job.error) : null);
  const { completed = 0, total } = job.progress || {};
  const share = job.status === "queued" ? 0 : total > 1 || completed ? completed / (total || 1) : null;
  show(state, progressBar("Progress", share), h("p", { class: "quiet" }, standing(job)));
}

/** After a button: a deleted job leaves to the list, one that runs again is followed anew. */
function changed(view, job) {
  if (!job) location.hash = "#/jobs";
  else if (ended(view.job) && !ended(job)) openAgain();
}

const openAgain = () => dispatchEvent(new HashChangeEvent("hashchange"));

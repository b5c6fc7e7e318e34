/** The view of one job: where it stands, its file, and its result as it comes about. */

import { ended, erase, follow, get, pause, post } from "./api.js";
import { callsOf } from "./calls.js";
import { conversation } from "./conversation.js";
import { h, progressBar, show, toast } from "./dom.js";
import { downloads } from "./downloads.js";
import { fileOf, forget } from "./files.js";
import { pages } from "./pages.js";
import { transcript } from "./transcript.js";
import { deed, facts, failure, nameOf, pill, standing } from "./words.js";

const BODIES = { ocr: pages, vqa: conversation, chat: conversation, asr: transcript };
/** Signs of a finished part come with the result so far; asking for it more often than this tells nothing new. */
const LOOK_MS = 800;

export async function jobView(main, signal, id) {
  const first = await get(`v1/jobs/${id}`, signal);
  const head = h("div", { class: "job-head" });
  const state = h("div", { class: "state", "aria-live": "polite" });
  const body = BODIES[first.type]({ job: first, file: fileOf(id), signal });
  show(main, h("article", { class: "job" }, head, state, body.element, callsOf(first)));
  const view = { id, head, state, body, signal, texts: new Map(), fresh: new Set(), job: first, looking: false };
  document.title = `${nameOf(first)} · phi4`;
  take(view, first);
  if (ended(first)) return;
  keepPlaceInLine(view);
  follow(id, { signal, onJob: (job) => take(view, job), onEvent: (event) => hear(view, event) }).catch((error) => {
    if (!signal.aborted) show(state, h("p", { class: "failure", role: "alert" }, error.message));
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
      if (view.job.status === "queued") take(view, await get(`v1/jobs/${view.id}`, view.signal));
    }
  } catch {
    // The stream says what there is to say.
  }
}

function drawHead({ head, job, body }) {
  const focused = head.contains(document.activeElement);
  show(
    head,
    h("p", { class: "crumb" }, h("a", { href: "#/jobs" }, "Jobs"), ` / ${deed(job)}`),
    h("h1", { tabindex: -1 }, nameOf(job)),
    h("p", { class: "facts" }, pill(job.status), " ", facts(job)),
    h("div", { class: "row actions" }, job.status === "completed" && downloads(job, () => body.text()), actions(job)),
  );
  if (focused) head.querySelector("h1").focus();
}

function drawState({ state, job }) {
  if (ended(job)) return show(state, job.error && job.status !== "completed" ? failure(job.error) : null);
  const { completed = 0, total } = job.progress || {};
  const share = job.status === "queued" ? 0 : total > 1 || completed ? completed / (total || 1) : null;
  show(state, progressBar("Progress", share), h("p", { class: "quiet" }, standing(job)));
}

/** What may be done with a job now. */
function actions(job) {
  const act = (words, path, then) =>
    h("button", { onclick: (event) => perform(event.target, () => post(path), then) }, words);
  const reload = () => dispatchEvent(new HashChangeEvent("hashchange"));
  const here = `v1/jobs/${job.id}`;
  if (!ended(job)) return [act("Cancel", `${here}/cancel`, () => {})];
  const again = ["failed", "cancelled"].includes(job.status) && act("Try again", `${here}/retry`, reload);
  return [again, deleteButton(job)];
}

function deleteButton(job) {
  const leave = () => {
    forget(job.id);
    location.hash = "#/jobs";
  };
  return h(
    "button",
    {
      class: "plain",
      onclick: ({ target }) => {
        if (target.dataset.sure) return perform(target, () => erase(`v1/jobs/${job.id}`), leave);
        target.dataset.sure = "yes";
        target.textContent = "Delete file and result?";
      },
    },
    "Delete",
  );
}

/** Do what a button says, once, and tell when it is refused. */
export async function perform(button, deed, then) {
  button.disabled = true;
  try {
    then(await deed());
  } catch (error) {
    toast(error.message);
  } finally {
    button.disabled = false;
  }
}

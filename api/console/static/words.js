/** How jobs are told in words: what they do, where they stand, and why they failed. */

import { ago, h, one, span } from "./dom.js";

export const TYPES = { ocr: "Text", vqa: "Question", asr: "Speech", chat: "Chat" };

export const STATUSES = {
  queued: "Waiting",
  in_progress: "Working",
  cancelling: "Stopping",
  completed: "Done",
  failed: "Failed",
  cancelled: "Cancelled",
  expired: "Expired",
};

/** What an engine is asked to do with the file. */
export function deed(job) {
  if (job.type === "asr") return job.params.task === "translate" ? "Translation" : "Transcript";
  return TYPES[job.type] || job.type;
}

/** Signs that turn the direction of text make one name look like another. */
const TURNS = /[\u202a-\u202e\u2066-\u2069]/g;

export function nameOf(job) {
  const [first, ...more] = job.input || [];
  const name = (first?.filename || first?.url || "").replace(TURNS, "") || "Untitled";
  return more.length ? `${name} and ${one(more.length, "more", "more")}` : name;
}

export function pill(status) {
  return h("span", { class: `pill ${status}` }, STATUSES[status] || status);
}

/** One sentence about where a job stands. */
export function standing(job) {
  const { progress, queue } = job;
  if (job.status === "queued") {
    if (queue?.reason === "no_worker_for_type") return "Waits for a worker: none that could do this is running.";
    if (queue?.reason === "in_flight_limit")
      return "Waits for your other jobs: the key's limit of work at once is reached.";
    if (queue?.position > 0)
      return `Waits in line: ${queue.position}${queue.position_is_at_least ? " or more" : ""} before it.`;
    return "Waits for a worker.";
  }
  if (job.status === "in_progress" && progress?.total > 1) {
    return `${progress.completed} of ${one(progress.total, progress.unit)} done.`;
  }
  if (job.status === "in_progress") return "Being worked on.";
  if (job.status === "cancelling") return "Being stopped.";
  return "";
}

/** How long each stage took, as far as they are over. */
function timings(job) {
  const { queued_ms: waited, prepare_ms: prepared, run_ms: ran } = job.timings || {};
  const pieces = [];
  if (waited !== undefined) pieces.push(`waited ${span(waited)}`);
  if (prepared !== undefined) pieces.push(`prepared ${span(prepared)}`);
  if (ran !== undefined && !job.cached) pieces.push(`worked ${span(ran)}`);
  return pieces.join(" · ");
}

export function facts(job) {
  const size = job.usage?.pages ? one(job.usage.pages, "page") : "";
  return [size, ago(job.created_at), job.engine && `engine ${job.engine}`, timings(job)].filter(Boolean).join(" · ");
}

/** Where a result comes from that no engine was asked for. */
export function source(job) {
  if (!job.cached) return null;
  return h("p", { class: "quiet" }, "The same was asked before: this is ", link(job.cached_from), ".");
}

const link = (id) => h("a", { href: `#/jobs/${id}` }, "that job’s result");

const ADVICE = {
  input: "The same file will fail again; another one may not.",
  engine: "Another engine may be able to: Operations shows which one runs here.",
};

/** Why there is no result, and what to do about it. What its owner stopped is no failure. */
export function failure(error) {
  if (error.code === "cancelled") return h("p", { class: "quiet" }, error.message);
  const advice = error.retryable ? "Trying again may help." : ADVICE[error.category];
  return h(
    "div",
    { class: "failure", role: "alert" },
    h("p", {}, h("strong", {}, error.message)),
    h(
      "p",
      { class: "quiet" },
      [advice, error.phase && `It happened in phase “${error.phase}”.`].filter(Boolean).join(" "),
      " ",
      h("code", {}, error.code),
    ),
  );
}

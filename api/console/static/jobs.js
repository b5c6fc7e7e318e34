/** The list of jobs, kept up to date: all of the caller's with filters, or those that this tab made. */

import { actions } from "./actions.js";
import { ended, every, get } from "./api.js";
import { ago, h, one, show, span } from "./dom.js";
import { forget, madeHere } from "./files.js";
import { STATUSES, TYPES, deed, nameOf, pill, standing } from "./words.js";

const LOOK_MS = 2000;
/** While a button is held down, the row under it must stay, or its click is lost. */
let held = false;
for (const [name, value] of [
  ["pointerdown", true],
  ["pointerup", false],
  ["pointercancel", false],
]) {
  document.addEventListener(name, () => (held = value));
}
/** The list does not tell places in the line; so many waiting jobs are asked for theirs. */
const PLACES = 5;
const MORE = 25;
/** The API lists no more at once; older jobs have a view of their own, from `after` on. */
const MOST = 100;
/** What is said where no row is: why, and the way out. */
const NONE = ["There are no jobs yet.", "#/", "Make the first one"];
const NONE_SUCH = ["No job is like that.", "#/jobs", "Show all"];

export async function jobsView(main, signal, query = "") {
  const filter = new URLSearchParams(query);
  const list = h("div", { class: "list" });
  const more = h("button", { hidden: true, onclick: showMore });
  let limit = filter.has("after") ? MOST : MORE;
  let last = "";
  const soon = () => look().catch(() => {}); // the next look tells what is wrong
  show(
    main,
    h("div", { class: "jobs" }, h("div", { class: "row between" }, h("h1", {}, "Jobs"), filters(filter)), list, more),
  );
  await every(LOOK_MS, signal, look);

  async function look() {
    const asked = new URLSearchParams(filter);
    asked.set("limit", limit);
    const { data, has_more: rest, last_id } = await get(`v1/jobs?${asked}`, signal);
    const jobs = await withPlaces(data, signal);
    draw(list, jobs, soon, filter.size ? NONE_SUCH : NONE);
    last = last_id;
    more.hidden = !rest;
    more.textContent = limit < MOST ? "Show more" : "Show older ones";
  }

  function showMore() {
    if (limit >= MOST) return go(filter, "after", last);
    limit += MORE;
    soon();
  }
}

/** The jobs of this tab, under the first view's form. */
export async function sessionJobs(place, signal) {
  const list = h("div", { class: "list" });
  show(place, h("h2", {}, "In this tab"), list);
  const known = new Map();
  const look = async () => {
    for (const id of madeHere().slice(0, 10)) {
      if (known.has(id) && ended(known.get(id))) continue;
      try {
        known.set(id, await get(`v1/jobs/${id}`, signal));
      } catch (error) {
        if (error.status === 404 || error.status === 410) forget(id);
        else throw error;
      }
    }
    const jobs = madeHere().map((id) => known.get(id));
    draw(list, jobs.filter(Boolean), changed, null);
  };
  const changed = (job) => {
    if (job) known.set(job.id, job);
    look().catch(() => {});
  };
  await every(LOOK_MS, signal, look);
}

async function withPlaces(jobs, signal) {
  const waiting = jobs.filter((job) => job.status === "queued").slice(-PLACES);
  const asked = await Promise.all(waiting.map((job) => get(`v1/jobs/${job.id}`, signal).catch(() => job)));
  const places = new Map(asked.map((job) => [job.id, job]));
  return jobs.map((job) => places.get(job.id) || job);
}

function filters(filter) {
  const select = (name, label, words) => {
    const list = h(
      "select",
      { "aria-label": label, onchange: () => (filter.delete("after"), go(filter, name, list.value)) },
      h("option", { value: "" }, label),
      Object.entries(words).map(([value, text]) => h("option", { value }, text)),
    );
    list.value = filter.get(name) || "";
    return list;
  };
  return h(
    "div",
    { class: "row" },
    filter.has("after") && h("button", { onclick: () => go(filter, "after", "") }, "Back to the newest"),
    select("status", "Every status", STATUSES),
    select("type", "Every type", TYPES),
  );
}

function go(filter, name, value) {
  if (value) filter.set(name, value);
  else filter.delete(name);
  location.hash = filter.size ? `#/jobs?${filter}` : "#/jobs";
}

/** Show rows; those that stay are changed in place, so that half-made decisions stay; the focus goes to the nearest. */
function draw(list, jobs, done, none) {
  if (held) return;
  const focused = document.activeElement;
  const place = [...list.children].findIndex((row) => row.contains(focused));
  const id = list.children[place]?.dataset.id;
  const before = new Map([...list.children].map((row) => [row.dataset.id, row]));
  const rows = jobs.map((job) => {
    const row = before.get(job.id);
    const print = JSON.stringify([job.status, job.progress, job.queue, ago(job.created_at)]);
    if (row?.dataset.print === print) return row;
    const next = jobRow(job, done);
    next.dataset.print = print;
    return next;
  });
  if (!rows.length) show(list, none && empty(...none));
  else if (rows.length !== list.children.length || rows.some((row, n) => list.children[n] !== row)) show(list, rows);
  if (place < 0 || document.activeElement === focused) return;
  const next = rows.find((row) => row.dataset.id === id) || rows[place] || rows.at(-1) || list;
  (list.contains(focused) ? focused : next.querySelector("a") || list.closest("main")).focus();
}

const empty = (words, place, way) => h("p", { class: "empty" }, `${words} `, h("a", { href: place }, way));

function jobRow(job, done) {
  const words = job.error?.message || standing(job) || timing(job);
  const { completed, total } = job.progress || {};
  const bar =
    job.status === "in_progress" &&
    total > 1 &&
    h("progress", { max: total, value: completed, "aria-label": "Progress" });
  const name = h("a", { class: "name", href: `#/jobs/${job.id}` }, nameOf(job));
  const about = h("p", { class: "quiet" }, [deed(job), ago(job.created_at), words].filter(Boolean).join(" · "));
  const question = job.type === "vqa" && h("p", { class: "question" }, job.params.question);
  const row = h(
    "div",
    { class: "job-row" },
    pill(job.status),
    h("div", { class: "grow" }, name, question, about, bar),
    h("div", { class: "row" }, actions(job, done)),
  );
  row.dataset.id = job.id;
  return row;
}

function timing(job) {
  const took = Object.values(job.timings || {}).reduce((sum, ms) => sum + ms, 0);
  if (job.cached) return "as asked before";
  const pages = job.usage?.pages ? `${one(job.usage.pages, "page")} in ` : "took ";
  return job.status === "completed" && took ? `${pages}${span(took)}` : "";
}

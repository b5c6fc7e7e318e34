/** What the service is busy with: sampled from its health and the newest jobs for as long as this tab is open. */

import { every, get } from "./api.js";
import { bars, card, timeline } from "./chart.js";
import { h, one, show, span } from "./dom.js";
import { TYPES } from "./words.js";

const LOOK_MS = 2000;
const MINUTES = 5;
const KEEP_MS = MINUTES * 60_000;
/** Jobs a minute are counted over this long, so that single jobs do not make the line jump. */
const RATE_MS = 30_000;
const OUTCOMES = {
  delivered: ["Delivered", "good"],
  retry: ["Tried again", "busy"],
  gone: ["Refused", "bad"],
  given_up: ["Given up", "bad"],
};

/** `{at, waiting, ended}`, oldest first; they outlive the view. */
let samples = [];

export async function operationsView(main, signal) {
  const place = h("div", { class: "figures" });
  const note = h("p", { class: "quiet" }, "As seen since this tab was opened.");
  show(main, h("h1", {}, "Operations"), note, place);
  let round = 0;
  let newest = [];
  await every(LOOK_MS, signal, async () => {
    const health = await wholeHealth(signal);
    if (round++ % 3 === 0) newest = (await get("v1/jobs?status=completed&limit=100", signal)).data.filter(isWorked);
    sample(health);
    draw(place, [queue(health), throughput(), latency(newest), webhooks(health), outcomes(health), workers(health)]);
  });
}

/** Show the cards that have changed; the others keep their focus and selection. */
function draw(place, cards) {
  cards.forEach((card, n) => {
    if (!place.children[n]) place.append(card);
    else if (!place.children[n].isEqualNode(card)) place.children[n].replaceWith(card);
  });
}

/** Health tells strangers a word only; another route asks for the key, or says what is wrong. */
async function wholeHealth(signal) {
  const health = await get("health", signal);
  if (health.workers) return health;
  await get("v1/jobs?limit=1", signal);
  return get("health", signal);
}

/** Results that were there already say nothing about speed. */
const isWorked = (job) => !job.cached;

/** Take what the service's health tells about this moment; the other views see it too, less often. */
export function sample(health) {
  if (!health.queues) return;
  const at = Date.now();
  const sum = (counts) => Object.values(counts).reduce((total, count) => total + count, 0);
  samples.push({ at, waiting: sum(health.queues), ended: sum(Object.values(health.ended).map(sum)) });
  samples = samples.filter((taken) => taken.at > at - KEEP_MS);
}

function queue(health) {
  const now = samples.at(-1).waiting;
  const where = Object.entries(health.queues).map(([name, count]) => `${name.replace("infer.", "")} ${count}`);
  const chart = timeline(
    "Work waiting",
    samples.map((taken) => [taken.at, taken.waiting]),
    MINUTES,
    String,
  );
  return card("Queue", `${now} waiting`, chart, h("p", { class: "quiet" }, where.join(", ") || "Nothing waits."));
}

function throughput() {
  const rate = (taken) => {
    const from = samples.find((other) => other.at >= taken.at - RATE_MS);
    const minutes = (taken.at - from.at) / 60_000;
    return minutes ? Math.max(0, taken.ended - from.ended) / minutes : 0;
  };
  const points = samples.map((taken) => [taken.at, rate(taken)]);
  const tell = (value) => `${+value.toFixed(value < 10 ? 1 : 0)} a minute`;
  return card("Jobs ended", tell(points.at(-1)[1]), timeline("Jobs ended", points, MINUTES, tell));
}

function latency(jobs) {
  const took = (job) => Object.values(job.timings).reduce((sum, ms) => sum + ms, 0);
  const rows = Object.entries(TYPES).flatMap(([type, name]) => {
    const times = jobs
      .filter((job) => job.type === type)
      .map(took)
      .sort((a, b) => a - b);
    if (!times.length) return [];
    const at = (share) => times[Math.min(times.length - 1, Math.floor(share * times.length))];
    return [
      [
        name,
        [
          [at(0.95), "bar-2"],
          [at(0.5), "bar-1"],
        ],
        `${span(at(0.5))} / ${span(at(0.95))}`,
      ],
    ];
  });
  const words = "Half of the jobs took no longer than the strong bar, 95 of 100 no longer than the faint one.";
  return card(
    "Time to finish",
    `your last ${one(jobs.length, "job")}`,
    rows.length
      ? [bars("Time by type, median and 95th percentile", rows), h("p", { class: "quiet" }, words)]
      : nothing("No job has ended yet."),
  );
}

const nothing = (words) => h("p", { class: "quiet" }, words);

function webhooks(health) {
  const rows = Object.entries(OUTCOMES)
    .filter(([name]) => health.webhooks[name])
    .map(([name, [words, look]]) => [
      words,
      [[health.webhooks[name], look]],
      health.webhooks[name].toLocaleString("en"),
    ]);
  return card(
    "Webhooks",
    "tries so far",
    rows.length ? bars("Tries by outcome", rows) : nothing("No webhook has been sent."),
  );
}

function outcomes(health) {
  const count = (status) => Object.values(health.ended).reduce((sum, counts) => sum + (counts[status] || 0), 0);
  const kinds = [
    ["completed", "Done", "good"],
    ["failed", "Failed", "bad"],
    ["cancelled", "Cancelled", "calm"],
  ];
  const rows = kinds
    .filter(([status]) => count(status))
    .map(([status, words, look]) => [words, [[count(status), look]], count(status).toLocaleString("en")]);
  return card(
    "How jobs ended",
    "all so far",
    rows.length ? bars("Jobs by status", rows) : nothing("No job has ended yet."),
  );
}

function workers(health) {
  const head = ["Worker and engine", "Stage", "Busy"].map((name) => h("th", { scope: "col" }, name));
  const rows = health.workers.map((worker) => {
    const does = worker.engine ? `${worker.engine}, ${worker.model}` : worker.queues.join(", ");
    const name = [worker.name, h("br"), h("span", { class: "quiet" }, does)];
    const busy = worker.slots ? `${worker.in_flight} of ${worker.slots}` : String(worker.in_flight);
    const stage = h("span", { class: `pill ${worker.stage === "ready" ? "completed" : "in_progress"}` }, worker.stage);
    return h("tr", {}, h("td", {}, name), h("td", {}, stage), h("td", {}, busy));
  });
  const table = h(
    "div",
    { class: "wide-table", tabindex: 0, role: "group", "aria-label": "Workers" },
    h("table", { class: "workers" }, h("thead", {}, h("tr", {}, head)), h("tbody", {}, rows)),
  );
  const made = card("Workers", `version ${health.version}`, rows.length ? table : nothing("No worker is alive."));
  made.classList.add("across");
  return made;
}

/** The page itself: which view an address shows, the line about the service's health, and the question for a key. */

import { every, forgetKey, get, hasKey, onKeyNeeded } from "./api.js";
import { h, one, show } from "./dom.js";
import { jobView } from "./job.js";
import { jobsView } from "./jobs.js";
import { operationsView, sample } from "./operations.js";
import { startView } from "./start.js";

const VIEWS = [
  [/^#\/jobs\/(job_\w+)$/, jobView, "Job"],
  [/^#\/jobs(?:\?(.*))?$/, jobsView, "Jobs"],
  [/^#\/operations$/, operationsView, "Operations"],
  [/^/, startView, "New"],
];

const main = document.getElementById("main");
let leaving = new AbortController();

async function route(event) {
  leaving.abort(new DOMException("The view was left.", "AbortError"));
  leaving = new AbortController();
  const { signal } = leaving;
  const [pattern, view, title] = VIEWS.find(([pattern]) => pattern.test(location.hash));
  markPlace();
  document.title = `${title} · phi4`;
  // A button that was disabled meanwhile has left the focus to the body.
  const wasInside = document.activeElement === document.body || main.contains(document.activeElement);
  show(main);
  scrollTo(0, 0);
  if (event && wasInside) main.focus();
  try {
    await view(main, signal, pattern.exec(location.hash)[1] || "");
  } catch (error) {
    if (!signal.aborted) show(main, trouble(error));
  }
}

/** What is shown when a view cannot go on. */
function trouble(error) {
  const again = h("button", { class: "primary", onclick: route }, error.status === 401 ? "Enter a key" : "Try again");
  const others = h("a", { href: "#/jobs" }, "See the other jobs");
  return h(
    "section",
    { class: "trouble", role: "alert" },
    h("h1", {}, titleOf(error)),
    h("p", {}, error.message),
    [404, 410].includes(error.status) ? others : again,
  );
}

function titleOf(error) {
  const titles = { 401: "A key is needed", 404: "There is no such job", 410: "This job has expired" };
  return titles[error.status] || "This did not work";
}

function markPlace() {
  const place = location.hash.startsWith("#/jobs")
    ? "#/jobs"
    : location.hash === "#/operations"
      ? "#/operations"
      : "#/";
  for (const link of document.querySelectorAll("nav a")) {
    if (link.getAttribute("href") === place) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

/** Ask for a key in a dialog; gives "" when the user would rather not. */
function askForKey(wasWrong) {
  const dialog = document.getElementById("key");
  const field = document.getElementById("key-value");
  const why = wasWrong
    ? "The key was not accepted: it is wrong or was revoked."
    : "Its operator makes one with “phi4 keys create”.";
  document.getElementById("key-why").textContent = why;
  document.getElementById("key-why").className = wasWrong ? "said" : "";
  field.value = "";
  dialog.returnValue = "cancel";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener(
      "close",
      () => {
        resolve(dialog.returnValue === "ok" ? field.value.trim() : "");
        setTimeout(tellHealth);
      },
      { once: true },
    );
  });
}

async function tellHealth() {
  const place = document.getElementById("health");
  forget.hidden = !hasKey();
  try {
    const health = await get("health");
    sample(health);
    const engines = new Set((health.workers || []).map((worker) => worker.engine).filter(Boolean));
    place.className = `health ${health.status}`;
    const told = health.status === "ok" ? ["Ready", ...engines].join(" · ") : "No worker is ready";
    if (place.textContent !== told) place.textContent = told;
    place.title = health.workers ? one(health.workers.length, "worker") : "";
  } catch {
    place.className = "health away";
    place.textContent = "Out of reach";
  }
}

const forget = document.getElementById("forget");
forget.addEventListener("click", () => {
  forgetKey();
  tellHealth();
  location.hash = "#/";
});
onKeyNeeded(askForKey);
addEventListener("hashchange", route);
route();
every(10_000, new AbortController().signal, tellHealth);

/** Questions and answers about one file, and the form for the next question. */

import { get, submit } from "./api.js";
import { h, show } from "./dom.js";
import { fileOf, remember, threadOf } from "./files.js";
import { markdown } from "./markdown.js";
import { media } from "./media.js";
import { failure } from "./words.js";

/** The job of the question that was asked last: its view goes on where the question was written. */
let asked = "";

export function conversation({ job, file, signal }) {
  const answer = h("div", { class: "answer", "aria-live": "polite" }, h("p", { class: "quiet waiting" }, "Working…"));
  const earlier = h("div", { class: "earlier" });
  const own = h("section", { class: "turn" }, h("p", { class: "asked" }, questionOf(job)), answer);
  const next = file && askForm(file, "Ask another question");
  const column = h("section", { class: "column talk", "aria-label": "Conversation" }, earlier, own, next);
  const thread = threadOf(file);
  tellEarlier(earlier, thread.slice(0, thread.indexOf(job.id)), signal);
  let told = "";
  return {
    element: h("div", { class: "beside" }, media(fileOf(job.id)).element, column),
    text: () => told,
    opened() {
      if (asked === job.id) next?.querySelector("input").focus();
      asked = "";
    },
    write(_, words) {
      told = words;
      answer.classList.add("live");
      show(answer, markdown(words));
    },
    show(result) {
      if (result.answer === undefined) return;
      told = result.answer;
      answer.classList.remove("live");
      show(answer, answered(result));
    },
    end(ended) {
      show(
        answer,
        h(
          "p",
          { class: "quiet" },
          ended.status === "failed" ? "There is no answer; the reason is above." : "There is no answer.",
        ),
      );
    },
  };
}

function answered(result) {
  if (result.data !== undefined) return h("pre", { class: "raw" }, JSON.stringify(result.data, null, 2));
  return result.answer.trim() ? markdown(result.answer) : h("p", { class: "quiet" }, "The answer is empty.");
}

function questionOf(job) {
  if (job.type === "vqa") return job.params.question;
  const last = (job.params.messages || []).filter((message) => message.role === "user").at(-1);
  return (last?.content || []).map((part) => part.text || `[${part.type}]`).join(" ");
}

/** The turns before this one, as they ended. */
async function tellEarlier(place, ids, signal) {
  for (const id of ids) {
    const turn = h("section", { class: "turn" });
    place.append(turn);
    try {
      const job = await get(`v1/jobs/${id}`, signal);
      const said = job.result
        ? answered(job.result)
        : job.error
          ? failure(job.error)
          : h("a", { href: `#/jobs/${id}` }, "Not answered yet");
      show(turn, h("p", { class: "asked" }, questionOf(job)), h("div", { class: "answer" }, said));
    } catch {
      turn.remove(); // deleted or expired since
    }
  }
}

/** Asks about a file in a job of its own, which is opened. */
export function askForm(file, label) {
  const said = h("p", { class: "said", role: "alert" });
  const field = h("input", { type: "text", required: true, placeholder: label, "aria-label": label });
  const go = h("button", { class: "primary" }, "Ask");
  return h("form", { class: "ask", onsubmit: ask }, h("div", { class: "row" }, field, go), said);

  async function ask(event) {
    event.preventDefault();
    if (!field.value.trim()) return;
    go.disabled = true;
    said.textContent = "";
    try {
      const job = await submit("vqa", { question: field.value }, [file]);
      remember(job, file);
      asked = job.id;
      location.hash = `#/jobs/${job.id}`;
    } catch (error) {
      said.textContent = error.message;
      go.disabled = false;
    }
  }
}

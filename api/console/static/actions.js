/** The buttons of a job: cancel, try again, and delete, which is asked for twice. */

import { ended, erase, post } from "./api.js";
import { h, toast } from "./dom.js";
import { forget } from "./files.js";
import { nameOf } from "./words.js";

/** What may be done with a job now; `done` hears the job as it is then, or null when it is deleted. */
export function actions(job, done) {
  const here = `v1/jobs/${job.id}`;
  if (!ended(job)) return [button("Cancel", job, () => post(`${here}/cancel`), done)];
  const again = () => post(`${here}/retry`);
  return [
    canHelp(job) && button("Try again", job, again, done),
    deleteButton(job, done),
  ];
}

/** A file that cannot be read stays so. */
const canHelp = ({ status, error }) =>
  status === "cancelled" || (status === "failed" && (error?.retryable || error?.category !== "input"));

function button(words, job, deed, done) {
  const props = { "aria-label": `${words}: ${nameOf(job)}`, onclick: ({ target }) => perform(target, deed, done) };
  return h("button", props, words);
}

function deleteButton(job, done) {
  let isSure = false;
  const remove = async () => {
    await erase(`v1/jobs/${job.id}`);
    forget(job.id);
    return null;
  };
  const press = ({ target }) => {
    if (isSure) return perform(target, remove, done);
    isSure = true;
    target.textContent = "Really delete?";
    target.setAttribute("aria-label", `Really delete ${nameOf(job)}?`);
  };
  return h("button", { class: "plain", "aria-label": `Delete: ${nameOf(job)}`, onclick: press }, "Delete");
}

/** Do what a button says, once, and tell when it is refused. One that is really disabled would lose the focus. */
async function perform(pressed, deed, done) {
  if (pressed.ariaDisabled) return;
  pressed.ariaDisabled = "true";
  let then;
  try {
    then = await deed();
  } catch (error) {
    return toast(error.message);
  } finally {
    pressed.ariaDisabled = null;
  }
  done(then);
}

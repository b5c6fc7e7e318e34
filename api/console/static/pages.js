/** The text of a document page by page, beside the document: rendered or raw, written as it is read. */

import { askForm } from "./conversation.js";
import { choice, h, show } from "./dom.js";
import { markdown } from "./markdown.js";
import { media } from "./media.js";

const MODES = [
  ["rendered", "Rendered"],
  ["raw", "Raw"],
];
let mode = "rendered";

export function pages({ job, file }) {
  const beside = media(file);
  const tabs = h("div", { class: "tabs", role: "tablist", "aria-label": "Pages" });
  const text = h("div", {
    class: "text",
    id: "page-text",
    role: "tabpanel",
    tabindex: 0,
    "aria-label": "Text of the page",
  });
  const modes = choice("Show the text", "mode", MODES, mode, (value) => {
    mode = value;
    draw();
  });
  const bar = h("div", { class: "row between across" }, tabs, modes);
  const ask = file && askForm(file, "Ask about this file");
  const column = h("section", { class: "column", "aria-label": "Text" }, text, ask);
  const known = new Map();
  let chosen = 0;
  let isPicked = false;
  let shownTabs = "";
  draw();

  /** Tabs that are made anew under the pointer would lose its click. */
  function drawTabs() {
    const numbers = [...known.keys()].sort((a, b) => a - b);
    const signs = numbers.map((number) => [number, known.get(number).page, Boolean(known.get(number).error)]);
    const print = JSON.stringify([signs, chosen]);
    if (print === shownTabs) return;
    shownTabs = print;
    tabs.hidden = numbers.length < 2;
    const hadFocus = tabs.contains(document.activeElement);
    show(tabs, tabs.hidden ? [] : numbers.map((number) => tab(number)));
    if (hadFocus) tabs.querySelector(`#tab-${chosen}`)?.focus();
  }

  function draw() {
    drawTabs();
    const page = known.get(chosen);
    text.classList.toggle("live", Boolean(page && !page.done));
    show(
      text,
      page
        ? content(page)
        : h("p", { class: "quiet waiting" }, job.status === "completed" ? "" : "The text appears here as it is read."),
    );
    modes.hidden = !page || Boolean(page.error);
    bar.hidden = tabs.hidden && modes.hidden;
    if (page?.page) beside.turnTo(page.page, page.dimensions);
  }

  /** Until a page is picked, the first one that is there is shown; tells whether that changed. */
  function settle() {
    const before = chosen;
    if (!isPicked && known.size) chosen = Math.min(...known.keys());
    return chosen !== before;
  }

  function tab(number) {
    const page = known.get(number);
    const name = page.error ? `${page.page} ✕` : String(page.page || "…");
    const label = page.page ? `Page ${page.page}` : "A page, being read";
    return h(
      "button",
      {
        role: "tab",
        id: `tab-${number}`,
        "aria-selected": String(number === chosen),
        "aria-controls": "page-text",
        "aria-label": page.error ? `${label}, not read` : label,
        tabindex: number === chosen ? 0 : -1,
        onclick: () => choose(number),
        onkeydown: (event) => step(event, number),
      },
      name,
    );
  }

  function choose(number) {
    chosen = number;
    isPicked = true;
    draw();
    tabs.querySelector(`#tab-${number}`)?.focus();
  }

  function step(event, number) {
    const numbers = [...known.keys()].sort((a, b) => a - b);
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!by) return;
    event.preventDefault();
    choose(numbers[(numbers.indexOf(number) + by + numbers.length) % numbers.length]);
  }

  return {
    element: h("div", { class: "beside" }, bar, beside.element, column),
    text: () =>
      [...known.values()]
        .map((page) => page.text)
        .filter(Boolean)
        .join("\n\n"),
    write(part, words) {
      if (known.get(part)?.done) return;
      known.set(part, { page: job.params.pages ? 0 : part + 1, text: words, done: false });
      if (settle() || chosen === part) draw();
      else drawTabs();
    },
    show(result) {
      for (const page of result.pages || []) {
        known.set(page.index, { ...page, text: page.markdown || page.text, done: true });
      }
      settle();
      draw();
    },
    end({ error }) {
      if (!known.size) show(text, h("p", { class: "quiet" }, "There is no text."));
      if (ask) ask.hidden = error?.category === "input";
    },
  };
}

function content(page) {
  if (page.error) return h("p", { class: "failure" }, `This page was not read: ${page.error.message}`);
  if (!page.text.trim()) return h("p", { class: "quiet" }, "There is no text on this page.");
  return mode === "raw" ? h("pre", { class: "raw" }, page.text) : markdown(page.text);
}

/** One chosen file before it is sent: what it is, how much of it has gone, and a way to leave it out. */

import { bytes, h, progressBar } from "./dom.js";
import { isShown, kindOf, urlOf } from "./files.js";

const KINDS = { image: "Picture", pdf: "PDF", audio: "Recording" };
const SIGNS = { image: "▣", pdf: "PDF", audio: "♪" };

export function fileRow(file, onremove) {
  const kind = kindOf(file);
  const thumb =
    kind === "image" && isShown(file)
      ? h("img", { class: "thumb", src: urlOf(file), alt: "" })
      : h("span", { class: "thumb", "aria-hidden": "true" }, SIGNS[kind]);
  const words = h(
    "div",
    { class: "grow" },
    h("p", { class: "name" }, file.name),
    h("p", { class: "quiet" }, `${KINDS[kind]}, ${bytes(file.size)}`),
  );
  const remove = h(
    "button",
    { type: "button", class: "plain", "aria-label": `Leave out ${file.name}`, onclick: onremove },
    "✕",
  );
  const row = h("li", {}, thumb, words, remove);
  const bar = progressBar(`Sending ${file.name}`, 0);
  row.showSent = (share) => {
    bar.value = share;
    if (!bar.isConnected) words.append(bar);
  };
  return row;
}

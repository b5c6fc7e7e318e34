/** What was said, beside a player: a click on a segment plays it, and the one that is heard is marked. */

import { clock, h, show } from "./dom.js";
import { urlOf } from "./files.js";
import { waveform } from "./waveform.js";

export function transcript({ job, file, signal }) {
  const player = file && h("audio", { controls: true, src: urlOf(file), preload: "metadata" });
  const list = h("ol", { class: "segments", "aria-label": "Segments" });
  const text = h(
    "div",
    { class: "text" },
    h("p", { class: "quiet waiting" }, "The words appear here as they are heard."),
  );
  const away = h("p", { class: "quiet" }, "The recording is not in this tab, so it cannot be played.");
  const clips = new Map();
  let told = "";
  let segments = [];
  player?.addEventListener("timeupdate", () => mark(list, segments, player.currentTime), { signal });
  signal.addEventListener("abort", () => player?.pause());

  return {
    element: h(
      "div",
      { class: "beside spoken" },
      h("div", { class: "player" }, player || away, player && waveform(file, player, signal)),
      h("div", { class: "column" }, list, text),
    ),
    text: () => told,
    write(part, words) {
      clips.set(part, words);
      told = [...clips.entries()]
        .sort(([a], [b]) => a - b)
        .map(([, piece]) => piece)
        .join(" ");
      text.classList.add("live");
      text.hidden = false;
      show(text, h("p", {}, told));
    },
    show(result, { status }) {
      clips.clear(); // those that are still being heard are written again
      told = result.text || "";
      segments = result.segments || [];
      text.classList.remove("live");
      text.hidden = segments.length > 0;
      show(text, h("p", { class: told ? null : "quiet" }, told || (status === "completed" ? "Nothing was said." : "")));
      show(
        list,
        segments.map((segment) => row(segment, player)),
      );
    },
    end() {
      show(text, h("p", { class: "quiet" }, "There is no transcript."));
    },
  };
}

function row(segment, player) {
  const from = clock(segment.start);
  const words = [h("span", { class: "time" }, from), h("span", {}, segment.text)];
  if (!player) return h("li", {}, h("div", { class: "segment" }, words));
  const play = () => {
    player.currentTime = segment.start;
    player.play().catch(() => {}); // a player that cannot play says so itself
  };
  return h("li", {}, h("button", { class: "segment", onclick: play, title: `Play from ${from}` }, words));
}

function mark(list, segments, now) {
  const heard = segments.findLastIndex((segment) => segment.start <= now + 0.05 && now < segment.end + 0.5);
  [...list.children].forEach((item, n) => {
    if (n === heard) item.setAttribute("aria-current", "true");
    else item.removeAttribute("aria-current");
  });
}

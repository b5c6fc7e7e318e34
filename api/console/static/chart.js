/** Small charts in SVG: a line over time, and horizontal bars. Each says in words what it shows. */

import { h, svg } from "./dom.js";

const WIDTH = 340;
const HEIGHT = 132;
const LEFT = 34;
const BOTTOM = 22;

/** Points `[ms since the epoch, value]` over the last `minutes`; `tell` writes a value. */
export function timeline(label, points, minutes, tell, now = Date.now()) {
  const most = niceTop(Math.max(...points.map(([, value]) => value), 2));
  const x = (ms) => WIDTH - ((now - ms) / (minutes * 60_000)) * (WIDTH - LEFT);
  const y = (value) => HEIGHT - BOTTOM - (value / most) * (HEIGHT - BOTTOM - 8);
  const seen = points.filter(([ms]) => x(ms) >= LEFT);
  const path = seen.map(([ms, value], n) => `${n ? "L" : "M"}${x(ms).toFixed(1)} ${y(value).toFixed(1)}`).join("");
  const under =
    seen.length > 1 ? `${path}L${x(seen.at(-1)[0]).toFixed(1)} ${y(0)}L${x(seen[0][0]).toFixed(1)} ${y(0)}Z` : "";
  const last = points.length ? tell(points.at(-1)[1]) : "no figure yet";
  return svg(
    "svg",
    {
      class: "chart",
      viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
      role: "img",
      "aria-label": `${label}: now ${last}; at most ${tell(most)} on the scale`,
    },
    [0, most / 2, most].map((value) => [
      svg("line", { class: "grid", x1: LEFT, x2: WIDTH, y1: y(value), y2: y(value) }),
      svg("text", { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, short(value)),
    ]),
    under && svg("path", { class: "area", d: under }),
    path && svg("path", { class: "line", d: path }),
    svg("text", { x: LEFT, y: HEIGHT - 3 }, `${minutes} min ago`),
    svg("text", { x: WIDTH, y: HEIGHT - 3, "text-anchor": "end" }, "now"),
  );
}

/** Rows `[name, [[value, class], …], words]`, each as bars laid over one another, under words of any length. */
export function bars(label, rows) {
  const most = Math.max(...rows.flatMap(([, values]) => values.map(([value]) => value)), 1e-9);
  const step = 42;
  const width = (value) => Math.max(2, (value / most) * WIDTH);
  const told = rows.map(([name, , words]) => `${name} ${words}`).join("; ");
  return svg(
    "svg",
    { class: "chart", viewBox: `0 0 ${WIDTH} ${rows.length * step}`, role: "img", "aria-label": `${label}: ${told}` },
    rows.map(([name, values, words], n) => [
      svg("text", { x: 0, y: n * step + 14 }, name),
      svg("text", { x: WIDTH, y: n * step + 14, "text-anchor": "end" }, words),
      values.map(([value, look]) =>
        svg("rect", { class: look, x: 0, y: n * step + 22, width: width(value), height: 12, rx: 3 }),
      ),
    ]),
  );
}

export function card(title, aside, ...content) {
  return h("section", { class: "card" }, h("h2", {}, title, h("span", {}, aside)), content);
}

const short = (value) => (value >= 1000 ? `${+(value / 1000).toFixed(1)}k` : String(+value.toFixed(1)));

/** The next of 2, 4, 10, 20, … that a scale can end with: its half is a whole number too. */
function niceTop(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 4, 10].map((step) => step * power).find((top) => top >= value);
}

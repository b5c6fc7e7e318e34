/** Shows Markdown as elements. Markup in the text stays text, and links lead to http, https and mail only. */

import { h } from "./dom.js";

const FENCE = /^\s*(```|~~~)/;
const HEADING = /^ {0,3}(#{1,6})\s+(.*?)\s*#*$/;
const RULE = /^ {0,3}([-*_])(\s*\1){2,}\s*$/;
const ITEM = /^(\s*)([-*+]|\d{1,9}[.)])\s+(.*)$/;
const QUOTE = /^ {0,3}> ?(.*)$/;
const DIVIDER = /^\s*\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*$/;
/** In turn: code, bold, bold, emphasis, emphasis, struck out, link or picture, line break, escaped sign. */
const INLINE = new RegExp(
  [
    /(`+)(.+?)\1(?!`)/,
    /\*\*(?=\S)(.+?)\*\*/,
    /__(?=\S)(.+?)__/,
    /\*(?=\S)([^*]+?)\*/,
    /(?<!\w)_(?=\S)([^_]+?)_(?!\w)/,
    /~~(.+?)~~/,
    /!?\[([^\]]*)\]\(([^()\s]+(?:\([^()\s]*\))?)[^)]*\)/,
    /(<br ?\/?>)/,
    /\\([\\`*_{}[\]()#+.!|~-])/,
  ]
    .map((piece) => piece.source)
    .join("|"),
  "s",
);
const MOST_DEPTH = 12;

/** Read Markdown; `top` is the level that its first headings get. Gives elements. */
export function markdown(text, top = 3) {
  return blocks(text.replace(/\r\n?/g, "\n").split("\n"), top, 0);
}

function blocks(lines, top, depth) {
  const made = [];
  let at = 0;
  while (at < lines.length) {
    if (!lines[at].trim()) {
      at += 1;
      continue;
    }
    const [element, next] = block(lines, at, top, depth);
    made.push(element);
    at = next;
  }
  return made;
}

/** Read the block that begins on a line; gives it and the line after it. */
function block(lines, at, top, depth) {
  const line = lines[at];
  if (FENCE.test(line)) return fence(lines, at);
  const heading = HEADING.exec(line);
  if (heading) return [h(`h${Math.min(6, top - 1 + heading[1].length)}`, {}, inline(heading[2])), at + 1];
  if (RULE.test(line)) return [h("hr"), at + 1];
  if (isTable(lines, at)) return table(lines, at);
  if (depth < MOST_DEPTH && QUOTE.test(line)) return quote(lines, at, top, depth);
  if (depth < MOST_DEPTH && ITEM.test(line)) return list(lines, at, top, depth);
  return paragraph(lines, at, depth);
}

function fence(lines, at) {
  const mark = FENCE.exec(lines[at])[1];
  let end = at + 1;
  while (end < lines.length && !lines[end].trim().startsWith(mark)) end += 1;
  return [h("pre", { tabindex: 0 }, h("code", {}, lines.slice(at + 1, end).join("\n"))), end + 1];
}

const isTable = (lines, at) =>
  lines[at].includes("|") &&
  at + 1 < lines.length &&
  lines[at + 1].includes("-") &&
  DIVIDER.test(lines[at + 1]) &&
  cells(lines[at]).length === cells(lines[at + 1]).length;

function table(lines, at) {
  const sides = cells(lines[at + 1]).map((cell) =>
    cell.endsWith(":") ? (cell.startsWith(":") ? "middle" : "end") : "",
  );
  const row = (line, tag) => {
    const texts = cells(line).slice(0, sides.length);
    return h(
      "tr",
      {},
      sides.map((side, n) => h(tag, { class: side || null, scope: tag === "th" && "col" }, inline(texts[n] || ""))),
    );
  };
  let end = at + 2;
  while (end < lines.length && lines[end].includes("|") && lines[end].trim()) end += 1;
  const body = lines.slice(at + 2, end).map((line) => row(line, "td"));
  const made = h("table", {}, h("thead", {}, row(lines[at], "th")), h("tbody", {}, body));
  return [h("div", { class: "wide-table", tabindex: 0, role: "group", "aria-label": "Table" }, made), end];
}

function cells(line) {
  const inside = line
    .trim()
    .replace(/^\|/, "")
    .replace(/(?<!\\)\|$/, "");
  return inside.split(/(?<!\\)\|/).map((cell) => cell.trim());
}

function quote(lines, at, top, depth) {
  let end = at;
  const inside = [];
  for (; end < lines.length && QUOTE.test(lines[end]); end += 1) inside.push(QUOTE.exec(lines[end])[1]);
  return [h("blockquote", {}, blocks(inside, top, depth + 1)), end];
}

function list(lines, at, top, depth) {
  const first = ITEM.exec(lines[at]);
  const ordered = /\d/.test(first[2]);
  const items = [];
  let end = at;
  while (end < lines.length) {
    const item = ITEM.exec(lines[end]);
    const indent = /^\s*/.exec(lines[end])[0].length;
    if (item && item[1].length <= first[1].length && /\d/.test(item[2]) === ordered) items.push([item[3]]);
    else if (lines[end].trim() && indent > first[1].length)
      items.at(-1).push(lines[end].slice(Math.min(indent, first[1].length + 2)));
    else if (!lines[end].trim() && goesOn(lines[end + 1], first[1].length)) items.at(-1).push("");
    else break;
    end += 1;
  }
  const start = ordered && parseInt(first[2], 10) !== 1 ? parseInt(first[2], 10) : null;
  return [
    h(
      ordered ? "ol" : "ul",
      { start },
      items.map((inside) => h("li", {}, itemContent(inside, top, depth))),
    ),
    end,
  ];
}

const goesOn = (line, indent) =>
  line !== undefined && (ITEM.test(line) || /^\s*/.exec(line)[0].length > indent) && line.trim() !== "";

function itemContent(lines, top, depth) {
  const made = blocks(lines, top, depth + 1);
  return made.length && made[0].tagName === "P" ? [...made[0].childNodes, ...made.slice(1)] : made;
}

function paragraph(lines, at, depth) {
  let end = at + 1;
  const begins = (line) =>
    FENCE.test(line) ||
    HEADING.test(line) ||
    RULE.test(line) ||
    (depth < MOST_DEPTH && (QUOTE.test(line) || ITEM.test(line)));
  while (end < lines.length && lines[end].trim() && !begins(lines[end]) && !isTable(lines, end)) end += 1;
  const pieces = lines
    .slice(at, end)
    .flatMap((line, n) => (n ? [h("br"), ...inline(line.trim())] : inline(line.trim())));
  return [h("p", {}, pieces), end];
}

/** Read emphasis, code and links within a line. Gives text and elements. */
function inline(text, depth = 0) {
  const made = [];
  let rest = text;
  for (let found; depth < MOST_DEPTH && (found = INLINE.exec(rest)); rest = rest.slice(found.index + found[0].length)) {
    made.push(rest.slice(0, found.index), span(found, depth + 1));
  }
  return [...made, rest].filter((piece) => piece !== "");
}

function span([whole, , code, bold, bold2, em, em2, gone, label, address, br, escaped], depth) {
  if (code !== undefined) return h("code", {}, code);
  if (bold || bold2) return h("strong", {}, inline(bold || bold2, depth));
  if (em || em2) return h("em", {}, inline(em || em2, depth));
  if (gone) return h("s", {}, inline(gone, depth));
  if (br) return h("br");
  if (escaped) return escaped;
  if (whole.startsWith("!")) return h("em", {}, label || "picture");
  return /^(https?:\/\/|mailto:)/i.test(address)
    ? h("a", { href: address, rel: "noopener noreferrer", target: "_blank" }, inline(label, depth))
    : whole;
}

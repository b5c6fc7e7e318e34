/** Shows a job's own file beside its result: the picture, the PDF at a page, or words that it is not in this tab. */

import { h } from "./dom.js";
import { isShown, kindOf, urlOf } from "./files.js";

/** `{element, turnTo}`; `turnTo` shows a page of a PDF, from 1, in a frame of its shape. */
export function media(file) {
  if (!file)
    return { element: missing("The file is not in this tab. The service keeps it for working on only."), turnTo() {} };
  if (!isShown(file)) return { element: missing("This browser cannot show this kind of picture."), turnTo() {} };
  return kindOf(file) === "pdf" ? document_(file) : picture(file);
}

const missing = (words) => h("aside", { class: "media missing" }, h("p", { class: "quiet" }, words));

function picture(file) {
  const broken = () => element.replaceWith(missing("The browser cannot show this picture."));
  const image = h("img", { src: urlOf(file), alt: `The file ${file.name}`, onerror: broken });
  const zoom = h(
    "button",
    {
      class: "zoom",
      "aria-pressed": "false",
      "aria-label": "Show the picture in its full size",
      onclick: () => zoom.setAttribute("aria-pressed", String(element.classList.toggle("full"))),
    },
    image,
  );
  const element = h("aside", { class: "media", "aria-label": "The picture", tabindex: 0 }, zoom);
  return { element, turnTo() {} };
}

/** The browser's own viewer; where it has none, a link. */
function document_(file) {
  const url = urlOf(file);
  if (!navigator.pdfViewerEnabled) {
    const link = h("a", { href: url, download: file.name }, `Save ${file.name}`);
    return {
      element: h(
        "aside",
        { class: "media missing" },
        h("p", { class: "quiet" }, "This browser does not show PDFs. "),
        link,
      ),
      turnTo() {},
    };
  }
  const at = (page) => `${url}#page=${page}&toolbar=0&navpanes=0&view=Fit`;
  let frame = h("iframe", { src: at(1), title: `The file ${file.name}` });
  const element = h("aside", { class: "media pdf", "aria-label": "The PDF" }, frame);
  let shown = 1;
  const turnTo = (page, size) => {
    if (size) element.style.setProperty("--shape", size.width / size.height);
    if (page === shown) return;
    shown = page;
    // A viewer that is open does not look at its address again.
    const next = frame.cloneNode();
    next.src = at(page);
    frame.replaceWith(next);
    frame = next;
  };
  return { element, turnTo };
}

/** Records from the microphone into a file. */

import { clock, h, toast } from "./dom.js";

/** A button that records until it is pressed again, and gives the file to `add`. */
export function recorder(add) {
  if (!navigator.mediaDevices || !globalThis.MediaRecorder) return null;
  let recording = null;
  const words = h("span", {}, "Record");
  const button = h(
    "button",
    { type: "button", "aria-pressed": "false", onclick: toggle },
    h("span", { class: "dot", "aria-hidden": "true" }),
    words,
  );
  return button;

  async function toggle() {
    if (recording) return recording.stop();
    try {
      begin(await navigator.mediaDevices.getUserMedia({ audio: true }));
    } catch (error) {
      toast(
        error.name === "NotAllowedError"
          ? "The browser was not allowed to use the microphone."
          : "There is no microphone.",
      );
    }
  }

  function begin(stream) {
    const pieces = [];
    const began = Date.now();
    const tell = () => (words.textContent = `Stop ${clock((Date.now() - began) / 1000)}`);
    const ticking = setInterval(tell, 500);
    recording = new MediaRecorder(stream);
    recording.ondataavailable = (event) => pieces.push(event.data);
    recording.onstop = () => {
      clearInterval(ticking);
      stream.getTracks().forEach((track) => track.stop());
      button.setAttribute("aria-pressed", "false");
      words.textContent = "Record";
      add([asFile(pieces, recording.mimeType)]);
      recording = null;
    };
    recording.start(1000);
    button.setAttribute("aria-pressed", "true");
    tell();
  }
}

function asFile(pieces, type) {
  const kind = type.split(";")[0] || "audio/webm";
  const now = new Date().toTimeString().slice(0, 8).replaceAll(":", "");
  return new File(pieces, `recording-${now}.${kind.split("/")[1]}`, { type: kind });
}

/** Draws a recording's loudness over time under its player; a click goes there. */

import { h } from "./dom.js";

/** Decoding holds the whole recording in memory, at some 23 MB a minute of stereo. */
const MOST_BYTES = 12_000_000;
const BARS = 180;
const WIDTH = 900;
const HEIGHT = 64;

/** A canvas, empty until the recording is decoded; it goes when the browser cannot decode it. */
export function waveform(file, player, signal) {
  const canvas = h("canvas", { class: "waveform", width: WIDTH, height: HEIGHT, "aria-hidden": "true", hidden: true });
  if (file.size > MOST_BYTES) return null;
  canvas.addEventListener("click", (event) => {
    if (player.duration) player.currentTime = (event.offsetX / canvas.clientWidth) * player.duration;
  });
  loudness(file).then(
    (levels) => {
      if (signal.aborted) return;
      const draw = () => paint(canvas, levels, player.duration ? player.currentTime / player.duration : 0);
      canvas.hidden = false;
      draw();
      player.addEventListener("timeupdate", draw, { signal });
      matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw, { signal });
    },
    () => canvas.remove(),
  );
  return canvas;
}

async function loudness(file) {
  const context = new OfflineAudioContext(1, 1, 16_000);
  const samples = (await context.decodeAudioData(await file.arrayBuffer())).getChannelData(0);
  const step = Math.max(1, Math.floor(samples.length / BARS));
  const levels = Array.from({ length: Math.min(BARS, samples.length) }, (_, n) => {
    let most = 0;
    for (let at = n * step; at < (n + 1) * step && at < samples.length; at += 4)
      most = Math.max(most, Math.abs(samples[at]));
    return most;
  });
  const top = Math.max(...levels, 0.01);
  return levels.map((level) => level / top);
}

function paint(canvas, levels, heard) {
  const colours = getComputedStyle(canvas);
  const pen = canvas.getContext("2d");
  const step = WIDTH / levels.length;
  pen.clearRect(0, 0, WIDTH, HEIGHT);
  levels.forEach((level, n) => {
    const height = Math.max(2, level * (HEIGHT - 4));
    pen.fillStyle = colours.getPropertyValue(n / levels.length < heard ? "--accent" : "--faint");
    pen.fillRect(n * step, (HEIGHT - height) / 2, step * 0.6, height);
  });
}

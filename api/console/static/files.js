/** The files this tab knows: what kind each is, which job was made of which, and what was asked about each. */

const byJob = new Map();
const urls = new WeakMap();
const threads = new WeakMap();
const mine = [];

const AUDIO = /\.(mp3|wav|flac|ogg|oga|opus|m4a|mp4|webm|aac)$/i;
const PICTURE = /\.(png|jpe?g|webp|gif|tiff?|bmp)$/i;
/** What browsers can show themselves. */
const SHOWN = /\.(png|jpe?g|webp|gif|bmp)$/i;

export const ACCEPT = "image/*,application/pdf,audio/*,video/mp4,video/webm,.flac,.opus,.tif,.tiff";

/** image, pdf or audio; null for anything else. The service looks at the bytes itself. */
export function kindOf(file) {
  const type = file.type || "";
  if (type === "application/pdf" || /\.pdf$/i.test(file.name)) return "pdf";
  if (type.startsWith("audio/") || AUDIO.test(file.name)) return "audio";
  if (type.startsWith("image/") || PICTURE.test(file.name)) return "image";
  return type.startsWith("video/") ? "audio" : null;
}

export const isShown = (file) =>
  kindOf(file) !== "image" || SHOWN.test(file.name) || /png|jpeg|webp|gif|bmp/.test(file.type);

/** The address under which the page shows a local file. */
export function urlOf(file) {
  if (!urls.has(file)) urls.set(file, URL.createObjectURL(file));
  return urls.get(file);
}

/** Remember that a job was made of a file; questions about it make up one conversation. */
export function remember(job, file) {
  byJob.set(job.id, file);
  mine.unshift(job.id);
  if (job.type === "vqa") threads.set(file, [...(threads.get(file) || []), job.id]);
}

export function forget(jobId) {
  const file = byJob.get(jobId);
  if (file)
    threads.set(
      file,
      (threads.get(file) || []).filter((id) => id !== jobId),
    );
  byJob.delete(jobId);
  if (mine.includes(jobId)) mine.splice(mine.indexOf(jobId), 1);
}

/** The local file of a job, or undefined when this tab did not send it. */
export const fileOf = (jobId) => byJob.get(jobId);

/** The jobs of the conversation about a file, oldest first. */
export const threadOf = (file) => (file && threads.get(file)) || [];

/** The jobs that this tab made, newest first. */
export const madeHere = () => [...mine];

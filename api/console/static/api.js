/** Talks to the service: the key, requests, uploads and event streams. Addresses are relative to the page's own. */

const BASE = new URL("../../", import.meta.url);
const KEPT = "phi4-key";
const ENDED = new Set(["completed", "failed", "cancelled", "expired"]);

export const base = BASE.href.replace(/\/$/, "");
export const ended = (job) => ENDED.has(job.status);

let key = sessionStorage.getItem(KEPT) || "";
let asking = null;
let askForKey = async () => "";

/** Set how the user is asked for a key: a function of "was there a wrong one?" that gives the key, or "". */
export function onKeyNeeded(ask) {
  askForKey = ask;
}

export const hasKey = () => Boolean(key);

/** Forget the key in this tab. */
export function forgetKey() {
  key = "";
  sessionStorage.removeItem(KEPT);
}

/** What the service said instead of an answer. */
class Problem extends Error {
  constructor(status, body) {
    super(body?.detail || body?.title || `The service answered ${status}.`);
    this.status = status;
    this.code = body?.code || "";
  }
}

/** The service could not be reached. */
class Unreachable extends Error {
  constructor() {
    super("The service cannot be reached. Is it running, and is this machine online?");
  }
}

/** Whether the same request may well work in a moment. */
const isPassing = (error) => error instanceof Unreachable || error.status >= 500 || [408, 429].includes(error.status);

const authorization = () => (key ? { Authorization: `Bearer ${key}` } : {});

/** Get a key other than `refused`; requests that are refused together ask once. */
async function anotherKey(refused) {
  if (key !== refused) return true;
  asking ||= keyFromUser(Boolean(refused)).finally(() => (asking = null));
  const given = await asking;
  if (given) {
    key = given;
    sessionStorage.setItem(KEPT, key);
  }
  return Boolean(given);
}

/** A key that no header can carry is a wrong one. */
async function keyFromUser(wasWrong) {
  const given = await askForKey(wasWrong);
  return !given || /^[\x21-\x7e]+$/.test(given) ? given : keyFromUser(true);
}

/** Send a request, with the key where there is one. Throws `Problem`, `Unreachable`, and what `signal` throws. */
export async function request(path, { method = "GET", body, headers = {}, signal } = {}) {
  for (;;) {
    const sent = key;
    let response;
    try {
      response = await fetch(new URL(path, BASE), {
        method,
        body,
        headers: { ...headers, ...authorization() },
        signal,
      });
    } catch (error) {
      throw signal?.aborted ? error : new Unreachable();
    }
    if (response.ok) return response;
    const told = await response.json().catch(() => null);
    if (response.status !== 401 || !(await anotherKey(sent))) throw new Problem(response.status, told);
  }
}

export const get = async (path, signal) => (await request(path, { signal })).json();
export const post = async (path) => (await request(path, { method: "POST" })).json();
export const erase = async (path) => (await request(path, { method: "DELETE" })).json();

/** Submit a job with its files; `onSent` hears which share of the bytes has gone. Gives the job. */
export async function submit(type, params, files, onSent = () => {}) {
  for (;;) {
    const sent = key;
    const form = new FormData();
    form.append("type", type);
    form.append("params", JSON.stringify(params));
    for (const file of files) form.append("file", file, file.name);
    const { status, body } = await upload(form, onSent);
    if (status === 202 || status === 200) return body;
    if (status !== 401 || !(await anotherKey(sent))) throw new Problem(status, body);
  }
}

/** `fetch` does not tell how much of a body has been sent. */
function upload(form, onSent) {
  return new Promise((resolve, reject) => {
    const sending = new XMLHttpRequest();
    sending.open("POST", new URL("v1/jobs", BASE));
    for (const [name, value] of Object.entries(authorization())) sending.setRequestHeader(name, value);
    sending.responseType = "json";
    sending.upload.onprogress = (event) => event.lengthComputable && onSent(event.loaded / event.total);
    sending.onload = () => resolve({ status: sending.status, body: sending.response });
    sending.onerror = () => reject(new Unreachable());
    sending.send(form);
  });
}

/** Read the job's events one by one; `EventSource` could not send the key. */
async function* events(jobId, after, signal) {
  const headers = after ? { "Last-Event-ID": after } : {};
  const response = await request(`v1/jobs/${jobId}/events`, { headers, signal });
  if (response.status === 204) return;
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let event = {};
  for (;;) {
    const { value, done } = await reader.read().catch((error) => {
      throw signal.aborted ? error : new Unreachable();
    });
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      const [, field, text] = /^(\w*):? ?(.*)$/s.exec(line) || [];
      if (line === "" && event.event) {
        yield { name: event.event, id: event.id || "", data: JSON.parse(event.data) };
        event = {};
      } else if (field) event[field] = text;
    }
  }
}

/**
 * Follow a job to its end: `onEvent` hears each event, `onJob` the job at the beginning, at the end, and whenever the
 * stream broke. While the service is away, or has no room for a stream, it asks again and again.
 */
export async function follow(jobId, { onEvent, onJob, signal }) {
  let after = "";
  for (;;) {
    try {
      const job = await get(`v1/jobs/${jobId}`, signal);
      onJob(job);
      if (ended(job)) return;
      for await (const event of events(jobId, after, signal)) {
        after = event.id || after;
        onEvent(event);
      }
    } catch (error) {
      if (!isPassing(error)) throw error;
      await pause(2000, signal);
    }
  }
}

/** Wait; ends early, with an error, when the view is left. */
export function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    const left = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", left);
      resolve();
    }, ms);
    signal?.addEventListener("abort", left, { once: true });
  });
}

/** Look every `ms` while the tab is in sight, until the view is left; passing errors end the first look only. */
export async function every(ms, signal, look) {
  for (let worked = false; !signal.aborted; await pause(ms, signal)) {
    if (document.hidden) continue;
    try {
      await look();
      worked = true;
    } catch (error) {
      if (!worked || !isPassing(error)) throw error;
    }
  }
}

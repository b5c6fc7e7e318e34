/** The view of operations. */

import { get } from "./api.js";
import { h, show } from "./dom.js";

export async function operationsView(main, signal) {
  const health = await get("health", signal);
  show(main, h("h1", {}, "Operations"), h("p", {}, health.status));
}

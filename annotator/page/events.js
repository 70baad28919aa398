/** The server's events over a WebSocket that reconnects by itself. */

import { getJson } from "./api.js";

/** Longest wait before a new attempt, in milliseconds. */
const MAX_WAIT = 5000;

/**
 * Listens to the server's events. Dispatches "message" (detail: the event), "open" (detail: whether
 * this is a reconnection), "lost", and "refused" (detail: a sentence) if the server denies access.
 */
export class ServerEvents extends EventTarget {
  constructor() {
    super();
    this.isConnected = false;
    this.opened = 0;
    this.wait = 500;
    this.isRefusalKnown = false;
  }

  /** Open the connection, and keep it open from now on. */
  connect() {
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(`${scheme}//${location.host}/api/events`);
    socket.addEventListener("open", () => {
      this.isConnected = true;
      this.wait = 500;
      this.isRefusalKnown = false;
      this.opened += 1;
      this.dispatchEvent(new CustomEvent("open", { detail: this.opened > 1 }));
    });
    socket.addEventListener("message", (event) => {
      this.dispatchEvent(new CustomEvent("message", { detail: JSON.parse(event.data) }));
    });
    socket.addEventListener("close", () => {
      this.isConnected = false;
      if (!this.isRefusalKnown) this.dispatchEvent(new Event("lost"));
      this.findReason();
      setTimeout(() => this.connect(), this.wait);
      this.wait = Math.min(MAX_WAIT, this.wait * 2);
    });
  }

  /** A WebSocket does not tell why it was refused; another request does. */
  async findReason() {
    if (this.isRefusalKnown) return;
    try {
      await getJson("/api/session");
    } catch (error) {
      this.isRefusalKnown = error.status === 401 || error.status === 403;
      if (this.isRefusalKnown) {
        this.dispatchEvent(new CustomEvent("refused", { detail: error.message }));
      }
    }
  }
}

/** Which frame is shown: loads it, shows the newest request, and prefetches its neighbours. */

import { isAbort } from "./api.js";

/** A request younger than this finishes before a newer one starts: dragging shows frames on its way. */
const PATIENCE = 120;

/** Dispatches "wanted" when another frame is asked for, and "shown" when it is on the screen. */
export class Seeker extends EventTarget {
  /** @param {Object} app */
  constructor(app) {
    super();
    this.app = app;
    /** Frame that was asked for last. */
    this.wanted = 0;
    /** Frame on the screen; -1 before the first. */
    this.shown = -1;
    this.active = null;
    this.timer = 0;
    this.waiters = [];
    this.since = 0;
  }

  /**
   * Go to a frame. A newer call replaces an older one.
   * @param {number} frame Values outside of the clip are clamped.
   * @returns {Promise<void>} resolved when the frame that was asked for last is shown or failed
   */
  goTo(frame) {
    const target = Math.max(0, Math.min(this.app.session.numFrames - 1, Math.round(frame)));
    if (Number.isNaN(target)) return Promise.resolve();
    if (target !== this.wanted || this.shown < 0) {
      this.wanted = target;
      this.since = this.shown < 0 ? 0 : performance.now();
      this.dispatchEvent(new Event("wanted"));
    }
    if (this.shown === this.wanted) return Promise.resolve();
    const done = new Promise((resolve) => this.waiters.push(resolve));
    this.start();
    return done;
  }

  /** Load the wanted frame, unless a request is still young enough to be waited for. */
  start() {
    const { frames } = this.app;
    if (this.wanted === this.shown) return this.finish();
    if (frames.isLoaded(this.wanted)) {
      this.active = null;
      return this.show(this.wanted);
    }
    if (this.active && this.active.frame === this.wanted) return undefined;
    const age = this.active ? performance.now() - this.active.since : Infinity;
    if (age < PATIENCE) {
      clearTimeout(this.timer);
      this.timer = setTimeout(() => this.start(), PATIENCE - age);
      return undefined;
    }
    clearTimeout(this.timer);
    frames.cancelExcept(new Set([this.wanted]));
    this.active = { frame: this.wanted, since: performance.now() };
    return this.load(this.active);
  }

  async load(request) {
    try {
      await this.app.frames.load(request.frame);
    } catch (error) {
      if (this.active !== request) return;
      this.active = null;
      if (isAbort(error)) this.start();
      else {
        this.app.status.say(error.message, "error");
        this.finish();
      }
      return;
    }
    if (this.active !== request) return;
    this.active = null;
    this.show(request.frame);
    if (request.frame !== this.wanted) this.start();
  }

  show(frame) {
    const { frames, session, edits } = this.app;
    const step = frame >= this.shown ? 1 : -1;
    edits.stroke?.commit();
    this.shown = frame;
    edits.setStates(frame, frames.masks.get(frame).states);
    this.app.showFrame(frame, frame === this.wanted ? this.since : 0);
    edits.refreshIfWaiting(frame);
    this.dispatchEvent(new Event("shown"));
    const list = [];
    for (let i = 1; i <= frames.reach; i++) {
      list.push(frame + i * step);
      if (i <= frames.reach / 3) list.push(frame - i * step);
    }
    frames.prefetch(list.filter((i) => i >= 0 && i < session.numFrames && !frames.isLoaded(i)));
    if (frame === this.wanted) this.finish();
  }

  finish() {
    this.waiters.splice(0).forEach((resolve) => resolve());
  }
}

/** Edits of label maps: shown at once, saved through the queue, repaired when another page was first. */

import { fetchMasks, importMask, paint as sendPaint, postJson } from "./api.js";
import { patchOf, redo, isSaved } from "./patch.js";
import { Stroke } from "./stroke.js";

/** Edits of the session. */
export class Edits {
  /** @param {Object} app */
  constructor(app) {
    this.app = app;
    /** @type {Stroke|null} the stroke under the pointer */
    this.stroke = null;
    /** @type {Map<number, Map<number, string>>} source of revisions seen in events, by frame */
    this.sources = new Map();
    this.endWaiters = [];
    app.queue.addEventListener("drained", (event) => this.refreshIfWaiting(event.detail));
  }

  /** @returns {Uint8Array} 256 flags */
  lockedLabels() {
    const locked = new Uint8Array(256);
    for (const { label, is_locked: isLocked } of this.app.session.objects) {
      if (isLocked) locked[label] = 1;
    }
    return locked;
  }

  /**
   * Return a sentence that says why the current object cannot be edited now, or "".
   * @returns {string}
   */
  obstacle() {
    const { session, seeker } = this.app;
    const object = session.object(session.current);
    if (!object) return "There is no object yet. Add one in the list of objects.";
    if (object.is_locked) return `${object.name} is locked. Unlock it in the list of objects first.`;
    if (!object.is_visible) return `${object.name} is hidden. Show it in the list of objects first.`;
    if (seeker.shown !== seeker.wanted) return "The frame is still loading.";
    return "";
  }

  /**
   * Begin an edit of the shown frame.
   * @param {string} kind brush, eraser, polygon, hints or refine
   * @param {boolean} isErasing
   * @returns {Stroke|null} null if it is not possible; the reason is shown
   */
  begin(kind, isErasing) {
    const obstacle = this.obstacle();
    if (obstacle) {
      this.app.status.say(obstacle, "warning");
      return null;
    }
    this.app.player.pause();
    this.stroke = new Stroke(this, kind, isErasing);
    return this.stroke;
  }

  /** Note that the stroke under the pointer ended. */
  end(frame) {
    this.stroke = null;
    this.endWaiters.splice(0).forEach((resolve) => resolve());
    this.refreshIfWaiting(frame);
  }

  /** Wait while a stroke is drawn on a frame: its label map must not be replaced under it. */
  async strokeEnd(frame) {
    while (this.stroke?.frame === frame) await new Promise((resolve) => this.endWaiters.push(resolve));
  }

  /**
   * Paint a mask as one edit.
   * @param {string} kind
   * @param {import("./masks.js").Box & {mask: Uint8Array}} shape
   * @param {"add"|"cut"|"replace"} mode
   * @returns {boolean} whether it was possible
   */
  apply(kind, shape, mode) {
    const stroke = this.begin(kind, mode === "cut");
    if (!stroke) return false;
    if (mode === "replace") stroke.erase();
    stroke.mask(shape);
    stroke.commit();
    return true;
  }

  /** Queue the changed pixels of a stroke. */
  save(stroke, box) {
    const { session, queue, frames } = this.app;
    const { frame } = stroke;
    const patch = patchOf(stroke, box, session.width);
    const change = { frame, patch, isKept: true };
    change.run = async () => {
      change.revision = frames.masks.get(frame).revision;
      this.accept(frame, await sendPaint(patch, change.revision));
    };
    change.refused = (error) => this.repair(change, error);
    queue.push(change);
    const known = frames.masks.get(frame);
    this.setStates(frame, known.states);
  }

  /** Show states of a frame, with the strokes that are not saved yet. */
  setStates(frame, states) {
    const shown = { ...states };
    for (const { patch } of this.app.queue.of(frame)) if (patch) shown[patch.label] = "drawn";
    this.app.session.setStates(frame, shown);
  }

  /** Take over a frame reply. */
  accept(frame, reply) {
    const known = this.app.frames.masks.get(frame);
    if (known && reply.revision >= known.revision) {
      known.revision = reply.revision;
      known.states = reply.states;
    }
    this.setStates(frame, reply.states);
    this.app.session.setHistory(reply.history);
  }

  /** Fetch a frame's label map, put the strokes on top that are not saved, and show it. */
  async refresh(frame) {
    const { frames, seeker, session } = this.app;
    const fresh = await fetchMasks(frame);
    await this.strokeEnd(frame);
    const known = frames.masks.get(frame);
    if (known && fresh.revision < known.revision) return null;
    for (const { patch } of this.app.queue.of(frame)) {
      if (patch) redo(patch, fresh.labels, session.width);
    }
    frames.masks.set(frame, fresh);
    this.setStates(frame, fresh.states);
    if (seeker.shown === frame) this.app.showMasks();
    return fresh;
  }

  /** Refresh a frame if an event announced a newer revision while strokes were on their way. */
  refreshIfWaiting(frame) {
    const known = this.app.frames.masks.entries.get(frame);
    const newest = Math.max(0, ...(this.sources.get(frame)?.keys() || []));
    if (!known || newest <= known.revision || this.stroke || this.app.queue.of(frame).length) return;
    if (this.app.seeker.shown === frame) this.attempt(this.refresh(frame));
    else this.app.frames.forget(frame, newest);
  }

  /**
   * Take over an event of the server about a frame.
   * @param {{frame: number, revision: number, states: Object, source: string}} event
   */
  onFrame({ frame, revision, states, source }) {
    const { frames, queue } = this.app;
    const known = frames.masks.entries.get(frame);
    if (known && revision <= known.revision) return;
    if (!known) {
      frames.forget(frame, revision);
      this.app.session.setStates(frame, states);
      return;
    }
    if (!this.sources.has(frame)) this.sources.set(frame, new Map());
    this.sources.get(frame).set(revision, source);
    if (!queue.of(frame).length) this.app.session.setStates(frame, states);
    this.refreshIfWaiting(frame);
  }

  /** Deal with a refused stroke. */
  async repair(change, error) {
    const { frames, queue, status, session, seeker } = this.app;
    const { patch, frame } = change;
    const known = frames.masks.get(frame);
    let fresh;
    try {
      fresh = await fetchMasks(frame);
    } catch (problem) {
      status.say(problem.message, "error");
      return;
    }
    await this.strokeEnd(frame);
    if (error.status === 409 && isSaved(patch, fresh.labels, session.width)) {
      // The stroke was saved, and only the answer was lost.
      known.revision = fresh.revision;
      return;
    }
    const isRebased = error.status === 409 && this.isPropagated(frame, change.revision, fresh.revision);
    const before = known.labels;
    if (isRebased) queue.changes.unshift(change);
    else queue.drop(frame);
    for (const other of queue.of(frame)) if (other.patch) redo(other.patch, fresh.labels, session.width);
    frames.masks.set(frame, fresh);
    this.setStates(frame, fresh.states);
    if (seeker.shown === frame) this.app.showMasks();
    if (isRebased) return;
    if (seeker.shown === frame) this.app.flash(before, fresh.labels);
    if (error.status !== 409) status.say(`${error.message} The stroke was taken back.`, "error");
    else {
      const what = `Frame ${frame} was changed in another window. It was reloaded.`;
      status.say(`${what} Your last stroke was not saved. Draw it again.`, "error");
    }
  }

  /** Return whether only propagation changed a frame between two revisions. */
  isPropagated(frame, known, fresh) {
    const sources = this.sources.get(frame);
    for (let revision = known + 1; revision <= fresh; revision++) {
      if (!sources || sources.get(revision) !== "propagation") return false;
    }
    return fresh > known;
  }

  /**
   * Run an operation on an object of the shown frame.
   * @param {string} operation
   * @param {Object} [options] label, source, pixels
   */
  operation(operation, options = {}) {
    const { session, seeker, frames, queue } = this.app;
    const label = options.label ?? session.current;
    const obstacle = label === 0 ? "" : this.obstacle();
    if (obstacle) return this.app.status.say(obstacle, "warning");
    const frame = seeker.shown;
    this.queueStep(frame, async () => {
      const known = frames.masks.get(frame);
      const before = known.labels;
      const { revision } = known;
      const document = { operation, revision, ...options, label };
      const reply = await postJson(`/api/frames/${frame}/operation`, document);
      this.setStates(frame, reply.states);
      session.setHistory(reply.history);
      if (reply.revision === revision) return;
      const fresh = await this.refresh(frame);
      if (fresh && seeker.shown === frame) this.app.flash(before, fresh.labels);
    });
    return queue.idle();
  }

  /** @param {"undo"|"redo"} direction */
  step(direction) {
    const { session, frames, seeker, status } = this.app;
    this.queueStep(null, async () => {
      const shown = seeker.shown;
      const reply = await postJson(`/api/${direction}`);
      session.setHistory(reply.history);
      if (reply.objects && session.setObjects(reply.objects)) await session.reloadTimeline();
      const word = direction === "undo" ? "Undone" : "Redone";
      if (reply.frame === null || reply.frame === undefined) {
        // A change of the objects can change the pixels of every frame.
        frames.forgetAll();
        await this.refresh(shown);
        status.say(`${word}: a change of the objects.`, "info");
        return;
      }
      const { frame } = reply;
      const before = frames.masks.get(frame)?.labels.slice();
      session.setStates(frame, reply.states);
      if (frame !== seeker.wanted) await seeker.goTo(frame);
      const fresh = await this.refresh(frame);
      if (before && fresh) this.app.flash(before, fresh.labels);
      status.say(`${word} on frame ${frame}.`, "info");
    });
  }

  /** @param {File} file */
  importFile(file) {
    const { seeker, session, status } = this.app;
    const frame = seeker.shown;
    this.queueStep(frame, async () => {
      const reply = await importMask(frame, file);
      session.setHistory(reply.history);
      session.setObjects((await this.app.fetchSession()).objects);
      await this.refresh(frame);
      status.say(`The mask was imported into frame ${frame}.`, "info");
    });
  }

  /** Queue a request that changes pixels on the server only; it is not repeated after a failure. */
  queueStep(frame, run) {
    const refused = async (error) => {
      const doubt = error.status === 0 ? " If the change does not appear, repeat it." : "";
      this.app.status.say(error.message + doubt, error.status === 409 ? "warning" : "error");
      if (error.status === 409 && frame !== null) await this.attempt(this.refresh(frame));
    };
    this.app.queue.push({ frame, run, refused, isKept: false });
  }

  /** Wait for a promise and show its failure. */
  async attempt(promise) {
    try {
      return await promise;
    } catch (error) {
      this.app.status.say(error.message, "error");
      return null;
    }
  }
}

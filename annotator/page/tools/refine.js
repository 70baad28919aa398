/** Refine: GrabCut's proposal for the current object's outline. */

import { fetchPreview } from "../api.js";
import { Preview } from "./drawing.js";

/** Asks for a proposal when it is chosen; Enter accepts it, Escape drops it. */
export class Refine {
  /** @param {Object} app */
  constructor(app) {
    this.app = app;
    this.kind = "refine";
    this.help = "The preview follows the edges of the picture. Enter accepts it, Escape keeps the old outline.";
    this.hasSize = false;
    this.modes = null;
    this.preview = null;
    this.controller = null;
  }

  get isBusy() {
    return this.preview !== null || this.controller !== null;
  }

  get hasPreview() {
    return this.preview !== null;
  }

  /** Ask for a proposal. */
  async activate(event) {
    const { edits, queue, status, session, seeker, toolbox, view } = this.app;
    this.reset();
    const obstacle = edits.obstacle();
    if (obstacle) {
      status.say(obstacle, "warning");
      toolbox.chooseLast();
      return;
    }
    const since = event?.timeStamp ?? performance.now();
    const controller = new AbortController();
    this.controller = controller;
    toolbox.update();
    const label = session.current;
    try {
      await queue.idle();
      const path = `/api/frames/${seeker.shown}/grabcut`;
      const shape = await fetchPreview(path, { label }, controller.signal);
      if (this.controller !== controller) return;
      this.controller = null;
      if (!shape.width) {
        status.say("The refinement found no object. The old outline stays.", "warning");
        toolbox.chooseLast();
        return;
      }
      this.preview = new Preview(shape, toolbox.colour);
      this.app.fade(label);
      view.invalidateOverlay();
      view.afterPaint((now) => this.app.record("refine", now - since));
      toolbox.update();
    } catch (error) {
      if (this.controller !== controller) return;
      this.controller = null;
      status.say(error.message, "warning");
      toolbox.chooseLast();
    }
  }

  down() {}

  move() {}

  up() {}

  accept() {
    if (!this.preview) return;
    const { shape } = this.preview;
    if (this.app.edits.apply("refine", shape, "replace")) this.app.toolbox.chooseLast();
  }

  /** Forget the proposal and the request for it. */
  reset() {
    this.controller?.abort();
    this.controller = null;
    this.preview = null;
    this.app.fade(0);
    this.app.view.invalidateOverlay();
  }

  drop() {
    this.app.toolbox.chooseLast();
  }

  deactivate() {
    this.reset();
  }

  frameChanged() {
    if (this.isBusy) this.drop();
  }

  draw(context) {
    if (this.preview) this.preview.draw(context, this.app.view);
  }
}

/** Hints: strokes inside and outside of the object, and a live watershed between them. */

import { fetchPreview } from "../api.js";
import { Preview, drawPath, isNear } from "./drawing.js";

const INSIDE = "#5ee08a";
const OUTSIDE = "#ff6b5e";

/** Distance between the points of a stroke, in CSS pixels. */
const SPACING = 3;

/** Strokes are kept until the preview is accepted or dropped, or the frame changes. */
export class Hints {
  /** @param {Object} app */
  constructor(app) {
    this.app = app;
    this.kind = "hints";
    this.help = "Draw inside the object, then outside (right button). " +
      "Enter replaces its mask by the preview; Shift+Enter adds.";
    this.hasSize = true;
    this.modes = ["Inside", "Outside"];
    this.isAsking = false;
    this.clear();
  }

  clear() {
    /** @type {Array<{isInside: boolean, points: number[][]}>} */
    this.strokes = [];
    this.stroke = null;
    this.preview = null;
    this.isChanged = false;
  }

  get isBusy() {
    return this.strokes.length > 0;
  }

  get hasPreview() {
    return this.preview !== null;
  }

  down(point, event) {
    const obstacle = this.app.edits.obstacle();
    if (obstacle) {
      this.app.status.say(obstacle, "warning");
      return;
    }
    this.app.player.pause();
    const isInside = this.app.toolbox.mode === 0 && event.button !== 2 && !event.altKey;
    this.stroke = { isInside, points: [point] };
    this.strokes.push(this.stroke);
    this.changed(event);
  }

  move(points, event) {
    if (!this.stroke) return;
    const { points: line } = this.stroke;
    for (const point of points) {
      if (!isNear(this.app.view, line[line.length - 1], point, SPACING)) line.push(point);
    }
    this.changed(event);
  }

  up() {
    this.stroke = null;
  }

  changed(event) {
    this.since = event.timeStamp;
    this.isChanged = true;
    this.app.view.invalidateOverlay();
    this.ask();
  }

  /** Ask for the watershed of the newest strokes, one request at a time. */
  async ask() {
    if (this.isAsking) return;
    this.isAsking = true;
    while (this.isChanged) {
      this.isChanged = false;
      const since = this.since;
      const { strokes } = this;
      const shape = strokes.some(({ isInside }) => isInside) ? await this.watershed() : null;
      // Another array means that the strokes were accepted or dropped in the meantime.
      if (strokes !== this.strokes || !this.strokes.length) continue;
      this.show(shape);
      if (shape) this.app.view.afterPaint((now) => this.app.record("hint", now - since));
    }
    this.isAsking = false;
  }

  async watershed() {
    const { seeker, toolbox, session, status } = this.app;
    const pixel = ([x, y]) => [
      Math.max(0, Math.min(session.width - 1, Math.floor(x))),
      Math.max(0, Math.min(session.height - 1, Math.floor(y))),
    ];
    const lines = (wanted) => this.strokes
      .filter(({ isInside }) => isInside === wanted)
      .map(({ points }) => points.map(pixel));
    const document = { inside: lines(true), outside: lines(false), width: Math.round(toolbox.size) };
    try {
      const shape = await fetchPreview(`/api/frames/${seeker.shown}/watershed`, document);
      return shape.width ? shape : null;
    } catch (error) {
      status.say(error.message, "error");
      return null;
    }
  }

  show(shape) {
    this.preview = shape && new Preview(shape, this.app.toolbox.colour);
    this.app.fade(shape ? this.app.session.current : 0);
    this.app.view.invalidateOverlay();
    this.app.toolbox.update();
  }

  /** Store the preview: it replaces the object, or is added to it with Shift. */
  accept(event) {
    if (!this.preview) return;
    const { shape } = this.preview;
    if (this.app.edits.apply("hints", shape, event.shiftKey ? "add" : "replace")) this.drop();
  }

  drop() {
    this.clear();
    this.app.fade(0);
    this.app.view.invalidateOverlay();
  }

  /** Remove the last stroke. */
  back() {
    this.strokes = this.strokes.slice(0, -1);
    if (!this.strokes.length) {
      this.drop();
      return;
    }
    this.isChanged = true;
    this.ask();
  }

  frameChanged() {
    this.drop();
  }

  draw(context) {
    const { view, toolbox } = this.app;
    if (this.preview) this.preview.draw(context, view);
    context.globalAlpha = 0.75;
    for (const { isInside, points } of this.strokes) {
      const colour = isInside ? INSIDE : OUTSIDE;
      const width = Math.max(2, toolbox.size * view.scale - 2);
      const line = points.length > 1 ? points : [points[0], points[0]];
      drawPath(context, view, line, { colour, width });
    }
    context.globalAlpha = 1;
  }
}

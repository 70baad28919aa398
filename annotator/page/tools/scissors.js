/** Scissors: a polygon whose lines run along edges of the picture. */

import { postJson } from "../api.js";
import { fillPolygon } from "../masks.js";
import { drawPath, drawPoints, isNear } from "./drawing.js";

/** Longest wait for the path that closes the shape, in milliseconds. */
const PATIENCE = 500;

/** Clicks set anchors; the server finds the path between them. */
export class Scissors {
  /** @param {Object} app */
  constructor(app) {
    this.app = app;
    this.kind = "polygon";
    this.help = "Click along the outline; lines follow the edges of the picture. " +
      "Enter closes the shape.";
    this.hasSize = false;
    this.modes = ["Add", "Cut out"];
    this.isAsking = false;
    this.clear();
  }

  clear() {
    /** @type {Array<{point: number[], path: number[][]}>} `path` leads to the anchor from the one before */
    this.anchors = [];
    this.hover = null;
    this.live = null;
    this.next = null;
  }

  get isBusy() {
    return this.anchors.length > 0;
  }

  get hasPreview() {
    return this.anchors.length > 1;
  }

  get last() {
    return this.anchors[this.anchors.length - 1];
  }

  down(point, event) {
    if (event.button !== 0) return;
    const { view } = this.app;
    if (this.anchors.length > 1 && isNear(view, this.anchors[0].point, point)) {
      this.accept(event);
      return;
    }
    const isFirst = !this.anchors.length;
    const anchor = { point, path: isFirst ? [point] : [this.last.point, point] };
    if (!isFirst) {
      if (this.live && this.live.from === this.last && isNear(view, this.live.to, point, 3)) {
        anchor.path = this.live.path;
      } else this.improve(anchor, this.last.point);
    }
    this.anchors.push(anchor);
    this.live = null;
    view.invalidateOverlay();
  }

  /** Replace an anchor's straight line once the server's path is there. */
  async improve(anchor, from) {
    const path = await this.ask(from, anchor.point);
    if (path && this.anchors.includes(anchor)) anchor.path = path;
    this.app.view.invalidateOverlay();
  }

  move(points) {
    this.hover = points[points.length - 1];
    this.app.view.invalidateOverlay();
    if (!this.anchors.length) return;
    this.next = this.hover;
    this.follow();
  }

  up() {}

  /** Ask for the path to the pointer, one request at a time, always to the newest position. */
  async follow() {
    if (this.isAsking) return;
    this.isAsking = true;
    while (this.next && this.anchors.length) {
      const to = this.next;
      const from = this.last;
      this.next = null;
      const path = await this.ask(from.point, to);
      if (path && from === this.last) this.live = { from, to, path };
      this.app.view.invalidateOverlay();
    }
    this.isAsking = false;
  }

  /** @returns {Promise<number[][]|null>} null where the server has no path */
  async ask(from, to) {
    const { seeker, session, status } = this.app;
    const pixel = ([x, y]) => [
      Math.max(0, Math.min(session.width - 1, Math.floor(x))),
      Math.max(0, Math.min(session.height - 1, Math.floor(y))),
    ];
    const document = { start: pixel(from), end: pixel(to) };
    try {
      const { points } = await postJson(`/api/frames/${seeker.shown}/scissors`, document);
      return [from, ...points.slice(1, -1).map(([x, y]) => [x + 0.5, y + 0.5]), to];
    } catch (error) {
      status.say(`${error.message} The scissors draw a straight line instead.`, "warning");
      return null;
    }
  }

  doubleClick(event) {
    // After a double click on the first anchor, the second click has started a new shape.
    if (this.anchors.length < 2) this.drop();
    else this.accept(event);
  }

  /** Close the shape and paint it. */
  async accept(event) {
    if (this.anchors.length < 2) return;
    const { session, seeker, edits, toolbox, status } = this.app;
    const isCut = toolbox.mode === 1 || event.altKey;
    const anchors = [...this.anchors];
    const { wanted: frame } = seeker;
    const { current: label } = session;
    const slow = new Promise((resolve) => setTimeout(() => resolve(null), PATIENCE));
    const closing = await Promise.race([this.ask(this.last.point, anchors[0].point), slow]);
    if (this.last !== anchors[anchors.length - 1]) return; // dropped, closed, or continued meanwhile
    if (seeker.wanted !== frame || session.current !== label) {
      const what = `The shape was not closed, as you left frame ${frame} or its object too early.`;
      status.say(`${what} Go back and press Enter again.`, "warning");
      return;
    }
    const points = [...anchors.flatMap((anchor) => anchor.path), ...(closing || [])];
    const shape = fillPolygon(points, session.width, session.height);
    if (!shape || edits.apply("polygon", shape, isCut ? "cut" : "add")) this.clear();
    toolbox.update();
  }

  drop() {
    this.clear();
    this.app.view.invalidateOverlay();
  }

  /** Remove the last anchor. */
  back() {
    this.anchors.pop();
    this.live = null;
    this.app.view.invalidateOverlay();
  }

  draw(context) {
    const { view, toolbox } = this.app;
    const colour = toolbox.mode === 1 ? "#ff9a8a" : toolbox.colour;
    drawPath(context, view, this.anchors.flatMap((anchor) => anchor.path), { colour });
    if (this.anchors.length && this.hover) {
      const isLive = this.live && this.live.from === this.last;
      const path = isLive ? [...this.live.path, this.hover] : [this.last.point, this.hover];
      drawPath(context, view, path, { colour, isDashed: true });
    }
    const points = this.anchors.map((anchor) => anchor.point);
    const isClosing = points.length > 1 && this.hover && isNear(view, points[0], this.hover);
    drawPoints(context, view, points, colour, isClosing ? 0 : -1);
  }
}

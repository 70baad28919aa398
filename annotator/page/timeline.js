/** The timeline: a row per object, a column per frame or per group of frames, on a canvas. */

import { $, batched } from "./dom.js";
import { STATES } from "./session.js";
import { bright } from "./tint.js";

const GUTTER = 116;
const RULER = 20;
const ROW = 18;
const MAX_ROWS_HEIGHT = 112;
const MIN_FRAMES = 12;

/** Colours of the states; the same as in controls.css. */
const COLOURS = {
  unknown: "#23272f",
  propagated: "#5f6b80",
  empty: "#b08a3e",
  accepted: "#45b36b",
  drawn: "#5aa7ff",
};

/** Rows of states with a playhead; click and drag seek, the wheel zooms. */
export class Timeline {
  /** @param {Object} app */
  constructor(app) {
    this.app = app;
    this.canvas = $("#timeline");
    this.context = this.canvas.getContext("2d", { alpha: false });
    /** First visible frame and number of visible frames; both can be fractions. */
    this.first = 0;
    this.span = 1;
    this.hover = null;
    this.isDragging = false;
    this.schedule = batched(() => this.draw());
    for (const part of ["objects", "states", "current"]) app.session.addEventListener(part, this.schedule);
    app.seeker.addEventListener("wanted", () => {
      if (!this.isDragging) this.reveal(app.seeker.wanted);
      this.schedule();
    });
    app.suggestions.addEventListener("change", this.schedule);
    app.propagation.addEventListener("ended", this.schedule);
    app.session.addEventListener("job", this.schedule);
    this.connect();
  }

  connect() {
    const { canvas, app } = this;
    new ResizeObserver(this.schedule).observe(canvas.parentElement);
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      const [x, y] = this.at(event);
      if (x < GUTTER) {
        const object = app.session.objects[Math.floor((y - RULER) / this.rowHeight)];
        if (object && y >= RULER) app.session.choose(object.label);
        return;
      }
      canvas.setPointerCapture(event.pointerId);
      this.isDragging = true;
      app.player.pause();
      app.seeker.goTo(this.frameAt(x));
    });
    canvas.addEventListener("pointermove", (event) => {
      const [x] = this.at(event);
      this.hover = x >= GUTTER ? this.frameAt(x) : null;
      if (this.isDragging) app.seeker.goTo(this.frameAt(x));
      this.schedule();
    });
    const release = () => { this.isDragging = false; };
    canvas.addEventListener("pointerup", release);
    canvas.addEventListener("pointercancel", release);
    canvas.addEventListener("pointerleave", () => {
      this.hover = null;
      this.schedule();
    });
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      const delta = event.deltaY || event.deltaX;
      if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
        this.setRange(this.first + (delta / 800) * this.span, this.span);
      } else this.zoom(Math.exp(delta * 0.002), this.at(event)[0]);
    }, { passive: false });
  }

  at(event) {
    const box = this.canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  /** Show the whole clip. */
  fit() {
    this.setRange(0, this.app.session.numFrames);
  }

  /**
   * Change the number of visible frames by a factor.
   * @param {number} factor
   * @param {number} [x] Position that keeps its frame; the playhead by default.
   */
  zoom(factor, x) {
    const anchor = x === undefined ? this.app.seeker.wanted + 0.5 : this.first + (x - GUTTER) / this.column;
    const span = Math.max(MIN_FRAMES, Math.min(this.app.session.numFrames, this.span * factor));
    this.setRange(anchor - ((anchor - this.first) * span) / this.span, span);
  }

  setRange(first, span) {
    const { numFrames } = this.app.session;
    this.span = Math.min(numFrames, Math.max(Math.min(MIN_FRAMES, numFrames), span));
    this.first = Math.max(0, Math.min(numFrames - this.span, first));
    this.schedule();
  }

  /** Shift the visible range so that a frame is in it. */
  reveal(frame) {
    if (frame < this.first || frame + 1 > this.first + this.span) {
      this.setRange(frame - this.span / 2, this.span);
    }
  }

  /** Width of one frame in CSS pixels. */
  get column() {
    return (this.width - GUTTER) / this.span;
  }

  xOf(frame) {
    return GUTTER + (frame - this.first) * this.column;
  }

  frameAt(x) {
    const frame = Math.floor(this.first + (x - GUTTER) / this.column);
    return Math.max(0, Math.min(this.app.session.numFrames - 1, frame));
  }

  /** Fit the canvas to its place and to the number of objects. */
  layout() {
    const count = Math.max(1, this.app.session.objects.length);
    this.rowHeight = Math.max(5, Math.min(ROW, MAX_ROWS_HEIGHT / count));
    this.width = this.canvas.parentElement.clientWidth;
    this.height = Math.ceil(RULER + this.rowHeight * count + 4);
    const ratio = window.devicePixelRatio || 1;
    const width = Math.round(this.width * ratio);
    const height = Math.round(this.height * ratio);
    if (this.canvas.width !== width || this.canvas.height !== height) {
      this.canvas.width = width;
      this.canvas.height = height;
      this.canvas.style.width = `${this.width}px`;
      this.canvas.style.height = `${this.height}px`;
    }
    this.context.setTransform(ratio, 0, 0, ratio, 0, 0);
  }

  draw() {
    const { session, seeker } = this.app;
    if (!session.numFrames) return;
    this.layout();
    const { context, width, height } = this;
    context.fillStyle = "#16191f";
    context.fillRect(0, 0, width, height);
    session.objects.forEach((object, i) => this.drawRow(object, RULER + i * this.rowHeight));
    this.drawRuler();
    this.drawMarks();
    if (this.hover !== null) this.drawLine(this.hover, "rgb(255 255 255 / 30%)", 1);
    if (session.job && session.job.phase !== "loading") this.drawLine(session.job.frame, "#c8a2ff", 1.5);
    this.drawLine(seeker.wanted, "#ffffff", 2);
    this.drawLabel(seeker.wanted, "#ffffff", "#000000");
    if (this.hover !== null && this.hover !== seeker.wanted) this.drawLabel(this.hover, "#3a404b", "#ffffff");
    this.canvas.setAttribute("aria-valuemax", String(session.numFrames - 1));
    this.canvas.setAttribute("aria-valuenow", String(seeker.wanted));
  }

  drawRow({ label, name, colour }, y) {
    const { context, rowHeight } = this;
    const isCurrent = label === this.app.session.current;
    const gap = rowHeight > 10 ? 3 : 1;
    const size = rowHeight - gap;
    if (isCurrent) {
      context.fillStyle = "#2a303b";
      context.fillRect(0, y - 1, GUTTER - 4, rowHeight + 1);
    }
    context.fillStyle = bright(colour);
    context.fillRect(6, y + Math.min(1, gap - 1), 6, size);
    if (rowHeight >= 11 || isCurrent) {
      context.fillStyle = isCurrent ? "#ffffff" : "#a9b1bf";
      context.font = `${Math.min(12, Math.max(10, size))}px system-ui, sans-serif`;
      context.textBaseline = "middle";
      context.save();
      context.beginPath();
      context.rect(0, y - 2, GUTTER - 6, rowHeight + 4);
      context.clip();
      context.fillText(name, 18, y + size / 2 + 0.5);
      context.restore();
    }
    const right = Math.min(this.width, this.xOf(this.app.session.numFrames));
    context.fillStyle = COLOURS.unknown;
    context.fillRect(GUTTER, y, right - GUTTER, size);
    const states = this.app.session.row(label);
    if (this.column >= 1) this.drawFrames(states, y, size);
    else this.drawGroups(states, y, size);
  }

  /** Draw runs of equal states; wide columns have gaps between frames. */
  drawFrames(states, y, size) {
    const { context, column } = this;
    const last = Math.min(states.length, Math.ceil(this.first + this.span));
    const gap = column >= 5 ? 1 : 0;
    for (let i = Math.floor(this.first); i < last; i++) {
      if (!states[i]) continue;
      let end = i + 1;
      if (!gap) while (end < last && states[end] === states[i]) end++;
      const x = Math.max(GUTTER, this.xOf(i));
      context.fillStyle = COLOURS[STATES[states[i]]];
      context.fillRect(x, y, Math.max(1, this.xOf(end) - x - gap), size);
      i = end - 1;
    }
  }

  /** Draw one column per CSS pixel: the most important state of its frames. */
  drawGroups(states, y, size) {
    const { context } = this;
    const step = 1 / this.column;
    const marks = [];
    let start = GUTTER;
    let code = 0;
    for (let x = GUTTER; x <= this.width; x++) {
      let highest = 0;
      if (x < this.width) {
        const from = Math.floor(this.first + (x - GUTTER) * step);
        const to = Math.min(states.length, Math.max(from + 1, Math.floor(this.first + (x + 1 - GUTTER) * step)));
        for (let i = from; i < to; i++) if (states[i] > highest) highest = states[i];
      }
      if (highest === code && x < this.width) continue;
      if (code) {
        context.fillStyle = COLOURS[STATES[code]];
        context.fillRect(start, y, x - start, size);
        if (STATES[code] === "drawn") marks.push(start);
      }
      start = x;
      code = highest;
    }
    // A single drawn frame among thousands must still be visible.
    context.fillStyle = COLOURS.drawn;
    for (const x of marks) context.fillRect(x - 1, y, 3, size);
  }

  drawRuler() {
    const { context } = this;
    context.font = "10.5px system-ui, sans-serif";
    context.textBaseline = "middle";
    const spacing = 70 / this.column;
    const power = 10 ** Math.floor(Math.log10(Math.max(1, spacing)));
    const step = Math.max(1, power * [1, 2, 5, 10].find((n) => n * power >= spacing));
    const last = Math.min(this.app.session.numFrames, this.first + this.span);
    for (let i = Math.ceil(this.first / step) * step; i < last; i += step) {
      const x = this.xOf(i + 0.5);
      context.fillStyle = "#3b424e";
      context.fillRect(Math.round(x), RULER - 6, 1, 4);
      context.fillStyle = "#8d96a5";
      context.fillText(String(i), x + 3, RULER / 2 - 1);
    }
  }

  /** Draw the suggestions as triangles below the ruler. */
  drawMarks() {
    const { context } = this;
    for (const { frame } of this.app.suggestions.list) {
      const x = this.xOf(frame + 0.5);
      if (x < GUTTER || x > this.width) continue;
      context.beginPath();
      context.moveTo(x - 5, RULER - 9);
      context.lineTo(x + 5, RULER - 9);
      context.lineTo(x, RULER - 1);
      context.closePath();
      context.fillStyle = "#ffb454";
      context.fill();
    }
  }

  drawLine(frame, colour, thickness) {
    const x = this.xOf(frame + 0.5);
    if (x < GUTTER || x > this.width) return;
    this.context.fillStyle = colour;
    this.context.fillRect(x - thickness / 2, 0, thickness, this.height);
  }

  drawLabel(frame, background, colour) {
    const { context } = this;
    const text = String(frame);
    context.font = "600 11px system-ui, sans-serif";
    const size = context.measureText(text).width + 10;
    const x = Math.max(GUTTER, Math.min(this.width - size, this.xOf(frame + 0.5) - size / 2));
    context.fillStyle = background;
    context.beginPath();
    context.roundRect(x, 0, size, 15, 3);
    context.fill();
    context.fillStyle = colour;
    context.fillText(text, x + 5, 8);
  }
}

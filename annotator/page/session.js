/** State of the session as the page has it: clip, objects, states of every frame, history, job. */

import { getJson } from "./api.js";

/** States of a frame's object; a higher index wins where the timeline merges frames. */
export const STATES = ["unknown", "propagated", "empty", "accepted", "drawn"];

/** Codes from this one on come from a person. */
const FIRST_ANNOTATED = STATES.indexOf("empty");

/**
 * The session. Dispatches "objects", "states", "history", "job", "current" and "masks" when the part
 * of that name changes.
 */
export class Session extends EventTarget {
  constructor() {
    super();
    this.name = "";
    this.numFrames = 0;
    this.height = 0;
    this.width = 0;
    this.fps = 25;
    this.model = null;
    this.isDemo = false;
    this.objects = [];
    this.history = { undo: false, redo: false };
    this.job = null;
    this.jobError = "";
    this.current = 0;
    /** @type {Map<number, Uint8Array>} state codes per frame, by label */
    this.rows = new Map();
  }

  /** Read the whole state from the server. */
  async load() {
    const [answer, timeline] = await Promise.all([
      getJson("/api/session"),
      getJson("/api/timeline"),
    ]);
    this.name = answer.name;
    this.numFrames = answer.num_frames;
    this.height = answer.height;
    this.width = answer.width;
    this.fps = answer.fps || 25;
    this.model = answer.model;
    this.isDemo = Boolean(answer.demo);
    this.setTimeline(timeline);
    this.setObjects(answer.objects);
    this.setHistory(answer.history);
    this.setJob(answer.job, "");
  }

  /** Read the states of all frames again. */
  async reloadTimeline() {
    this.setTimeline(await getJson("/api/timeline"));
  }

  /** @param {{rows: Object<string, Array>}} timeline Runs of states per label. */
  setTimeline(timeline) {
    this.rows.clear();
    for (const [label, runs] of Object.entries(timeline.rows)) {
      const row = this.row(Number(label));
      for (const [first, last, state] of runs) row.fill(STATES.indexOf(state), first, last + 1);
    }
    this.changed("states");
  }

  /**
   * Return the state codes of an object, one per frame.
   * @param {number} label
   * @returns {Uint8Array}
   */
  row(label) {
    if (!this.rows.has(label)) this.rows.set(label, new Uint8Array(this.numFrames));
    return this.rows.get(label);
  }

  /**
   * Replace the states of one frame.
   * @param {number} frame
   * @param {Object<string, string>} states
   */
  setStates(frame, states) {
    for (const row of this.rows.values()) row[frame] = 0;
    for (const [label, state] of Object.entries(states)) {
      this.row(Number(label))[frame] = STATES.indexOf(state);
    }
    this.changed("states");
  }

  /**
   * Return the state of an object on a frame.
   * @param {number} frame
   * @param {number} label
   * @returns {string}
   */
  state(frame, label) {
    return STATES[this.rows.has(label) ? this.rows.get(label)[frame] : 0];
  }

  /** Return whether a person drew or accepted a mask anywhere in the clip. */
  isAnnotated() {
    return this.objects.some((object) =>
      this.row(object.label).some((code) => code >= FIRST_ANNOTATED));
  }

  /**
   * Return whether an object has a state on any frame.
   * @param {string} state
   * @returns {boolean}
   */
  hasState(state) {
    const code = STATES.indexOf(state);
    return this.objects.some(({ label }) => this.row(label).includes(code));
  }

  /**
   * Return the nearest frame with an annotation.
   * @param {number} frame
   * @param {number} step 1 to search after the frame, -1 before it.
   * @returns {number|null}
   */
  nearestAnnotated(frame, step) {
    const rows = this.objects.map((object) => this.row(object.label));
    for (let i = frame + step; i >= 0 && i < this.numFrames; i += step) {
      if (rows.some((row) => row[i] >= FIRST_ANNOTATED)) return i;
    }
    return null;
  }

  /** @param {Array<Object>} objects */
  setObjects(objects) {
    const before = new Set(this.objects.map((object) => object.label));
    const isOther = objects.length !== before.size || objects.some((o) => !before.has(o.label));
    this.objects = objects;
    if (!this.object(this.current)) this.choose(objects.length ? objects[0].label : 0);
    this.changed("objects");
    this.changed("masks");
    return isOther;
  }

  /** @param {number} label */
  object(label) {
    return this.objects.find((object) => object.label === label) || null;
  }

  /**
   * Make an object the current one.
   * @param {number} label
   */
  choose(label) {
    if (label === this.current) return;
    this.current = label;
    this.changed("current");
    this.changed("objects");
  }

  /** @param {{undo: boolean, redo: boolean}} history */
  setHistory(history) {
    this.history = history;
    this.changed("history");
  }

  /**
   * @param {Object|null} job
   * @param {string} error A sentence, or "".
   */
  setJob(job, error) {
    this.job = job;
    this.jobError = error;
    this.changed("job");
  }

  /** @param {string} part */
  changed(part) {
    this.dispatchEvent(new Event(part));
  }
}

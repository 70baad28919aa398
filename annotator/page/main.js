/** The page: builds the parts, connects them with the server's events, and starts. */

import { allActions } from "./actions.js";
import { getJson } from "./api.js";
import { $, batched, fillIcons } from "./dom.js";
import { Edits } from "./edits.js";
import { ServerEvents } from "./events.js";
import { Exchange } from "./exchange.js";
import { Flash } from "./flash.js";
import { Frames } from "./frames.js";
import { Keys } from "./keys.js";
import { ObjectsPanel } from "./objects.js";
import { Player } from "./player.js";
import { Pointer } from "./pointer.js";
import { Propagation } from "./propagation.js";
import { SaveQueue } from "./queue.js";
import { Seeker } from "./seeker.js";
import { Session } from "./session.js";
import { Status } from "./status.js";
import { Suggestions } from "./suggestions.js";
import { Timeline } from "./timeline.js";
import { Tint } from "./tint.js";
import { Toolbox } from "./toolbox.js";
import { Transport } from "./transport.js";
import { View } from "./view.js";

/** Number of measured times that are kept per kind. */
const NUM_TIMES = 200;

/** All parts of the page. Tests read it as `window.annotator`. */
class App {
  constructor() {
    /** Measured times in milliseconds: from an event to the painted result. */
    this.timings = { stroke: [], hint: [], refine: [], propagate: [], seek: [] };
    this.session = new Session();
    this.queue = new SaveQueue();
    this.status = new Status(this.queue);
    this.view = new View($("#picture"), $("#overlay"));
    this.seeker = new Seeker(this);
    this.player = new Player(this);
    this.edits = new Edits(this);
    this.flashes = new Flash(this.view);
    this.toolbox = new Toolbox(this);
    this.pointer = new Pointer(this, $("#overlay"));
    this.objects = new ObjectsPanel(this);
    this.propagation = new Propagation(this);
    this.suggestions = new Suggestions(this);
    this.timeline = new Timeline(this);
    this.exchange = new Exchange(this);
    this.transport = new Transport(this);
    this.events = new ServerEvents();
    this.faded = 0;
    this.isMaskHidden = false;
    this.keys = new Keys(this, allActions(this));
  }

  /** Frame on the screen. */
  get frame() {
    return this.seeker.shown;
  }

  /** Label map on the screen: (height, width) uint8. */
  get labels() {
    return this.frames?.masks.entries.get(this.frame)?.labels ?? null;
  }

  /** Number of changes that are not saved. */
  get pending() {
    return this.queue.pending;
  }

  /** Load the session and show its first frame. */
  async start() {
    const { session, seeker, queue } = this;
    this.toolbox.connect();
    this.connect();
    try {
      await session.load();
    } catch (error) {
      this.status.say(error.message, "error");
      $("#loading").textContent = `The session could not be loaded. ${error.message} Then reload this page.`;
      return;
    }
    const { width, height, numFrames } = session;
    const isPinned = (frame) =>
      frame === seeker.shown || frame === seeker.wanted || queue.of(frame).length > 0;
    this.frames = new Frames(width, height, numFrames, isPinned);
    this.view.tint = new Tint(width, height);
    this.view.setSize(width, height);
    document.title = `${session.name} – annotator`;
    this.transport.load();
    this.timeline.fit();
    if (!session.objects.length) await this.objects.add();
    this.showColours();
    this.events.connect();
    await seeker.goTo(0);
    $("#loading").hidden = true;
    if (session.isAnnotated()) this.suggestions.refresh();
    else this.suggestions.update();
    document.body.dataset.ready = "true";
  }

  /** React to the server, and to changes that concern several parts. */
  connect() {
    const { session, events, status } = this;
    session.addEventListener("masks", () => this.showColours());
    const showFirstSteps = batched(() => this.showFirstSteps());
    session.addEventListener("states", showFirstSteps);
    this.toolbox.addEventListener("change", showFirstSteps);
    session.addEventListener("history", () => {
      $("[data-action=undo]").disabled = !session.history.undo;
      $("[data-action=redo]").disabled = !session.history.redo;
    });
    $("#opacity").addEventListener("input", () => {
      this.isMaskHidden = false;
      this.showColours();
    });
    $("#first-steps-close").addEventListener("click", () => $("#first-steps").remove());
    events.addEventListener("message", (event) => this.onMessage(event.detail));
    events.addEventListener("lost", () => status.setConnected(false, ""));
    events.addEventListener("refused", (event) => status.setConnected(false, event.detail));
    events.addEventListener("open", (event) => {
      status.setConnected(true, "");
      if (event.detail) this.resume();
    });
  }

  /** Read everything again that may have changed while the connection was lost. */
  async resume() {
    const { session, frames, edits, seeker, queue } = this;
    queue.retry();
    await queue.idle();
    await edits.attempt((async () => {
      await session.load();
      frames.forgetAll();
      if (seeker.shown >= 0) await edits.refresh(seeker.shown);
      if (seeker.wanted !== seeker.shown) seeker.goTo(seeker.wanted);
    })());
  }

  onMessage(message) {
    const { session, edits, propagation } = this;
    if (message.type === "frame") {
      edits.onFrame(message);
      if (message.source === "propagation") propagation.onFrame(message.frame);
    } else if (message.type === "job") session.setJob(message.job, message.error);
    else if (message.type === "history") session.setHistory(message.history);
    else if (message.type === "objects" && session.setObjects(message.objects)) {
      // Pixels of a removed object disappear from every frame, and undo brings them back.
      this.frames.forgetAll();
      edits.attempt(session.reloadTimeline());
      if (this.frame >= 0) edits.attempt(edits.refresh(this.frame));
    }
  }

  /** @returns {Promise<Object>} the server's description of the session */
  fetchSession() {
    return getJson("/api/session");
  }

  /** Undo the tool's last point if it has one, else the last change of the session. */
  undo() {
    if (!this.toolbox.back()) this.edits.step("undo");
  }

  /** Drop, pause or stop: the first of these that applies. */
  escape() {
    if (!$("#export-menu").hidden) this.exchange.toggle(false);
    else if (this.toolbox.drop()) return;
    else if (this.player.isPlaying) this.player.pause();
    else this.propagation.stop();
  }

  /** Show a part of the label map after a change of its pixels. */
  showLabels(box) {
    this.view.invalidate(this.view.tint.updateBox(this.labels, box));
  }

  /** Show the whole label map. */
  showMasks() {
    if (!this.labels) return;
    this.view.tint.update(this.labels);
    this.view.invalidate(null);
  }

  /** Show another frame. `since` is the time of the request, to measure how long it took. */
  showFrame(frame, since) {
    this.view.image = this.frames.images.get(frame);
    this.showMasks();
    if (since) this.view.afterPaint((now) => this.record("seek", now - since));
    this.showPosition(null);
  }

  /** Apply the objects' colours and the opacity. */
  showColours() {
    if (!this.view.tint) return;
    const opacity = this.isMaskHidden ? 0 : Number($("#opacity").value) / 100;
    this.view.tint.setColours(this.session.objects, opacity, this.faded);
    this.showMasks();
  }

  /** Nearly hide an object while a preview of its new mask is shown; 0 ends that. */
  fade(label) {
    if (label === this.faded) return;
    this.faded = label;
    this.showColours();
  }

  toggleMasks() {
    this.isMaskHidden = !this.isMaskHidden;
    this.showColours();
  }

  /** Point out what changed between two label maps. */
  flash(before, after) {
    this.flashes.show(before, after, this.session.width, this.session.height);
  }

  /** @param {CanvasRenderingContext2D} context */
  drawFlash(context) {
    this.flashes.draw(context);
  }

  /** Record the time from a pointer event to the painted stroke, once per painted frame. */
  timeStroke(event) {
    if (this.isTiming) return;
    this.isTiming = true;
    this.view.afterPaint((now) => {
      this.isTiming = false;
      this.record("stroke", now - event.timeStamp);
    });
  }

  /** Keep a measured time in milliseconds. */
  record(kind, time) {
    const times = this.timings[kind];
    times.push(time);
    if (times.length > NUM_TIMES) times.shift();
  }

  /** Show the pixel under the pointer. */
  showPosition(point) {
    const { width, height } = this.session;
    const [x, y] = point ? point.map(Math.floor) : [-1, -1];
    const isInside = x >= 0 && y >= 0 && x < width && y < height;
    const label = isInside && this.labels ? this.labels[y * width + x] : 0;
    const name = label ? ` · ${this.session.object(label)?.name ?? ""}` : "";
    $("#position").textContent = isInside ? `${x}, ${y}${name}` : "";
  }

  /** Say what to do first while nothing is annotated, and what comes next while nothing is propagated. */
  showFirstSteps() {
    const card = document.querySelector("#first-steps");
    if (!card) return;
    const { session } = this;
    const isAnnotated = session.isAnnotated();
    const isDone = isAnnotated && (!session.model || session.hasState("propagated"));
    card.hidden = this.toolbox.active.isBusy || isDone || Boolean(session.job);
    $("#steps").hidden = isAnnotated;
    $("#next-step").hidden = !isAnnotated;
  }
}

fillIcons();
window.annotator = new App();
window.annotator.start();

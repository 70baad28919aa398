/** Propagation: start, stop, progress, and following the newest mask. */

import { postJson } from "./api.js";
import { $ } from "./dom.js";

/** Controls of the propagation on the server. Dispatches "ended" when a job ended. */
export class Propagation extends EventTarget {
  /** @param {Object} app */
  constructor(app) {
    super();
    this.app = app;
    this.hadJob = false;
    /** Newest job that the page has seen. */
    this.lastId = 0;
    this.since = 0;
    app.session.addEventListener("job", () => this.update());
    app.session.addEventListener("states", () => this.updateButtons());
    $("#follow").addEventListener("change", (event) => event.target.blur());
  }

  get isFollowing() {
    return $("#follow").checked;
  }

  /** @param {boolean} isFollowing */
  setFollowing(isFollowing) {
    $("#follow").checked = isFollowing;
  }

  /**
   * Start a propagation from the shown frame.
   * @param {"forwards"|"backwards"|"both"} direction
   * @param {"gap"|"all"} scope
   * @param {Event} [event] The key or click, to measure the time until the first mask.
   */
  async start(direction, scope, event) {
    const { session, queue, seeker, edits, player } = this.app;
    if (!session.model || session.job) return;
    player.pause();
    this.since = event?.timeStamp ?? performance.now();
    const frame = seeker.shown;
    if (queue.state === "failed" && queue.pending) {
      this.app.status.say("Propagation needs your last changes, which are not saved yet.", "warning");
      return;
    }
    await queue.idle();
    const answer = await edits.attempt(postJson("/api/propagate", { direction, frame, scope }));
    // After the first event of this job, the answer is older than what the page shows.
    if (answer && answer.job.id !== this.lastId) session.setJob(answer.job, "");
  }

  /** Stop; finished frames keep their masks. */
  async stop() {
    const { session, edits } = this.app;
    if (!session.job) return;
    $("#job-text").textContent = "Stopping…";
    const answer = await edits.attempt(postJson("/api/stop"));
    if (answer) session.setJob(answer.job, "");
  }

  /**
   * Take over an event about a propagated frame.
   * @param {number} frame
   */
  onFrame(frame) {
    if (this.since) {
      const { since } = this;
      this.since = 0;
      this.app.view.afterPaint((now) => this.app.record("propagate", now - since));
    }
    if (this.isFollowing && this.app.session.job && !this.app.edits.stroke) this.app.seeker.goTo(frame);
  }

  update() {
    const { session, status } = this.app;
    const { job } = session;
    $("#job").hidden = !job;
    if (job) {
      this.lastId = job.id;
      $("#job-bar").max = Math.max(1, job.total);
      $("#job-bar").value = job.done;
      $("#job-text").textContent = describe(job);
    }
    this.updateButtons();
    if (session.jobError) {
      status.say(session.jobError, "error");
      session.jobError = "";
    }
    if (this.hadJob && !job) this.dispatchEvent(new Event("ended"));
    this.hadJob = Boolean(job);
  }

  updateButtons() {
    const { session } = this.app;
    const isReady = Boolean(session.model) && !session.job;
    for (const button of document.querySelectorAll("[data-propagate]")) button.disabled = !isReady;
    $("#no-model").hidden = Boolean(session.model) || !session.numFrames;
  }
}

/** Describe a job's progress. */
function describe({ phase, done, total, fps }) {
  if (phase === "loading") return "Loading the model…";
  const word = phase === "backwards" ? "Backwards" : "Forwards";
  const rate = fps > 0 ? ` · ${fps.toFixed(1)} frames/s · ${duration((total - done) / fps)} left` : "";
  return `${word}: ${done} of ${total} frames${rate}`;
}

/** Write a number of seconds as text. */
function duration(seconds) {
  if (seconds < 90) return `${Math.ceil(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

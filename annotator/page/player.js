/** Playing the clip with its masks at its own rate; slower where frames come late. */

/** Frames requested ahead while playing. */
const AHEAD = 6;

/** Dispatches "state" when playing starts or stops. */
export class Player extends EventTarget {
  /** @param {Object} app */
  constructor(app) {
    super();
    this.app = app;
    this.isPlaying = false;
  }

  /** Start or pause. At the last frame, playing starts from the first one. */
  toggle() {
    if (this.isPlaying) this.pause();
    else this.play();
  }

  play() {
    const { session, seeker } = this.app;
    if (seeker.shown < 0 || session.numFrames < 2) return;
    this.isPlaying = true;
    this.dispatchEvent(new Event("state"));
    if (seeker.shown === session.numFrames - 1) seeker.goTo(0).then(() => this.rebase());
    this.rebase();
    requestAnimationFrame(() => this.tick());
  }

  pause() {
    if (!this.isPlaying) return;
    this.isPlaying = false;
    this.dispatchEvent(new Event("state"));
  }

  /** Let the clock start at the shown frame. */
  rebase() {
    this.startFrame = this.app.seeker.shown;
    this.startTime = performance.now();
  }

  tick() {
    if (!this.isPlaying) return;
    const { session, seeker, frames } = this.app;
    const last = session.numFrames - 1;
    if (seeker.shown === seeker.wanted) {
      if (seeker.shown >= last) return this.pause();
      const elapsed = (performance.now() - this.startTime) / 1000;
      const due = Math.min(last, this.startFrame + Math.floor(elapsed * session.fps));
      let next = due;
      while (next > seeker.shown && !frames.isLoaded(next)) next -= 1;
      if (next > seeker.shown) seeker.goTo(next);
      else if (due > seeker.shown) {
        if (due - seeker.shown > session.fps / 4) this.rebase();
        const ahead = Array.from({ length: AHEAD }, (_, i) => seeker.shown + 1 + i);
        if (!frames.running.size) frames.prefetch(ahead);
      }
    } else this.rebase();
    requestAnimationFrame(() => this.tick());
    return undefined;
  }
}

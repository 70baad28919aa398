/** Changes on their way to the server: sent one at a time, in order, and kept until they are saved. */

/** Waits between attempts while the server cannot take a change, in milliseconds. */
const FIRST_WAIT = 1000;
const MAX_WAIT = 8000;

/**
 * A change that waits to be sent.
 * @typedef {Object} Change
 * @property {number|null} frame The frame that it changes, or null.
 * @property {function(): Promise<void>} run Sends it and handles the answer.
 * @property {function(Error): Promise<void>} refused Handles an answer that refuses it.
 * @property {boolean} isKept Whether it is sent again after a failure of connection or server.
 * @property {Object} [patch] The pixels, if it paints.
 */

/** Ordered changes. Dispatches "state" when `state` or `message` changes, and "drained" (detail: frame). */
export class SaveQueue extends EventTarget {
  constructor() {
    super();
    /** @type {Change[]} */
    this.changes = [];
    /** @type {"saved"|"saving"|"failed"} */
    this.state = "saved";
    this.message = "";
    this.isRunning = false;
    this.wake = () => {};
    this.waiters = [];
  }

  /** Number of changes that are not saved. */
  get pending() {
    return this.changes.length;
  }

  /**
   * Return the changes of a frame that are not saved, oldest first.
   * @param {number} frame
   * @returns {Change[]}
   */
  of(frame) {
    return this.changes.filter((change) => change.frame === frame);
  }

  /**
   * Add a change.
   * @param {Change} change
   */
  push(change) {
    this.changes.push(change);
    if (this.state === "saved") this.set("saving");
    this.work();
  }

  /**
   * Remove all changes of a frame, for example after a conflict.
   * @param {number} frame
   */
  drop(frame) {
    this.changes = this.changes.filter((change) => change.frame !== frame);
  }

  /** Try again at once. */
  retry() {
    this.wake();
  }

  /**
   * Wait until every change is saved or refused.
   * @returns {Promise<void>}
   */
  idle() {
    if (!this.pending && !this.isRunning) return Promise.resolve();
    return new Promise((resolve) => this.waiters.push(resolve));
  }

  /** Send the changes until none is left. */
  async work() {
    if (this.isRunning) return;
    this.isRunning = true;
    let wait = FIRST_WAIT;
    let lastRefusal = "";
    while (this.changes.length) {
      const change = this.changes[0];
      try {
        await change.run();
        this.remove(change);
        lastRefusal = "";
        wait = FIRST_WAIT;
        if (this.changes.length) this.set("saving");
      } catch (error) {
        if (change.isKept && mayRetry(error.status)) {
          this.set("failed", `${error.message} Your changes are kept in this page and sent again.`);
          await this.sleep(wait);
          wait = Math.min(MAX_WAIT, wait * 2);
        } else {
          this.remove(change);
          lastRefusal = error.message;
          await change.refused(error);
        }
      }
    }
    this.isRunning = false;
    if (lastRefusal) this.set("failed", lastRefusal);
    else this.set("saved");
    this.waiters.splice(0).forEach((resolve) => resolve());
  }

  remove(change) {
    this.changes = this.changes.filter((other) => other !== change);
    if (change.frame !== null && !this.of(change.frame).length) {
      this.dispatchEvent(new CustomEvent("drained", { detail: change.frame }));
    }
  }

  sleep(milliseconds) {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, milliseconds);
      this.wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  set(state, message = "") {
    this.state = state;
    this.message = message;
    this.dispatchEvent(new Event("state"));
  }
}

/** Return whether the same request can succeed later: no answer, no access yet, server's fault. */
function mayRetry(status) {
  return status === 0 || status === 401 || status === 403 || status >= 500;
}

/** Pointer and wheel over the picture: panning, zooming, and everything else for the active tool. */

/** Handles pointer events of the overlay canvas. */
export class Pointer {
  /**
   * @param {Object} app
   * @param {HTMLCanvasElement} canvas
   */
  constructor(app, canvas) {
    this.app = app;
    this.canvas = canvas;
    /** Position on the screen, relative to the canvas, or null when the pointer is elsewhere. */
    this.position = null;
    this.isPanning = false;
    this.isSpaceDown = false;
    this.isToolDown = false;
    canvas.addEventListener("pointerdown", (event) => this.down(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    canvas.addEventListener("pointerup", (event) => this.up(event));
    canvas.addEventListener("pointercancel", (event) => this.up(event));
    canvas.addEventListener("pointerleave", () => this.leave());
    canvas.addEventListener("dblclick", (event) => this.app.toolbox.active.doubleClick?.(event));
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    // The browser's automatic scrolling would take the middle button.
    canvas.addEventListener("mousedown", (event) => event.preventDefault());
  }

  /** @returns {number[]} position relative to the canvas */
  at(event) {
    const box = this.canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  down(event) {
    if (document.activeElement instanceof HTMLElement) document.activeElement.blur();
    this.canvas.setPointerCapture(event.pointerId);
    this.position = this.at(event);
    if (event.button === 1 || (event.button === 0 && this.isSpaceDown)) {
      this.isPanning = true;
      this.showCursor();
      return;
    }
    if (event.button > 2 || this.app.seeker.shown < 0) return;
    this.isToolDown = true;
    this.app.toolbox.active.down(this.app.view.toImage(...this.position), event);
    this.app.toolbox.update();
  }

  move(event) {
    const position = this.at(event);
    const { view, toolbox } = this.app;
    if (this.isPanning && this.position) {
      view.pan(position[0] - this.position[0], position[1] - this.position[1]);
    } else {
      const events = event.getCoalescedEvents?.() || [];
      const all = events.length ? events : [event];
      toolbox.active.move(all.map((one) => view.toImage(...this.at(one))), event);
    }
    this.position = position;
    view.invalidateOverlay();
    this.app.showPosition(view.toImage(...position));
  }

  up(event) {
    if (this.isPanning) {
      this.isPanning = false;
      this.showCursor();
      return;
    }
    if (!this.isToolDown) return;
    this.isToolDown = false;
    this.app.toolbox.active.up(this.app.view.toImage(...this.at(event)), event);
    this.app.toolbox.update();
  }

  leave() {
    this.position = null;
    this.app.view.invalidateOverlay();
    this.app.showPosition(null);
  }

  wheel(event) {
    event.preventDefault();
    const { view } = this.app;
    const unit = event.deltaMode === 1 ? 30 : 1;
    if (event.shiftKey) {
      view.pan(-(event.deltaX || event.deltaY) * unit, 0);
      return;
    }
    view.zoom(Math.exp(-event.deltaY * unit * 0.0022), ...this.at(event));
  }

  /**
   * Tell whether the space bar is held.
   * @param {boolean} isDown
   */
  setSpace(isDown) {
    this.isSpaceDown = isDown;
    this.showCursor();
  }

  showCursor() {
    this.canvas.classList.toggle("panning", this.isPanning);
    this.canvas.classList.toggle("pannable", this.isSpaceDown);
  }
}

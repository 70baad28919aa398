/** Import of masks and export of results. */

import { fetchExport } from "./api.js";
import { $ } from "./dom.js";

/** The import button and the export menu. */
export class Exchange {
  /** @param {Object} app */
  constructor(app) {
    this.app = app;
    this.menu = $("#export-menu");
    this.isExporting = false;
    $("#import-file").addEventListener("change", (event) => {
      const [file] = event.target.files;
      // The same file can be chosen again only after the field is empty.
      if (file) app.edits.importFile(file);
      event.target.value = "";
    });
    const stage = $(".stage");
    stage.addEventListener("dragover", (event) => event.preventDefault());
    stage.addEventListener("drop", (event) => {
      event.preventDefault();
      const [file] = event.dataTransfer.files;
      if (file) app.edits.importFile(file);
    });
    for (const item of this.menu.querySelectorAll("[data-what]")) {
      item.addEventListener("click", () => this.download(item.dataset.what));
    }
    document.addEventListener("pointerdown", (event) => {
      if (!this.menu.hidden && !event.target.closest("#export")) this.toggle(false);
    });
  }

  /** Choose a mask file for the shown frame. */
  chooseFile() {
    $("#import-file").click();
  }

  /** Open or close the export menu. */
  toggle(isOpen = this.menu.hidden) {
    this.menu.hidden = !isOpen;
    $("[data-action=export]").setAttribute("aria-expanded", String(isOpen));
    if (isOpen) this.menu.querySelector("button").focus();
  }

  /** @param {string} what Comma-separated: masks, overlay, coco. */
  async download(what) {
    this.toggle(false);
    const { status, queue } = this.app;
    if (this.isExporting) return;
    if (queue.pending && queue.state === "failed") {
      status.say("Your last changes are not saved yet, so the export would lack them.", "warning");
      return;
    }
    this.isExporting = true;
    const text = $("#export-state");
    text.hidden = false;
    text.textContent = "Exporting…";
    try {
      await queue.idle();
      const { blob, name } = await fetchExport(what, (bytes) => {
        text.textContent = `Exporting… ${(bytes / 1e6).toFixed(1)} MB`;
      });
      const link = document.createElement("a");
      link.href = URL.createObjectURL(blob);
      link.download = name;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 60000);
      status.say(`The export ${name} was downloaded.`, "info");
    } catch (error) {
      status.say(error.message, "error");
    }
    text.hidden = true;
    this.isExporting = false;
  }
}

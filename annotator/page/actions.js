/** Every action of the page: its name, its keys, what it does. Buttons and the page of keys use this. */

/**
 * An action.
 * @typedef {Object} Action
 * @property {string} id Value of `data-action` of its buttons.
 * @property {string} name Accessible name of its buttons.
 * @property {string[]} keys For example "Ctrl+Z"; letters are upper case.
 * @property {string[]} aliases Further keys, which the page does not show.
 * @property {string} group Heading in the page of keys.
 * @property {function(Event): void} run
 * @property {boolean} [isRepeated] Whether it runs again while its key is held.
 */

/** Make an action. `keys` has alternatives after spaces; those after "|" are not shown. */
function action(group, id, name, keys, run, isRepeated = false) {
  const [shown, hidden = ""] = keys.split("|").map((part) => part.split(" ").filter(Boolean));
  return { group, id, name, keys: shown, aliases: hidden || [], run, isRepeated };
}

/**
 * Return all actions.
 * @param {Object} app
 * @returns {Action[]}
 */
export function allActions(app) {
  const { toolbox, seeker, session, edits, propagation, player, view, suggestions, objects } = app;
  const group = (title) => (...rest) => action(title, ...rest);
  const go = (target) => {
    player.pause();
    seeker.goTo(target);
  };
  const nearest = (step) => {
    const frame = session.nearestAnnotated(seeker.wanted, step);
    const where = step > 0 ? "after" : "before";
    if (frame === null) app.status.say(`There is no annotated frame ${where} this one.`, "info");
    else go(frame);
  };
  const copy = (step) => {
    const source = seeker.shown + step;
    if (source >= 0 && source < session.numFrames) edits.operation("copy", { source });
    else app.status.say(`There is no ${step < 0 ? "previous" : "next"} frame to copy from.`, "info");
  };
  const markEmpty = () => {
    const isEmpty = session.state(seeker.shown, session.current) === "empty";
    edits.operation(isEmpty ? "unempty" : "empty");
  };
  const accept = () => {
    const isAccepted = session.state(seeker.shown, session.current) === "accepted";
    edits.operation(isAccepted ? "unaccept" : "accept");
  };

  const tool = group("Tools");
  const mask = group("Mask of the current object");
  const frame = group("Frames");
  const video = group("Propagation");
  const other = group("Objects and session");
  const sight = group("View");
  return [
    tool("tool-brush", "Brush", "B", (event) => toolbox.choose("brush", event)),
    tool("tool-eraser", "Eraser", "E", (event) => toolbox.choose("eraser", event)),
    tool("tool-polygon", "Polygon and lasso", "L", (event) => toolbox.choose("polygon", event)),
    tool("tool-scissors", "Scissors: lines that follow edges", "S", (event) => toolbox.choose("scissors", event)),
    tool("tool-hints", "Hints inside and outside", "H", (event) => toolbox.choose("hints", event)),
    tool("tool-refine", "Refine the outline", "R", (event) => toolbox.choose("refine", event)),
    tool("smaller", "Smaller brush", "[", () => toolbox.resize(-1), true),
    tool("larger", "Larger brush", "]", () => toolbox.resize(1), true),
    tool("mode", "Switch between add and cut out, inside and outside", "X", () => toolbox.switchMode()),
    tool("accept-preview", "Close the shape, or accept the preview", "Enter|Shift+Enter Alt+Enter", (event) => toolbox.accept(event)),
    tool("back", "Remove the last point or hint", "Backspace", () => toolbox.back(), true),
    tool("escape", "Drop the shape or preview; else stop playing or propagating", "Escape", () => app.escape()),

    mask("fill", "Fill holes", "F", () => edits.operation("fill")),
    mask("largest", "Keep largest part", "M", () => edits.operation("largest")),
    mask("grow", "Grow by one pixel", "G", () => edits.operation("grow", { pixels: 1 }), true),
    mask("shrink", "Shrink by one pixel", "Shift+G", () => edits.operation("shrink", { pixels: 1 }), true),
    mask("copy-previous", "Copy from previous frame", "C", () => copy(-1)),
    mask("copy-next", "Copy from next frame", "Shift+C", () => copy(1)),
    mask("clear", "Clear the mask", "Delete", () => edits.operation("clear")),
    mask("accept", "Accept the propagated mask, or take that back", "A", accept),
    mask("accept-all", "Accept all propagated masks of this frame", "Shift+A", () => edits.operation("accept", { label: 0 })),
    mask("empty", "Mark as empty (absent), or take that back", "Shift+Delete O", markEmpty),

    frame("previous", "Previous frame", "ArrowLeft", () => go(seeker.wanted - 1), true),
    frame("next", "Next frame", "ArrowRight", () => go(seeker.wanted + 1), true),
    frame("back-10", "10 frames back", "Shift+ArrowLeft", () => go(seeker.wanted - 10), true),
    frame("forward-10", "10 frames forward", "Shift+ArrowRight", () => go(seeker.wanted + 10), true),
    frame("first", "First frame", "Home", () => go(0)),
    frame("last", "Last frame", "End", () => go(session.numFrames - 1)),
    frame("annotated-previous", "Previous annotated frame", ",", () => nearest(-1)),
    frame("annotated-next", "Next annotated frame", ".", () => nearest(1)),
    frame("play", "Play or pause", "P K", () => player.toggle()),
    frame("next-suggestion", "Next suggested frame", "N", () => suggestions.next()),
    frame("refresh-suggestions", "Refresh the suggestions", "Shift+N", () => suggestions.refresh()),

    video("forwards", "Propagate forwards", "T", (event) => propagation.start("forwards", "gap", event)),
    video("backwards", "Propagate backwards", "Shift+T", (event) => propagation.start("backwards", "gap", event)),
    video("both", "Propagate both ways", "Y", (event) => propagation.start("both", "gap", event)),
    video("gaps", "Propagate into all gaps", "Shift+Y", (event) => propagation.start("both", "all", event)),
    video("stop", "Stop the propagation", "", () => propagation.stop()),
    video("follow", "Follow the newest mask, or not", "W", () => propagation.setFollowing(!propagation.isFollowing)),

    other("undo", "Undo", "Ctrl+Z", () => app.undo(), true),
    other("redo", "Redo", "Ctrl+Shift+Z Ctrl+Y", () => edits.step("redo"), true),
    other("add-object", "Add object", "D", () => objects.add()),
    other("rename-object", "Rename the current object", "F2", () => objects.renameCurrent()),
    other("import", "Import a mask for this frame", "I", () => app.exchange.chooseFile()),
    other("export", "Export", "Shift+E", () => app.exchange.toggle()),
    other("save", "Tell whether everything is saved", "Ctrl+S", () => app.status.tell()),
    other("help", "Keys and help", "?", () => app.keys.toggleHelp()),

    sight("zoom-in", "Zoom in", "+|=", () => view.zoom(1.25), true),
    sight("zoom-out", "Zoom out", "-|_", () => view.zoom(0.8), true),
    sight("zoom-fit", "Fit the frame to the window", "0", () => view.fit()),
    sight("brighten", "Brighten the picture 2, 4 or 8 times, or not", "Q", () => view.brighten()),
    sight("masks", "Show or hide all masks", "V", () => app.toggleMasks()),
    sight("timeline-in", "Zoom into the timeline", "Alt++|Alt+=", () => app.timeline.zoom(0.6), true),
    sight("timeline-out", "Zoom out of the timeline", "Alt+-", () => app.timeline.zoom(1.6), true),
    sight("timeline-fit", "Show the whole clip in the timeline", "Alt+0", () => app.timeline.fit()),
  ];
}

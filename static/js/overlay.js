/** @file Decides what the viewer should show, and changes only what differs, in a later task. */

import { confidenceOf, describe, selectedOf } from "./model.js";

/** @typedef {import("./types.js").Camera} Camera */
/** @typedef {import("./types.js").View} View */
/** @typedef {import("./viewer.js").Viewer} Viewer */
/** @typedef {import("./viewer.js").Marker} Marker */

const MOST_MARKERS = 16;

/** @param {View} view */
export function markersOf(view) {
  const shown = (view.list?.suggestions ?? []).slice(0, MOST_MARKERS);
  return shown.map((s) => ({
    id: s.id,
    point: inVoxels(s.point_nm, view),
    properties: [
      s.score_hidden ? 0.5 : s.confidence,
      Number(s.id === view.selected),
      Number(s.id in view.verdicts || s.id in view.implied),
      Number(s.ood.flag),
    ],
    description: `${describe(s)}, ${confidenceOf(s)}`,
  }));
}

/** @param {View} view */
export function segmentsOf(view) {
  const chosen = selectedOf(view);
  const { segment, partner, preview } = view.colours;
  const ids = new Set((view.list?.suggestions ?? []).flatMap((s) => [s.segment, s.partner ?? ""]));
  ids.delete("");
  if (view.list) ids.add(view.list.segment);
  for (const id of view.beside) ids.add(id);
  const ours = [...ids];
  /** @type {Record<string, string|null>} */
  const beside = Object.fromEntries(view.beside.map((id) => [id, null]));
  if (!chosen) {
    const own = view.list ? { [view.list.segment]: segment } : {};
    return { colours: { ...beside, ...own }, ours, linked: null };
  }
  if (chosen.partner === null) {
    return { colours: { ...beside, [chosen.segment]: segment }, ours, linked: null };
  }
  const merged = view.preview;
  return {
    colours: {
      ...beside,
      [chosen.segment]: merged ? preview : segment,
      [chosen.partner]: merged ? preview : partner,
    },
    ours,
    linked: merged ? /** @type {[string, string]} */ ([chosen.segment, chosen.partner]) : null,
  };
}

/**
 * @param {View} view
 * @returns {Marker[]}
 */
export function sidesOf(view) {
  // what a cut that waits would do, as the server says it, until it is made or withdrawn
  const waiting = view.edits?.sides;
  if (waiting) return asMarkers(waiting, view);
  if (!view.preview || view.sides === null || selectedOf(view)?.partner !== null) return [];
  return asMarkers(view.sides, view);
}

/**
 * @param {number[][][]} sides in nm
 * @param {View} view
 * @returns {Marker[]}
 */
function asMarkers(sides, view) {
  return sides.flatMap((points, side) =>
    points.map((p, i) => ({
      id: `side-${side}-${i}`,
      point: inVoxels(p, view),
      properties: [side],
    })),
  );
}

/**
 * @param {number[]} nm
 * @param {View} view
 */
export function inVoxels(nm, view) {
  return nm.map((v, i) => v / view.resolution_nm[i]);
}

/** Brings the viewer to a view, whenever the browser has time for it. */
export class Overlay {
  /** @type {View|null} */
  #wanted = null;
  #timer = 0;
  #flown = "";
  #listNumber = -1;
  #shown = { segments: "", markers: "", sides: "" };
  #ours = new Set();

  /** @param {Viewer} viewer */
  constructor(viewer) {
    this.viewer = viewer;
    viewer.addEventListener("attached", () => {
      this.#shown = { segments: "", markers: "", sides: "" };
      this.#schedule();
    });
  }

  /** @param {View} view */
  show(view) {
    this.#wanted = view;
    this.#schedule();
  }

  #schedule() {
    // never in the task that handles a key: the acknowledgement is painted first
    this.#timer ||= setTimeout(() => {
      this.#timer = 0;
      this.#apply();
    });
  }

  #apply() {
    const view = this.#wanted;
    if (view === null || this.viewer.layer === null) return;
    if (view.list_number !== this.#listNumber) {
      // asked for again, perhaps because something was hidden by hand
      this.#listNumber = view.list_number;
      this.#shown = { segments: "", markers: "", sides: "" };
    }
    const segments = segmentsOf(view);
    if (this.#differs("segments", segments)) {
      segments.ours.forEach((id) => this.#ours.add(id));
      this.viewer.showSegments(segments.colours, [...this.#ours], segments.linked);
      this.#ours = new Set(segments.ours);
    }
    const markers = markersOf(view);
    if (this.#differs("markers", markers)) this.viewer.showMarkers(markers);
    const sides = sidesOf(view);
    if (this.#differs("sides", sides)) this.viewer.showSides(sides);
    this.#fly(view);
    this.viewer.dispatchEvent(new Event("painted"));
  }

  /** @param {View} view */
  #fly(view) {
    const chosen = selectedOf(view);
    const flight = chosen ? `${view.list_number} ${chosen.id}` : "";
    if (flight === this.#flown) return;
    this.#flown = flight;
    this.viewer.turn(null);
    if (chosen) this.viewer.fly(inVoxels(chosen.point_nm, view));
  }

  /**
   * Move the camera to a place.
   * @param {number[]} nm
   */
  flyTo(nm) {
    if (this.#wanted && this.viewer.layer !== null) this.viewer.fly(inVoxels(nm, this.#wanted));
  }

  /**
   * Look at the selected site as one of the model's views does; null looks as before.
   * @param {Camera|null} camera
   */
  look(camera) {
    const chosen = this.#wanted && selectedOf(this.#wanted);
    if (!chosen || !this.#wanted || this.viewer.layer === null) return;
    this.viewer.turn(camera);
    this.viewer.fly(inVoxels(chosen.point_nm, this.#wanted));
  }

  /**
   * @param {"segments"|"markers"|"sides"} part
   * @param {unknown} value
   */
  #differs(part, value) {
    const text = JSON.stringify(value);
    if (this.#shown[part] === text) return false;
    this.#shown[part] = text;
    return true;
  }
}

/**
 * @file Every touch of Neuroglancer's client (2.41.2) is in this module. Its objects carry no
 * promise of staying as they are, so the Python package pins the version.
 *
 * Changes made here are drawn in one frame and undo nothing that the person did; the client itself
 * tells the server's copy of its state.
 */

/** @typedef {import("./types.js").Cursor} Cursor */
/** @typedef {{id: string, point: number[], properties: number[], description?: string}} Marker */

const SEGMENTS = "segments";
const MARKERS = "suggestions";
const SIDES = "cut sides";
const FLIGHT_MS = 250;
const REST_MS = 400;
const POINT_ANNOTATION = 0;

/**
 * The viewer in its iframe. Fires `attached` when a client is ready for changes, and again whenever
 * its layers have been built anew, which drops what was drawn; `window` when there is a new window;
 * `complete` at its first full frame; `rest` when the camera has come to rest elsewhere; `broken`
 * when the browser cannot run it.
 */
export class Viewer extends EventTarget {
  #turning;
  #before;
  #resting = 0;

  /** @param {HTMLIFrameElement} frame */
  constructor(frame) {
    super();
    this.frame = frame;
    /** @type {any} */
    this.client = null;
    /** @type {any} */
    this.layer = null;
    this.flight = 0;
    this.#turning = 0;
    /** @type {Record<string, number[]>|null} orientations before the first turn */
    this.#before = null;
    frame.addEventListener("load", () => this.#loaded());
  }

  /** The inner window, or null before anything is loaded. */
  get window() {
    return /** @type {any} */ (this.frame.contentWindow);
  }

  /** @param {string} path */
  open(path) {
    if (this.frame.getAttribute("src") !== path) this.frame.setAttribute("src", path);
  }

  /** Leave the viewer to another tab. */
  close() {
    if (!this.frame.getAttribute("src")) return;
    this.client = null;
    this.layer = null;
    this.#before = null;
    this.frame.removeAttribute("src");
    this.window?.location.replace("about:blank");
  }

  /**
   * The middle of the view; null before there is a viewer.
   * @param {number[]} resolutionNm
   */
  camera(resolutionNm) {
    if (this.layer === null) return null;
    const at = Array.from(this.client.position.value, (v, i) => Number(v) * resolutionNm[i]);
    return at.length === 3 && at.every(Number.isFinite) ? at : null;
  }

  /** Whether the segments are objects of a graph. */
  get isGraph() {
    return Boolean(this.layer?.displayState.segmentationGroupState.value.graph?.value);
  }

  /** Ask again for the surfaces of all segments: which part of them is drawn has changed. */
  redrawSurfaces() {
    for (const { source } of this.layer?.renderLayers ?? []) {
      // fragments that are still wanted are kept: only the lists of them are asked for
      if (source?.fragmentSource) source.invalidateCache();
    }
  }

  /** Whether every visible panel shows all of its data. */
  get isComplete() {
    return Boolean(this.client?.isReady());
  }

  /**
   * What the mouse points at, in a 2-D or 3-D panel; null outside.
   * @param {number[]} resolutionNm
   * @returns {Cursor|null}
   */
  cursor(resolutionNm) {
    const mouse = this.client?.mouseState;
    if (!mouse?.active) return null;
    const at_nm = Array.from(mouse.position, (v, i) => Number(v) * resolutionNm[i]);
    if (at_nm.length !== 3 || !at_nm.every(Number.isFinite)) return null;
    const value = this.client.layerSelectedValues.toJSON()[SEGMENTS]?.value;
    // a 64-bit id comes as text or BigInt, or as a pair when the client maps ids
    const id = String(value?.value ?? value?.key ?? value ?? "");
    return { at_nm, segment: /^\d+$/.test(id) ? id : null };
  }

  /**
   * Show segments in given colours, and no other of `ours`; what the person chose stays.
   * @param {Record<string, string|null>} colours by id, as #rrggbb; null is the client's own
   * @param {string[]} ours
   * @param {[string, string]|null} linked shown as one segment; in this client only
   */
  showSegments(colours, ours, linked) {
    const state = this.layer.displayState;
    const group = state.segmentationGroupState.value;
    const stated = state.segmentationColorGroupState.value.segmentStatedColors;
    // in a graph they say which supervoxels are the segment's, and are the client's own to keep
    const equivalences = group.graph?.value ? null : group.segmentEquivalences;
    if (equivalences?.size) equivalences.clear();
    for (const id of ours.filter((o) => !(o in colours)).map(BigInt)) {
      group.visibleSegments.delete(id);
      group.selectedSegments.delete(id);
      stated.delete(id);
    }
    for (const [text, colour] of Object.entries(colours)) {
      const id = BigInt(text);
      if (colour === null) {
        stated.delete(id);
      } else if (stated.get(id) !== packed(colour)) {
        stated.delete(id);
        stated.set(id, packed(colour));
      }
      if (!group.selectedSegments.has(id)) group.selectedSegments.add(id);
      if (!group.visibleSegments.has(id)) group.visibleSegments.add(id);
    }
    if (linked) equivalences?.link(BigInt(linked[0]), BigInt(linked[1]));
  }

  /**
   * Replace the suggestions' markers.
   * @param {Marker[]} markers in voxels
   */
  showMarkers(markers) {
    this.#replace(MARKERS, markers);
  }

  /**
   * Replace the points on the two sides of a cut.
   * @param {Marker[]} points in voxels
   */
  showSides(points) {
    this.#replace(SIDES, points);
  }

  /**
   * Move the camera, slowly enough for the eye to follow.
   * @param {number[]} target in voxels
   */
  fly(target) {
    const position = this.client.position;
    const from = Float32Array.from(position.value);
    const flight = ++this.flight;
    this.#ease(
      () => flight === this.flight,
      (share) => (position.value = from.map((v, i) => v + (target[i] - v) * share)),
    );
  }

  /**
   * Turn one panel to an orientation; null turns both back to how the person had them.
   * @param {{panel: "3d"|"section", orientation: number[]}|null} camera
   */
  turn(camera) {
    if (this.client === null) return;
    this.#before ??= { "3d": this.#orientation("3d"), section: this.#orientation("section") };
    const before = this.#before;
    const goals = { ...before, ...(camera && { [camera.panel]: camera.orientation }) };
    if (camera === null) this.#before = null;
    const turning = ++this.#turning;
    for (const panel of /** @type {const} */ (["3d", "section"])) {
      const from = this.#orientation(panel);
      this.#ease(
        () => turning === this.#turning,
        (share) => this.#setOrientation(panel, between(from, goals[panel], share)),
      );
    }
  }

  /**
   * Orientation of a panel as a quaternion x, y, z, w.
   * @param {"3d"|"section"} panel
   * @returns {number[]}
   */
  #orientation(panel) {
    return Array.from(this.#pose(panel).orientation.orientation, Number);
  }

  /**
   * @param {"3d"|"section"} panel
   * @param {number[]} quaternion
   */
  #setOrientation(panel, quaternion) {
    const state = this.#pose(panel).orientation;
    state.orientation.set(quaternion);
    state.changed.dispatch();
  }

  /** @param {"3d"|"section"} panel */
  #pose(panel) {
    const { navigationState, perspectiveNavigationState } = this.client;
    return (panel === "3d" ? perspectiveNavigationState : navigationState).pose;
  }

  /**
   * Go from 0 to 1, slowly at both ends; at once for who wants no motion.
   * @param {() => boolean} goesOn
   * @param {(share: number) => void} apply
   */
  #ease(goesOn, apply) {
    const started = performance.now();
    const isCalm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    const step = () => {
      if (!goesOn() || this.client === null) return;
      const t = isCalm ? 1 : Math.min(1, (performance.now() - started) / FLIGHT_MS);
      apply(t * t * (3 - 2 * t));
      if (t < 1) requestAnimationFrame(step);
    };
    step();
  }

  /**
   * Switch a layer on or off.
   * @param {string} name
   * @returns {boolean|null} whether it is on now; null when there is no such layer yet
   */
  switchLayer(name) {
    const layer = this.client?.layerManager.getLayerByName(name);
    if (!layer) return null;
    layer.setVisible(!layer.visible);
    return layer.visible;
  }

  /**
   * @param {string} name
   * @param {Marker[]} markers
   */
  #replace(name, markers) {
    const source = this.client.layerManager.getLayerByName(name).layer.localAnnotations;
    source.clear();
    for (const { id, point, properties, description } of markers) {
      const annotation = {
        type: POINT_ANNOTATION,
        id,
        point: Float32Array.from(point),
        properties,
        relatedSegments: [[]],
        description,
      };
      source.add(annotation, true).dispose();
    }
  }

  #loaded() {
    this.client = null;
    this.layer = null;
    this.#before = null;
    if (!this.frame.getAttribute("src")) return;
    this.dispatchEvent(new Event("window"));
    this.#await(this.window);
  }

  /** @param {any} window */
  #await(window) {
    if (window !== this.window || window.closed) return;
    const client = window.viewer;
    if (!client && window.document.body?.textContent.includes("WebGL not supported")) {
      this.dispatchEvent(new Event("broken"));
      return;
    }
    if (!client?.layerManager.getLayerByName(SIDES)?.layer) {
      setTimeout(() => this.#await(window), 30);
      return;
    }
    this.client = client;
    client.layerManager.layersChanged.add(() => this.#look());
    client.position.changed.add(() => this.#awaitRest());
    const forget = client.display.updateFinished.add(() => {
      if (!client.isReady()) return;
      forget();
      this.dispatchEvent(new Event("complete"));
    });
    this.#look();
  }

  #awaitRest() {
    clearTimeout(this.#resting);
    this.#resting = setTimeout(() => this.dispatchEvent(new Event("rest")), REST_MS);
  }

  /** A state pushed by the server (after its restart) builds all layers anew. */
  #look() {
    const find = (/** @type {string} */ name) => this.client?.layerManager.getLayerByName(name);
    const layer = find(SEGMENTS)?.layer;
    if (!layer || layer === this.layer || !find(MARKERS)?.layer || !find(SIDES)?.layer) return;
    this.layer = layer;
    this.dispatchEvent(new Event("attached"));
    this.#awaitRest();
  }
}

/** @param {string} colour */
function packed(colour) {
  const rgb = parseInt(colour.slice(1), 16);
  return BigInt(((rgb & 0xff) << 16) | (rgb & 0xff00) | (rgb >> 16));
}

/**
 * The rotation between two, the short way round.
 * @param {number[]} from
 * @param {number[]} to
 * @param {number} share
 */
function between(from, to, share) {
  // both ends are exact
  if (share === 0) return from;
  if (share === 1) return to;
  const side = Math.sign(from.reduce((sum, v, i) => sum + v * to[i], 0)) || 1;
  const mixed = from.map((v, i) => v + (side * to[i] - v) * share);
  const length = Math.hypot(...mixed);
  return length > 1e-6 ? mixed.map((v) => v / length) : to;
}

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
const POINT_ANNOTATION = 0;

/**
 * The viewer in its iframe. Fires `attached` when a client is ready for changes, and again whenever
 * its layers have been built anew, which drops what was drawn; `window` when there is a new window;
 * `complete` at its first full frame; `broken` when the browser cannot run it.
 */
export class Viewer extends EventTarget {
  /** @param {HTMLIFrameElement} frame */
  constructor(frame) {
    super();
    this.frame = frame;
    /** @type {any} */
    this.client = null;
    /** @type {any} */
    this.layer = null;
    this.flight = 0;
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
   * @param {Record<string, string>} colours by id, as #rrggbb
   * @param {string[]} ours
   * @param {[string, string]|null} linked shown as one segment; in this client only
   */
  showSegments(colours, ours, linked) {
    const state = this.layer.displayState;
    const group = state.segmentationGroupState.value;
    const stated = state.segmentationColorGroupState.value.segmentStatedColors;
    const equivalences = group.segmentEquivalences;
    if (equivalences.size) equivalences.clear();
    for (const id of ours.filter((o) => !(o in colours)).map(BigInt)) {
      group.visibleSegments.delete(id);
      group.selectedSegments.delete(id);
      stated.delete(id);
    }
    for (const [text, colour] of Object.entries(colours)) {
      const id = BigInt(text);
      if (stated.get(id) !== packed(colour)) {
        stated.delete(id);
        stated.set(id, packed(colour));
      }
      if (!group.selectedSegments.has(id)) group.selectedSegments.add(id);
      if (!group.visibleSegments.has(id)) group.visibleSegments.add(id);
    }
    if (linked) equivalences.link(BigInt(linked[0]), BigInt(linked[1]));
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
    const started = performance.now();
    const flight = ++this.flight;
    const isCalm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    const step = () => {
      if (flight !== this.flight || this.client === null) return;
      const t = isCalm ? 1 : Math.min(1, (performance.now() - started) / FLIGHT_MS);
      const eased = t * t * (3 - 2 * t);
      position.value = from.map((v, i) => v + (target[i] - v) * eased);
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
    const forget = client.display.updateFinished.add(() => {
      if (!client.isReady()) return;
      forget();
      this.dispatchEvent(new Event("complete"));
    });
    this.#look();
  }

  /** A state pushed by the server (after its restart) builds all layers anew. */
  #look() {
    const find = (/** @type {string} */ name) => this.client?.layerManager.getLayerByName(name);
    const layer = find(SEGMENTS)?.layer;
    if (!layer || layer === this.layer || !find(MARKERS)?.layer || !find(SIDES)?.layer) return;
    this.layer = layer;
    this.dispatchEvent(new Event("attached"));
  }
}

/** @param {string} colour */
function packed(colour) {
  const rgb = parseInt(colour.slice(1), 16);
  return BigInt(((rgb & 0xff) << 16) | (rgb & 0xff00) | (rgb >> 16));
}

/**
 * @file Shapes that the server sends; nothing runs here. Ids are decimal text: a segment id has 64
 * bits, and a number of the browser only 53.
 *
 * @typedef {{percentile: number, flag: boolean}} Ood
 * @typedef {{id: string, kind: "join"|"cut", segment: string, partner: string|null,
 *   point_nm: number[], score: number, confidence: number, interval: number[], ood: Ood,
 *   reason: string, evidence: {views: {name: string, score: number}[]},
 *   prior: number|null, joint: string|null, score_hidden?: boolean}} Suggestion
 *   with score_hidden, score, confidence and interval are null until the answer
 * @typedef {{name: string, words: string, panel: "3d"|"section", orientation: number[]}} Camera
 * @typedef {{folder: string, name: string, sha256: string, calibrator: string, verdict: string,
 *   in_use: boolean}} ModelInUse
 * @typedef {{joint: string|null, members: string[], none_of_these: number}} JointSet
 * @typedef {{value: number, source: string, n: number}} BaseRate
 * @typedef {{dataset: string, version: string, segment: string, at_nm: number[],
 *   model: {name: string, sha256: string, uncalibrated: string|null}, calibrator: string,
 *   base_rate: BaseRate & {by_kind: Record<string, BaseRate>},
 *   timing_ms: Record<string, number>, suggestions: Suggestion[], note: string,
 *   none_of_these: number|null, joint_sets: JointSet[]}} SuggestionList
 * @typedef {"accept"|"reject"|"unsure"|"skip"|"none"|"flag"} Verdict
 * @typedef {{text: string, level: "info"|"good"|"warn"|"error", number: number}} Status
 * @typedef {{suggestion: string, verdict_key?: string}} ReasonFor
 * @typedef {{words: string, open: number, site: string|null, explore: boolean,
 *   filling: [number, number]|null}} QueueMark
 * @typedef {{edit: string, number: number, kind: string, state: string, words: string, note: string,
 *   point_nm: number[], suggestion: string, operation: string|null, previewed: boolean, computing: boolean,
 *   due_in_ms?: number|null}} EditRow
 * @typedef {{mode: "stage"|"live", waiting: EditRow[], ended: EditRow[],
 *   sides: number[][][]|null}} EditList
 * @typedef {{revision: number, list: SuggestionList|null, list_number: number, beside: string[],
 *   verdicts: Record<string, Verdict>, implied: Record<string, string>,
 *   selected: string|null, preview: boolean, busy_with: string|null, status: Status,
 *   reasons: Record<string, string>, flags: Record<string, string>, reason_for: ReasonFor|null,
 *   can_undo: boolean, can_redo: boolean, newest_event: number, queue: QueueMark|null, sides: number[][][]|null,
 *   views_sha256: string|null, edits: EditList|null,
 *   colours: {segment: string, partner: string, preview: string},
 *   dataset: {name: string, version: string, species: string, licence: string, citation: string},
 *   resolution_nm: number[], user: string}} Snapshot
 * @typedef {Snapshot & {pending: Set<string>}} View  a snapshot with what is not yet answered
 * @typedef {{key: string, code: string, ctrl: boolean, shift: boolean|null, label: string}} Chord
 * @typedef {{action: string, chords: Chord[], words: string, repeats: boolean,
 *   argument: string}} KeyBinding
 * @typedef {{type: string, id?: string, at?: number, suggestion?: string|null, verdict?: Verdict,
 *   shown?: boolean} & Record<string, unknown>} Request  what the page asks the server for
 * @typedef {{type: "ack", id: string|null, ok: boolean, text: string|null, error: string|null,
 *   data: Record<string, any>}} Ack
 * @typedef {{segment: string|null, at_nm: number[]}} Cursor
 * @typedef {{action: string, keydown: number, handlerMs: number, acknowledged: number,
 *   painted: number|null}} KeyTiming  times of performance.now(), in ms
 */
export {};

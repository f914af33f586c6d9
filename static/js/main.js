/** @file Starts the page. `window.cb2` lets tests and benchmarks look in. */

import "./elements/connection.js";
import "./elements/edits.js";
import "./elements/go.js";
import "./elements/header.js";
import "./elements/help.js";
import "./elements/hold.js";
import "./elements/models.js";
import "./elements/note.js";
import "./elements/queue.js";
import "./elements/status.js";
import "./elements/suggestions.js";
import "./elements/views.js";
import { Page } from "./page.js";
import { takeKey } from "./page_key.js";

takeKey();
const page = new Page(document);
/** @type {any} */ (window).cb2 = { page, timings: page.timings };

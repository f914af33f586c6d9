/** @file Says that the server does not answer, and what becomes of verdicts meanwhile. */

/** `<cb2-connection>` */
export class Connection extends HTMLElement {
  connectedCallback() {
    this.setAttribute("role", "alert");
    this.hidden = true;
  }

  /**
   * @param {boolean} isUp
   * @param {number} waiting verdicts that the server has not answered
   */
  update(isUp, waiting) {
    this.hidden = isUp;
    const kept = waiting
      ? `${waiting} verdict${waiting === 1 ? "" : "s"} kept here; keep this tab open.`
      : "Verdicts are kept here meanwhile.";
    const text = isUp
      ? ""
      : `No connection to cb2-assist. ${kept} If it was stopped, start it again; if this stays, ` +
        "open the address that it printed.";
    if (this.textContent !== text) this.textContent = text;
  }
}

customElements.define("cb2-connection", Connection);

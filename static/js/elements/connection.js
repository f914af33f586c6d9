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
   * @param {boolean} wasGreeted whether it has ever answered this page
   */
  update(isUp, waiting, wasGreeted) {
    this.hidden = isUp;
    const kept = waiting
      ? `${waiting} verdict${waiting === 1 ? "" : "s"} kept here; keep this tab open.`
      : "Verdicts are kept here meanwhile.";
    let text = "";
    if (!isUp && wasGreeted) {
      text =
        `No connection to cb2-assist. ${kept} If it was stopped, start it again; if this stays, ` +
        "open the address that it printed.";
    } else if (!isUp) {
      text =
        "cb2-assist does not let this page in, or was stopped. Open the address that it printed " +
        "when it started, which ends in ?token=…; through a forwarded port, with that port in " +
        "place of its own.";
    }
    if (this.textContent !== text) this.textContent = text;
  }
}

customElements.define("cb2-connection", Connection);

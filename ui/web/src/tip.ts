import type uPlot from "uplot";
import { short } from "./marks";
import type { Moment } from "./report";
import { clock, type Zone } from "./words";

// How many moments a tip tells of.
const most = 4;

/** Tip is the box that says what is under the pointer, or under the cursor that
 * keys move: then a screen reader says it too. */
export class Tip {
  private readonly box = document.createElement("div");

  constructor(private readonly into: HTMLElement) {
    this.box.className = "tip";
    this.box.setAttribute("role", "status");
    this.box.hidden = true;
    into.append(this.box);
  }

  hide() {
    this.box.hidden = true;
  }

  show(u: uPlot, left: number, when: string, values: string[], moments: Moment[], zone: Zone) {
    const line = (text: string, className = "") => {
      const p = document.createElement("p");
      p.textContent = text;
      p.className = className;
      return p;
    };
    const lines = [line(when, "when"), ...values.map((v) => line(v))];
    for (const m of moments.slice(0, most))
      lines.push(line(`${clock(m.time, zone, true)} ${short(m.text || m.kind, 120)}`));
    if (moments.length > most) lines.push(line(`and ${moments.length - most} more`));
    this.box.replaceChildren(...lines);
    this.box.hidden = !this.into.matches(":hover, :focus-within");
    // Beside the cursor, on the side that has more room.
    const at = u.over.offsetLeft + left;
    const right = left > u.over.clientWidth / 2;
    this.box.style.left = right ? "" : `${at + 12}px`;
    this.box.style.right = right ? `${this.into.clientWidth - at + 12}px` : "";
    this.box.style.top = "10px";
  }
}

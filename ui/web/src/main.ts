import "uplot/dist/uPlot.min.css";
import { Group } from "./group";
import type { Report } from "./report";

/** show draws the charts of a report into the page that was made of it. */
function show(report: Report) {
  const groups = new Map<HTMLElement, Group>();
  report.services?.forEach((service, i) => {
    const root = document.getElementById(`s${i}`);
    if (!(root instanceof HTMLDetailsElement)) return;
    // A chart has no size while its service is folded.
    const mount = () => {
      if (!root.open || groups.has(root)) return;
      const group = new Group(root, service, `s${i}`);
      groups.set(root, group);
      group.mount();
    };
    root.addEventListener("toggle", mount);
    mount();
  });
  const again = () => {
    for (const group of groups.values()) group.mount();
  };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
  // Paper is light.
  matchMedia("print").addEventListener("change", again);
}

// A link to a service unfolds it.
function unfold() {
  const details = document.getElementById(location.hash.slice(1))?.closest("details");
  if (details) details.open = true;
}

const data = document.getElementById("report")?.textContent;
if (data) {
  show(JSON.parse(data) as Report);
  addEventListener("hashchange", unfold);
  unfold();
}

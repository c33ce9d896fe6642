import type uPlot from "uplot";
import { draw, heightOf } from "./chart";
import { colours } from "./colours";
import { type Service, spanOf } from "./report";
import { touch } from "./touch";
import type { Zone } from "./words";

/** Group is the charts of one service: they share the axis of times, so that a
 * zoom of one is a zoom of all. */
export class Group {
  private readonly charts = new Map<HTMLElement, uPlot>();
  private readonly whole: [number, number];
  private range: [number, number];
  private readonly zone: Zone;
  private readonly sizes = new ResizeObserver(() => this.resize());

  constructor(
    private readonly root: HTMLElement,
    private readonly service: Service,
    private readonly key: string,
  ) {
    this.whole = spanOf(service);
    this.range = this.whole;
    this.zone = JSON.parse(root.dataset.zone ?? "[]") as Zone;
    const hint = root.querySelector<HTMLElement>(".hint");
    if (hint) hint.hidden = false;
    this.resetButton()?.addEventListener("click", () => this.zoom(...this.whole));
  }

  /** mount draws all charts, or draws them again: in other colours, say. */
  mount() {
    const palette = colours();
    for (const u of this.charts.values()) u.destroy();
    this.charts.clear();
    this.sizes.disconnect();
    for (const figure of this.root.querySelectorAll<HTMLElement>("figure.chart")) {
      const plot = figure.querySelector<HTMLElement>(".plot");
      const chart = this.service.charts[Number(figure.dataset.chart)];
      if (!plot || !chart) continue;
      plot.replaceChildren();
      const u = draw(plot, this.service, chart, this.zone, palette, {
        key: this.key,
        zoom: (from, to) => this.zoom(from, to),
        all: () => this.zoom(...this.whole),
      });
      const caption = figure.querySelector("figcaption")?.textContent ?? chart.title;
      u.over.tabIndex = 0;
      u.over.setAttribute("role", "img");
      u.over.setAttribute("aria-label", `chart: ${caption.replace(/\s+/g, " ").trim()}`);
      u.over.addEventListener("keydown", (e) => this.press(u, e));
      touch(u, (from, to) => this.move(from, to));
      this.sizes.observe(plot);
      this.charts.set(figure, u);
    }
    this.apply();
  }

  /** zoom shows the same time on all charts, within what was watched. */
  zoom(from: number, to: number) {
    const range: [number, number] = [Math.max(from, this.whole[0]), Math.min(to, this.whole[1])];
    // Each chart tells of the zoom that it was given; that is no new one.
    if (range[1] - range[0] < 1 || (range[0] === this.range[0] && range[1] === this.range[1])) return;
    this.range = range;
    this.apply();
  }

  /** move is a zoom that stops at the ends of what was watched, and keeps its
   * length there. */
  private move(from: number, to: number) {
    const by = from < this.whole[0] ? this.whole[0] - from : to > this.whole[1] ? this.whole[1] - to : 0;
    this.zoom(from + by, to + by);
  }

  private apply() {
    const [min, max] = this.range;
    for (const [figure, u] of this.charts) {
      u.setScale("x", { min, max });
      // What is shown, for whoever looks at the page from outside.
      figure.dataset.from = String(min);
      figure.dataset.to = String(max);
    }
    const reset = this.resetButton();
    if (reset) reset.hidden = min === this.whole[0] && max === this.whole[1];
  }

  private resize() {
    for (const [figure, u] of this.charts) {
      const plot = figure.querySelector<HTMLElement>(".plot");
      if (plot && plot.clientWidth > 0 && plot.clientWidth !== u.width)
        u.setSize({ width: plot.clientWidth, height: heightOf(plot) });
    }
  }

  private resetButton(): HTMLButtonElement | null {
    return this.root.querySelector<HTMLButtonElement>("button.reset");
  }

  // press moves and zooms by keys: what the mouse can do, they can.
  private press(u: uPlot, e: KeyboardEvent) {
    const [from, to] = this.range;
    const idx = u.cursor.idx ?? Math.floor(u.data[0].length / 2);
    const at = u.data[0][idx] ?? (from + to) / 2;
    const half = (to - from) / 2;
    const go = (step: number) => {
      const time = u.data[0][Math.max(0, Math.min(u.data[0].length - 1, idx + step))];
      if (time === undefined) return;
      if (time < from || time > to) {
        const by =
          time < from
            ? Math.max(time - half - from, this.whole[0] - from)
            : Math.min(time + half - to, this.whole[1] - to);
        this.zoom(from + by, to + by);
      }
      u.setCursor({ left: u.valToPos(time, "x"), top: u.over.clientHeight / 2 });
    };
    // A step is a hundredth of what is shown.
    const stride = Math.max(1, Math.round((u.data[0].length * half) / (this.whole[1] - this.whole[0]) / 50));
    switch (e.key) {
      case "ArrowLeft":
        go(-stride);
        break;
      case "ArrowRight":
        go(stride);
        break;
      case "+":
      case "=":
        this.zoom(at - half / 2, at + half / 2);
        break;
      case "-":
        this.zoom(at - half * 2, at + half * 2);
        break;
      case "Escape":
      case "0":
        this.zoom(...this.whole);
        break;
      default:
        return;
    }
    e.preventDefault();
  }
}

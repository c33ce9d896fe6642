import uPlot from "uplot";
import type { Colours } from "./colours";
import { drawHoles, drawLimit, drawMoments, near } from "./marks";
import { type Chart, columnsOf, momentsOf, type Service } from "./report";
import { Tip } from "./tip";
import { ahead, label, stamp, tick, type Zone } from "./words";

// How many times the highest value a limit may be to be drawn: one farther away
// would press the line to the ground.
const reach = 2;

/** What a chart asks of the charts beside it. */
export interface Neighbours {
  key: string; // of what they share
  zoom(from: number, to: number): void;
  all(): void;
}

/** draw makes a chart in an element of the page. */
export function draw(
  into: HTMLElement,
  service: Service,
  chart: Chart,
  zone: Zone,
  colours: Colours,
  beside: Neighbours,
): uPlot {
  const moments = momentsOf(service, chart);
  const columns = columnsOf(chart, moments);
  const steady = service.trends.some(
    (t) => t.metric === chart.metric && t.worker === chart.worker && t.verdict === "steady",
  );
  const tip = new Tip(into);
  const show = (u: uPlot) => {
    const { left, idx } = u.cursor;
    const time = idx == null ? undefined : u.data[0][idx];
    const value = idx == null ? null : u.data[1]?.[idx];
    if (left == null || left < 0 || time === undefined) return tip.hide();
    const lines = value == null ? [] : [label(value, chart.bytes)];
    tip.show(u, left, stamp(time, zone), lines, near(u, moments, left), zone);
  };
  const u = new uPlot(
    {
      width: into.clientWidth,
      height: heightOf(into),
      legend: { show: false },
      padding: [8, 20, 0, 0],
      scales: {
        x: { time: true },
        y: { range: (_, low, high) => rangeOf(chart, steady, low, high) },
      },
      series: [
        {},
        { stroke: colours.line, width: 1.5, fill: `${colours.line}14`, spanGaps: false, points: { show: false } },
      ],
      axes: [timeAxis(zone, colours), valueAxis(chart, colours)],
      cursor: {
        y: false,
        drag: { x: true, y: false, dist: 4 },
        // Where the pointer is shows on all charts; zooms are told by hand.
        sync: {
          key: beside.key,
          scales: ["x", null],
          filters: { pub: (type) => type === "mousemove" || type === "mouseleave" },
        },
        bind: {
          dblclick: () => () => {
            beside.all();
            return null;
          },
        },
      },
      hooks: {
        drawClear: [(u) => drawHoles(u, columns.holes, colours)],
        draw: [
          (u) => {
            if (chart.limit !== null)
              drawLimit(u, chart.limit, `${chart.limit_name} ${label(chart.limit, chart.bytes)}`, colours);
            drawMoments(u, moments, colours);
          },
        ],
        setCursor: [show],
        setScale: [
          (u, key) => {
            const { min, max } = u.scales.x ?? {};
            if (key === "x" && min != null && max != null) beside.zoom(min, max);
          },
        ],
      },
    },
    [columns.times, columns.values],
    into,
  );
  u.over.addEventListener("blur", () => tip.hide());
  return u;
}

/** heightOf is less where the page is narrow. */
export function heightOf(into: HTMLElement): number {
  return into.clientWidth < 500 ? 170 : 210;
}

// rangeOf chooses the scale of values: from zero, or from near the lowest value
// where a line that is not known to be steady would look so; to the limit,
// where that is within reach.
function rangeOf(chart: Chart, steady: boolean, low: number | null, high: number | null): [number, number] {
  if (low === null || high === null) return [0, 1];
  let top = high;
  if (chart.limit !== null && chart.limit > 0 && chart.limit <= reach * high) top = Math.max(top, chart.limit);
  const bottom = low >= 0 && (steady || low < top / 2) ? 0 : low;
  if (bottom === top) return [Math.min(0, bottom), Math.max(top * 1.2, 1)];
  const room = (top - bottom) * 0.06;
  return [bottom === 0 ? 0 : bottom - room, top + room];
}

const font = "12px system-ui, sans-serif";

function timeAxis(zone: Zone, colours: Colours): uPlot.Axis {
  return {
    ...lines(colours),
    space: 70,
    size: 28,
    splits: (u, _, from, to, apart) => timesOf(from, to, zone, Math.max(apart, 1), u.width),
    values: (_, splits) => splits.map((s) => tick(s, zone, (splits[1] ?? s) - (splits[0] ?? s))),
  };
}

const strides = [
  1, 5, 15, 30, 60, 120, 300, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800, 1209600, 2419200,
];

// timesOf gives round moments of the zone's clock, which may be turned between
// two of them.
function timesOf(from: number, to: number, zone: Zone, apart: number, width: number): number[] {
  const most = Math.max(2, Math.floor(width / 90));
  const stride = strides.find((s) => s >= apart && (to - from) / s <= most) ?? (to - from) / most;
  const out: number[] = [];
  for (let clock = Math.ceil((from + ahead(from, zone)) / stride) * stride; ; clock += stride) {
    const near = clock - ahead(clock, zone);
    const t = clock - ahead(near, zone);
    if (!(t <= to)) return out; // also where one of them is no number
    if (t >= from && t > (out.at(-1) ?? Number.NEGATIVE_INFINITY)) out.push(t);
  }
}

function valueAxis(chart: Chart, colours: Colours): uPlot.Axis {
  return {
    ...lines(colours),
    size: 66,
    space: 36,
    incrs: steps(chart),
    values: (_, splits) => splits.map((v) => label(v, chart.bytes)),
  };
}

// steps are 1, 2, 5, 10, ...: never less than one of what is counted, and parts
// of one where the values have them.
function steps(chart: Chart): number[] {
  const least = !chart.bytes && chart.points.some(([, v]) => !Number.isInteger(v)) ? -6 : 0;
  const out: number[] = [];
  for (let e = least; e < 18; e++) {
    for (const m of ["1", "2", "5"]) out.push(Number(`${m}e${e}`));
  }
  return out;
}

function lines(colours: Colours): uPlot.Axis {
  return {
    font,
    stroke: colours.faint,
    grid: { stroke: colours.grid, width: 1 },
    ticks: { stroke: colours.grid, width: 1, size: 5 },
  };
}

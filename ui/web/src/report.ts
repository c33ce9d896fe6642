// The part of a report (schema stanch.report/v1) that charts are drawn from.
// All of it comes as one object: from the page now, from a server where a page
// is live. Nothing here asks where it came from.

export interface Report {
  services?: Service[];
}

export interface Service {
  name: string;
  workers: { worker: string; pid: number }[];
  from: string; // RFC 3339
  to: string;
  trends: Trend[];
  charts: Chart[];
  marks: Mark[];
}

export interface Trend {
  metric: string;
  worker: string;
  verdict: string;
}

export interface Chart {
  metric: string;
  title: string;
  worker: string;
  bytes: boolean;
  limit: number | null;
  limit_name: string;
  points: [number, number][]; // Unix seconds, value
}

export interface Mark {
  at: string;
  kind: string;
  metric: string;
  worker: string;
  size: number;
  text: string;
}

/** A mark with its time as a number, Unix seconds. */
export interface Moment extends Mark {
  time: number;
}

/** concerns tells whether a mark belongs to a chart: a step to that of its
 * metric and worker, a restart to those of its worker, all others to each. */
export function concerns(mark: Mark, chart: Chart): boolean {
  switch (mark.kind) {
    case "step":
      return mark.metric === chart.metric && mark.worker === chart.worker;
    case "restart":
      return mark.worker === chart.worker || mark.worker === "" || chart.worker === "";
  }
  return true;
}

/** breaks tells whether a line may not be drawn over a mark. */
export function breaks(mark: Mark): boolean {
  return mark.kind === "gap" || mark.kind === "sleep" || mark.kind === "restart";
}

/** momentsOf gives the marks that a chart shows, in order of time. Log lines are
 * shown where the steps are that follow them; where nothing steps, on each chart. */
export function momentsOf(service: Service, chart: Chart): Moment[] {
  const steps = service.marks.filter((m) => m.kind === "step");
  const logs = steps.length === 0 || steps.some((m) => concerns(m, chart));
  return service.marks
    .filter((m) => concerns(m, chart) && (m.kind !== "log" || logs))
    .map((m) => ({ ...m, time: Date.parse(m.at) / 1000 }))
    .filter((m) => Number.isFinite(m.time))
    .sort((a, b) => a.time - b.time);
}

/** spanOf gives the time that all charts of a service share. */
export function spanOf(service: Service): [number, number] {
  let from = Date.parse(service.from) / 1000;
  let to = Date.parse(service.to) / 1000;
  for (const chart of service.charts) {
    const first = chart.points[0];
    const last = chart.points[chart.points.length - 1];
    if (first && last) {
      from = Math.min(from, first[0]);
      to = Math.max(to, last[0]);
    }
  }
  return to > from ? [from, to] : [to - 1, to];
}

/** The data of a chart as uPlot takes them. Null is where the line is broken. */
export interface Columns {
  times: number[];
  values: (number | null)[];
  holes: [number, number][]; // times in which nothing is known
}

/** columnsOf divides the points of a chart where nobody was watching, where the
 * host slept and where the process was another one. Where a point was taken in
 * the very moment of a break, the longer of the times beside it is broken. */
export function columnsOf(chart: Chart, moments: Moment[]): Columns {
  const points = chart.points;
  const cuts = new Set<number>();
  for (const m of moments) {
    if (!breaks(m)) continue;
    let i = lowerBound(points, m.time);
    const [before, here, after] = [points[i - 1], points[i], points[i + 1]];
    if (before && here && after && here[0] === m.time && after[0] - here[0] > here[0] - before[0]) i++;
    cuts.add(i);
  }
  const out: Columns = { times: [], values: [], holes: [] };
  points.forEach(([time, value], i) => {
    const before = points[i - 1];
    if (before && cuts.has(i)) {
      out.times.push((before[0] + time) / 2);
      out.values.push(null);
      out.holes.push([before[0], time]);
    }
    out.times.push(time);
    out.values.push(value);
  });
  return out;
}

/** lowerBound is the index of the first point that is not before a time. */
export function lowerBound(points: [number, number][], time: number): number {
  let low = 0;
  let high = points.length;
  while (low < high) {
    const mid = (low + high) >> 1;
    if ((points[mid]?.[0] ?? Number.POSITIVE_INFINITY) < time) low = mid + 1;
    else high = mid;
  }
  return low;
}

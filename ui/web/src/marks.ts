import type uPlot from "uplot";
import type { Colours } from "./colours";
import type { Moment } from "./report";

// Restarts closer than this many pixels are ticks at the top: lines would hide
// the chart.
const crowded = 14;

/** drawHoles shades the times in which nothing is known. */
export function drawHoles(u: uPlot, holes: [number, number][], colours: Colours) {
  const { ctx, bbox } = u;
  ctx.save();
  clip(u);
  ctx.fillStyle = colours.grid;
  for (const [from, to] of holes) {
    const x = u.valToPos(from, "x", true);
    const width = u.valToPos(to, "x", true) - x;
    if (width > 4 * devicePixelRatio) ctx.fillRect(x, bbox.top, width, bbox.height);
  }
  ctx.restore();
}

/** drawLimit draws a limit that lies on the chart, with its name. */
export function drawLimit(u: uPlot, limit: number, name: string, colours: Colours) {
  const { ctx, bbox } = u;
  const top = u.scales.y?.max ?? 0;
  if (limit <= 0 || limit > top) return;
  const dpr = devicePixelRatio;
  const y = Math.round(u.valToPos(limit, "y", true));
  ctx.save();
  ctx.strokeStyle = ctx.fillStyle = colours.limit;
  ctx.lineWidth = 1.5 * dpr;
  ctx.setLineDash([6 * dpr, 4 * dpr]);
  ctx.beginPath();
  ctx.moveTo(bbox.left, y);
  ctx.lineTo(bbox.left + bbox.width, y);
  ctx.stroke();
  ctx.font = `${12 * dpr}px system-ui, sans-serif`;
  ctx.textAlign = "left";
  // Above the line where there is room, else below.
  const above = y - bbox.top > 16 * dpr;
  ctx.textBaseline = above ? "bottom" : "top";
  ctx.fillText(short(name, 40), bbox.left + 6 * dpr, y + (above ? -3 : 3) * dpr);
  ctx.restore();
}

/** drawMoments draws steps and log lines at the foot of the chart, all other
 * moments as lines through it. */
export function drawMoments(u: uPlot, moments: Moment[], colours: Colours) {
  const { ctx, bbox } = u;
  const dpr = devicePixelRatio;
  const foot = bbox.top + bbox.height;
  const lines = moments.filter((m) => m.kind === "restart" && inside(u, m));
  const dense = lines.length > bbox.width / dpr / crowded;
  ctx.save();
  clip(u);
  for (const m of moments) {
    if (!inside(u, m)) continue;
    const x = Math.round(u.valToPos(m.time, "x", true));
    switch (m.kind) {
      case "step":
        ctx.fillStyle = colours.step;
        ctx.beginPath();
        ctx.moveTo(x, foot - 9 * dpr);
        ctx.lineTo(x + 4.5 * dpr, foot - dpr);
        ctx.lineTo(x - 4.5 * dpr, foot - dpr);
        ctx.fill();
        break;
      case "log":
        ctx.fillStyle = colours.log;
        ctx.beginPath();
        ctx.arc(x, foot - 15 * dpr, 3 * dpr, 0, 2 * Math.PI);
        ctx.fill();
        break;
      case "restart":
      case "clock":
      case "oom kill":
        ctx.strokeStyle = m.kind === "oom kill" ? colours.limit : m.kind === "clock" ? colours.faint : colours.event;
        ctx.lineWidth = dpr;
        ctx.setLineDash(dense ? [] : [2 * dpr, 3 * dpr]);
        ctx.beginPath();
        ctx.moveTo(x + 0.5, bbox.top);
        ctx.lineTo(x + 0.5, dense && m.kind === "restart" ? bbox.top + 8 * dpr : foot);
        ctx.stroke();
        break;
    }
  }
  ctx.restore();
}

/** near gives the moments within some pixels of a place, the nearest first. */
export function near(u: uPlot, moments: Moment[], left: number): Moment[] {
  const reach = 6;
  const away = (m: Moment) => Math.abs(u.valToPos(m.time, "x") - left);
  return moments.filter((m) => inside(u, m) && away(m) <= reach).sort((a, b) => away(a) - away(b));
}

/** short cuts a text to so many letters. */
export function short(s: string, n: number): string {
  const letters = [...s];
  return letters.length <= n ? s : `${letters.slice(0, n - 3).join("")}...`;
}

function inside(u: uPlot, m: Moment): boolean {
  const x = u.scales.x;
  return x?.min != null && x.max != null && m.time >= x.min && m.time <= x.max;
}

function clip(u: uPlot) {
  const { ctx, bbox } = u;
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  ctx.clip();
}

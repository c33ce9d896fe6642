import type uPlot from "uplot";

/** touch lets fingers do what the mouse does: two of them zoom, one moves what is
 * shown. Up and down stays with the page. */
export function touch(u: uPlot, zoom: (from: number, to: number) => void) {
  const over = u.over;
  // What lies under each finger stays under it: the times at which they began.
  let held: number[] = [];
  const places = (e: TouchEvent) =>
    [...e.touches]
      .slice(0, 2)
      .map((t) => t.clientX - over.getBoundingClientRect().left)
      .sort((a, b) => a - b);
  const hold = (e: TouchEvent) => {
    held = places(e).map((x) => u.posToVal(x, "x"));
  };
  over.style.touchAction = "pan-y";
  over.addEventListener("touchstart", hold, { passive: true });
  over.addEventListener("touchend", hold, { passive: true });
  over.addEventListener("touchcancel", hold, { passive: true });
  over.addEventListener(
    "touchmove",
    (e) => {
      const at = places(e);
      const scale = u.scales["x"];
      const [x0, x1] = at;
      const [t0, t1] = held;
      if (x0 === undefined || t0 === undefined || scale?.min == null || scale.max == null) return;
      let perPixel = (scale.max - scale.min) / over.clientWidth;
      if (x1 !== undefined && t1 !== undefined && x1 - x0 > 10) perPixel = (t1 - t0) / (x1 - x0);
      if (perPixel <= 0) return;
      const from = t0 - x0 * perPixel;
      zoom(from, from + over.clientWidth * perPixel);
    },
    { passive: true },
  );
}

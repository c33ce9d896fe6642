// A canvas does not see the style sheet: its colours are read from there.

export interface Colours {
  text: string;
  faint: string;
  card: string;
  line: string;
  limit: string;
  step: string;
  log: string;
  event: string;
  grid: string;
}

const names = ["text", "faint", "card", "line", "limit", "step", "log", "event", "grid"] as const;

/** colours are those that hold now, in the light or in the dark. */
export function colours(): Colours {
  const style = getComputedStyle(document.documentElement);
  return Object.fromEntries(names.map((n) => [n, style.getPropertyValue(`--${n}`).trim()])) as unknown as Colours;
}

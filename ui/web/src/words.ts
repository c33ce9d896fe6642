// Numbers and times in words, as the rest of the report writes them.

const units = ["KB", "MB", "GB", "TB", "PB", "EB"];

/** bytes writes a size in decimal units with up to three digits: 85.8 MB. */
export function bytes(n: number): string {
  if (Math.round(Math.abs(n)) < 1000) {
    const whole = Math.round(n);
    return whole === 1 ? "1 byte" : `${whole} bytes`;
  }
  let value = n / 1000;
  let unit = 0;
  while (unit < units.length - 1 && Math.abs(value) >= 999.5) {
    value /= 1000;
    unit++;
  }
  const digits = Math.abs(value) >= 99.95 || Math.round(value * 10) === Math.round(value) * 10 ? 0 : 1;
  return `${value.toFixed(digits)} ${units[unit]}`;
}

/** label writes a value of a chart: "1.2 GB", "1,024", "0.03". */
export function label(v: number, isBytes: boolean): string {
  if (v === 0) return "0";
  if (isBytes) return bytes(v);
  if (Math.abs(v) < 100 && !Number.isInteger(v)) return String(Number(v.toPrecision(3)));
  return Math.round(v).toLocaleString("en-US");
}

const months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/** Zone is how many seconds the clock is ahead of UTC where the report was made:
 * from each of these times on, the first of which stands for all before too. */
export type Zone = [from: number, ahead: number][];

/** ahead is what a zone's clock is ahead of UTC at a time. */
export function ahead(time: number, zone: Zone): number {
  let seconds = zone[0]?.[1] ?? 0;
  for (const [from, since] of zone) if (from <= time) seconds = since;
  return seconds;
}

const two = (n: number) => String(n).padStart(2, "0");

// What the clock of a zone shows is read from a date by its UTC fields.
const shifted = (time: number, zone: Zone) => new Date((time + ahead(time, zone)) * 1000);

/** day writes "21 Nov". */
export function day(time: number, zone: Zone): string {
  const d = shifted(time, zone);
  return `${d.getUTCDate()} ${months[d.getUTCMonth()]}`;
}

/** clock writes "03:12", and seconds where they matter. */
export function clock(time: number, zone: Zone, seconds: boolean): string {
  const d = shifted(time, zone);
  const text = `${two(d.getUTCHours())}:${two(d.getUTCMinutes())}`;
  return seconds ? `${text}:${two(d.getUTCSeconds())}` : text;
}

/** stamp writes "21 Nov 03:12:40". */
export function stamp(time: number, zone: Zone): string {
  return `${day(time, zone)} ${clock(time, zone, true)}`;
}

/** tick writes a time of an axis whose times stand so many seconds apart. */
export function tick(time: number, zone: Zone, apart: number): string {
  const midnight = (time + ahead(time, zone)) % 86400 === 0;
  return apart >= 86400 || midnight ? day(time, zone) : clock(time, zone, apart < 60);
}

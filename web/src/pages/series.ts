// The arithmetic of curves: thinning, smoothing, bounds, ticks. Pure.

export type Point = readonly [step: number, value: number];

/** At most `limit` points: of each bucket the lowest and the highest, in order, so spikes stay. */
export function thinned(points: readonly Point[], limit: number): Point[] {
  const finite = points.filter(([, value]) => Number.isFinite(value));
  if (finite.length <= limit) return finite;
  const size = finite.length / Math.floor(limit / 2);
  const kept: Point[] = [];
  for (let start = 0; start < finite.length; start += size) {
    const bucket = finite.slice(Math.floor(start), Math.max(Math.floor(start) + 1, Math.floor(start + size)));
    const low = bucket.reduce((a, b) => (b[1] < a[1] ? b : a));
    const high = bucket.reduce((a, b) => (b[1] > a[1] ? b : a));
    kept.push(...(low[0] < high[0] ? [low, high] : low === high ? [low] : [high, low]));
  }
  return kept;
}

/** Exponential moving average, unbiased at its start. */
export function smoothed(points: readonly Point[], weight: number): readonly Point[] {
  if (weight <= 0) return points;
  let sum = 0;
  let mass = 0;
  return points.map(([step, value]) => {
    sum = weight * sum + value;
    mass = weight * mass + 1;
    return [step, sum / mass] as const;
  });
}

export interface Bounds {
  x0: number;
  x1: number;
  y0: number;
  y1: number;
}

/** Around all points but the highest outliers of a start, with a little air. */
export function bounds(lines: readonly (readonly Point[])[]): Bounds {
  const all = lines.flat();
  if (all.length === 0) return { x0: 0, x1: 1, y0: 0, y1: 1 };
  const values = all.map(([, value]) => value).sort((a, b) => a - b);
  const low = values[0]!;
  const high = values[Math.min(values.length - 1, Math.floor(values.length * 0.995))]!;
  const air = (high - low) * 0.06 || Math.abs(high) * 0.1 || 1;
  const steps = all.map(([step]) => step);
  const x0 = steps.reduce((a, b) => Math.min(a, b));
  const x1 = steps.reduce((a, b) => Math.max(a, b));
  return { x0, x1: x1 > x0 ? x1 : x0 + 1, y0: low - air, y1: high + air };
}

/** Round numbers between two bounds. */
export function ticks(from: number, to: number, count: number): number[] {
  const rough = (to - from) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5, 10].find((factor) => factor * power >= rough) ?? 10);
  const found: number[] = [];
  for (let value = Math.ceil(from / step) * step; value <= to + step * 1e-9; value += step) found.push(Number(value.toPrecision(12)));
  return found;
}

/** The point whose step is closest; points are in order of step. */
export function nearest(points: readonly Point[], step: number): Point | undefined {
  let low = 0;
  let high = points.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (points[middle]![0] < step) low = middle;
    else high = middle;
  }
  const [a, b] = [points[low], points[high]];
  return a && b && step - a[0] > b[0] - step ? b : a;
}

/** New points behind those already there; a step that comes again replaces itself. */
export function merged(old: Record<string, Point[]>, fresh: Record<string, readonly Point[]>): Record<string, Point[]> {
  const all = { ...old };
  for (const [name, points] of Object.entries(fresh)) {
    const before = all[name] ?? [];
    const first = points[0]?.[0];
    const kept = first === undefined ? before : before.filter(([step]) => step < first);
    all[name] = [...kept, ...points];
  }
  return all;
}

// A small line chart of our own: a few thousand points, two runs, one reading under the pointer.
import type { VNode } from "preact";
import { useMemo, useState } from "preact/hooks";
import { number, short } from "../core/format.ts";
import { t } from "../i18n/index.ts";
import { bounds, nearest, smoothed, thinned, ticks, type Point } from "./series.ts";

const WIDTH = 420;
const HEIGHT = 190;
const LEFT = 46;
const RIGHT = 18; // half of the last step's number
const BOTTOM = 22;
const TOP = 8;
const MAX_POINTS = 500;
const FEW_POINTS = 30; // so few are no noise, and a smoothed line would only lag behind them

interface ChartProps {
  title: string;
  lines: { name: string; points: readonly Point[] }[];
  smoothing: number;
}

export function Chart({ title, lines, smoothing: wanted }: ChartProps): VNode {
  const smoothing = lines.some((line) => line.points.length > FEW_POINTS) ? wanted : 0;
  const [at, setAt] = useState<number | null>(null);
  const shown = useMemo(
    () => lines.map((line) => ({ ...line, raw: thinned(line.points, MAX_POINTS), points: thinned(smoothed(line.points, smoothing), MAX_POINTS) })),
    [lines, smoothing],
  );
  const box = bounds(shown.map((line) => (smoothing > 0 ? line.points : line.raw)));
  const x = (step: number): number => LEFT + ((step - box.x0) / (box.x1 - box.x0)) * (WIDTH - LEFT - RIGHT);
  const y = (value: number): number => TOP + (1 - (Math.min(box.y1, Math.max(box.y0, value)) - box.y0) / (box.y1 - box.y0)) * (HEIGHT - TOP - BOTTOM);
  const path = (points: readonly Point[]): string => points.map(([step, value], index) => `${index ? "L" : "M"}${x(step).toFixed(1)} ${y(value).toFixed(1)}`).join("");
  const onMove = (event: PointerEvent): void => {
    const area = (event.currentTarget as Element).getBoundingClientRect();
    const inside = ((event.clientX - area.left) / area.width) * WIDTH;
    setAt(box.x0 + ((inside - LEFT) / (WIDTH - LEFT - RIGHT)) * (box.x1 - box.x0));
  };
  const readings = shown.map((line) => (at === null ? line.points.at(-1) : nearest(line.points, at)) ?? null);
  return (
    <figure class="chart">
      <figcaption>
        <span class="chart-title">{title.replaceAll("_", " ")}</span>
        <span class="readings">{readings.map((point, index) => point && <Reading key={index} index={index} point={point} />)}</span>
      </figcaption>
      <svg viewBox={`0 0 ${WIDTH} ${HEIGHT}`} role="img" aria-label={title} onPointerMove={onMove} onPointerLeave={() => setAt(null)}>
        {ticks(box.y0, box.y1, 4).map((value) => (
          <g key={value}>
            <line class="grid" x1={LEFT} x2={WIDTH - RIGHT} y1={y(value)} y2={y(value)} />
            <text x={LEFT - 6} y={y(value) + 3.5} text-anchor="end">
              {tickText(value)}
            </text>
          </g>
        ))}
        <text x={0} y={HEIGHT - 5}>
          {t().step}
        </text>
        {ticks(box.x0, box.x1, 4).map((step) => (
          <text key={step} x={x(step)} y={HEIGHT - 5} text-anchor="middle">
            {short(step)}
          </text>
        ))}
        {shown.map((line, index) => (
          <g key={line.name} class={`line line-${index}`}>
            {smoothing > 0 && <path class="raw" d={path(line.raw)} />}
            <path d={path(line.points)} />
          </g>
        ))}
        {at !== null && readings[0] && <line class="cursor" x1={x(readings[0][0])} x2={x(readings[0][0])} y1={TOP} y2={HEIGHT - BOTTOM} />}
        {readings.map((point, index) => point && <circle key={index} class={`dot line-${index}`} cx={x(point[0])} cy={y(point[1])} r="3.2" />)}
      </svg>
    </figure>
  );
}

function Reading({ index, point }: { index: number; point: Point }): VNode {
  return (
    <span class={`reading line-${index}`}>
      {number(point[1], Math.abs(point[1]) < 10 ? 3 : 0)}
      <small> @ {short(point[0])}</small>
    </span>
  );
}

function tickText(value: number): string {
  if (value === 0) return "0";
  return Math.abs(value) >= 1000 ? short(value) : Math.abs(value) < 0.001 ? value.toExponential(0) : String(Number(value.toPrecision(3)));
}

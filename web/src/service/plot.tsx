/** A small plot over time, with its last value in words for those who do not see it. */
import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";

export interface Line {
  readonly name: string;
  readonly values: readonly (number | null)[];
  readonly dashed?: boolean;
}

interface PlotProps {
  readonly says: string;
  readonly times: readonly number[];
  readonly lines: readonly Line[];
  readonly unit: string;
  /** Whether times count from a beginning, and are no times of day. */
  readonly elapsed?: boolean;
}

const HEIGHT = 150;
/** Seconds that a plot over times of day shows at least: one reading alone has no width. */
const SHORTEST = 20;

export function Plot({ says, times, lines, unit, elapsed = false }: PlotProps) {
  const box = useRef<HTMLDivElement>(null), plot = useRef<uPlot | null>(null);
  const data = useRef<uPlot.AlignedData>([[]]);
  data.current = [[...times], ...lines.map(({ values }) => [...values])] as uPlot.AlignedData;
  useEffect(() => {
    const make = (): void => {
      plot.current?.destroy();
      plot.current = new uPlot(optionsOf(box.current!, lines, unit, elapsed), data.current, box.current!);
    };
    make();
    const resized = new ResizeObserver(() => plot.current?.setSize({ width: box.current!.clientWidth, height: HEIGHT }));
    resized.observe(box.current!);
    const scheme = matchMedia("(prefers-color-scheme: dark)");
    scheme.addEventListener("change", make);
    return () => {
      resized.disconnect();
      scheme.removeEventListener("change", make);
      plot.current?.destroy();
    };
  }, []);
  useEffect(() => plot.current?.setData(data.current), [times]);
  return <div class="plot" role="img" aria-label={says} ref={box} />;
}

function optionsOf(box: HTMLElement, lines: readonly Line[], unit: string, elapsed: boolean): uPlot.Options {
  const style = getComputedStyle(box);
  const colour = (name: string): string => style.getPropertyValue(name).trim();
  const axis = { stroke: colour("--soft"), grid: { stroke: colour("--rule"), width: 1 }, ticks: { show: false }, font: "12px system-ui" };
  return {
    width: box.clientWidth,
    height: HEIGHT,
    legend: { show: false },
    cursor: { show: false },
    scales: { x: { time: !elapsed, range: (all, low, high) => extent(all.data[0].length, low ?? 0, high ?? 0, elapsed) }, y: { range: (_, __, high) => [0, Math.max(high ?? 0, 1e-9) * 1.1] } },
    axes: [{ ...axis, size: 32, space: 90, values: (_, splits) => splits.map(elapsed ? seconds : clock) }, { ...axis, size: 64, values: (_, splits) => splits.map((value) => `${Number(value.toPrecision(4))} ${unit}`) }],
    series: [{}, ...lines.map(({ name, dashed }): uPlot.Series => ({
      label: name, stroke: colour(dashed ? "--negative" : "--accent"), width: 2, dash: dashed ? [6, 4] : [], points: { show: false }, spanGaps: false,
    }))],
  };
}

/** Return what the axis of time shows; uPlot would show a day around one reading alone. */
function extent(count: number, low: number, high: number, elapsed: boolean): [number, number] {
  if (elapsed) return [0, high];
  return [low, Math.max(count < 2 ? low : high, low + SHORTEST)];
}

function clock(seconds: number): string {
  return new Date(seconds * 1000).toTimeString().slice(0, 8);
}

function seconds(value: number): string {
  return `${Number(value.toPrecision(4))} s`;
}

/** A small plot over time, with its last value in words for those who do not see it. */
import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";

export interface Line {
  readonly name: string;
  readonly values: readonly (number | null)[];
  readonly dashed?: boolean;
}

const HEIGHT = 150;

export function Plot({ says, times, lines, unit }: { says: string; times: readonly number[]; lines: readonly Line[]; unit: string }) {
  const box = useRef<HTMLDivElement>(null), plot = useRef<uPlot | null>(null);
  useEffect(() => {
    const make = (): void => {
      plot.current?.destroy();
      plot.current = new uPlot(optionsOf(box.current!, lines, unit), [[]], box.current!);
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
  useEffect(() => plot.current?.setData([[...times], ...lines.map(({ values }) => [...values])] as uPlot.AlignedData), [times]);
  return <div class="plot" role="img" aria-label={says} ref={box} />;
}

function optionsOf(box: HTMLElement, lines: readonly Line[], unit: string): uPlot.Options {
  const style = getComputedStyle(box);
  const colour = (name: string): string => style.getPropertyValue(name).trim();
  const axis = { stroke: colour("--soft"), grid: { stroke: colour("--rule"), width: 1 }, ticks: { show: false }, font: "12px system-ui" };
  return {
    width: box.clientWidth,
    height: HEIGHT,
    legend: { show: false },
    cursor: { show: false },
    scales: { y: { range: (_, __, high) => [0, Math.max(high ?? 0, 1e-9) * 1.1] } },
    axes: [{ ...axis, space: 90, values: (_, splits) => splits.map(clock) }, { ...axis, size: 64, values: (_, splits) => splits.map((value) => `${Number(value.toPrecision(4))} ${unit}`) }],
    series: [{}, ...lines.map(({ name, dashed }): uPlot.Series => ({
      label: name, stroke: colour(dashed ? "--negative" : "--accent"), width: 2, dash: dashed ? [6, 4] : [], points: { show: false }, spanGaps: false,
    }))],
  };
}

function clock(seconds: number): string {
  return new Date(seconds * 1000).toTimeString().slice(0, 8);
}

/** A per-class output as a heat map on a canvas, with a cursor for keyboard and pointer. */
import { signal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { element, focusedRow } from "./rows";
import { strength } from "../shade";
import { count, type Tensor } from "./tensor";

const TALLEST = 360;
const LARGEST_CELL = 34;
/** Cells from this size on carry their sign. */
const SIGNED_CELL = 12;

const column = signal(0);

export function HeatMap({ name, tensor, logits }: { name: string; tensor: Tensor; logits: Tensor }) {
  const canvas = useRef<HTMLCanvasElement>(null), cursor = useRef<HTMLDivElement>(null);
  const classes = tensor.shape.at(-1) ?? 0, rows = count(tensor.shape.slice(0, -1));
  const row = Math.max(0, Math.min(rows - 1, focusedRow.value)), at = Math.max(0, Math.min(classes - 1, column.value));
  useEffect(() => draw(canvas.current!, tensor, rows, classes), [tensor]);
  useEffect(() => {
    const box = canvas.current!, mark = cursor.current!.style;
    const width = box.clientWidth / classes, height = box.clientHeight / rows;
    mark.left = `${at * width}px`;
    mark.top = `${row * height}px`;
    mark.width = `${Math.max(width, 5)}px`;
    mark.height = `${Math.max(height, 5)}px`;
  });
  const move = (r: number, c: number): void => {
    focusedRow.value = Math.max(0, Math.min(rows - 1, r));
    column.value = Math.max(0, Math.min(classes - 1, c));
  };
  const press = (event: KeyboardEvent): void => {
    const to = ({
      ArrowUp: [row - 1, at], ArrowDown: [row + 1, at], ArrowLeft: [row, at - 1], ArrowRight: [row, at + 1],
      PageUp: [row - 10, at], PageDown: [row + 10, at], Home: [row, 0], End: [row, classes - 1],
    } as Record<string, [number, number]>)[event.key];
    if (!to) return;
    event.preventDefault();
    move(...to);
  };
  const point = (event: MouseEvent): void => {
    const box = canvas.current!.getBoundingClientRect();
    move(Math.floor(((event.clientY - box.top) / box.height) * rows), Math.floor(((event.clientX - box.left) / box.width) * classes));
  };
  if (rows * classes === 0) return null;
  return (
    <div class="heatmap">
      <div class="canvas">
        <canvas ref={canvas} tabIndex={0} role="application" aria-label={`Heat map of ${name}: arrow keys move through rows and classes`}
          aria-describedby="heat-readout" onKeyDown={press} onMouseMove={point} onClick={point} />
        <div class="cursor" ref={cursor} />
      </div>
      <p class="readout num" id="heat-readout" aria-live="polite">
        row {row}, class {at}: {name} <strong data-heat>{element(tensor, row * classes + at)}</strong>, logit {element(logits, row * classes + at)}
      </p>
    </div>
  );
}

function draw(canvas: HTMLCanvasElement, tensor: Tensor, rows: number, classes: number): () => void {
  const paint = (): void => {
    const available = canvas.parentElement!.clientWidth;
    const cell = Math.max(1, Math.min(LARGEST_CELL, Math.floor(available / classes), Math.floor(TALLEST / rows)));
    if (cell >= SIGNED_CELL) drawCells(canvas, tensor, rows, classes, cell);
    else drawPixels(canvas, tensor, rows, classes, Math.min(classes, available), Math.min(rows, TALLEST));
  };
  paint();
  const scheme = matchMedia("(prefers-color-scheme: dark)");
  scheme.addEventListener("change", paint);
  return () => scheme.removeEventListener("change", paint);
}

function drawCells(canvas: HTMLCanvasElement, tensor: Tensor, rows: number, classes: number, cell: number): void {
  const scale = devicePixelRatio, context = sized(canvas, classes * cell, rows * cell, scale);
  const colours = coloursOf(canvas), largest = largestOf(tensor, rows * classes);
  context.scale(scale, scale);
  context.lineWidth = 1.5;
  for (let i = 0; i < rows * classes; i++) {
    const value = tensor.at(i), x = (i % classes) * cell, y = Math.floor(i / classes) * cell;
    context.fillStyle = shade(colours, value, strength(value, largest));
    context.fillRect(x, y, cell - 1, cell - 1);
    if (value !== 0 && Number.isFinite(value)) sign(context, colours.ink, value, x + (cell - 1) / 2, y + (cell - 1) / 2);
  }
}

function sign(context: CanvasRenderingContext2D, ink: Rgb, value: number, x: number, y: number): void {
  context.strokeStyle = `rgb(${ink.join()})`;
  context.beginPath();
  context.moveTo(x - 3, y);
  context.lineTo(x + 3, y);
  if (value > 0) {
    context.moveTo(x, y - 3);
    context.lineTo(x, y + 3);
  }
  context.stroke();
}

/** Each pixel shows the value of largest magnitude among those that it stands for. */
function drawPixels(canvas: HTMLCanvasElement, tensor: Tensor, rows: number, classes: number, width: number, height: number): void {
  const chosen = new Float64Array(width * height);
  let largest = 0;
  for (let r = 0, i = 0; r < rows; r++) {
    const line = Math.floor((r * height) / rows) * width;
    for (let c = 0; c < classes; c++, i++) {
      const value = tensor.at(i), at = line + Math.floor((c * width) / classes);
      if (Math.abs(value) > Math.abs(chosen[at]!)) chosen[at] = value;
      if (Math.abs(value) > largest) largest = Math.abs(value);
    }
  }
  const context = sized(canvas, width, height, 1);
  const image = context.createImageData(width, height), colours = coloursOf(canvas);
  chosen.forEach((value, i) => image.data.set([...mixed(colours, value, strength(value, largest)), 255], i * 4));
  context.putImageData(image, 0, 0);
  canvas.style.width = "100%";
  canvas.style.height = `${Math.max(height, Math.min(TALLEST, rows * 4))}px`;
}

function sized(canvas: HTMLCanvasElement, width: number, height: number, scale: number): CanvasRenderingContext2D {
  canvas.width = width * scale;
  canvas.height = height * scale;
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  return canvas.getContext("2d")!;
}

type Rgb = readonly [number, number, number];
interface Colours { readonly paper: Rgb; readonly positive: Rgb; readonly negative: Rgb; readonly ink: Rgb }

function coloursOf(canvas: HTMLCanvasElement): Colours {
  const style = getComputedStyle(canvas);
  const of = (name: string): Rgb => {
    const hex = style.getPropertyValue(name).trim();
    return [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16)) as unknown as Rgb;
  };
  return { paper: of("--panel"), positive: of("--positive"), negative: of("--negative"), ink: of("--ink") };
}

function mixed(colours: Colours, value: number, much: number): number[] {
  const full = value < 0 ? colours.negative : colours.positive;
  return colours.paper.map((from, k) => Math.round(from + (full[k]! - from) * much));
}

function shade(colours: Colours, value: number, much: number): string {
  return `rgb(${mixed(colours, value, much * 0.75).join()})`;
}

function largestOf(tensor: Tensor, length: number): number {
  let largest = 0;
  for (let i = 0; i < length; i++) {
    const size = Math.abs(tensor.at(i));
    if (size > largest && size < Infinity) largest = size;
  }
  return largest;
}

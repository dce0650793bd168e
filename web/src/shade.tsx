/** Numbers that are seen: shades of a heat map and bars; a sign is never told by colour alone. */
import { compact, digits } from "./numbers";

interface ShadeProps {
  value: number;
  largest: number;
  cell: string;
  chosen: boolean;
  choose: () => void;
}

/** A cell of a heat map: its number with a sign, on a shade as strong as it is large. */
export function Shade({ value, largest, cell, chosen, choose }: ShadeProps) {
  const style = { "--strength": `${Math.round(strength(value, largest) * 100)}%` };
  return (
    <td class={`num ${signClass(value)}`} style={style} data-cell={cell} data-value={String(value)} title={digits(value)}
      tabIndex={chosen ? 0 : -1} aria-selected={chosen} onFocus={choose} onMouseEnter={choose} onClick={choose}>
      {compact(value)}
    </td>
  );
}

/** Return how strong a shade is, from 0 to 1; square roots keep small values apart. */
export function strength(value: number, largest: number): number {
  return largest > 0 && Number.isFinite(value) ? Math.sqrt(Math.abs(value) / largest) : 0;
}

export function signClass(value: number): string {
  return value < 0 ? "negative" : value > 0 ? "positive" : "zero";
}

/** A bar beside its number; negative ones go to the left of the axis and are hatched. */
export function Bar({ value, largest, both = false }: { value: number; largest: number; both?: boolean }) {
  const share = largest > 0 ? Math.abs(value) / largest : 0;
  const width = `${Math.min(1, share) * (both ? 50 : 100)}%`;
  return (
    <div class={both ? "bar both" : "bar"} aria-hidden="true">
      <div class={signClass(value)} style={{ width }} />
    </div>
  );
}

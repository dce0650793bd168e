/** A cell of a heat map: its number with a sign, on a shade as strong as it is large. */
import { compact, digits } from "./numbers";

interface ShadeProps {
  value: number;
  largest: number;
  cell: string;
  chosen: boolean;
  choose: () => void;
}

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

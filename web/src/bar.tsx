/** A bar beside its number; negative ones go to the left of the axis and are hatched. */
import { signClass } from "./shade";

export function Bar({ value, largest, both = false }: { value: number; largest: number; both?: boolean }) {
  const share = largest > 0 ? Math.abs(value) / largest : 0;
  const width = `${Math.min(1, share) * (both ? 50 : 100)}%`;
  return (
    <div class={both ? "bar both" : "bar"} aria-hidden="true">
      <div class={signClass(value)} style={{ width }} />
    </div>
  );
}

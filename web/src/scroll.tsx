/** A wide table in a narrow page: scrolls sideways, by keyboard too where there is something to scroll. */
import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";

export function Scroll({ label, children }: { label: string; children: ComponentChildren }) {
  const box = useRef<HTMLDivElement>(null);
  const [wide, setWide] = useState(false);
  useEffect(() => {
    const look = new ResizeObserver(() => {
      if (box.current) setWide(box.current.scrollWidth > box.current.clientWidth);
    });
    look.observe(box.current!);
    look.observe(box.current!.firstElementChild!);
    return () => look.disconnect();
  }, []);
  const region = wide ? { tabIndex: 0, role: "group" as const, "aria-label": label } : {};
  return <div class={wide ? "scroll wider" : "scroll"} ref={box} {...region}>{children}</div>;
}

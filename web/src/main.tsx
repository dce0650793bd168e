/** The page: its head, its views and the messages that concern all of them. */
import { render } from "preact";
import type { ComponentType } from "preact";
import { useEffect, useState } from "preact/hooks";
import { reachable } from "./api";
import { Derivation } from "./derivation/view";
import { readHash, view, VIEWS, type View } from "./hash";
import { KeyButton, KeyDialog } from "./key";

const TITLES: Record<View, string> = {
  derivation: "Derivation",
  playground: "Playground",
  jobs: "Jobs",
  service: "Service",
};

/** Views that are loaded when they are first looked at. */
const LATER: Partial<Record<View, () => Promise<ComponentType>>> = {
  playground: async () => (await import("./playground/view")).Playground,
  jobs: async () => (await import("./jobs/view")).Jobs,
  service: async () => (await import("./service/view")).ServiceState,
};

function followHash(): void {
  view.value = readHash(location.hash).view;
  document.title = `softxent: ${TITLES[view.value].toLowerCase()}`;
}

function Page() {
  return (
    <>
      <a class="skip" href="#main" onClick={skip}>Skip to content</a>
      <header class="top">
        <span class="mark">softxent</span>
        <nav aria-label="Views">
          {VIEWS.map((name) => (
            <a key={name} href={`#${name}`} aria-current={view.value === name ? "page" : undefined}>
              {TITLES[name]}
            </a>
          ))}
          <a href="docs">API</a>
        </nav>
        <KeyButton />
      </header>
      <p class="banner" role="status" hidden={reachable.value}>
        {reachable.value ? "" : "The service does not answer. This page goes on as soon as it does."}
      </p>
      <main id="main" tabIndex={-1}>
        {view.value === "derivation" ? <Derivation /> : <Later key={view.value} name={view.value} />}
      </main>
      <footer class="bottom">
        Computed by this service, loaded from it alone. <a href="docs">API</a>{" · "}
        <a href="web/third-party-notices.txt">Third-party notices</a>
      </footer>
      <KeyDialog />
    </>
  );
}

function skip(event: Event): void {
  event.preventDefault();
  document.getElementById("main")?.focus();
}

function Later({ name }: { name: View }) {
  const [loaded, setLoaded] = useState<{ View: ComponentType } | null>(null);
  useEffect(() => { void LATER[name]?.().then((View) => setLoaded({ View })); }, [name]);
  return loaded ? <loaded.View /> : null;
}

addEventListener("hashchange", followHash);
followHash();
render(<Page />, document.getElementById("page")!);

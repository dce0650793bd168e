/** The page: its head, its views and the messages that concern all of them. */
import { render } from "preact";
import { reachable } from "./api";
import { Derivation } from "./derivation/view";
import { readHash, view, VIEWS, type View } from "./hash";
import { KeyButton, KeyDialog } from "./key";

const TITLES: Record<View, string> = {
  derivation: "Derivation",
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
        <Derivation />
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

addEventListener("hashchange", followHash);
followHash();
render(<Page />, document.getElementById("page")!);

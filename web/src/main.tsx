/** The page: its views, and the messages that concern all of them; its head and foot are in index.html. */
import { effect } from "@preact/signals";
import { render } from "preact";
import type { ComponentType } from "preact";
import { useEffect, useState } from "preact/hooks";
import { call, key, reachable, sentence } from "./api";
import { Derivation } from "./derivation/view";
import { readHash, view, type View } from "./hash";
import { askForKey, KeyDialog } from "./key";

/** Views that are loaded when they are first looked at. */
const LATER: Partial<Record<View, () => Promise<ComponentType>>> = {
  playground: async () => (await import("./playground/view")).Playground,
  jobs: async () => (await import("./jobs/view")).Jobs,
  service: async () => (await import("./service/view")).ServiceState,
};

function followHash(): void {
  const name = view.value = readHash(location.hash).view;
  document.title = `softxent: ${name}`;
  document.querySelector("nav [aria-current]")?.removeAttribute("aria-current");
  document.querySelector(`nav [href="#${name}"]`)!.setAttribute("aria-current", "page");
}

function Page() {
  return (
    <>
      <p class="banner" role="status" hidden={reachable.value}>
        {reachable.value ? "" : "The service does not answer. This page goes on as soon as it does."}
      </p>
      <main id="main" tabIndex={-1}>
        {view.value === "derivation" ? <Derivation /> : <Later key={view.value} name={view.value} />}
      </main>
      <KeyDialog />
    </>
  );
}

/** A view, once it is there; one that could not be loaded is asked for again when the service answers. */
function Later({ name }: { name: View }) {
  const [loaded, setLoaded] = useState<{ View: ComponentType } | null>(null);
  const [fault, setFault] = useState<string | null>(null);
  const alive = reachable.value;
  useEffect(() => {
    if (!alive || loaded) return;
    LATER[name]!().then((View) => setLoaded({ View }), whyNotLoaded).then((says) => setFault(says ?? null));
  }, [name, alive]);
  if (loaded) return <loaded.View />;
  return fault === null ? null : <p class="refusal" role="alert">{fault}</p>;
}

/** Return why a view of the page is missing, although the page is there. */
async function whyNotLoaded(): Promise<string> {
  try {
    await call("v2/health/live");
    return "This view is no longer there: the service has another release now. Load the page again.";
  } catch (error) {
    return sentence(error);
  }
}

function skip(event: Event): void {
  event.preventDefault();
  document.getElementById("main")?.focus();
}

const keyButton = document.getElementById("key")!;
keyButton.addEventListener("click", askForKey);
effect(() => { keyButton.textContent = key.value === null ? "Key" : "Key in use"; });
document.querySelector(".skip")!.addEventListener("click", skip);
addEventListener("hashchange", followHash);
followHash();
render(<Page />, document.getElementById("page")!);

/** The dialog that asks for a key. */
import { useEffect, useRef } from "preact/hooks";
import { key, keyRequest, setKey } from "./api";

export function KeyDialog() {
  const dialog = useRef<HTMLDialogElement>(null);
  const input = useRef<HTMLInputElement>(null);
  const keep = useRef<HTMLInputElement>(null);
  const request = keyRequest.value;
  useEffect(() => {
    if (request !== null && !dialog.current?.open) dialog.current?.showModal();
    if (request === null && dialog.current?.open) dialog.current.close();
  }, [request]);
  const save = (event: Event): void => {
    event.preventDefault();
    const text = input.current?.value.trim() ?? "";
    if (input.current) input.current.value = "";
    setKey(text === "" ? null : text, keep.current?.checked ?? false);
  };
  return (
    <dialog ref={dialog} aria-labelledby="key-title" onCancel={() => { keyRequest.value = null; }}>
      <form onSubmit={save}>
        <h2 id="key-title">Key</h2>
        <p>{request} It is sent in a header to this service alone.</p>
        <label>
          Key
          <input ref={input} type="password" autocomplete="off" spellcheck={false} />
        </label>
        <label class="check">
          <input ref={keep} type="checkbox" /> keep it until this tab is closed
        </label>
        <div class="actions">
          <button type="submit" class="primary">Use this key</button>
          <button type="button" onClick={() => { keyRequest.value = null; }}>Not now</button>
        </div>
      </form>
    </dialog>
  );
}

/** Open the dialog because a person wants it. */
export function askForKey(): void {
  keyRequest.value = key.value === null
    ? "Give the key that the operator of this service gave you."
    : "A key is in use. Another one takes its place, an empty one removes it.";
}

"""The playground used as a person would: files right and wrong, and calls that are taken along."""

from __future__ import annotations

import io
import json
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
from chromium import Open
from playwright.sync_api import Page, expect
from safetensors.numpy import load, save
from web_support import assert_accessible, number, plain

import softxent

VIEW = "/#playground"

RNG = np.random.default_rng(3)
LOGITS = (RNG.normal(size=(5, 4)) * 9).astype(np.float32)
LABELS = RNG.integers(0, 4, 5)

Files = dict[str, bytes]


def drop(page: Page, files: Files) -> None:
    """Drop files on the text, as a file manager does."""
    transfer = page.evaluate_handle(
        """files => {
            const transfer = new DataTransfer();
            for (const [name, bytes] of files) {
                transfer.items.add(new File([new Uint8Array(bytes)], name));
            }
            return transfer;
        }""",
        [[name, list(content)] for name, content in files.items()],
    )
    page.locator("textarea").fill("")
    page.dispatch_event("textarea", "drop", {"dataTransfer": transfer})


def run(page: Page) -> None:
    page.keyboard.press("Control+Enter")
    page.get_by_role("heading", name="Result").wait_for()


def output(page: Page, name: str) -> list[str]:
    return [plain(text) for text in page.locator(f"[data-output={name}]").all_inner_texts()]


def npy(array: npt.NDArray[Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def shortest(values: npt.NDArray[Any]) -> list[float]:
    return [float(str(value)) for value in values]


def test_the_example_runs_by_keyboard_with_the_readme_s_digits(
    open_page: Open, service_url: str
) -> None:
    page = open_page(service_url, VIEW).page
    page.locator("textarea").press("Control+Enter")
    expect(page.locator("[data-output=loss]")).to_have_text(["0.41703", "4.1223074e−9"])
    expect(page.locator("[data-sum=loss_sum]")).to_have_text("0.41703001076941737")
    expect(page.locator("[data-sum=count]")).to_have_text("2")
    canvas = page.locator("canvas")
    canvas.focus()
    cursor = page.locator("[data-heat]")
    expect(cursor).to_have_text("−0.34099886")
    for key, shown in (
        ("ArrowRight", "0.24243297"),
        ("ArrowDown", "2.0611537e−9"),
        ("Home", "−4.1223074e−9"),
    ):
        canvas.press(key)
        expect(cursor).to_have_text(shown)


CSV = "\n".join(",".join(map(str, row)) for row in LOGITS)
NAMED = "a,b,c,d,label\n" + "\n".join(
    ",".join([*map(str, row), str(label)]) for row, label in zip(LOGITS, LABELS, strict=True)
)
BATCH = {"logits": LOGITS.tolist(), "labels": LABELS.tolist()}


def kinds() -> dict[str, tuple[Files, npt.NDArray[Any]]]:
    """Files of every kind, and the logits that they hold."""
    labels = npy(LABELS)
    double = LOGITS.astype(np.float64) * 1.1
    brain = LOGITS.astype(ml_dtypes.bfloat16)
    return {
        "json": ({"batch.json": json.dumps(BATCH).encode()}, LOGITS),
        "csv": ({"x.csv": CSV.encode(), "y.csv": "\n".join(map(str, LABELS)).encode()}, LOGITS),
        "csv with names": ({"batch.csv": NAMED.encode()}, LOGITS),
        "npy": ({"x.npy": npy(LOGITS), "y.npy": labels}, LOGITS),
        "float64": ({"x.npy": npy(double), "y.npy": labels}, double),
        "float16": (
            {"x.npy": npy(LOGITS.astype(np.float16)), "y.npy": labels},
            LOGITS.astype(np.float16),
        ),
        "fortran": (
            {"x.npy": npy(np.asfortranarray(LOGITS)), "y.npy": labels},
            LOGITS,
        ),
        "big-endian": (
            {"x.npy": npy(LOGITS.astype(">f4")), "y.npy": labels},
            LOGITS,
        ),
        "safetensors": ({"batch.safetensors": save({"logits": LOGITS, "labels": LABELS})}, LOGITS),
        "bfloat16": ({"batch.safetensors": save({"logits": brain, "labels": LABELS})}, brain),
        "csv and npy": ({"x.csv": CSV.encode(), "y.npy": labels}, LOGITS),
    }


@pytest.mark.parametrize("kind", kinds())
def test_every_kind_of_file_gives_the_library_s_digits(
    open_page: Open, service_url: str, kind: str
) -> None:
    files, logits = kinds()[kind]
    page = open_page(service_url, VIEW).page
    drop(page, files)
    expect(page.get_by_label("Role of", exact=False)).to_have_count(2)
    run(page)
    wanted = softxent.cross_entropy(logits, LABELS)
    assert isinstance(wanted.loss, np.ndarray)
    assert [float(text) for text in output(page, "loss")] == shortest(wanted.loss)
    canvas = page.locator("canvas")
    canvas.focus()
    canvas.press("ArrowDown")
    canvas.press("End")
    assert wanted.gradient is not None
    shown = number(page.locator("[data-heat]").inner_text())
    assert shown == pytest.approx(float(wanted.gradient[1, 3]), rel=1e-7)


def safetensors(members: Any) -> bytes:
    """Return a file with a header that the library would not write, and 8 bytes of data."""
    header = json.dumps(members).encode()
    return len(header).to_bytes(8, "little") + header + bytes(8)


def entry(**members: Any) -> bytes:
    right = {"dtype": "F32", "shape": [1, 2], "data_offsets": [0, 8]}
    return safetensors({"logits": right | members})


NO_ENTRY = "gives the tensor “logits” no dtype, shape and data_offsets of whole numbers."


def wrong() -> dict[str, tuple[bytes, str]]:
    good = npy(LOGITS)
    tensors = save({"logits": LOGITS})
    return {
        "x.npy": (good[:-4], "The .npy file announces 80 bytes of data and holds 76."),
        "head.npy": (good[:40], "The .npy file ends inside its header."),
        "objects.npy": (npy(np.array([{}], object)), "holds Python objects (a pickle)"),
        "x.pkl": (pickle.dumps(LOGITS), "This is a pickle, which could run code and is not read"),
        "x.npz": (b"PK\x03\x04" + bytes(40), "This is a zip archive, as .npz and .pt files are"),
        "x.safetensors": (
            tensors[:-4],
            "The file ends inside the tensor “logits”: it was cut off.",
        ),
        "h.safetensors": (tensors[:40], "The safetensors file ends inside its header"),
        "null.safetensors": (safetensors({"logits": None}), NO_ENTRY),
        "negative.safetensors": (entry(shape=[-1, -2]), NO_ENTRY),
        "before.safetensors": (entry(data_offsets=[-8, 0]), NO_ENTRY),
        "half.safetensors": (entry(shape=[0.5, 4]), NO_ENTRY),
        "inherited.safetensors": (entry(dtype="toString"), "has the dtype toString, which"),
        "unknown.npy": (npy(LOGITS).replace(b"<f4", b"<at"), "has the dtype <at; this page"),
        "deep.json": (b"[" * 9999 + b"1" + b"]" * 9999, "nested 9999 deep; an array has"),
        "letter.txt": (b"Dear reader,\nhello", "“hello” in row 0 is not a number."),
        "words.txt": (b"1 2\nthree 4", "“three” in row 1 is not a number."),
        "image.png": (
            b"\x89PNG\r\n\x1a\n" + bytes(range(128, 256)),
            "neither text nor .npy nor safetensors",
        ),
        "ragged.json": (
            b'{"logits": [[1, 2], [3]]}',
            "“logits” holds arrays of unequal lengths: 2 and 1.",
        ),
        "cut.json": (b'{"logits": [[1, 2', "is not JSON"),
        "empty": (b"", "The file is empty."),
        "<img src=x onerror=alert(1)>.npy": (
            b"\x93NUMPY",
            "“<img src=x onerror=alert(1)>.npy”: The .npy file ends",
        ),
    }


@pytest.mark.parametrize("name", wrong())
def test_a_wrong_file_is_told_in_a_sentence(open_page: Open, service_url: str, name: str) -> None:
    content, says = wrong()[name]
    page = open_page(service_url, VIEW).page
    drop(page, {name: content})
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text(says)
    expect(alert).to_contain_text(name)
    expect(page.locator("img")).to_have_count(0)


def test_two_gigabytes_are_refused_before_they_are_read(
    open_page: Open, service_url: str, tmp_path: Path
) -> None:
    large = tmp_path / "large.npy"
    with large.open("wb") as file:
        file.truncate(2 << 30)
    page = open_page(service_url, VIEW).page
    page.locator("input[type=file]").set_input_files(large)
    expect(page.get_by_role("alert")).to_have_text(
        "“large.npy” has 2.1 GB; this service takes at most 268 MB. Evaluate it as a job instead."
    )


def test_markup_in_a_file_is_text(open_page: Open, service_url: str) -> None:
    page = open_page(service_url, VIEW).page
    name = "<img src=x onerror=alert(1)>"
    drop(page, {"batch.safetensors": save({name: LOGITS, "labels": LABELS})})
    expect(page.get_by_role("rowheader", name=name)).to_be_visible()
    page.get_by_label(f"Role of {name}").select_option("logits")
    run(page)
    expect(page.locator("img")).to_have_count(0)


def test_ctrl_enter_runs_wherever_the_focus_is(open_page: Open, service_url: str) -> None:
    page = open_page(service_url, VIEW).page
    page.locator("textarea").wait_for()
    page.get_by_role("heading", name="Playground").click()
    run(page)


@pytest.mark.parametrize("name", ["constructor", "__proto__", "toString"])
def test_a_name_of_every_object_is_no_role(open_page: Open, service_url: str, name: str) -> None:
    page = open_page(service_url, VIEW).page
    page.locator("textarea").fill(f'{{"logits": [[1, 2]], "labels": [0], "{name}": [1]}}')
    expect(page.get_by_label(f"Role of {name}")).to_have_value("")
    run(page)
    # log(1 + e)
    assert [float(text) for text in output(page, "loss")] == [1.3132616]


def test_options_are_those_of_the_openapi_document(open_page: Open, service_url: str) -> None:
    page = open_page(service_url, VIEW).page
    page.get_by_text("Options", exact=True).click()
    page.get_by_label("reduction", exact=True).select_option("mean")
    page.get_by_label("label_smoothing", exact=True).fill("0.1")
    page.get_by_label("logits_dtype", exact=True).select_option("float64")
    page.get_by_label("entropy", exact=True).check()
    run(page)
    logits = np.array([[2, 1, 0.1], [20, 0, 0]])
    wanted = softxent.cross_entropy(
        logits,
        [0, 0],
        reduction="mean",
        label_smoothing=0.1,
        outputs=["loss", "gradient", "entropy"],
    )
    assert wanted.entropy is not None
    expect(page.locator("[data-sum=loss]")).to_have_text(str(wanted.loss))
    assert [float(text) for text in output(page, "entropy")] == wanted.entropy.tolist()


def test_a_refusal_leads_to_its_rows(open_page: Open, service_url: str) -> None:
    watched = open_page(service_url, VIEW)
    watched.refusals_expected = True
    page = watched.page
    labels = [0] * 40
    labels[30] = 7
    page.locator("textarea").fill(json.dumps({"logits": [[1, 2]] * 40, "labels": labels}))
    page.keyboard.press("Control+Enter")
    expect(page.get_by_role("alert")).to_have_text(
        "labels must lie in [0, 2) or be -100; 1 does not"
    )
    page.get_by_role("button", name="row 30").click()
    row = page.locator("[data-row='30']")
    expect(row).to_have_attribute("aria-current", "true")
    expect(row.locator("td").first).to_have_text("7")


def copied(page: Page, language: str) -> str:
    page.get_by_role("button", name=language, exact=True).click()
    page.get_by_role("button", name="Copy", exact=True).click()
    page.get_by_text("Copied.").wait_for()
    return str(page.evaluate("navigator.clipboard.readText()"))


def executed(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


TYPED = """{"logits": [[2, 1, 0.1], ["-Infinity", 0, 3]], "labels": [0, 2],
 "class_mask": [true, true, true]}"""


def test_the_copied_calls_give_what_the_page_shows(
    open_page: Open, service_url: str, tmp_path: Path
) -> None:
    page = open_page(service_url, VIEW).page
    page.locator("textarea").fill(TYPED)
    page.get_by_text("Options", exact=True).click()
    page.get_by_label("softcap", exact=True).fill("30")
    page.get_by_label("log_normalizer", exact=True).check()
    run(page)
    losses = [float(text) for text in output(page, "loss")]
    answer = json.loads(executed(["bash", "-c", copied(page, "curl")], tmp_path))
    assert answer["loss"] == losses
    shown = executed([sys.executable, "-c", copied(page, "Python")], tmp_path)
    found = re.search(r"loss=array\(\[(.*?)\]", shown)
    assert found is not None, shown
    assert [float(text) for text in found[1].split(",")] == pytest.approx(losses, rel=1e-7)
    script = tmp_path / "call.mjs"
    script.write_text(
        copied(page, "JavaScript").replace(
            "console.log(await answer.json())", "console.log(JSON.stringify(await answer.json()))"
        )
    )
    assert json.loads(executed(["node", str(script)], tmp_path))["loss"] == losses


def test_a_body_of_bytes_is_saved_and_sent_again(
    open_page: Open, service_url: str, tmp_path: Path
) -> None:
    page = open_page(service_url, VIEW).page
    drop(page, {"batch.safetensors": save({"logits": LOGITS, "labels": LABELS})})
    expect(page.get_by_label("Role of labels")).to_have_value("labels")
    run(page)
    with page.expect_download() as download:
        page.get_by_role("link", name="Save request.safetensors").click()
    download.value.save_as(tmp_path / "request.safetensors")
    wanted = softxent.cross_entropy(LOGITS, LABELS)
    for language, command in (("curl", ["bash", "-c"]), ("Python", [sys.executable, "-c"])):
        (tmp_path / "answer.safetensors").unlink(missing_ok=True)
        executed([*command, copied(page, language)], tmp_path)
        answer = load((tmp_path / "answer.safetensors").read_bytes())
        np.testing.assert_array_equal(answer["gradient"], wanted.gradient)


def test_a_million_logits_are_walked_through(
    open_page: Open, service_url: str, tmp_path: Path
) -> None:
    logits = RNG.normal(size=(1000, 1000)).astype(np.float32)
    labels = RNG.integers(0, 1000, 1000)
    for name, array in (("x", logits), ("y", labels)):
        np.save(tmp_path / f"{name}.npy", array)
    page = open_page(service_url, VIEW).page
    page.locator("textarea").fill("")
    page.locator("input[type=file]").set_input_files([tmp_path / "x.npy", tmp_path / "y.npy"])
    expect(page.get_by_label("Role of x")).to_have_value("logits")
    run(page)
    wanted = softxent.cross_entropy(logits, labels)
    assert wanted.gradient is not None
    canvas = page.locator("canvas")
    canvas.focus()
    for key in ("PageDown", "ArrowDown", "End"):
        canvas.press(key)
    expect(page.locator("#heat-readout")).to_contain_text("row 11, class 999")
    shown = number(page.locator("[data-heat]").inner_text())
    assert np.float32(shown) == wanted.gradient[11, 999]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_axe_finds_nothing(open_page: Open, service_url: str, scheme: str, width: int) -> None:
    viewport = {"width": width, "height": 900}
    page = open_page(service_url, VIEW, color_scheme=scheme, viewport=viewport).page
    page.get_by_text("Options", exact=True).click()
    run(page)
    assert_accessible(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_roles_are_chosen_without_scrolling_at_400_pixels(
    open_page: Open, service_url: str
) -> None:
    page = open_page(service_url, VIEW, viewport={"width": 400, "height": 900}).page
    role = page.get_by_label("Role of logits")
    expect(role).to_be_visible()
    box, key = role.bounding_box(), page.get_by_role("button", name="Key").bounding_box()
    assert box is not None
    assert box["x"] + box["width"] <= 384
    # The key stands at the right, as on a wide screen.
    assert key is not None
    assert key["x"] + key["width"] == pytest.approx(384, abs=1)

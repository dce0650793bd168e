"""The form of a job offers the arrays that there are; what a job tells is drawn."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from chromium import Open
from playwright.sync_api import Page, expect
from web_support import assert_accessible, plain

import softxent
from service_process import Service

VIEW = "/#jobs"

ROWS, CLASSES = 60, 4

FEW = [(0.0, 0.0)] * 5 + [(-10.0, 0.0)] * 3 + [(100.0, 0.0)] * 2
"""Rows whose losses for class 0 are log 2, log(1 + e^10) = 10.00005, and e^-100."""


def tensors() -> dict[str, Any]:
    random = np.random.default_rng(11)
    logits = random.normal(size=(ROWS, CLASSES)).astype(np.float32)
    probabilities = random.dirichlet(np.ones(CLASSES), ROWS)
    return {
        "logits": logits,
        "labels": random.integers(0, CLASSES, ROWS),
        "target_probabilities": probabilities,
        "target_indices": np.tile(np.array([0, 2]), (ROWS, 1)),
        "target_log_probabilities": np.log(np.full((ROWS, 2), 0.5)),
        "row_weights": random.uniform(0.5, 2, ROWS),
        "class_weights": np.array([1.0, 2, 3, 4]),
        "class_mask": np.ones(CLASSES, bool),
    }


TARGETS = {
    "labels": ("labels", "row_weights", "class_weights", "class_mask"),
    "probabilities": ("target_probabilities", "row_weights"),
    "top-k": ("target_indices", "target_log_probabilities", "class_mask"),
    "labels and probabilities": ("labels", "target_probabilities"),
    "labels and top-k": ("labels", "target_indices", "target_log_probabilities", "row_weights"),
}


@pytest.fixture(scope="module")
def arrays(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("form") / "arrays"
    folder.mkdir()
    for name, values in tensors().items():
        np.save(folder / f"{name}.npy", values)
    np.save(folder / "<b onclick=alert(1)>.npy", np.zeros(3, np.float32))
    np.save(folder / "few.npy", np.array(FEW))
    np.save(folder / "few_labels.npy", np.zeros(len(FEW), np.int64))
    np.save(folder / "slow.npy", np.zeros((30_000, 300), np.float32))
    np.save(folder / "slow_labels.npy", np.zeros(30_000, np.int64))
    (folder / "broken.npy").write_text("no array")
    return folder


@pytest.fixture(scope="module")
def url(arrays: Path) -> Iterator[str]:
    service = Service(f"--data={arrays.parent}", "--block-bytes=20000")
    yield service.ready_url()
    service.clear()


def open_form(page: Page) -> None:
    page.get_by_text("Submit a job", exact=True).click()
    expect(page.get_by_text("arrays lie below the roots.")).to_be_visible()


def offered(page: Page, name: str) -> dict[str, str]:
    """Return the URLs that a field offers, and what it says of each."""
    read = "options => options.map(o => [o.value, o.textContent])"
    return dict(page.locator(f"#arrays-{name} option").evaluate_all(read))


def choose(page: Page, arrays: Path, name: str, file: str = "") -> None:
    """Type a URL that the field offers."""
    url = f"file://{arrays}/{file or name}.npy"
    assert url in offered(page, name)
    page.locator(f"input[name={name}]").fill(url)


def submit(page: Page, arrays: Path, output: str) -> None:
    page.locator("input[name=output]").fill(f"file://{arrays}/{output}")
    page.get_by_role("button", name="Submit", exact=True).click()
    expect(page.locator("[data-member=output]")).to_contain_text(output)


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_is_chosen_from_what_there_is(
    open_page: Open, url: str, arrays: Path, target: str
) -> None:
    page = open_page(url, VIEW).page
    open_form(page)
    page.get_by_label("Target", exact=True).select_option(target)
    for name in ("logits", *TARGETS[target]):
        choose(page, arrays, name)
    options: dict[str, Any] = {"hard_weight": 0.25} if "and" in target else {}
    page.get_by_text("Options of the job").click()
    for name, value in options.items():
        page.get_by_label(name, exact=True).fill(str(value))
    assert_accessible(page)
    submit(page, arrays, f"{target}.zarr".replace(" ", "-"))
    expect(page.locator("[data-state=succeeded]")).to_be_visible()
    given = {name: tensors()[name] for name in ("logits", *TARGETS[target])}
    wanted = softxent.cross_entropy(**given, **options)
    assert plain(page.locator("[data-member=loss_sum]").inner_text()) == repr(wanted.loss_sum)


def test_a_field_offers_what_its_tensor_may_be(open_page: Open, url: str, arrays: Path) -> None:
    page = open_page(url, VIEW).page
    open_form(page)
    labels = offered(page, "labels")
    assert labels[f"file://{arrays}/labels.npy"] == f"int64 [{ROWS}]"
    assert f"file://{arrays}/logits.npy" not in labels
    logits = offered(page, "logits")
    assert logits[f"file://{arrays}/logits.npy"] == f"float32 [{ROWS}, {CLASSES}]"
    assert f"file://{arrays}/%3Cb%20onclick%3Dalert%281%29%3E.npy" in logits
    assert f"file://{arrays}/broken.npy" not in {**labels, **logits}
    page.locator("input[name=logits]").fill(f"file://{arrays}/broken.npy")
    expect(page.locator("#url-logits-says")).to_contain_text("is a text file")


def test_options_are_those_of_the_document(open_page: Open, url: str, arrays: Path) -> None:
    page = open_page(url, VIEW).page
    open_form(page)
    document = httpx.get(f"{url}/openapi.json").json()
    properties = document["components"]["schemas"]["JobSpecification"]["properties"]
    wanted = {name for name, schema in properties.items() if schema.get("format") != "uri"}
    page.get_by_text("Options of the job", exact=False).click()
    shown = page.locator("form .options .grid .num").all_inner_texts()
    assert wanted <= {*shown}
    choose(page, arrays, "logits")
    choose(page, arrays, "labels")
    page.get_by_label("temperature", exact=True).fill("2.5")
    page.get_by_label("on_error", exact=True).select_option("skip")
    page.get_by_label("reduction", exact=True).select_option("mean")
    page.get_by_role("checkbox", name="rank", exact=True).check()
    submit(page, arrays, "options.zarr")
    expect(page.locator("[data-state=succeeded]")).to_be_visible()
    told = httpx.get(f"{url}/v1/jobs?limit=1").json()["jobs"][0]
    assert told["job"] == {
        "logits": f"file://{arrays}/logits.npy",
        "labels": f"file://{arrays}/labels.npy",
        "output": f"file://{arrays}/options.zarr",
        "temperature": 2.5,
        "on_error": "skip",
        "reduction": "mean",
        "outputs": ["loss", "rank"],
    }
    given = {name: tensors()[name] for name in ("logits", "labels")}
    mean = softxent.cross_entropy(**given, temperature=2.5, reduction="mean").loss
    assert float(plain(page.locator("[data-member=mean]").inner_text())) == pytest.approx(mean)


def test_the_losses_are_drawn_and_counted(open_page: Open, url: str, arrays: Path) -> None:
    page = open_page(url, VIEW).page
    open_form(page)
    choose(page, arrays, "logits", "few")
    choose(page, arrays, "labels", "few_labels")
    submit(page, arrays, "few.zarr")
    # Four bins between two powers of 2: log 2 lies in [0.625, 0.75), 10.00005 in [10, 12).
    assert 0.625 <= math.log(2) < 0.75
    bars = page.get_by_role("img", name="Histogram of 8 losses from 0.625 to 12")
    expect(bars).to_be_visible()
    expect(page.get_by_text("2 rows below all bins")).to_be_visible()
    page.get_by_text("Counts as a table").click()
    table = page.locator("[data-histogram]")
    rows = [row.split("\t")[:2] for row in table.locator("tbody tr").all_inner_texts()]
    counted = {bounds: int(count) for bounds, count in rows}
    assert {bounds: count for bounds, count in counted.items() if count} == {
        "0.625 to 0.75": 5,
        "10 to 12": 3,
    }
    # From 0.625 on: 3 bins below 1, 4 from each power of 2 to 8, 2 from 8 to 12.
    assert len(rows) == 3 + 3 * 4 + 2
    for scheme, width in (("light", 1280), ("dark", 1280), ("dark", 400), ("light", 400)):
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size({"width": width, "height": 900})
        assert_accessible(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_rate_is_drawn_while_a_job_runs(open_page: Open, url: str, arrays: Path) -> None:
    page = open_page(url, VIEW).page
    open_form(page)
    choose(page, arrays, "logits", "slow")
    choose(page, arrays, "labels", "slow_labels")
    submit(page, arrays, "slow.zarr")
    plot = page.get_by_role("img", name="Rows a second over")
    expect(plot).to_be_visible()
    assert plot.locator("canvas").bounding_box()
    expect(page.locator("[role=status][data-state]")).to_contain_text("a second")
    page.get_by_role("button", name="Cancel this job").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel the job").click()
    expect(page.locator("[data-state=cancelled]")).to_be_visible()
    expect(plot).to_be_visible()
    assert_accessible(page)


def test_a_list_that_fails_is_said(
    open_page: Open, start: Callable[..., Service], tmp_path: Path
) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    service = start(f"--data={tmp_path}", f"--roots=file://{tmp_path}/loop/x")
    watched = open_page(service.ready_url(), VIEW)
    watched.refusals_expected = True
    watched.page.get_by_text("Submit a job", exact=True).click()
    expect(watched.page.get_by_text("The arrays below the roots cannot be listed")).to_be_visible()

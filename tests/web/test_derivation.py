"""The derivation used as a person would; its numbers are the library's, digit for digit."""

from __future__ import annotations

from typing import Any

import pytest
from chromium import Open
from playwright.sync_api import Page, expect
from web_support import assert_accessible, number

import softxent

ROWS = [
    ("2,1,0.1", 0),
    ("20,0", 0),
    ("0,-800", 1),
    ("100,98,97", 0),
    ("1e8,1e8,-3", 1),
    ("0.1,-600.3,-1.7,3,4,5,6,7,8,9,10,11", 1),
]

VIEWPORTS: list[dict[str, Any]] = [{"width": 1280, "height": 900}, {"width": 400, "height": 800}]


def shown(page: Page, name: str) -> list[float]:
    return [number(text) for text in page.locator(f"[data-{name}]").all_inner_texts()]


def attributes(page: Page, name: str) -> list[float]:
    found = page.locator(f"[data-{name}]").all()
    return [float(one.get_attribute(f"data-{name}") or "nan") for one in found]


@pytest.mark.parametrize(("logits", "label"), ROWS)
def test_every_number_is_the_library_s(
    open_page: Open, service_url: str, logits: str, label: int
) -> None:
    page = open_page(service_url, f"/#derivation?logits={logits}&label={label}").page
    wanted = softxent.explain([float(text) for text in logits.split(",")], label)
    expect(page.locator("[data-loss]")).to_be_visible()
    assert shown(page, "loss") == [wanted.loss]
    assert shown(page, "sum") == [wanted.stable.S]
    assert shown(page, "softmax") == wanted.softmax_out.tolist()
    assert shown(page, "gradient") == wanted.fused_gradient.tolist()
    assert attributes(page, "value") == wanted.softmax_jacobian.ravel().tolist()
    assert attributes(page, "exponential") == wanted.stable.e.tolist()
    if wanted.chain_rule_product is None:
        expect(page.locator(".undefined")).to_have_text(list(wanted.notes))
    else:
        assert wanted.loss_by_softmax_out is not None
        assert shown(page, "quotient") == wanted.loss_by_softmax_out.tolist()
        assert shown(page, "product") == wanted.chain_rule_product.tolist()
        assert shown(page, "difference") == [wanted.largest_difference]


def test_wrong_digits_are_marked_and_told_in_words(open_page: Open, service_url: str) -> None:
    page = open_page(service_url).page
    page.get_by_role("button", name="20, 0").click()
    loss = page.get_by_role("row", name="L", exact=False).filter(has=page.locator("del"))
    cells = loss.first.locator("[data-naive]")
    # log(1 / (1 + 2.06e-9)): eight digits are lost in float64, all of them in float32.
    expect(cells.nth(0)).to_contain_text("7 digits right")
    assert cells.nth(0).locator("del").inner_text() == "5832696244e−9"
    expect(cells.nth(1)).to_contain_text("no digit right")
    page.get_by_role("button", name="100, 98, 97").click()
    expect(page.locator('[data-naive="float32"] del').first).to_have_text("NaN")
    expect(page.locator('[data-naive="float64"] del')).to_have_count(0)


def test_a_row_is_typed_and_stands_in_the_address(open_page: Open, service_url: str) -> None:
    page = open_page(service_url).page
    page.get_by_label("Logit of class 1", exact=True).fill("3.5")
    page.get_by_label("Class 2 is the label").check()
    page.get_by_role("button", name="Add a class").click()
    page.get_by_label("Logit of class 3", exact=True).fill("-1e1")
    wanted = softxent.explain([2, 3.5, 0.1, -10], 2)
    expect(page.locator("[data-softmax]")).to_have_count(4)
    expect(page.locator("[data-gradient]").nth(2)).to_have_text(
        str(wanted.fused_gradient[2]).replace("-", "−")
    )
    assert page.url.endswith("#derivation?logits=2,3.5,0.1,-1e1&label=2")
    page.get_by_role("button", name="Copy a link").click()
    expect(page.get_by_text("Copied.")).to_be_visible()
    link = page.evaluate("navigator.clipboard.readText()")
    assert link == page.url
    again = open_page(service_url, link.removeprefix(service_url)).page
    expect(again.get_by_label("Logit of class 3", exact=True)).to_have_value("-1e1")
    expect(again.get_by_label("Class 2 is the label")).to_be_checked()
    assert shown(again, "loss") == [wanted.loss]


def test_a_slider_moves_a_logit(open_page: Open, service_url: str) -> None:
    page = open_page(service_url).page
    slider = page.get_by_label("Slider for the logit of class 0")
    slider.focus()
    slider.press("ArrowRight")
    expect(page.get_by_label("Logit of class 0", exact=True)).to_have_value("2.1")
    wanted = softxent.explain([2.1, 1, 0.1], 0).loss
    expect(page.locator("[data-loss]")).to_have_text(str(wanted))


def test_probabilities_as_the_target(open_page: Open, service_url: str) -> None:
    page = open_page(service_url).page
    page.get_by_label("probabilities").check()
    for n, text in enumerate(("2", "1", "1")):
        page.get_by_label(f"Probability of class {n}").fill(text)
    expect(page.get_by_role("alert")).to_have_text("The probabilities sum to 4, not to 1.")
    page.get_by_role("button", name="Divide by their sum").click()
    wanted = softxent.explain([2, 1, 0.1], target_probabilities=[0.5, 0.25, 0.25])
    expect(page.locator("[data-loss]")).to_have_text(str(wanted.loss))
    assert shown(page, "gradient") == wanted.fused_gradient.tolist()
    assert page.url.endswith("&target=0.5,0.25,0.25")


@pytest.mark.parametrize("text", ["", "two", "1,2", "NaN", "1e999", "<b>1</b>"])
def test_what_is_no_number_is_said_and_the_last_steps_stay(
    open_page: Open, service_url: str, text: str
) -> None:
    page = open_page(service_url).page
    expect(page.locator("[data-loss]")).to_be_visible()
    cell = page.get_by_label("Logit of class 1", exact=True)
    cell.fill(text)
    expect(page.get_by_role("alert")).to_have_text("The logit of class 1 is not a number.")
    expect(cell).to_have_attribute("aria-invalid", "true")
    expect(page.locator(".stale [data-loss]")).to_be_visible()
    cell.fill("1")
    expect(page.locator(".stale")).to_have_count(0)


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("logits=1", "The address names 1 logits; this page takes 2 to 12."),
        ("logits=1,x", "The address holds something that is not a number."),
        (
            "logits=<img src=x onerror=alert(1)>,2",
            "The address holds something that is not a number.",
        ),
        ("logits=1,2&label=2", "The address names a label outside 0 to 1."),
        ("logits=1,2&target=1", "The address names more logits than probabilities, or fewer."),
    ],
)
def test_an_address_that_names_no_row_is_said(
    open_page: Open, service_url: str, address: str, says: str
) -> None:
    page = open_page(service_url, f"/#derivation?{address}").page
    expect(page.get_by_role("alert").first).to_have_text(says)
    expect(page.locator("[data-loss]")).to_be_visible()


def test_the_jacobian_is_walked_by_arrow_keys(open_page: Open, service_url: str) -> None:
    page = open_page(service_url).page
    wanted = softxent.explain([2, 1, 0.1], 0).softmax_jacobian
    page.locator("[data-cell='0,0']").focus()
    for key, at in (("ArrowDown", (1, 0)), ("ArrowRight", (1, 1)), ("ArrowUp", (0, 1))):
        page.keyboard.press(key)
        expect(page.locator(f"[data-cell='{at[0]},{at[1]}']")).to_be_focused()
        assert number(page.locator("[data-worked]").inner_text()) == wanted[at]
    page.keyboard.press("ArrowUp")
    expect(page.locator("[data-cell='0,1']")).to_be_focused()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", VIEWPORTS, ids=["wide", "narrow"])
@pytest.mark.parametrize(
    "address", ["", "#derivation?logits=20,0&label=0", "#derivation?logits=0,-800&label=1"]
)
def test_axe_finds_nothing(
    open_page: Open, service_url: str, scheme: str, viewport: dict[str, Any], address: str
) -> None:
    page = open_page(service_url, f"/{address}", color_scheme=scheme, viewport=viewport).page
    expect(page.locator("[data-loss]")).to_be_visible()
    assert_accessible(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]


def test_the_first_paint_asks_for_no_metrics_and_no_jobs(open_page: Open, service_url: str) -> None:
    page = open_page(service_url, "/").page
    expect(page.locator("[data-loss]")).to_be_visible()
    names = page.evaluate("performance.getEntriesByType('resource').map(e => e.name)")
    paths = sorted(name.removeprefix(service_url) for name in names)
    assert [path for path in paths if not path.startswith("/web/")] == ["/v1/explain"]

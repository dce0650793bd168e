"""Tensors in shared memory: written where the client reads, whatever it does to them meanwhile."""

from __future__ import annotations

import mmap
import os
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
import pytest
from service_support import assert_alive, assert_problem, batch
from test_service_oip import INFER, native, post, results

from oip_bodies import Array, as_bytes, described, message

SYSTEM = "/v2/systemsharedmemory"


@dataclass
class Shared:
    """A client's object of shared memory."""

    key: str
    size: int
    descriptor: int
    memory: mmap.mmap

    def array(self, array: Array, offset: int = 0) -> Array:
        """Return room for an array like this one."""
        return np.ndarray(array.shape, array.dtype, self.memory, offset)


Make = Callable[[int], Shared]


@pytest.fixture
def url(shared_memory_url: str) -> str:
    return shared_memory_url


@pytest.fixture
def make() -> Iterator[Make]:
    made: list[Shared] = []

    def one_more(size: int) -> Shared:
        key = f"softxent-test-{uuid.uuid4().hex}"
        descriptor = os.open(f"/dev/shm/{key}", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        os.ftruncate(descriptor, size)
        made.append(Shared(key, size, descriptor, mmap.mmap(descriptor, size)))
        return made[-1]

    yield one_more
    for shared in made:
        os.close(shared.descriptor)
        Path("/dev/shm", shared.key).unlink(missing_ok=True)


def manage(url: str, path: str, **members: Any) -> httpx.Response:
    return httpx.post(f"{url}{SYSTEM}{path}", json=members, timeout=60, verify=False)


def register(url: str, name: str, shared: Shared, offset: int = 0, size: int | None = None) -> None:
    size = shared.size - offset if size is None else size
    answer = manage(
        url, f"/region/{quote(name)}/register", key="/" + shared.key, offset=offset, byte_size=size
    )
    assert answer.status_code == 200, answer.text


@pytest.fixture(autouse=True)
def _forget(url: str) -> Iterator[None]:
    yield
    assert manage(url, "/unregister").status_code == 200


def place(region: str, size: int, offset: int = 0) -> dict[str, Any]:
    return {
        "shared_memory_region": region,
        "shared_memory_byte_size": size,
        "shared_memory_offset": offset,
    }


def call(url: str, inputs: dict[str, Any], sent: dict[str, Array], outputs: Any) -> httpx.Response:
    """Infer with inputs in regions, as given, and others that are sent."""
    entries = [*inputs.values(), *(as_bytes(name, array) for name, array in sent.items())]
    document = {"inputs": entries, "outputs": outputs, "parameters": {"binary_data_output": True}}
    body, headers = message(document, *sent.values())
    return post(url, body, INFER, **headers)


def test_regions_are_registered_told_of_and_forgotten(url: str, make: Make) -> None:
    shared = make(5_000)
    register(url, "a b", shared, 7, 4_000)
    row = {"name": "a b", "key": "/" + shared.key, "offset": 7, "byte_size": 4_000}
    assert httpx.get(f"{url}{SYSTEM}/status", verify=False).json() == [row]
    assert httpx.get(f"{url}{SYSTEM}/region/a%20b/status", verify=False).json() == [row]
    unknown = httpx.get(f"{url}{SYSTEM}/region/b/status", verify=False)
    assert_problem(unknown, 404, "unknown-region", "b")
    again = manage(url, "/region/a%20b/register", key=shared.key, byte_size=10)
    assert_problem(again, 409, "region-taken", "a b")
    assert manage(url, "/region/b/unregister").status_code == 200
    assert manage(url, "/region/a%20b/unregister").status_code == 200
    assert httpx.get(f"{url}{SYSTEM}/status", verify=False).json() == []


@pytest.mark.parametrize(
    ("members", "word"),
    [
        ({"byte_size": 10}, "malformed-body"),
        ({"key": 3, "byte_size": 10}, "malformed-body"),
        ({"key": "KEY"}, "malformed-body"),
        ({"key": "KEY", "byte_size": -1}, "malformed-body"),
        ({"key": "KEY", "byte_size": "10"}, "malformed-body"),
        ({"key": "KEY", "byte_size": 10, "offset": 2**63}, "malformed-body"),
        ({"key": "KEY", "byte_size": 2**70}, "malformed-body"),
        ({"key": "KEY", "byte_size": 0}, "invalid-region"),
        ({"key": "KEY", "byte_size": 101}, "invalid-region"),
        ({"key": "KEY", "byte_size": 10, "offset": 91}, "invalid-region"),
        ({"key": "KEY", "byte_size": 10, "offset": 1000}, "invalid-region"),
        ({"key": "softxent-nobody-has-this", "byte_size": 10}, "invalid-region"),
        ({"key": "/", "byte_size": 10}, "invalid-region"),
        ({"key": "..", "byte_size": 10}, "invalid-region"),
        ({"key": "../etc/passwd", "byte_size": 10}, "invalid-region"),
        ({"key": "a\0b", "byte_size": 10}, "invalid-region"),
        ({"key": "a" * 300, "byte_size": 10}, "invalid-region"),
    ],
)
def test_what_cannot_be_registered(url: str, make: Make, members: Any, word: str) -> None:
    key = make(100).key
    given = {name: key if value == "KEY" else value for name, value in members.items()}
    answer = manage(url, "/region/r/register", **given)
    assert answer.status_code == 400
    assert answer.json()["type"] == f"urn:softxent:problem:{word}"
    assert httpx.get(f"{url}{SYSTEM}/status", verify=False).json() == []


def test_links_directories_and_objects_of_others(url: str, make: Make) -> None:
    shared = make(100)
    folder, link = Path("/dev/shm", shared.key + "-d"), Path("/dev/shm", shared.key + "-l")
    folder.mkdir()
    link.symlink_to(f"/dev/shm/{shared.key}")
    try:
        for key in (folder.name, link.name):
            answer = manage(url, "/region/r/register", key=key, byte_size=10)
            assert_problem(answer, 400, "invalid-region", "key")
    finally:
        folder.rmdir()
        link.unlink()
    if os.geteuid() == 0:
        os.chown(shared.descriptor, 12_345, -1)
        answer = manage(url, "/region/r/register", key=shared.key, byte_size=10)
        assert_problem(answer, 400, "invalid-region", "key")


@pytest.mark.parametrize("rows", [3, 500])
@pytest.mark.parametrize("offset", [0, 1, 6])
def test_bits_are_those_of_bodies(url: str, make: Make, rows: int, offset: int) -> None:
    tensors = batch(rows, 700)
    logits, labels = tensors["logits"], tensors["labels"]
    given, taken = make(logits.nbytes + offset + 50), make(2 * logits.nbytes)
    given.array(logits, 50 + offset)[:] = logits
    register(url, "in", given, 50)
    register(url, "out", taken)
    start = labels.nbytes + offset
    answer = call(
        url,
        {"logits": described("logits", logits, parameters=place("in", logits.nbytes, offset))},
        {"labels": labels},
        [
            {"name": "gradient", "parameters": place("out", logits.nbytes, start)},
            {"name": "loss", "parameters": place("out", 4 * rows)},
            {"name": "rank"},
        ],
    )
    document, found = results(answer)
    expected = native(url, tensors)
    loss = np.zeros(rows, np.float32)
    assert taken.array(logits, start).tobytes() == expected["gradient"].tobytes()
    assert taken.array(loss).tobytes() == expected["loss"].tobytes()
    assert list(found) == ["rank"]
    assert document["outputs"][0]["parameters"] == place("out", logits.nbytes, start)
    # What the client gave is not written to.
    assert given.array(logits, 50 + offset).tobytes() == logits.tobytes()


def test_every_input_may_lie_in_one_region(url: str, make: Make) -> None:
    tensors = {**batch(40, 300), "class_mask": np.ones(300, np.bool_), "row_weights": np.ones(40)}
    shared, inputs, at = make(1 << 20), {}, 3
    for name, array in tensors.items():
        shared.array(array, at)[:] = array
        inputs[name] = described(name, array, parameters=place("all", array.nbytes, at))
        at += array.nbytes
    register(url, "all", shared)
    _, found = results(call(url, inputs, {}, []))
    assert found["gradient"].tobytes() == native(url, tensors)["gradient"].tobytes()


def test_the_gradient_may_take_the_place_of_the_logits(url: str, make: Make) -> None:
    tensors = batch(300, 300)
    logits = tensors["logits"]
    shared = make(logits.nbytes + 64)
    shared.array(logits)[:] = logits
    register(url, "r", shared)
    there = {"logits": described("logits", logits, parameters=place("r", logits.nbytes))}
    sent = {"labels": tensors["labels"]}
    overlapping = [{"name": "gradient", "parameters": place("r", logits.nbytes, 64)}]
    refused = call(url, there, sent, overlapping)
    assert_problem(refused, 422, "invalid-output-buffer", "gradient")
    results(call(url, there, sent, [{"name": "gradient", "parameters": place("r", logits.nbytes)}]))
    assert shared.array(logits).tobytes() == native(url, tensors)["gradient"].tobytes()


@pytest.fixture(params=["two regions", "a hard link"])
def names(request: pytest.FixtureRequest, url: str, make: Make) -> Iterator[Shared]:
    """An object that is registered as the regions a and b, in the latter from its byte 64 on."""
    shared, link = make(1 << 20), None
    register(url, "a", shared)
    if request.param == "a hard link":
        link = Path("/dev/shm", shared.key + "-link")
        link.hardlink_to(f"/dev/shm/{shared.key}")
        register(url, "b", replace(shared, key=link.name), 64)
    else:
        register(url, "b", shared, 64)
    yield shared
    if link is not None:
        link.unlink()


@pytest.mark.parametrize(("name", "at"), [("gradient", 4096), ("gradient", -64), ("loss", 4096)])
def test_an_overlap_is_seen_under_any_name(url: str, names: Shared, name: str, at: int) -> None:
    tensors = batch(300, 300)
    logits = tensors["logits"]
    names.array(logits, 64)[:] = logits
    there = {"logits": described("logits", logits, parameters=place("a", logits.nbytes, 64))}
    size = logits.nbytes if name == "gradient" else 4 * len(logits)
    # Counted from the first byte of the logits.
    where = place("b", size, at) if at >= 0 else place("a", size, 64 + at)
    other = {"name": name, "parameters": where}
    refused = call(url, there, {"labels": tensors["labels"]}, [other])
    assert_problem(refused, 422, "invalid-output-buffer", name)
    assert names.array(logits, 64).tobytes() == logits.tobytes()


def test_the_gradient_takes_the_place_of_the_logits_under_any_name(url: str, names: Shared) -> None:
    tensors = batch(300, 300)
    logits = tensors["logits"]
    names.array(logits, 64)[:] = logits
    there = {"logits": described("logits", logits, parameters=place("a", logits.nbytes, 64))}
    sent = {"labels": tensors["labels"]}
    results(call(url, there, sent, [{"name": "gradient", "parameters": place("b", logits.nbytes)}]))
    assert names.array(logits, 64).tobytes() == native(url, tensors)["gradient"].tobytes()


@pytest.mark.parametrize(
    ("first", "second"),
    [("gradient", "loss"), ("loss", "gradient"), ("loss", "rank"), ("gradient", "probabilities")],
)
@pytest.mark.usefixtures("names")
def test_outputs_do_not_overlap_one_another(url: str, first: str, second: str) -> None:
    tensors = batch(300, 300)
    sizes = {"loss": 1200, "rank": 2400}
    outputs = [
        {"name": name, "parameters": place(region, sizes.get(name, 360_000), at)}
        for name, region, at in ((first, "a", 1000), (second, "b", 1000))
    ]
    refused = call(url, {}, tensors, outputs)
    assert refused.status_code == 422, refused.text
    assert refused.json()["type"] == "urn:softxent:problem:invalid-output-buffer"
    assert refused.json()["field"] in (first, second)
    # Side by side they are taken.
    outputs[1]["parameters"] = place("b", sizes.get(second, 360_000), 500_000)
    assert call(url, {}, tensors, outputs).status_code == 200


def test_an_output_spares_inputs_that_are_copied(url: str, names: Shared) -> None:
    tensors = batch(300, 300)
    labels = tensors.pop("labels")
    names.array(labels)[:] = labels
    inputs = {"labels": described("labels", labels, parameters=place("a", labels.nbytes))}
    outputs = [{"name": "loss", "parameters": place("b", 1200, 8)}]
    refused = call(url, inputs, tensors, outputs)
    assert_problem(refused, 422, "invalid-output-buffer", "loss")
    assert names.array(labels).tobytes() == labels.tobytes()


@pytest.mark.parametrize("size", [0, 8, 119])
def test_regions_that_are_too_small(url: str, make: Make, size: int) -> None:
    tensors = batch(3, 10)
    register(url, "r", make(150))
    for output in ("gradient", "loss"):
        least = {"gradient": 120, "loss": 12}[output]
        asked = [{"name": output, "parameters": place("r", min(size, least - 1))}]
        assert_problem(call(url, {}, tensors, asked), 400, "invalid-region", output)
    beyond = [{"name": "gradient", "parameters": place("r", 120, 31)}]
    assert_problem(call(url, {}, tensors, beyond), 400, "invalid-region", "r")


def shrunk_and_removed(shared: Shared) -> Iterator[Callable[[], None]]:
    yield lambda: os.ftruncate(shared.descriptor, 4096)
    yield lambda: Path("/dev/shm", shared.key).unlink()


@pytest.mark.parametrize("case", [0, 1])
@pytest.mark.parametrize("side", ["input", "output"])
def test_a_region_that_was_shrunk_or_removed(url: str, make: Make, case: int, side: str) -> None:
    tensors = batch(100, 100)
    logits = tensors["logits"]
    shared = make(logits.nbytes)
    register(url, "r", shared)
    list(shrunk_and_removed(shared))[case]()
    there = place("r", logits.nbytes)
    if side == "input":
        inputs = {"logits": described("logits", logits, parameters=there)}
        answer = call(url, inputs, {"labels": tensors["labels"]}, [])
    else:
        answer = call(url, {}, tensors, [{"name": "gradient", "parameters": there}])
    assert_problem(answer, 400, "invalid-region", "r")
    assert_alive(url)


@pytest.mark.parametrize("side", ["input", "output", "labels"])
def test_regions_that_shrink_while_they_are_used(url: str, make: Make, side: str) -> None:
    tensors = batch(1_000, 2_000)
    logits, labels = tensors["logits"], tensors["labels"]
    shared = make(logits.nbytes)
    statuses = set()
    for round_ in range(12):
        os.ftruncate(shared.descriptor, shared.size)
        memory = mmap.mmap(shared.descriptor, shared.size)
        np.ndarray(logits.shape, logits.dtype, memory)[:] = logits if side == "input" else 0
        register(url, "r", shared)
        inputs: dict[str, Any] = {}
        outputs: list[Any] = [{"name": "loss"}]
        sent = dict(tensors)
        if side == "output":
            outputs = [{"name": "gradient", "parameters": place("r", logits.nbytes)}]
        else:
            name = "logits" if side == "input" else "labels"
            at = 0 if side == "input" else shared.size - labels.nbytes
            array = sent.pop(name)
            there = place("r", array.nbytes, at)
            inputs[name] = described(name, array, parameters=there)
        shrink = threading.Timer(0.002 * round_, os.ftruncate, (shared.descriptor, 100))
        shrink.start()
        answer = call(url, inputs, sent, outputs)
        shrink.join()
        statuses.add(answer.status_code)
        if answer.status_code != 200:
            assert_problem(answer, 400, "invalid-region", "r")
        manage(url, "/unregister")
    assert statuses <= {200, 400}
    assert 400 in statuses
    assert_alive(url)


def test_a_region_that_is_forgotten_stays_for_the_calls_that_use_it(url: str, make: Make) -> None:
    tensors = batch(1_000, 2_000)
    shared = make(tensors["logits"].nbytes)
    expected = native(url, tensors)["gradient"].tobytes()
    for round_ in range(6):
        register(url, "r", shared)
        asked = [{"name": "gradient", "parameters": place("r", shared.size)}]
        forget = threading.Timer(0.004 * round_, manage, (url, "/unregister"))
        forget.start()
        answer = call(url, {}, tensors, asked)
        forget.join()
        if answer.status_code == 200:
            assert shared.array(tensors["logits"]).tobytes() == expected
        else:
            assert_problem(answer, 404, "unknown-region", "r")


def test_labels_that_change_under_the_service_are_harmless(url: str, make: Make) -> None:
    """What was checked is what is used, or labels could point anywhere in memory."""
    tensors = batch(2_000, 500)
    labels = tensors.pop("labels")
    shared = make(labels.nbytes)
    mine = shared.array(labels)
    register(url, "r", shared)
    inputs = {"labels": described("labels", labels, parameters=place("r", labels.nbytes))}
    stop = threading.Event()

    def scribble() -> None:
        while not stop.wait(0.0005):
            mine[:] = 2**40
            mine[:] = labels

    mine[:] = labels
    scribbler = threading.Thread(target=scribble)
    scribbler.start()
    try:
        for _ in range(20):
            answer = call(url, inputs, tensors, [{"name": "loss"}])
            assert answer.status_code in (200, 422), answer.text
    finally:
        stop.set()
        scribbler.join()
    assert_alive(url)


def test_a_unix_domain_socket_allows_it_too(tmp_path: Path, start: Any, make: Make) -> None:
    path = tmp_path / "softxent.sock"
    service = start(f"--uds={path}", "--shared-memory", "--host=0.0.0.0")
    service.wait_for("ready:")
    shared = make(100)
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://s") as client:
        answer = client.post(
            f"{SYSTEM}/region/r/register", json={"key": shared.key, "byte_size": 100}
        )
        assert answer.status_code == 200, answer.text
        assert "system_shared_memory" in client.get("/v2").json()["extensions"]
    assert service.end() == 0

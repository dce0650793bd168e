"""The client: the library's own call, evaluated by a service."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Self, Unpack

import httpx
import numpy.typing as npt
from httpx_retries import RetryTransport

from softxent.evaluations import HESSIAN_VECTOR_PRODUCT, PRODUCT, SOFTMAX
from softxent.explanation import Explanation
from softxent.options import OptionKeywords, ProductKeywords, SoftmaxKeywords, shows_options
from softxent.results import CrossEntropyResult, Floats
from softxent_client.direct import DirectTransport
from softxent_client.errors import ServiceUnavailableError
from softxent_client.messages import RECEIVED, Answer, Call, answer, is_too_long
from softxent_client.per_process import PerProcess
from softxent_client.prepared import TIMEOUT, can_be_direct, proxy_of
from softxent_client.shared import (
    RETRIES,
    Encoding,
    Shared,
    Steps,
    T,
    Timeout,
    connection_errors,
    retry_policy,
    service_url,
)


class Client(Shared):
    """A service's evaluations under the library's own signature; for any number of threads.

    A forked child opens connections of its own; a client cannot be pickled or copied.

    Args:
        base_url: where the service is, such as "http://127.0.0.1:8000"; other than an http or
            https URL with a host is a ValueError.
        key: what the service lets this client in by; it is sent to `base_url` and nowhere else.
        encoding: "binary" (no copy, no rounding) or "json".
        timeout: seconds for each wait, or an `httpx.Timeout`.
        retries: how often a request is sent again; see `retry_policy`.
        transport: an `httpx` transport to send with instead of one of our own; it belongs to this
            process, and a forked child's call is a ForkError.
    """

    def __init__(
        self,
        base_url: str,
        *,
        key: str | None = None,
        encoding: Encoding = "binary",
        timeout: Timeout = TIMEOUT,
        retries: int = RETRIES,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        url = service_url(base_url)
        super().__init__(url, encoding, key, timeout)

        def connections() -> RetryTransport:
            return RetryTransport(_sending(url, transport), retry_policy(retries))

        self._connections = PerProcess(connections, forks=transport is None)

    @shows_options(OptionKeywords)
    def cross_entropy(
        self,
        logits: npt.ArrayLike,
        labels: npt.ArrayLike | None = None,
        *,
        target_probabilities: npt.ArrayLike | None = None,
        target_indices: npt.ArrayLike | None = None,
        target_log_probabilities: npt.ArrayLike | None = None,
        class_weights: npt.ArrayLike | None = None,
        row_weights: npt.ArrayLike | None = None,
        class_mask: npt.ArrayLike | None = None,
        **options: Unpack[OptionKeywords],
    ) -> CrossEntropyResult:
        """Return what `softxent.cross_entropy` returns for the same arguments, to the bit.

        `logits` [..., C] of the library's dtypes; a target: `labels` [...], `target_probabilities`
        [..., C], `target_indices` and `target_log_probabilities` [..., K], or labels and one of
        the others; `class_weights` [C], `row_weights` [...], `class_mask` [C] or [..., C]. A batch
        over the service's limit is sent in parts. Arrays of a binary answer are views of the
        buffer that it was received in.

        Raises:
            SoftxentError: whatever the library would raise; ServiceUnavailableError and
                ServiceError where the service did not do its part.
        """
        return self._run(self._cross_entropy_steps(locals()))

    @shows_options(SoftmaxKeywords)
    def softmax(
        self,
        logits: npt.ArrayLike,
        *,
        class_mask: npt.ArrayLike | None = None,
        **options: Unpack[SoftmaxKeywords],
    ) -> Floats:
        """Return what `softxent.softmax` returns for the same arguments, to the bit."""
        return self._run(self._output_steps("probabilities", SOFTMAX, locals()))

    @shows_options(SoftmaxKeywords)
    def log_softmax(
        self,
        logits: npt.ArrayLike,
        *,
        class_mask: npt.ArrayLike | None = None,
        **options: Unpack[SoftmaxKeywords],
    ) -> Floats:
        """Return what `softxent.log_softmax` returns for the same arguments, to the bit."""
        return self._run(self._output_steps("log_probabilities", SOFTMAX, locals()))

    @shows_options(SoftmaxKeywords)
    def logsumexp(
        self,
        logits: npt.ArrayLike,
        *,
        class_mask: npt.ArrayLike | None = None,
        **options: Unpack[SoftmaxKeywords],
    ) -> Floats:
        """Return what `softxent.logsumexp` returns for the same arguments, to the bit."""
        return self._run(self._output_steps("log_normalizer", SOFTMAX, locals()))

    @shows_options(ProductKeywords)
    def hessian_vector_product(
        self,
        logits: npt.ArrayLike,
        vectors: npt.ArrayLike,
        labels: npt.ArrayLike | None = None,
        *,
        target_probabilities: npt.ArrayLike | None = None,
        target_indices: npt.ArrayLike | None = None,
        target_log_probabilities: npt.ArrayLike | None = None,
        class_weights: npt.ArrayLike | None = None,
        row_weights: npt.ArrayLike | None = None,
        class_mask: npt.ArrayLike | None = None,
        **options: Unpack[ProductKeywords],
    ) -> Floats:
        """Return what `softxent.hessian_vector_product` returns for these arguments, to the bit."""
        return self._run(self._output_steps(PRODUCT, HESSIAN_VECTOR_PRODUCT, locals()))

    def info(self) -> dict[str, Any]:
        """Return what the service says of itself: version, limits and so on."""
        return self._run(self._info_steps())

    def explain(
        self,
        logits: npt.ArrayLike,
        label: int | None = None,
        *,
        target_probabilities: npt.ArrayLike | None = None,
    ) -> Explanation:
        """Return every step of the derivation for one row of logits [C], as `softxent.explain`."""
        return self._run(self._explain_steps(logits, label, target_probabilities))

    def health(self) -> bool:
        """Tell whether the service is there and ready; asked once, without retries."""
        with suppress(ServiceUnavailableError):
            return self._run(self._health_steps())
        return False

    def close(self) -> None:
        """Close the connections."""
        if (transport := self._connections.existing()) is not None:
            transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, steps: Steps[T]) -> T:
        reply: Any = None
        while True:
            try:
                call = steps.send(reply)
            except StopIteration as stop:
                result: T = stop.value
                return result
            reply = self._send(call)

    def _send(self, call: Call) -> Answer:
        transport = self._connections.get()
        with connection_errors():
            request = self._requests.request(call)
            return answer(transport.handle_request(request))


def _sending(url: httpx.URL, given: httpx.BaseTransport | None) -> httpx.BaseTransport:
    """Return what sends: our own transport, or httpx's for a proxy, or what the caller gave."""
    proxy = proxy_of(url)
    if given is None and proxy is None and can_be_direct():
        return DirectTransport(url)
    return _WholeAnswers(given or httpx.HTTPTransport(proxy=proxy))


class _WholeAnswers(httpx.BaseTransport):
    """Reader of whole answers, below the retries, so that they see a body that ends too early."""

    def __init__(self, transport: httpx.BaseTransport) -> None:
        self._transport = transport

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        response = self._transport.handle_request(request)
        stream, body = response.stream, bytearray()
        # httpx.MockTransport's answers have been read already; their stream can be read again.
        assert isinstance(stream, httpx.SyncByteStream)
        response.extensions[RECEIVED] = body
        try:
            for piece in stream:
                body += piece
                if is_too_long(response.status_code, len(body)):
                    break
        finally:
            response.close()
        return response

    def close(self) -> None:
        self._transport.close()

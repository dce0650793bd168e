"""Client for asyncio; it differs from the other in how it sends and waits."""

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
from softxent_client.async_direct import AsyncDirectTransport
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


class AsyncClient(Shared):
    """`Client` for asyncio; the arguments and the methods are the same."""

    def __init__(
        self,
        base_url: str,
        *,
        key: str | None = None,
        encoding: Encoding = "binary",
        timeout: Timeout = TIMEOUT,
        retries: int = RETRIES,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        url = service_url(base_url)
        super().__init__(url, encoding, key, timeout)

        def connections() -> RetryTransport:
            return RetryTransport(_sending(url, transport), retry_policy(retries))

        self._connections = PerProcess(connections, forks=transport is None)

    @shows_options(OptionKeywords)
    async def cross_entropy(
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
        """Do what `Client.cross_entropy` does."""
        return await self._run(self._cross_entropy_steps(locals()))

    @shows_options(SoftmaxKeywords)
    async def softmax(
        self,
        logits: npt.ArrayLike,
        *,
        class_mask: npt.ArrayLike | None = None,
        **options: Unpack[SoftmaxKeywords],
    ) -> Floats:
        """Do what `Client.softmax` does."""
        return await self._run(self._output_steps("probabilities", SOFTMAX, locals()))

    @shows_options(SoftmaxKeywords)
    async def log_softmax(
        self,
        logits: npt.ArrayLike,
        *,
        class_mask: npt.ArrayLike | None = None,
        **options: Unpack[SoftmaxKeywords],
    ) -> Floats:
        """Do what `Client.log_softmax` does."""
        return await self._run(self._output_steps("log_probabilities", SOFTMAX, locals()))

    @shows_options(SoftmaxKeywords)
    async def logsumexp(
        self,
        logits: npt.ArrayLike,
        *,
        class_mask: npt.ArrayLike | None = None,
        **options: Unpack[SoftmaxKeywords],
    ) -> Floats:
        """Do what `Client.logsumexp` does."""
        return await self._run(self._output_steps("log_normalizer", SOFTMAX, locals()))

    @shows_options(ProductKeywords)
    async def hessian_vector_product(
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
        """Do what `Client.hessian_vector_product` does."""
        return await self._run(self._output_steps(PRODUCT, HESSIAN_VECTOR_PRODUCT, locals()))

    async def info(self) -> dict[str, Any]:
        """Do what `Client.info` does."""
        return await self._run(self._info_steps())

    async def explain(
        self,
        logits: npt.ArrayLike,
        label: int | None = None,
        *,
        target_probabilities: npt.ArrayLike | None = None,
    ) -> Explanation:
        """Do what `Client.explain` does."""
        return await self._run(self._explain_steps(logits, label, target_probabilities))

    async def health(self) -> bool:
        """Do what `Client.health` does."""
        with suppress(ServiceUnavailableError):
            return await self._run(self._health_steps())
        return False

    async def aclose(self) -> None:
        """Close the connections."""
        if (transport := self._connections.existing()) is not None:
            await transport.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _run(self, steps: Steps[T]) -> T:
        reply: Any = None
        while True:
            try:
                call = steps.send(reply)
            except StopIteration as stop:
                result: T = stop.value
                return result
            reply = await self._send(call)

    async def _send(self, call: Call) -> Answer:
        transport = self._connections.get()
        with connection_errors():
            request = self._requests.request(call)
            return answer(await transport.handle_async_request(request))


def _sending(url: httpx.URL, given: httpx.AsyncBaseTransport | None) -> httpx.AsyncBaseTransport:
    """Return what sends: our own transport, or httpx's for a proxy, or what the caller gave."""
    proxy = proxy_of(url)
    if given is None and proxy is None and can_be_direct():
        return AsyncDirectTransport(url)
    return _AsyncWholeAnswers(given or httpx.AsyncHTTPTransport(proxy=proxy))


class _AsyncWholeAnswers(httpx.AsyncBaseTransport):
    """Asynchronous form of the other client's `_WholeAnswers`."""

    def __init__(self, transport: httpx.AsyncBaseTransport) -> None:
        self._transport = transport

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await self._transport.handle_async_request(request)
        stream, body = response.stream, bytearray()
        # httpx.MockTransport's answers have been read already; their stream can be read again.
        assert isinstance(stream, httpx.AsyncByteStream)
        response.extensions[RECEIVED] = body
        try:
            async for piece in stream:
                body += piece
                if is_too_long(response.status_code, len(body)):
                    break
        finally:
            await response.aclose()
        return response

    async def aclose(self) -> None:
        await self._transport.aclose()

"""Tells schemathesis what bodies of the binary form look like."""

from __future__ import annotations

import schemathesis
from hypothesis import strategies as st
from service_support import BINARY, batch, binary, raw_binary
from target_support import KINDS, target_batch

from softxent_client.wire import safetensors_form

BODIES = [b"".join(safetensors_form.encode(target_batch(kind))) for kind in KINDS]
BODIES += [binary(batch()), raw_binary({}), raw_binary({"logits": {}}), b"", b"\xff" * 9]

schemathesis.openapi.media_type(BINARY, st.sampled_from(BODIES) | st.binary(max_size=64))

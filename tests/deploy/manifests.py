"""What kustomize makes of the overlays."""

from __future__ import annotations

from typing import Any

import yaml
from containers import ROOT, TOOLS, run

OVERLAYS = ROOT / "deploy" / "kubernetes" / "overlays"
Document = dict[str, Any]


def rendered(overlay: str) -> list[Document]:
    text = run(TOOLS / "kubectl", "kustomize", OVERLAYS / overlay)
    return list(yaml.safe_load_all(text))

"""Podman and buildah without a daemon, in a folder of their own, and the images that they need.

Needs Debian's packages buildah, podman, runc, netavark, aardvark-dns, catatonit, iptables and
mmdebstrap, and root. No registry of images is asked for anything.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PARTS = Path(__file__).parent / "parts"
TOOLS = Path(sys.executable).parent
IMAGE, BASE, PARTS_IMAGE = "localhost/softxent", "localhost/python", "localhost/parts"
SOURCES = Path("/etc/apt/sources.list.d")
KEYRINGS = Path("/usr/share/keyrings")
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")

CONTAINERS = """
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
[network]
network_backend = "netavark"
"""
STORAGE = '[storage]\ndriver = "overlay"\ngraphroot = "{0}/graph"\nrunroot = "{0}/run"\n'


def run(*command: str | Path, check: bool = True, **more: Any) -> str:
    """Run a program; return what it printed, and show what it complained of where it failed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, **more)
    assert not check or done.returncode == 0, (
        f"{command}: {done.stdout[-2000:]}{done.stderr[-4000:]}"
    )
    return str(done.stdout).strip()


class Containers:
    """Images and containers below one folder, which is all that is left of them."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        (folder / "containers.conf").write_text(CONTAINERS)
        (folder / "storage.conf").write_text(STORAGE.format(folder))
        self.environment = {
            **os.environ,
            "PATH": f"{TOOLS}{os.pathsep}{os.environ['PATH']}",
            "CONTAINERS_CONF": str(folder / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
        }

    def run(self, *command: str | Path, check: bool = True, **more: Any) -> str:
        return run(*command, check=check, env={**self.environment, **more.pop("env", {})}, **more)

    def podman(self, *arguments: str, check: bool = True) -> str:
        return self.run("podman", *arguments, check=check)

    def has(self, image: str) -> bool:
        return bool(self.podman("images", "--quiet", image))

    def base(self, name: str, packages: str) -> None:
        """Make an image of a few of Debian's packages, as slim as those that others publish."""
        if self.has(name):
            return
        tree = self.folder / "base.tar"
        slim = [f"--dpkgopt=path-exclude=/usr/share/{part}/*" for part in ("doc", "man", "locale")]
        emptied = 'rm -rf "$1"/var/cache/apt/*.bin "$1"/var/lib/apt/lists/*'
        command = ["mmdebstrap", "-q", "--variant=minbase", f"--include={packages}", *slim]
        self.run(*command, f"--customize-hook={emptied}", "bookworm", tree, _mirror())
        self.podman("import", "--quiet", str(tree), name)
        tree.unlink()

    def build(self, name: str, base: str, context: Path, *flags: str) -> None:
        command = ["buildah", "bud", "--quiet", "--isolation=chroot", "--format=docker", "--layers"]
        command += ["--pull-never", f"--build-arg=BASE_IMAGE={base}", f"--tag={name}", *flags]
        self.run(*command, context)

    def build_softxent(self) -> None:
        """Build the image of this checkout; what apt needs is this machine's."""
        self.base(BASE, "python3,python3-venv,ca-certificates")
        mounts = [f"--volume={place}:{place}:ro" for place in (SOURCES, KEYRINGS) if place.exists()]
        secret = f"--secret=id=ca_bundle,src={CERTIFICATES}"
        self.build(IMAGE, BASE, ROOT, *mounts, *([secret] if CERTIFICATES.exists() else []))

    def build_parts(self) -> None:
        """Build one image that stands for those of all other parts."""
        self.base(f"{PARTS_IMAGE}-base", "postgresql,haproxy,prometheus,ca-certificates,procps")
        context = self.folder / "parts"
        shutil.copytree(PARTS, context, dirs_exist_ok=True)
        shutil.copy(TOOLS / "weed", context / "weed")
        self.build(PARTS_IMAGE, f"{PARTS_IMAGE}-base", context)

    def inspect(self, name: str) -> Any:
        return json.loads(self.podman("inspect", name))[0]

    def clear(self) -> None:
        """Leave no container, network or mount; images stay, for the next run."""
        self.podman("rm", "--all", "--force", "--volumes", "--time=2", check=False)
        self.podman("volume", "prune", "--force", check=False)
        self.podman("network", "prune", "--force", check=False)
        # What a build that was interrupted has left.
        self.run("buildah", "rm", "--all", check=False)
        self.run("umount", self.folder / "graph" / "overlay", check=False)


def _mirror() -> str:
    """Return where this machine gets its own packages from."""
    texts = [path.read_text() for path in (*SOURCES.glob("*.sources"), *SOURCES.glob("*.list"))]
    found = re.search(r"^(?:URIs: |deb )(\S+)", "\n".join(texts), re.MULTILINE)
    assert found, "no source of Debian's packages"
    return found[1]

"""Recognition of other array formats, by their first bytes or their files.

Nothing of them is read but these bytes, so that the message names the format and what to do.
"""

from __future__ import annotations

import json

from softxent_service.jobs.errors import StorageError
from softxent_service.jobs.roots import Place
from softxent_service.jobs.storage import Folder

HEAD_BYTES = 4096

CONVERT = "save the array as Zarr v3 (zarr.create_array) or as .npy (numpy.save)"

UNPACK = "unpack it first"

MAGIC: tuple[tuple[bytes, str, str], ...] = (
    (b"\x93NUMPY", "a .npy file whose name does not end in .npy", "rename it"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file", CONVERT),
    (b"PAR1", "a Parquet file", CONVERT),
    (b"ARROW1", "an Arrow file", CONVERT),
    (b"\x1f\x8b", "compressed with gzip", UNPACK),
    (b"\x28\xb5\x2f\xfd", "compressed with Zstandard", UNPACK),
    (b"BZh", "compressed with bzip2", UNPACK),
    (b"\xfd7zXZ\x00", "compressed with xz", UNPACK),
    (b"\x80\x02", "a pickle, as older versions of torch.save write it", CONVERT),
    (b"\x80\x03", "a pickle", CONVERT),
    (b"\x80\x04", "a pickle", CONVERT),
    (b"\x80\x05", "a pickle", CONVERT),
)
"""First bytes, what they are of, and what to do."""

FILES: tuple[tuple[str, str, str], ...] = (
    (".zarray", "a Zarr v2 array", "convert it with `zarr migrate v3`, or save it as .npy"),
    (".zgroup", "a Zarr v2 group", "name one of its arrays, converted with `zarr migrate v3`"),
    ("attributes.json", "an N5 container", CONVERT),
    ("zarr.json", "a Zarr group or array whose name ends in .npy", "name it without .npy"),
)
"""A file that lies in a folder, what the folder is then, and what to do."""


def file_at(place: Place) -> tuple[Folder, str]:
    """Return the folder in which a file lies, and its name there."""
    parent, _, name = place.path.rpartition("/")
    return Folder(Place(place.root, parent)), name


def describe(place: Place) -> str | None:
    """Return what lies at a place that is no array, and what to do; None where nothing lies there.

    Raises:
        StorageError: it cannot be read.
    """
    folder, name = file_at(place)
    try:
        size = folder.size(name)
    except FileNotFoundError:
        return _describe_folder(Folder(place))
    return _describe_file(folder.read(name, 0, min(size, HEAD_BYTES)).tobytes(), size)


def _describe_file(head: bytes, size: int) -> str:
    if not head:
        return "an empty file; it may still be being written"
    for magic, what, action in (*MAGIC, *_nested(head, size)):
        if head.startswith(magic):
            return f"{what}; {action}"
    if all(byte >= 32 or byte in b"\t\n\r" for byte in head):
        return f"a text file; read it with numpy.loadtxt, and {CONVERT}"
    return f"a file of no format that is known here; {CONVERT}"


def _nested(head: bytes, size: int) -> list[tuple[bytes, str, str]]:
    """Return the formats that more than a few first bytes tell."""
    found = []
    if head.startswith(b"PK\x03\x04"):
        # The name of the first member begins after 30 bytes.
        member = head[30 : 30 + int.from_bytes(head[26:28], "little")]
        what = "a zip archive"
        if member.endswith(b".npy"):
            what = "an .npz archive"
        if member.endswith(b"/data.pkl") or b"/data.pkl" in head:
            what = "a file of torch.save"
        found.append((b"PK", what, CONVERT))
    length = int.from_bytes(head[:8], "little")
    if head[8:9] == b"{" and 2 <= length <= size - 8:
        found.append((head[:9], "a safetensors file", CONVERT))
    return found


def _describe_folder(folder: Folder) -> str | None:
    names = folder.children()
    for name, what, action in FILES:
        if name in names:
            return f"{what}; {action}"
    is_empty = folder.place.is_local and folder.place.folder.is_dir()
    if names or is_empty:
        return "a folder without zarr.json; name a Zarr v3 array or a .npy file"
    return None


def refuse_group(place: Place, field: str) -> None:
    """Refuse a Zarr group where an array was looked for; return where it is none.

    Raises:
        StorageError: it is a group; its arrays are named.
    """
    folder = Folder(place)
    try:
        is_group = json.loads(folder.read("zarr.json").tobytes())["node_type"] == "group"
    except (ValueError, KeyError, TypeError, FileNotFoundError):
        return
    if is_group:
        arrays = [name for name in folder.children() if folder.exists(f"{name}/zarr.json")]
        names = ", ".join(sorted(arrays)[:10]) or "it has none"
        raise StorageError(
            f"{place.url} is a Zarr group; name one of its arrays: {names}", field=field
        )

"""What a directory's files must hold: their sizes and SHA-256, written last and checked before anything is read."""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from byhand.checks import fail
from byhand.run_directory import write_whole

MANIFEST = "manifest.json"


def digest(path: Path) -> dict[str, Any]:
    """The size of a file in bytes, and the SHA-256 of what it holds, read in pieces."""
    with path.open("rb") as file:
        return {"size": os.fstat(file.fileno()).st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def write_manifest(directory: Path, files: Mapping[str, Mapping[str, Any]], **about: Any) -> None:
    """Write manifest.json: the digests of `files` by name, and `about`, which any JSON may be."""
    values = dict(about, files={name: dict(value) for name, value in files.items()})
    write_whole(directory / MANIFEST, _text(values | {"sha256": hashlib.sha256(_text(values)).hexdigest()}))


def read_manifest(who: str, directory: Path) -> dict[str, Any]:
    """What manifest.json holds: `about`, and the digests under "files".

    It holds a digest of itself too, and its text must be the very one that `write_manifest` writes, so that no bit can turn unseen.

    Raises
    ------
    ValueError   if it is missing or damaged
    """
    path = directory / MANIFEST
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{who} needs {path}, which tells whether the files beside it are whole: {error.strerror}") from error
    try:
        values = json.loads(content)
        whole = content == _text(values) and values.pop("sha256") == hashlib.sha256(_text(values)).hexdigest()
    except (ValueError, TypeError, LookupError, RecursionError):
        whole = False
    if not whole:
        fail(who, f"{path} as it was written", "a damaged file")
    return values


def verify(who: str, directory: Path, files: Mapping[str, Mapping[str, Any]]) -> None:
    """Compare files with their digests.

    Raises
    ------
    ValueError   naming the first file that is missing, cut short, too long or has another content
    """
    for name, want in files.items():
        path = directory / name
        try:
            got = digest(path)
        except OSError as error:
            raise ValueError(f"{who} needs {path}: {error.strerror}") from error
        if got["size"] != want.get("size"):
            fail(who, f"{path} with the {want.get('size')} bytes that were written", f"{got['size']} bytes")
        if got["sha256"] != want.get("sha256"):
            fail(who, f"{path} as it was written", f"a damaged file: its SHA-256 is not the one in {MANIFEST}")


def replace_files(directory: Path, contents: Mapping[str, bytes], **about: Any) -> None:
    """Replace several files together: an interruption leaves all of the old ones or all of the new ones to `settled`.

    The new files are written beside the old ones; from the moment in which the manifest tells of them, they are what counts, whether
    they have been moved to their places yet or not.
    """
    _move(directory)                              # what an earlier interruption left beside its place may be all there is of it
    for name, content in contents.items():
        write_whole(_beside(directory / name), content)
    write_manifest(directory, {name: digest(_beside(directory / name)) for name in contents}, **about)
    _move(directory)


def settled(who: str, path: Path, want: Mapping[str, Any] | None) -> Path:
    """Where the content of a file lies that the manifest tells of: in its place, or still beside it. Without a manifest, in its place.

    Raises
    ------
    ValueError   if it is missing, or neither has this digest
    """
    beside = _beside(path)
    if want is not None and not (path.exists() and digest(path) == dict(want)):
        if beside.exists() and digest(beside) == dict(want):
            return beside
        verify(who, path.parent, {path.name: want})
    return path


def nothing_else(who: str, directory: Path, names: Iterable[str]) -> None:
    """Refuse a directory that holds other files than these and the manifest; hidden ones are left alone."""
    known = {MANIFEST, *names}
    try:
        extra = sorted(path.name for path in directory.iterdir() if path.name not in known and not path.name.startswith("."))
    except OSError as error:
        raise ValueError(f"{who} needs {directory}: {error.strerror}") from error
    if extra:
        fail(who, f"nothing in {directory} but what its {MANIFEST} lists", ", ".join(extra))


def _move(directory: Path) -> None:
    """Bring the files that the manifest tells of to their places."""
    try:
        files = read_manifest("replace_files", directory)["files"]
    except ValueError:                            # there is none, or none to go by
        return
    for name, want in files.items():
        beside = _beside(directory / name)
        if beside.exists() and digest(beside) == dict(want):
            os.replace(beside, directory / name)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.new")


def _text(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2) + "\n").encode()

"""Clips on disk: ArrayRecord files of safetensors, read by index, whole or not at all.

Nothing in them is ever executed: arrays are raw bytes with a shape, words are JSON.
"""

import json
import os
import struct
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from jhand.data.clip import ClipError, flatten, unflatten

SUFFIX = ".array_record"


def encode_clip(clip: Mapping[str, Any]) -> bytes:
    """A clip as bytes; `decode_clip` gives it back, bit for bit."""
    entries = flatten(clip)
    arrays = {k: np.ascontiguousarray(v) for k, v in entries.items() if isinstance(v, (np.ndarray, np.generic))}
    words = {k: v for k, v in entries.items() if k not in arrays}
    return save(arrays, metadata={"words": json.dumps(words)})


def decode_clip(data: bytes) -> dict[str, Any]:
    """The clip that `encode_clip` wrote.

    Raises:
        ClipError: bytes that are no clip.
    """
    try:
        (length,) = struct.unpack("<Q", data[:8])
        words = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["words"])
        return unflatten({**load(data), **words})
    except (SafetensorError, struct.error, ValueError, KeyError, TypeError) as error:
        raise ClipError(f"a record of {len(data)} bytes is no clip: {error}") from error


def write_clips(path: str | os.PathLike, clips: Iterable[Mapping[str, Any]]) -> int:
    """Write clips to one file, which appears once it is whole.

    Args:
        path: of the file, ending in `.array_record`; its folder is made.
        clips: checked by whoever made them (`jhand.data.check_clip`).

    Returns:
        How many there were.
    """
    from array_record.python.array_record_module import ArrayRecordWriter  # ty: ignore[import-not-found]

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    writer = ArrayRecordWriter(str(draft), "group_size:1,zstd:1")
    number = 0
    try:
        for clip in clips:
            writer.write(encode_clip(clip))
            number += 1
        writer.close()
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return number


class ClipRecords:
    """Clips in files, by index: what Grain calls a random access source."""

    def __init__(self, path: str | os.PathLike | Sequence[str | os.PathLike]) -> None:
        """Opens files.

        Args:
            path: one `.array_record` file, several, or a folder of them, read in the order of their names.

        Raises:
            ClipError: no such file, or a folder without any.
        """
        from grain.sources import ArrayRecordDataSource

        given = [Path(path)] if isinstance(path, (str, os.PathLike)) else [Path(p) for p in path]
        found = [f for p in given for f in ([p] if not p.is_dir() else sorted(p.glob(f"*{SUFFIX}")))]
        missing = [p for p in found if not p.is_file()]
        if missing or not found:
            where = missing[0] if missing else given
            raise ClipError(f"{where}: expected a file or a folder of files *{SUFFIX}; there are none")
        self._paths = [str(p) for p in found]
        try:
            self._records = ArrayRecordDataSource(self._paths)
            self._length = len(self._records)
        except (ValueError, RuntimeError, OSError) as error:
            raise ClipError(f"{found}: cannot be read as ArrayRecord: {error}; write it again") from error

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < self._length:  # iteration ends by it
            raise IndexError(f"clip {index} of {self._length}")
        return decode_clip(self._records[int(index)])

    def __repr__(self) -> str:  # what Grain writes into a pipeline's state to know its source
        return f"ClipRecords({self._paths!r})"

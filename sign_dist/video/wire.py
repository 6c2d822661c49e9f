"""Values between a process and its guarded child: JSON, and behind it the raw bytes of arrays. Never pickles."""

import math
import struct
from pathlib import Path
from typing import Any

import numpy as np

Raw = bytes | memoryview

HEAD = struct.Struct("<QQ")  # bytes of JSON, bytes of arrays behind it


def pack(value: Any, arrays: list[Raw]) -> Any:
    """A value as JSON; bytes and arrays go into `arrays`, in order."""
    match value:
        case None | bool() | int() | str():
            return value
        case float() if math.isfinite(value):
            return value
        case float():
            return {"float": str(value)}
        case bytes() | bytearray() | memoryview():
            arrays.append(bytes(value))
            return {"bytes": len(arrays[-1])}
        case np.ndarray():
            # Not copied: a clip may be most of what a child may hold.
            arrays.append(np.ascontiguousarray(value).data.cast("B") if value.size else b"")
            return {"array": value.dtype.str, "shape": list(value.shape)}
        case np.generic():
            return value.item()
        case list() | tuple():
            return [pack(item, arrays) for item in value]
        case dict():
            return {"dict": {str(name): pack(item, arrays) for name, item in value.items()}}
        case Path():
            return str(value)
        case _:
            raise TypeError(f"{type(value).__name__} cannot be sent to or from a child: use numbers, text, bytes, lists and dicts")


def unpack(text: Any, raw: bytes | bytearray) -> Any:
    """What `pack` packed. Arrays may be views of `raw`. Raises ValueError for what it could not have packed."""
    view, place = memoryview(raw), 0

    def take(count: int) -> memoryview:
        nonlocal place
        if count < 0 or place + count > len(view):
            raise ValueError(f"{count} bytes are announced, {len(view) - place} are there")
        place += count
        return view[place - count : place]

    def value(packed: Any) -> Any:
        match packed:
            case {"bytes": int(count)}:
                return bytes(take(count))
            case {"float": str(number)}:
                return float(number)
            case {"array": str(kind), "shape": list(shape)}:
                dtype = np.dtype(kind)
                if dtype.kind not in "biuf" or not all(isinstance(n, int) and n >= 0 for n in shape):
                    raise ValueError(f"no plain array: {kind} {shape}")
                return np.frombuffer(take(math.prod(shape) * dtype.itemsize), dtype).reshape(shape)
            case {"dict": dict(items)}:
                return {str(name): value(item) for name, item in items.items()}
            case list():
                return [value(item) for item in packed]
            case _:
                return packed

    return value(text)

"""What the report pages share: templates that escape what they are given, how numbers are written, pictures within a page.

A page is one file: styles and pictures stand in it, and it asks nobody for anything.
"""

import base64
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import jinja2
import numpy as np

# At a quarter of a megapixel and less the eye finds no fault.
JPEG_QUALITY = 72


def render(template: str, **values: Any) -> str:
    """A template of `templates/` as HTML text; what it is given is escaped, and what it misses is an error."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": percent,
        "value": value_text,
        "words": words,
        "number": number,
        "time": time_text,
        "milliseconds": milliseconds,
    }
    environment.tests["section"] = lambda value: isinstance(value, Mapping)
    return environment.get_template(template).render(**values)


def percent(share: float | None) -> str:
    """A share as people read it: no more digits than a few hundred clips can carry.

    >>> percent(0.7142).split(), percent(1.0).split(), percent(None)
    (['71.4', '%'], ['100', '%'], 'n/a')
    """
    if share is None or math.isnan(share):
        return "n/a"
    return f"{100 * share:.1f}".removesuffix(".0") + "\N{NO-BREAK SPACE}%"


def number(count: float) -> str:
    """A count with its thousands apart, a measure with three digits.

    >>> number(21095), number(3.14159), number(25.0)
    ('21,095', '3.14', '25')
    """
    if isinstance(count, int) or float(count).is_integer():
        return f"{int(count):,}"
    return f"{count:.3g}" if abs(count) < 100 else f"{count:,.0f}"


def time_text(seconds: float) -> str:
    """A stretch of time in its two largest units.

    >>> [time_text(s).replace("\N{NO-BREAK SPACE}", " ") for s in (3.21, 75, 4503, 0)]
    ['3.2 s', '1 min 15 s', '1 h 15 min', '0 s']
    """
    blank = "\N{NO-BREAK SPACE}"
    if seconds < 60:
        return f"{seconds:.1f}".removesuffix(".0") + f"{blank}s"
    hours, minutes = divmod(round(seconds / 60), 60)
    if hours:
        return f"{hours:,}{blank}h {minutes}{blank}min"
    return f"{int(seconds // 60)}{blank}min {int(seconds % 60)}{blank}s"


def milliseconds(value: float) -> str:
    """A short time with two or three digits.

    >>> [milliseconds(v).replace("\N{NO-BREAK SPACE}", " ") for v in (0.234, 12.34, 345.6, 12345)]
    ['0.23 ms', '12 ms', '346 ms', '12 s']
    """
    blank = "\N{NO-BREAK SPACE}"
    if value >= 10_000:
        return f"{value / 1000:.0f}{blank}s"
    return f"{value:.0f}{blank}ms" if value >= 10 else f"{value:.2g}{blank}ms"


def value_text(value: Any) -> str:
    """A fact as text."""
    match value:
        case None | "" | [] | ():
            return "—"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.6g}"
        case list() | tuple():
            return ", ".join(value_text(inner) for inner in value)
        case _:
            return str(value)


def words(name: str) -> str:
    """`num_signers` -> `num signers`."""
    return str(name).replace("_", " ")


def data_uri(kind: str, data: bytes) -> str:
    """Bytes as an address that holds them."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def jpeg_uri(picture: np.ndarray) -> str:
    """A picture uint8 (H, W, 3) RGB as a data address, "" if it cannot be written."""
    done, jpeg = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return data_uri("image/jpeg", jpeg.tobytes()) if done else ""


def four_by_three(frame: np.ndarray) -> np.ndarray:
    """A wide picture loses its sides, where nobody stands; a tall one, whose height holds the signer, gets margins."""
    height, width = frame.shape[:2]
    want = max(1, round(height * 4 / 3))
    if width > want:
        left = (width - want) // 2
        return frame[:, left : left + want]
    left = (want - width) // 2
    return np.pad(frame, ((0, 0), (left, want - width - left), (0, 0)))

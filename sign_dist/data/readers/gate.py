"""The one way from an annotation row to a Sample: ids are unique, paths stay in the corpus, spans are spans."""

import math
import os
import re
from pathlib import Path

from sign_dist.data.sample import Rejected, Sample


class Gate:
    """Admits the clips of one corpus, or refuses them with the place they stand at and a reason.

    `folder` is what `video_path` is relative to. A link that leads out of it counts as leaving it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = os.path.realpath(folder)
        self._seen: set[str] = set()

    def admit(self, where: str, sample: Sample) -> Sample | Rejected:
        """The sample, or why it cannot be one."""
        fault = self._fault(sample)
        if sample.id:
            self._seen.add(sample.id)
        return self.refuse(where, *fault, id=sample.id, path=sample.video_path) if fault else sample

    def refuse(self, where: str, reason: str, detail: str, *, id: str = "", path: str = "") -> Rejected:
        """The row of a clip that is not used; one without an id is named after its place."""
        return Rejected(_printable(id) or where, _printable(path), reason, _printable(f"{where}: {detail}"))

    def _fault(self, sample: Sample) -> tuple[str, str] | None:
        texts = (sample.gloss, sample.translation, sample.signer, sample.source, sample.split)
        if unfit := next((text for text in texts if re.search(r"[\0\ud800-\udfff]", text)), ""):
            return "bad_row", f"{unfit[:40]!r} holds a character that is no text"
        if not sample.id:
            return "bad_row", "nothing names the clip"
        if sample.id in self._seen:
            return "duplicate_id", f"an earlier row has the id {sample.id!r}"
        if not sample.video_path:
            return "missing", "the row names no file"
        if not self._holds(sample.video_path):
            return "not_allowed", f"{sample.video_path!r} leaves the corpus folder"
        if not math.isfinite(sample.start_s) or not math.isfinite(sample.end_s):
            return "bad_span", "start or end is no number"
        if sample.start_s < 0 or sample.end_s < 0 or (sample.end_s and sample.end_s <= sample.start_s):
            return "bad_span", f"the span [{sample.start_s:g}, {sample.end_s:g}) s is empty"
        if not sample.gloss and not sample.translation:
            return "no_gloss", "the row has neither a gloss nor a translation"
        return None

    def _holds(self, path: str) -> bool:
        try:
            place = os.path.realpath(os.path.join(self._folder, path))  # noqa: PTH118 (Path is ten times slower)
        except ValueError:  # a zero byte, or a character that no file name can hold
            return False
        return place.startswith(self._folder.rstrip("/") + "/")


def _printable(text: str) -> str:
    """Text that a UTF-8 table can hold."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\0")

"""Models that can be cut behind a layer group: what lies before gives activations, what lies behind goes on from them."""

from typing import Any, Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class Cuttable(Protocol):
    """Of clips of one length. Where the layers before a cut are in eval mode, a clip's activations depend on that clip alone."""

    starts_behind: str
    """The cut whose activations the model reads in place of frames; "": it reads frames."""

    def cuts(self) -> list[str]:
        """Layer groups, from the input up, behind which the model can be cut."""
        ...

    def cut_settings(self) -> dict[str, Any]:
        """What activations depend on beside the weights before the cut, as JSON."""
        ...

    def activations(self, features: Tensor, cut: str) -> Tensor:
        """Frames (B, T, H, W, 3) -> what is computed up to a cut: (B, T', ...), T' steps of time."""
        ...

"""Scale of the loss in fp16 training, for strategies whose gradients torch's GradScaler cannot see whole."""

import dataclasses


@dataclasses.dataclass
class LossScale:
    """fp16 loses gradients below 6e-8, so the loss is scaled up (Micikevicius et al. 2018, arXiv 1710.03740).

    Halved after each step that overflowed, doubled after `patience` that did not; both as torch's GradScaler does.
    """

    value: float = 2.0**16
    patience: int = 2000
    _good: int = 0

    def update(self, *, fits: bool) -> None:
        """Told of each step whether its gradients were finite."""
        if not fits:
            self.value, self._good = max(self.value / 2, 1.0), 0
            return
        self._good += 1
        if self._good == self.patience:
            self.value, self._good = self.value * 2, 0

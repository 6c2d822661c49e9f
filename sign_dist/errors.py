"""What can go wrong in a way that a user can mend: each kind is one sentence with value, what is allowed and remedy."""

import difflib
from collections.abc import Iterable


class SignDistError(Exception):
    """A fault the user can act on; the command line prints it as one line and exits with 1."""


class SettingsError(SignDistError):
    """A setting has no such name, a wrong type, or contradicts another one."""


class DataError(SignDistError):
    """A corpus, dataset directory, manifest or vocabulary is missing or unfit."""


class VideoError(SignDistError):
    """One video cannot be used. `code` is a reason code of `sign_dist.video.check`, the message says the details."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code

    def __reduce__(self) -> tuple[type["VideoError"], tuple[str, str]]:
        return (VideoError, (self.code, str(self)))


class WeightsError(SignDistError):
    """A model file is missing, damaged, or does not fit the model."""


class RunError(SignDistError):
    """A run, study, checkpoint or bundle directory is missing, unfinished, or belongs to other settings."""


class InterruptedRunError(SignDistError):
    """The machine is about to be taken away; what was done is saved, and the same command goes on."""


class ServiceError(SignDistError):
    """The machine or cluster cannot give what was asked: a port, an address, a resource."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint ` did you mean 'x'?`, or nothing when no known word is near.

    >>> did_you_mean("lrr", ["lr", "epochs"])
    " did you mean 'lr'?"
    """
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" did you mean {near[0]!r}?" if near else ""

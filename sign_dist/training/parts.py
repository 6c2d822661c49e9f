"""Parts of a model that have weights files of their own: SignHiera in front, SONAR's two halves; taken in, and written out."""

from collections.abc import Iterator
from pathlib import Path

from safetensors.torch import save_file
from torch import nn

from sign_dist.config.model import Model, SonarModel, TranslatorModel
from sign_dist.data.layout import written_whole
from sign_dist.errors import WeightsError
from sign_dist.models.slt import FeatureTranslator
from sign_dist.models.sonar.translate import SonarTranslator
from sign_dist.models.windowed import WindowedSignHiera
from sign_dist.training.checkpoint import read_weights as read_checkpoint
from sign_dist.training.run_dir import RunDir
from sign_dist.transfer.load import load_into
from sign_dist.transfer.weights_file import read_weights

# The share of an encoder's tensors that must fit; below it the file is another model's.
MIN_MATCH = 0.95
# Where the encoder in front stands in a model.
FRONT = "front.encoder."


def take_parts(model: nn.Module, settings: Model) -> Iterator[str]:
    """Copy what the settings of a part name into it; says of each what was taken.

    Raises:
        WeightsError: a file is missing, damaged or another model's.
    """
    if not isinstance(settings, TranslatorModel | SonarModel) or not isinstance(model, FeatureTranslator | SonarTranslator):
        return
    if settings.encoder.weights and isinstance(model.front, WindowedSignHiera):
        file = read_weights(Path(settings.encoder.weights))
        report = load_into(model.front.encoder, file.tensors, min_match=MIN_MATCH, ignore=("norm.", "head."))
        yield f"SignHiera from {file.path}: {report}"
    if not isinstance(settings, SonarModel) or not isinstance(model, SonarTranslator):
        return
    if settings.encoder_weights:
        file = read_weights(Path(settings.encoder_weights))
        model.encoder.take(file.tensors)
        yield f"sign encoder from {file.path}: {len(file.tensors)} tensors"
    if settings.decoder_weights:
        file = read_weights(Path(settings.decoder_weights))
        model.decoder.take(file.tensors)
        yield f"text decoder from {file.path}: {len(file.tensors)} tensors"


def save_encoder(run_dir: RunDir, target: Path) -> int:
    """Write the SignHiera that stands in front of a run's model as weights of its own; answers the number of its tensors.

    They are those of the checkpoint that the run stands for, and what `data.features.weights` and `model.encoder.weights` read.

    Raises:
        RunError: the run has no checkpoint.
        WeightsError: its model has no such part, or the file cannot be written.
    """
    if target.suffix != ".safetensors":
        raise WeightsError(f"{str(target)!r} must end in .safetensors")
    chosen = run_dir.chosen()
    tensors = {name.removeprefix(FRONT): t for name, t in read_checkpoint(chosen).items() if name.startswith(FRONT)}
    if not tensors:
        kind = run_dir.run().data.features.kind
        raise WeightsError(
            f"{str(run_dir.root)!r} has no SignHiera in front of its model, which reads {kind}: "
            "train a translator or sonar from frames, with data.features.kind=frames"
        )
    facts = {"format": "pt", "source": f"{run_dir.root.name}/{chosen.name}", "preset": _preset(run_dir)}
    try:
        with written_whole(target) as temporary:
            save_file(tensors, temporary, facts)
    except OSError as error:
        raise WeightsError(f"{str(target)!r} cannot be written ({error.strerror or error})") from None
    return len(tensors)


def _preset(run_dir: RunDir) -> str:
    model = run_dir.run().model
    return model.encoder.preset if isinstance(model, TranslatorModel | SonarModel) else ""

"""Sign to text through SONAR's space of sentences: features -> embedding -> text."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sign_dist.models.slt import Front, Said, Search, front_groups, sentences_of, through
from sign_dist.models.sonar.beam import BeamOptions, beam_search
from sign_dist.models.sonar.sign_encoder import SignEncoder, SignEncoderShape
from sign_dist.models.sonar.text_decoder import TextDecoder, TextDecoderShape
from sign_dist.models.text_tokens import END, PAD
from sign_dist.models.tied import name_once
from sign_dist.models.translator import PADDING, Sentence
from sign_dist.models.windowed import Parts, WindowedSignHiera

SHAPES: dict[str, tuple[SignEncoderShape, TextDecoderShape]] = {
    "published": (SignEncoderShape(), TextDecoderShape()),
    # Ours: small enough for a processor, same structure.
    "tiny": (
        SignEncoderShape(output_dim=128, d_model=128, d_kv=32, d_ff=256, num_layers=2, num_decoder_layers=1, num_heads=4),
        TextDecoderShape(dim=128, num_layers=2, num_heads=4, ffn_dim=256),
    ),
}
"""Width of features and vocabulary are replaced by those of the run."""


class SonarTranslator(nn.Module):
    """A front, the sign encoder, and the text decoder that begins each sentence with (end, language)."""

    def __init__(self, front: Front, encoder: SignEncoder, decoder: TextDecoder, *, language: int) -> None:
        super().__init__()
        if encoder.shape.output_dim != decoder.shape.dim:
            raise ValueError(f"need embeddings of one width, got {encoder.shape.output_dim} and {decoder.shape.dim}")
        if not END < language < decoder.shape.vocab_size:
            raise ValueError(f"need a language's token from {END + 1} to {decoder.shape.vocab_size - 1}, got {language}")
        self.front, self.encoder, self.decoder = front, encoder, decoder
        self.prompt = (END, language)
        name_once(self)

    def embed(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Embeddings (B, E) of clips, not normalised."""
        vectors, lengths = through(self.front, features, lengths)
        return self.encoder(vectors, lengths)

    def forward(self, features: Tensor, lengths: Tensor, targets: Tensor) -> Said:
        embedding = self.embed(features, lengths)
        labels = self.labels(targets)
        read = torch.cat([torch.full_like(labels[:, :1], END), labels[:, :-1]], dim=1)
        return Said(self.decoder(embedding, read.masked_fill(read == PADDING, PAD)), labels, embedding)

    def labels(self, targets: Tensor) -> Tensor:
        """Tokens of sentences (B, L) -> the same between the language and the end: the search counts the language, too."""
        rows = [torch.tensor([self.prompt[1], *tokens, END], device=targets.device) for tokens in sentences_of(targets)]
        return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PADDING)

    @torch.inference_mode()
    def write(self, features: Tensor, lengths: Tensor, search: Search) -> list[list[Sentence]]:
        """As the reference searches, but for the length, which the settings bound and not the embedding's width."""
        options = BeamOptions(beam_size=search.beam, max_gen_len=(0, search.max_len), len_penalty=search.len_penalty)
        found = beam_search(self.decoder, self.embed(features, lengths), self.prompt, options)
        return [[Sentence(list(h.tokens[:-1]), h.score) for h in best[: search.num_best]] for best in found]

    def layer_groups(self) -> list[tuple[str, Sequence[nn.Module | nn.Parameter]]]:
        """From the text down to the clip: decoder, pooler, encoder, projection of features, front."""
        groups: list[tuple[str, Sequence[nn.Module | nn.Parameter]]] = [
            ("text_embeddings", [self.decoder.embed, self.decoder.layer_norm]),
            *_reversed("text", self.decoder.layers),
            ("sonar_out", [self.encoder.projection_out]),
        ]
        for name, stack in (("sonar_pooler", self.encoder.t5.decoder), ("sonar_encoder", self.encoder.t5.encoder)):
            groups += _reversed(name, next(part for part in stack.children() if isinstance(part, nn.ModuleList)))
        taken = {id(p) for _, parts in groups for part in parts for p in _parameters(part)}
        rest = [p for p in self.encoder.parameters() if id(p) not in taken]
        return [*groups, ("sonar_projection", rest), *front_groups(self.front)]

    def frozen_parts(self) -> Parts:
        """What never trains."""
        return self.front.frozen_parts() if isinstance(self.front, WindowedSignHiera) else []


def _reversed(name: str, layers: nn.ModuleList) -> list[tuple[str, Sequence[nn.Module | nn.Parameter]]]:
    return [(f"{name}_{i}", [layers[i]]) for i in reversed(range(len(layers)))]


def _parameters(part: nn.Module | nn.Parameter) -> list[nn.Parameter]:
    return [part] if isinstance(part, nn.Parameter) else list(part.parameters())

"""A tokenizer learned from the sentences of a corpus: frequent words become one token, rare ones several, any text has some.

Byte pairs (Sennrich et al. 2016, arXiv 1508.07909) over bytes, as GPT-2 has them, so that nothing is ever unknown and a model
may go on with another corpus. Fewer tokens to write per sentence than bytes, and fewer to learn than those of a large model.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from sign_dist.errors import DataError, SettingsError

SPECIAL = ("<pad>", "</s>", "<unk>")
LEAST = len(SPECIAL) + 256
"""Every byte has a token of its own."""


def learn_tokens(sentences: Iterable[str], folder: Path, size: int = 512) -> int:
    """Write a tokenizer in transformers' form, of at most `size` tokens; answers how many it has.

    Equal sentences in any order give the same one.

    Raises:
        SettingsError: the size has no room for every byte.
        DataError: there are no sentences.
    """
    if size < LEAST:
        raise SettingsError(f"need a size of at least {LEAST}, since every byte has a token, got {size}")
    texts = sorted(sentence for sentence in sentences if sentence.strip())
    if not texts:
        raise DataError("there are no sentences to learn a tokenizer from: the clips have no translations")
    tokenizer: Any = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    pad, end, unknown = SPECIAL
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=pad, eos_token=end, unk_token=unknown)
    wrapped.save_pretrained(folder)
    return len(wrapped)

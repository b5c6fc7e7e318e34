"""A tokenizer that makes one token of each byte and of each control token, with the published ids of the latter."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

END_OF_TEXT = 199_999
END = 200_020
IMAGE = 200_010
AUDIO = 200_011
CONTROL = {
    "<|endoftext|>": END_OF_TEXT,
    "<|endoftext10|>": IMAGE,
    "<|endoftext11|>": AUDIO,
    "<|assistant|>": 200_019,
    "<|end|>": END,
    "<|user|>": 200_021,
    "<|system|>": 200_022,
}
CHAT_TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def write_tokenizer(
    folder: Path, control: dict[str, int] = CONTROL, *, all_ids: bool = False, **settings: object
) -> None:
    """Write tokenizer.json and tokenizer_config.json; `settings` are added to the latter.

    With `all_ids`, each id below the control tokens' is a word, which is written but never read: a model without
    weights answers with any of them, and text that never becomes readable takes the longer the more there is of it.
    """
    signs = {sign: byte for byte, sign in enumerate(_byte_signs())}
    words = {f"Ġ{number:x}": number for number in range(len(signs), END_OF_TEXT)} if all_ids else {}
    tokenizer = Tokenizer(models.BPE(vocab=signs | words | control, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    # Being in the vocabulary already, they keep their ids.
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|endoftext|>",
        "eos_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
        "model_max_length": 131_072,
        "clean_up_tokenization_spaces": False,
        "add_bos_token": False,
        "chat_template": CHAT_TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config | settings, indent=1))


def _byte_signs() -> list[str]:
    """The sign that stands for each byte in a byte-level vocabulary: itself, or one beyond them when not printable."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    spare = iter(range(256, 512))
    return [chr(byte if byte in printable else next(spare)) for byte in range(256)]

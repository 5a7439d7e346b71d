"""The demo's encoder: a small BERT, pretrained by masked language modelling.

It takes about a minute on two processors. Without pretraining, frozen, partial and full fine-tuning could not
be compared. Nothing is downloaded; the same seed gives the same weights on the same machine.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoModelForMaskedLM, BertConfig, PretrainedConfig, PreTrainedTokenizerFast

from effx import corpus, files, scratch
from effx.encoding import Encoder
from effx.errors import UsageError
from effx.quiet import quiet
from effx.specs.training import TrainingSettings
from effx.train import loop, mlm

NAME = "demo-bert"
_VOCABULARY = 1000
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def pretrain(
    folder: str | Path,
    *,
    epochs: float = 4.5,
    lr: float = 1e-3,
    seed: int = 0,
    config: PretrainedConfig | None = None,
) -> Path:
    """Pretrain the demo encoder into ``folder`` (config, safetensors, tokenizer).

    An existing folder is reused: it is written in one step, so it is complete. The same holds for a folder
    that another process writes in the meantime.

    Args:
        folder: to write.
        epochs: passes over the sentences of the demo corpus.
        lr: the peak learning rate.
        seed: of the weights, the masks and the order.
        config: of another encoder to pretrain; its vocabulary size and the numbers of special tokens are set.

    Raises:
        UsageError: the folder cannot be written.
    """
    folder = Path(folder)
    if folder.is_dir():
        return folder
    files.check_writable(folder)
    texts = corpus.texts("pretraining")
    words = tokenizer(texts)
    transformers.set_seed(seed)
    config = config or BertConfig(
        hidden_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=512,
        max_position_embeddings=128,
    )
    config.vocab_size = len(words)
    for name in ("pad", "cls", "sep"):
        setattr(config, f"{name}_token_id", _SPECIAL.index(f"[{name.upper()}]"))
    config.bos_token_id = config.eos_token_id = None
    model = AutoModelForMaskedLM.from_config(config)
    with scratch.folder("demo") as temporary_folder:
        words.save_pretrained(temporary_folder)
        model.config.save_pretrained(temporary_folder)
        encoded = Encoder(temporary_folder, 64)([(text,) for text in texts])
    rng = np.random.default_rng(seed)

    def collate(indices: list[int]) -> dict[str, torch.Tensor]:
        batch = loop.to_tensors(encoded.batch(indices), ["input_ids", "attention_mask"])
        ids, labels = mask_tokens(batch["input_ids"].numpy(), len(words), rng)
        return {**batch, "input_ids": torch.from_numpy(ids), "labels": torch.from_numpy(labels)}

    loop.fit(
        model,
        encoded.lengths,
        collate,
        TrainingSettings(batch_size=64, seed=seed, warmup=0.1),
        epochs=epochs,
        lr=lr,
        description=f"pretrain {folder.name}: {len(texts)} sentences, masked language modelling",
    )
    try:
        with files.new_folder(folder) as temporary, quiet():
            model.save_pretrained(temporary)
            words.save_pretrained(temporary)
    except UsageError:
        if not folder.is_dir():
            raise
    return folder


def mask_tokens(ids: np.ndarray, vocabulary: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Mask 15 % of the tokens; [CLS] has to predict a random token of its row.

    [CLS] thus learns a representation of the sentence; in BERT, next-sentence prediction has this purpose.

    Args:
        ids: int64 [batch, length].
        vocabulary: number of tokens.
        rng: random generator.

    Returns:
        Masked ids [batch, length], and labels [batch, length]: -100 for tokens that are not in the loss.
    """
    ids = ids.copy()
    chosen = (rng.random(ids.shape) < mlm.SHARE) & (ids >= len(_SPECIAL))
    labels = np.where(chosen, ids, mlm.IGNORED)
    random_order = (ids >= len(_SPECIAL)) * rng.random(ids.shape)
    labels[:, 0] = ids[np.arange(len(ids)), np.argmax(random_order, axis=1)]
    mlm.mask_tokens(ids, chosen, _SPECIAL.index("[MASK]"), (len(_SPECIAL), vocabulary), rng)
    return ids, labels


def tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """Return a WordPiece tokenizer trained on ``texts``; it is the same for the same texts."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    words = _bert(models.WordPiece(unk_token="[UNK]"))
    # The trainer numbers "##a" etc. in the order of a hash map, which differs between processes, and these
    # numbers break ties between merges (huggingface/tokenizers#1794). Here they are numbered before.
    inner = sorted({f"##{letter}" for text in texts for word in _words(words, text) for letter in word[1:]})
    trainer = trainers.WordPieceTrainer(
        vocab_size=_VOCABULARY, special_tokens=[*_SPECIAL, *inner], show_progress=False
    )
    words.train_from_iterator(texts, trainer)
    # A new tokenizer, because in the trained one "##a" is a special token, which texts are never split into.
    words = _bert(models.WordPiece(words.get_vocab(with_added_tokens=False), unk_token="[UNK]"))
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", _SPECIAL.index("[CLS]")), ("[SEP]", _SPECIAL.index("[SEP]"))],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        model_max_length=128,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


def _bert(model: models.Model) -> Tokenizer:
    words = Tokenizer(model)
    words.normalizer = normalizers.BertNormalizer()
    words.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    words.decoder = decoders.WordPiece()
    return words


def _words(words: Tokenizer, text: str) -> list[str]:
    """Return the words of ``text``, before they are split into word pieces."""
    pairs = words.pre_tokenizer.pre_tokenize_str(words.normalizer.normalize_str(text))
    return [word for word, _ in pairs]

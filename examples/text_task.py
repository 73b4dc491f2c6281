"""A Hugging Face model: from which of two novels are a few words?

The text is the opening of *Alice's Adventures in Wonderland* (L. Carroll, 1865) and that of *Pride
and Prejudice* (J. Austen, 1813), in ``two_novels.txt``. A small BERT is made from a configuration,
and its words are those of the text, so that nothing is fetched; the greatest value of each feature
over the words decides. To train it under selections of that maximum, at bfloat16 and 32 bits
(``pip install "kinkcheck[transformers]"``)::

    kinkcheck study run examples/text_study.toml --out novels
"""

import re
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from kinkcheck.study import Metric, Task

UNKNOWN = 0


def share(right: Tensor) -> float:
    """How many are right, as a share."""
    return right.double().mean().item()


class Reader(nn.Module):
    """Features of words, the greatest of each over the words, and a score for each novel."""

    def __init__(self, words: nn.Module, features: int) -> None:
        super().__init__()
        self.words = words
        self.greatest = nn.AdaptiveMaxPool1d(1)
        self.novel = nn.Linear(features, 2)

    def forward(self, ids: Tensor) -> Tensor:
        features = self.words(ids).last_hidden_state.transpose(1, 2)
        scores: Tensor = self.novel(self.greatest(features).squeeze(2))
        return scores


class Novels(Task):
    """From which novel?

    Args:
        words: in a sample. Samples overlap by half, those to train with and to test with do not.
        layers: of the model.
    """

    metrics = (Metric("accuracy", share, larger_is_better=True, share=True),)

    def __init__(self, words: int = 8, layers: int = 2) -> None:
        text = Path(__file__).with_name("two_novels.txt").read_text(encoding="utf-8")
        novels = [re.findall("[a-z']+", novel.lower()) for novel in text.split("\n\n")]
        parts = [(novel[: 3 * len(novel) // 4], novel[3 * len(novel) // 4 :]) for novel in novels]
        known = sorted({word for train, _ in parts for word in train})
        self.numbers = {word: number for number, word in enumerate(known, UNKNOWN + 1)}
        self.train, self.test = (
            [
                {"input_ids": self.ids(part[start : start + words]), "label": label}
                for label, part in enumerate(novel)
                for start in range(0, len(part) - words, words // 2)
            ]
            for novel in zip(*parts, strict=True)
        )
        self.layers = layers

    def ids(self, words: list[str]) -> Tensor:
        """The words by number."""
        return torch.tensor([self.numbers.get(word, UNKNOWN) for word in words])

    def network(self) -> nn.Module:
        """A BERT of a few thousand parameters, with its dropout."""
        config = BertConfig(
            vocab_size=len(self.numbers) + 1,
            hidden_size=32,
            num_hidden_layers=self.layers,
            num_attention_heads=4,
            intermediate_size=64,
            max_position_embeddings=64,
            hidden_act="relu",
        )
        return Reader(BertModel(config, add_pooling_layer=False), config.hidden_size)

    def step(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Cross entropy, and which samples are classified rightly."""
        scores = model(batch["input_ids"])
        return F.cross_entropy(scores, batch["label"]), scores.argmax(1) == batch["label"]

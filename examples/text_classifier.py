"""A Hugging Face model: batches are dictionaries, the loss is the model's own, dropout is on.

The model is a small BERT from a configuration, and its words are those of the text below, so that
nothing is fetched. To audit it at bfloat16::

    kinkcheck audit examples/text_classifier.py:make --precision bfloat16
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification

LINES = """
+ the gradient is right and the training is fast
+ a smooth function has one derivative and it is easy to find
+ this network learns the digits well
+ the loss goes down at every step
- the gradient is wrong at the kink
- a maximum with a tie has no derivative and the choice is arbitrary
- this network does not learn at all
- the loss is not a number after the first step
""".strip().splitlines()

PADDING = 0

Batch = dict[str, Tensor]


def make() -> tuple[nn.Module, list[Batch], Callable[[nn.Module, Batch], Tensor]]:
    """The model in training mode, two mini-batches of four lines, and the step."""
    words = sorted({word for line in LINES for word in line.split()[1:]})
    numbers = {word: number for number, word in enumerate(words, PADDING + 1)}
    config = BertConfig(
        vocab_size=len(words) + 1,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=32,
        hidden_act="relu",
        pad_token_id=PADDING,
    )
    model = BertForSequenceClassification(config).train()
    return model, [batch(LINES[start::2], numbers) for start in (0, 1)], step


def batch(lines: list[str], numbers: dict[str, int]) -> Batch:
    """What the model is called with: the words of each line by number, padded to the longest."""
    lines_of_words = [[numbers[word] for word in line.split()[1:]] for line in lines]
    longest = max(map(len, lines_of_words))
    ids = torch.full((len(lines), longest), PADDING)
    for row, line in zip(ids, lines_of_words, strict=True):
        row[: len(line)] = torch.tensor(line)
    labels = torch.tensor([int(line.startswith("+")) for line in lines])
    return {"input_ids": ids, "attention_mask": (ids != PADDING).long(), "labels": labels}


def step(model: nn.Module, batch: Batch) -> Tensor:
    """The loss that the model itself computes."""
    loss: Tensor = model(**batch).loss
    return loss

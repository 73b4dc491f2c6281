"""The words of an audit's page: what each means, and links from a text to the meanings."""

from __future__ import annotations

import re
from collections.abc import Mapping

from markupsafe import Markup, escape

GLOSSARY: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        ("point",),
        "One precision, one draw of the parameters and one mini-batch. What is counted is points, "
        "of all of the precision or of those that were judged.",
    ),
    (
        ("kink", "tie", "tied"),
        "A kink is where an operation is not differentiable: a max pooling window whose greatest "
        "entry occurs twice (a tie), a ReLU at zero. A tie is live if its choice can reach the "
        "loss.",
    ),
    (
        ("site", "windows"),
        "A site is one call of an operation with kinks in one layer. Its windows are what it pools "
        "over, or its elements.",
    ),
    (
        ("selection", "native", "minimal"),
        "The derivative that the backward pass uses at a kink. native: what PyTorch uses; minimal: "
        "equal weights for all entries that attain the maximum.",
    ),
    (
        ("derivative", "limit", "subgradient"),
        "A gradient that is right. derivative: the loss is differentiable there, and this is its "
        "derivative; limit: the loss has a kink there, and this is a limit of derivatives nearby; "
        "subgradient: it lies between such limits, in the Clarke subdifferential.",
    ),
    (
        ("wrong", "undecided"),
        "wrong: outside the Clarke subdifferential, so that no choice at kinks of the loss gives "
        "it. undecided: nothing was certified; of a zone, between the two limits of the lift.",
    ),
    (
        ("variation", "l1", "relative"),
        "The distance between the gradients of two selections at one point. l1: sum of absolute "
        "differences; relative: divided by that of the gradient.",
    ),
    (("agreement",), "The variation is zero."),
    (
        ("compensation",),
        "The gradients differ through rounding only; over the reals they are equal.",
    ),
    (
        ("bifurcation",),
        "The gradients of the two selections differ over the reals as well. Both can be right, "
        "where the loss itself has a kink.",
    ),
    (("non-finite",), "A gradient with an infinity or a NaN."),
    (
        ("threshold",),
        "The published classifier: bifurcation if the variation exceeds a number that depends on "
        "the precision alone (Boustany 2024).",
    ),
    (
        ("lift",),
        "The same parameters and mini-batch in a higher precision, where rounding is far smaller "
        "and true differences remain.",
    ),
    (
        ("noise floor",),
        "The spread of the gradient over runs that are equal over the reals, such as another order "
        "of the samples.",
    ),
    (
        ("rounding error",),
        "The distance of a gradient to the one found in a higher precision: what rounding does to "
        "it whatever is chosen at kinks.",
    ),
    (
        ("at zero", "dead", "exact", "rounding", "unknown"),
        "Which ties there are, and why. at zero: all entries of the window are 0. dead: the choice "
        "reaches no parameter; exact: the entries are equal in the lift too; rounding: they differ "
        "in the lift; unknown: nobody looked at the lift.",
    ),
)

_PLURALS = {f"{word}s": word for word in ("kink", "limit", "selection", "subgradient", "tie")}
_LINKED = tuple(word for words, _ in GLOSSARY for word in words if word not in ("point", "l1"))
_FOUND = re.compile(
    rf"\b({'|'.join(sorted((*_LINKED, *_PLURALS), key=len, reverse=True))})\b", re.IGNORECASE
)


def anchor(word: str) -> str:
    """The name of the place where a word is explained.

    >>> anchor("rounding error")
    'word-rounding-error'
    """
    return f"word-{word.replace(' ', '-')}"


def linked_word(word: str) -> Markup:
    """A word as a link to its meaning.

    >>> linked_word("lift")
    Markup('<a class="word" href="#word-lift">lift</a>')
    """
    return _link(word, word)


def linked(text: str, places: Mapping[str, str] | None = None) -> Markup:
    """A text in which each word of the glossary links to its meaning where it first stands.

    Args:
        text: as it is shown.
        places: the ids of what else is linked, by the names that the text has for it.

    >>> print(linked("Ties <1>, ties"))
    <a class="word" href="#word-tie">Ties</a> &lt;1&gt;, ties
    >>> print(linked("see conv1 (relu)", {"conv1 (relu)": "site-1"}))
    see <a href="#site-1">conv1 (relu)</a>
    """
    if places:
        names = sorted(places, key=len, reverse=True)
        found = re.split(f"({'|'.join(map(re.escape, names))})", text)
        return Markup("").join(
            _LINK.format(places[part], part) if number % 2 else linked(part)
            for number, part in enumerate(found)
        )
    met: set[str] = set()
    parts: list[Markup] = []
    for number, part in enumerate(_FOUND.split(text)):
        word = _PLURALS.get(part.lower(), part.lower())
        new = number % 2 and word not in met
        parts.append(_link(word, part) if new else escape(part))
        met |= {word} if new else set()
    return Markup("").join(parts)


_LINK = Markup('<a href="#{}">{}</a>')


def _link(word: str, shown: str) -> Markup:
    return Markup('<a class="word" href="#{}">{}</a>').format(anchor(word), shown)

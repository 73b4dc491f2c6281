"""Docstrings for the site: Sphinx roles, doctests and tables become Markdown.

An extension of Griffe, which mkdocstrings reads the sources with. The docstrings stay as they are
best read in an editor and run by doctest.
"""

from __future__ import annotations

import re
from html import escape
from typing import Any

from griffe import AliasResolutionError, Extension, NameResolutionError, Object

_ROLE = re.compile(r":[a-z]+:`(~?)([^`]+)`")
_RULE = re.compile(r"^=+(?: +=+)+$")
_NAMES = re.compile(r"^( +)(\w+(?:, \w+)+)(:.*(?:\n\1 .*)*)$", re.MULTILINE)
_LITERAL = re.compile(r" ?::$", re.MULTILINE)


class Markdown(Extension):
    """Rewrites the docstring of every object before it is parsed."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Once all modules are read, so that names can be resolved."""
        if obj.docstring is not None:
            text = _tables(obj.docstring.value)  # first, by its columns
            text = _ROLE.sub(lambda role: _link(obj, role[2], bool(role[1])), text)
            text = _NAMES.sub(_one_name_each, _LITERAL.sub(":", text))
            obj.docstring.value = _doctests(text)


def _link(obj: Object, name: str, short: bool) -> str:
    """A link where the name has a page here, else only the name, as code."""
    shown = escape(name.rsplit(".", 1)[-1] if short else name)
    target = escape(_resolved(obj, name), quote=True)
    return f'<autoref identifier="{target}" optional><code>{shown}</code></autoref>'


def _resolved(obj: Object, name: str) -> str:
    first, _, rest = name.partition(".")
    scope: Any = obj
    while scope is not None:  # a method may name its neighbours, as Sphinx allows
        if first in scope.members:
            break
        scope = scope.parent
    if scope is None or first == "kinkcheck":
        return name
    try:
        path = scope.resolve(first)
    except (NameResolutionError, AliasResolutionError):
        return name
    return f"{path}.{rest}" if rest else path


def _one_name_each(entry: re.Match[str]) -> str:
    """``a, b: what they are`` in a list of arguments or attributes, as an entry for each."""
    return "\n".join(f"{entry[1]}{name}{entry[3]}" for name in entry[2].split(", "))


def _doctests(text: str) -> str:
    """Fence each example: from its first ``>>>`` to the next empty line."""
    lines: list[str] = []
    inside = ""
    for line in [*text.splitlines(), ""]:
        indent = line[: len(line) - len(line.lstrip())]
        if not inside and line.lstrip().startswith(">>>"):
            inside = f"{indent}```"
            lines += ["", f"{inside}pycon"]
        elif inside and not line.strip():
            lines.append(inside)
            inside = ""
        lines.append(line)
    return "\n".join(lines).rstrip()


def _tables(text: str) -> str:
    """Turn simple tables of reStructuredText into those of Markdown."""
    lines = text.splitlines()
    rules = [number for number, line in enumerate(lines) if _RULE.match(line.strip())]
    for top, middle, bottom in reversed(list(zip(*[iter(rules)] * 3, strict=False))):
        starts = [column.start() for column in re.finditer("=+", lines[top])]
        rows: list[list[str]] = []
        for line in [*lines[top + 1 : middle], *lines[middle + 1 : bottom]]:
            cells = [
                line[start:end].strip()
                for start, end in zip(starts, [*starts[1:], None], strict=True)
            ]
            if rows[1:] and (not cells[0] or not all(cells[1:])):  # a row that goes on
                rows[-1] = [
                    f"{old} {new}".strip() for old, new in zip(rows[-1], cells, strict=True)
                ]
            else:
                rows.append(["" if cell == ".." else cell for cell in cells])
        rows.insert(1, ["---"] * len(starts))
        lines[top : bottom + 1] = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(lines)

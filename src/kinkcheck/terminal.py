"""What reaches a terminal: text is shown as text, whatever it holds and wherever it comes from."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from io import StringIO
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

PATIENCE = 2.0
"""Seconds after which something that is waited for is worth a line where there is no terminal."""


def shown(text: str) -> str:
    r"""A text whose characters that a terminal would obey, or that nobody sees, are spelled out.

    >>> print(shown("a layer named \x1b[31mred"))
    a layer named \x1b[31mred
    """
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() or each == "\n" else each.encode("unicode_escape").decode()
        for each in text
    )


def say(text: object, *, error: bool = False) -> None:
    r"""Print a text as it is, :func:`shown`.

    Args:
        text: may have several lines.
        error: to standard error.

    >>> say("\x07")
    \x07
    """
    print(shown(str(text)), file=sys.stderr if error else sys.stdout)


class Terminal(Console):
    r"""A console that takes nothing in a text for a command: no markup, no escape sequence.

    What is to have a style is a :class:`rich.text.Text`.

    Args:
        options: as :class:`rich.console.Console` takes them.

    >>> Terminal().print("[red]\x1b[31m[/]")
    [red]\x1b[31m[/]
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """What Rich makes of it, with every text :func:`shown`."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=shown(segment.text))

    def tell(self, text: str | Text) -> None:
        """Print a line of its own, however long."""
        self.print(text, soft_wrap=True)

    @classmethod
    def text(cls, show: Callable[[Terminal], object]) -> str:
        r"""What is printed, as text and nothing else: in a notebook too, which would get HTML.

        Args:
            show: prints on the console that it is given.

        >>> Terminal.text(lambda out: out.print(Text("a", "red")))
        'a'
        """
        text = StringIO()
        show(cls(file=text, force_jupyter=False, force_terminal=False, color_system=None))
        return text.getvalue().rstrip("\n")

    @contextmanager
    def waiting(self, text: str) -> Iterator[Callable[[str], None]]:
        """Say what is waited for: at once on a terminal, elsewhere in a line, if it takes long.

        Returns:
            What says it otherwise from now on; nothing, with an empty text.

        >>> with Terminal().waiting("Making lenet5 ...") as say_else:
        ...     say_else("Making vgg11 ...")
        """
        if self.is_terminal:
            with self.status(Text(text)) as status:
                yield lambda other: status.update(Text(other))
            return
        said = [text]

        def come() -> None:
            if said[0]:
                self.tell(f"kinkcheck: {said[0]}")

        late = threading.Timer(PATIENCE, come)
        late.daemon = True
        late.start()
        try:
            yield lambda other: said.__setitem__(0, other)
        finally:
            late.cancel()

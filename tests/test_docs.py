"""The pages: every block of code in them works, what they print is printed, and the site builds.

The blocks of a page run in order, in one namespace and one empty folder. A line above a block says
what cannot be told from the block itself::

    <!-- not run: WHY -->          the block is left out
    <!-- output of: COMMAND -->    the lines of the block are among those that the command printed
"""

from __future__ import annotations

import contextlib
import doctest
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import typer

from command_line import Kinkcheck
from kinkcheck import cli, selection
from kinkcheck.arithmetic import precision
from kinkcheck.ops.table import ROWS
from kinkcheck.study import spec

ROOT = Path(__file__).resolve().parent.parent
AT_THE_ROOT = [ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "CHANGELOG")]
PAGES = [*AT_THE_ROOT, *sorted((ROOT / "docs").rglob("*.md"))]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]

BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>[^\n]*?) -->\n\n?)?"
    r"^```(?P<language>\w*)(?: title=\"(?P<title>[^\"]+)\")?\n(?P<text>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
INLINE = re.compile(r"`(kinkcheck [^`]*)`")
# A sentence need not name every argument, nor the value of an option.
_click: Any = sys.modules[typer.BadParameter.__module__]
UNFINISHED = (_click.MissingParameter, _click.BadOptionUsage)
# They bring their own batches, and few.
EXAMPLES = (Path("examples") / each.name for each in ROOT.glob("examples/*.py"))
WHOLE = (Path("my_program.py"), Path("my_classifier.py"), *EXAMPLES)
SHOWN_SHORT = {("atlas",), ("atlas", "diff"), ("demo",), ("doctor",), ("study", "specs")}


@dataclass(frozen=True)
class Block:
    mark: str
    language: str
    title: str | None
    text: str

    @property
    def left_out(self) -> bool:
        return self.mark.startswith("not run: ")

    @property
    def output_of(self) -> str | None:
        command = self.mark.removeprefix("output of: ")
        return None if command == self.mark else command


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = [Block(m["mark"] or "", m["language"], m["title"], m["text"])
             for m in BLOCK.finditer(text)]  # fmt: skip
    assert 2 * len(found) == text.count("```"), "a fence that is not closed, or is indented"
    return found


def commands(text: str) -> Iterator[list[str]]:
    """The words of each line, without comments."""
    for line in text.replace("\\\n", " ").splitlines():
        for part in line.split("&&"):
            if words := shlex.split(part, comments=True):
                yield words


def parsed(words: list[str]) -> tuple[tuple[str, ...], dict[str, Any]]:
    """The command that the command line finds in the words, and the values of its options."""
    command: Any = typer.main.get_command(cli.app)
    names: tuple[str, ...] = ()
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        assert words[0] in command.commands, f"there is no command {words[0]}"
        command = command.commands[words[0]]
        names, words = (*names, words[0]), words[1:]
    if not words and hasattr(command, "commands"):
        return names, {}
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            values = dict(command.make_context(" ".join(names), list(words)).params)
        except typer.Exit:  # --help
            return names, {"help": True}
    for text in values.get("selections") or ():
        selection.parse(text)
    for text in values.get("precisions") or ():
        for each in text.split(","):
            precision.parse(each)
    return names, values


def is_short(names: tuple[str, ...], values: dict[str, Any]) -> bool:
    """Whether all that a command needs is here, and it takes seconds."""
    if values.get("help"):
        return True
    if names == ("audit",):
        file = Path(values["network"].split(":")[0])
        here = values["network"] == "lenet5" or file.is_file()
        few = file in WHOLE or values["batches"] * values["draws"] <= 5
        return here and few and values["data_name"] == "mnist-sample"
    if names in {("report",), ("verify",)}:
        return bool(values["json_file"].is_file())
    if names == ("explain",):
        return bool(values["gradient"].is_file())
    return names in SHOWN_SHORT


def check_other_program(words: list[str]) -> None:
    """A target that the Makefile has, extras that the package has."""
    if words[0] == "make":
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in words[1:])
    elif words[:2] == ["pip", "install"]:
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
        known = extras["project"]["optional-dependencies"]
        for given in re.findall(r"\[([\w,]+)\]", " ".join(words)):
            assert set(given.split(",")) <= set(known)
    else:
        assert words[0] in {".", "python3.11", "ray"}, f"not known here: {shlex.join(words)}"


def without_numbers(text: str) -> list[str]:
    """Lines as they are on every machine: last digits differ, and with them the columns."""
    masked = re.sub(r"[-−]?\d[\d,.]*(?:e[-+]\d+)?", "#", text)
    shortened = re.sub("─+", "─", masked)
    return [" ".join(line.split()) for line in shortened.splitlines() if line.strip()]


def require_shown(shown: str, printed: str) -> None:
    """The lines are among those that were printed, in this order; numbers may be others."""
    left = iter(without_numbers(printed))
    for line in without_numbers(shown):
        assert line == "…" or any(line == each for each in left), f"not printed: {line}"


@pytest.fixture
def no_module_stays(tmp_path: Path) -> Iterator[None]:
    """Two pages may each have a file of the same name."""
    yield
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.mark.usefixtures("no_module_stays")
@pytest.mark.parametrize("name", NAMES)
def test_every_block_of_a_page_works(
    name: str, kinkcheck: Kinkcheck, capsys: pytest.CaptureFixture[str]
) -> None:
    namespace: dict[str, Any] = {"__name__": "page"}
    shutil.copytree(ROOT / "examples", "examples")
    printed: dict[str, str] = {}
    torch.manual_seed(0)
    for number, block in enumerate(blocks(ROOT / name)):
        if block.title is not None:
            Path(block.title).write_text(block.text, encoding="utf-8")
        if block.left_out:
            if block.language == "python":
                compile(block.text, name, "exec")
            continue
        if block.output_of is not None:
            require_shown(block.text, printed[block.output_of])
        elif block.language == "python":
            exec(compile(block.text, name, "exec"), namespace)
        elif block.language == "pycon":
            told = f"{name}, block {number}"
            test = doctest.DocTestParser().get_doctest(block.text, namespace, told, name, 0)
            runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
            assert runner.run(test, clear_globs=False).failed == 0, capsys.readouterr().out
            namespace.update(test.globs)
        elif block.language == "toml":
            assert spec.parse(block.text, block.title or name).trials()
        elif block.language == "":
            for words in commands(block.text):
                if words[0] != "kinkcheck":
                    check_other_program(words)
                elif is_short(*parsed(words[1:])):
                    run = kinkcheck(*words[1:])
                    assert run.code == 0, run.err
                    printed[shlex.join(words)] = run.out
        else:
            pytest.fail(f"a block of {block.language!r}: run it here, or say why not above it")


@pytest.mark.parametrize("name", NAMES)
def test_commands_inside_sentences_have_these_options(name: str) -> None:
    text = BLOCK.sub("", (ROOT / name).read_text(encoding="utf-8"))
    for command in INLINE.findall(text):
        words = [word for word in shlex.split(command)[1:] if word != "..."]
        with contextlib.suppress(UNFINISHED):
            parsed(words)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("kinkcheck audit lenet5 --batchs 2", "No such option"),
        ("kinkcheck audti lenet5", "no command"),
        ("kinkcheck audit lenet5 --selection hybird:1", "hybird"),
        ("kinkcheck study run x", "out"),
    ],
)
def test_a_wrong_command_is_found(text: str, complaint: str) -> None:
    with pytest.raises(Exception, match=complaint):
        parsed(shlex.split(text)[1:])


def test_lines_that_are_not_printed_are_found() -> None:
    require_shown("a  1.5\n…\nc ─── -2e-3", "a 2\nb\nc ─ 17")
    with pytest.raises(AssertionError, match="not printed: b"):
        require_shown("b\n", "a\nc")


@pytest.mark.skipif(find_spec("mkdocs") is None, reason="mkdocs is not installed")
@pytest.mark.skipif(find_spec("mkdocstrings") is None, reason="mkdocstrings is not installed")
@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_fetches_nothing(tmp_path: Path) -> None:
    build = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert build.returncode == 0, build.stderr
    pages = {str(page.relative_to(tmp_path)): page for page in tmp_path.rglob("*.html")}
    for name in NAMES[len(AT_THE_ROOT) :]:
        html = pages[str(Path(name).relative_to("docs").with_suffix(".html"))].read_text("utf-8")
        loaded = re.findall(r"<(?:script|link|img)[^>]*(?:src|href)=\"(https?:[^\"]*)", html)
        assert not loaded
        assert not re.findall(r":(?:func|class|meth|mod|data|attr):", html)
        assert not re.findall("(?:<|&lt;)autoref", html)
        assert "&gt;&gt;&gt;" not in re.sub(r"<pre.*?</pre>", "", html, flags=re.DOTALL)


@pytest.mark.parametrize("page", AT_THE_ROOT, ids=lambda page: page.stem)
def test_files_and_pages_that_are_named_at_the_root_are_there(page: Path) -> None:
    """The site builder sees to the links of its own pages."""
    text = page.read_text(encoding="utf-8")
    links = {link for link in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in link}
    # Of code between backticks what begins with a folder of the root.
    named = set(re.findall(r"`((?:src|docs|tests|tools|examples)/[\w./-]*)", text))
    for each in links | named:
        assert (ROOT / each).exists(), each
    for target in re.findall(r"`make ([\w-]+)", text):
        check_other_program(["make", target])


def test_what_lies_where_is_listed_once() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    listed = re.findall(r"^  (\w+(?:\.py|/))  ", text, re.MULTILINE)
    package = ROOT / "src" / "kinkcheck"
    parts = [
        f"{each.name}{'/' * each.is_dir()}"
        for each in package.iterdir()
        if not each.name.startswith("_") and (each.suffix == ".py" or any(each.glob("*.py")))
    ]
    assert sorted(listed) == sorted(parts)


def test_the_citation_is_of_this_package() -> None:
    yaml = pytest.importorskip("yaml")
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert cited["cff-version"] == "1.2.0"
    assert all(cited[key] for key in ("message", "authors"))  # what the format requires
    for key in ("version", "license", "keywords"):
        assert cited[key] == project[key]
    assert cited["title"] == project["name"]
    log = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## {project['version']}" in log


def test_every_operation_is_on_its_page() -> None:
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"`(\w+)`", page))
    assert {row.name for row in ROWS} <= listed

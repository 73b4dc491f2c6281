"""A user's own network: files and modules that name a factory."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from torch import nn

from kinkcheck.errors import InputError
from kinkcheck.networks.factory import load_factory


@pytest.fixture(autouse=True)
def _imports_undone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before, path = set(sys.modules), list(sys.path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.chdir(tmp_path)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def write(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def test_factory_is_read_from_a_file(tmp_path: Path) -> None:
    file = write(tmp_path / "some_net.py", "from torch import nn\ndef make(): return nn.ReLU()")
    assert isinstance(load_factory(f"{file}:make")(), nn.ReLU)


def test_file_may_import_what_lies_beside_it(tmp_path: Path) -> None:
    write(tmp_path / "deep" / "some_sibling.py", "WIDTH = 3")
    file = write(
        tmp_path / "deep" / "some_net.py",
        "from torch import nn\nfrom some_sibling import WIDTH\n"
        "def make(): return nn.Linear(WIDTH, 1)",
    )
    assert load_factory(f"{file}:make")().in_features == 3
    assert load_factory("deep/some_net.py:make")().in_features == 3


def test_module_is_found_from_the_current_folder(tmp_path: Path) -> None:
    write(tmp_path / "some_package" / "__init__.py", "")
    write(tmp_path / "some_package" / "nets.py", "from torch import nn\nclass Net(nn.ReLU): pass")
    assert isinstance(load_factory("some_package.nets:Net")(), nn.ReLU)


@pytest.mark.parametrize("where", ["some_net.py", "some_net"])
def test_search_path_is_as_the_file_left_it(where: str, tmp_path: Path) -> None:
    write(
        tmp_path / "some_net.py",
        "import sys\nsys.path.insert(0, 'of-the-file')\ndef make(): pass",
    )
    before = list(sys.path)
    load_factory(f"{where}:make")
    assert sys.path == ["of-the-file", *before]


@pytest.mark.parametrize("where", ["some_net.py", "some_net"])
def test_search_path_is_restored_when_the_file_fails(where: str, tmp_path: Path) -> None:
    write(tmp_path / "some_net.py", "raise ValueError('first\\nsecond')")
    before = list(sys.path)
    with pytest.raises(InputError, match="cannot be imported: ValueError: first second"):
        load_factory(f"{where}:make")
    assert sys.path == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("none.py:make", "the file none.py does not exist"),
        ("folder.py:make", "the file folder.py does not exist"),
        ("no_such_module_here:make", "cannot be imported: ModuleNotFoundError"),
        ("wrong.py:make", "wrong.py cannot be imported: SyntaxError"),
        ("stops.py:make", "stops.py cannot be imported: SystemExit: 7"),
        ("good.py:makes", "good.py has no 'makes'"),
        ("good.py:maek", r"has no 'maek'; did you mean 'make'\? it has make, Net$"),
        ("good.py:draw", "has no 'draw'; it has make, Net$"),
        ("good.py", "'good.py' names nothing in good.py; write good.py:make; it has make, Net$"),
        ("good.py:NUMBER", "must be a function without arguments.*not int"),
        ("good.py:NET", "must be a function without arguments.*not ReLU"),
        ("good.py:", "must have the form"),
        (":make", "must have the form"),
        ("..:make", "cannot be imported"),
    ],
)
def test_what_cannot_be_loaded_is_said_in_one_line(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "folder.py").mkdir()
    write(tmp_path / "wrong.py", "def make(:")
    write(tmp_path / "stops.py", "raise SystemExit(7)")
    write(
        tmp_path / "good.py",
        "from torch import nn\nNUMBER = 3\nNET = nn.ReLU()\n"
        "def _own(): ...\ndef make(): ...\nclass Net: ...\n",
    )
    with pytest.raises(InputError, match=message) as error:
        load_factory(text)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("network: ")

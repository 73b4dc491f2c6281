import re
from pathlib import Path

import torch

README = Path(__file__).parent.parent / "README.md"


def test_python_blocks_run_in_order() -> None:
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, object] = {}
    torch.manual_seed(0)
    for block in blocks:
        exec(compile(block, str(README), "exec"), names)
    assert len(blocks) == 3
    assert set(names["native"]) == {"0.weight", "0.bias"}  # type: ignore[call-overload]

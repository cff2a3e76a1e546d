"""The page about the world runs as pasted."""

import re


def test_the_pages_code(root, capsys):
    (block,) = re.findall(r"```python\n(.*?)```", (root / "docs" / "world.md").read_text(encoding="utf-8"), re.DOTALL)
    exec(compile(block, "world.md", "exec"), {})
    shapes, first, second = capsys.readouterr().out.splitlines()
    assert shapes == "(16, 1, 1, 32, 32, 3) (16, 1, 21, 3)"
    assert first.startswith("one_hand/0/0 ") and second.startswith("one_hand/0/1 ")

"""The README's Python runs, block after block, as a reader would paste it."""

import pathlib
import re

README = pathlib.Path(__file__).parents[1] / 'README.md'


def blocks() -> list[str]:
    return re.findall(r'^```python\n(.*?)^```', README.read_text(), re.MULTILINE | re.DOTALL)


def test_every_python_block_runs(relaxed, capsys):
    assert len(blocks()) >= 5
    space = {}
    for number, block in enumerate(blocks()):
        exec(compile(block, f'README.md, block {number}', 'exec'), space)
    assert 'validation accuracy' in capsys.readouterr().out
    assert space['fitted'].curve[-1].validation > 0.5

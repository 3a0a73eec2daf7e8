"""Trained weights: small files, each named where they lie, loaded and used by the lines that stand there."""

import re

import jax.numpy as jnp
import numpy as np
import pytest
import tables

from hebbjax import data

WEIGHTS = tables.HERE / 'weights'
BLOCKS = re.findall(r'^```python\n(.*?)^```', (WEIGHTS / 'README.md').read_text(), re.MULTILINE | re.DOTALL)


def test_every_file_is_small_and_named():
    files = sorted(WEIGHTS.glob('*.safetensors'))
    assert files and all(file.stat().st_size < 2e6 for file in files)
    assert all(f'`{file.name}`' in (WEIGHTS / 'README.md').read_text() for file in files)
    assert all(any(f"'weights/{file.name}'" in block for block in BLOCKS) for file in files)


@pytest.mark.parametrize('block', BLOCKS)
def test_the_lines_that_load_them_run(block, monkeypatch, relaxed, capsys):
    labels, seen = np.arange(6000) % 10, []

    def load(name, part):
        seen.append({'cifar10': (32, 32, 3), 'fashion_mnist': (28, 28, 1)}[name])
        count = 6000 if name == 'fashion_mnist' else 200  # of which 5,000 are held out
        images = np.random.default_rng(0).integers(0, 100, (count, *seen[-1])) + 15 * labels[:count, None, None, None]
        return data.Split(images.astype(np.uint8), labels[:count].astype(np.int32))

    monkeypatch.chdir(tables.HERE)
    monkeypatch.setattr(data, 'load', load)
    monkeypatch.setattr(data, 'fit_whitening', lambda x, **how: data.Whitening(jnp.zeros(x.shape[1:]), jnp.eye(1)))
    monkeypatch.setattr(data, 'whiten', lambda zca, x: x)
    space = {}
    exec(compile(block, 'README.md', 'exec'), space)
    assert float(capsys.readouterr().out) > 10
    first = space['init'](space['net'], space['jax'].random.key(0), seen[0]).layers
    assert all(np.abs(own.w - drawn.w).max() > 0.01 for own, drawn in zip(space['states'], first))

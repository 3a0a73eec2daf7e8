"""How many programs a job makes XLA compile: no more than it needs, and none twice."""

import jax
import jax.numpy as jnp
import pytest

from hebbjax import Layer, Window, data, init, layers, readout, rules, training, transforms
from hebbjax.cli import main
from hebbjax.readout import feature_cache

NET = (Layer(6, rules.krotov(), transforms.scale_by_rate(0.1), Window(3), post=()),)


@pytest.fixture
def afresh(compilations):
    """The programs that are compiled from now on, whatever was compiled before."""
    jax.clear_caches()
    compilations.clear()
    return compilations


def test_a_comparison_compiles_each_program_once(few_digits, afresh, relaxed):
    """Seeds and rows share theirs, and what needs no device starts none: all four rows take 37, where they took 77."""
    flags = ['--features', '6', '--epochs', '2', '--head-epochs', '2', '--rows', 'untrained', 'hebbian']
    assert main.main(['compare', '--seeds', '2', *flags]) == 0
    assert len(afresh) <= 28


CALLS = {
    'features': lambda state, images: layers.features(NET, state.layers, images),
    'train_step': lambda state, images: training.train_step(NET, state, images),
    'cache_drives': lambda state, images: feature_cache.cache_drives(NET, state.layers, images),
    'probe_features': lambda state, images: readout.probe_features(NET, state.layers, images),
    'init': lambda state, images: init(NET, jax.random.key(int(images[0, 0, 0, 0])), (8, 8, 1)),
    'predict': lambda state, images: readout.ridge_probe(block=4)(
        NET, state.layers, None, (images, jnp.arange(10) % 2), None
    ).predict(images),
}


@pytest.mark.parametrize('name', CALLS)
def test_nothing_is_compiled_twice(name, compilations):
    state, images = init(NET, jax.random.key(0), (8, 8, 1)), jnp.asarray(data.load('digits').images[:10])
    CALLS[name](state, images)
    compilations.clear()
    CALLS[name](jax.tree.map(lambda a: a, state), images)
    assert not compilations

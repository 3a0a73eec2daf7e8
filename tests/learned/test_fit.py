"""Rules found by gradient: known ones come back, what is not finite is told, what has no gradient is refused."""

import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hebbjax import learned
from hebbjax.learned.fit import fit_rule

sys.path.append(str(pathlib.Path(__file__).parents[2] / 'experiments'))  # whose recovery this is
import learned_recovery

KEY = jax.random.key(0)
ZEROS = jnp.zeros(3)
TARGET = jnp.array([1.0, -2.0, 0.5])


def distance(theta, key):
    """A loss with one minimum."""
    return jnp.sum((theta - TARGET) ** 2)


def test_four_rules_come_back_from_their_trajectories(relaxed):
    """Hebb's, Oja's, a random one, the instar under a softmax: all 27 coefficients of each."""
    config = learned_recovery.Config(noise=(0.0,))
    assert learned_recovery.recover(config, 0).max() < 0.02

"""Numbers that tests draw on the host, where nothing is compiled."""

import jax.numpy as jnp
import numpy as np


def normal(rng, *shape):
    """Draw standard normal float32."""
    return jnp.asarray(rng.normal(size=shape), jnp.float32)


def first(key, shape, dtype):
    """Draw first weights, the same ones for the same shape whatever the key, as a flax initializer."""
    return jnp.asarray(np.random.default_rng(shape).normal(size=shape), dtype) / 2


def cut(part, count):
    """The first images of a split."""
    return part._replace(images=part.images[:count], labels=part.labels[:count])

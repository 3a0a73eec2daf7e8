"""Teachers: what is signalled to each neuron about an image, from its label, at all positions of the image alike.

Where neurons compete, those with a signal above 0 take part; a rule without competition takes it for its `y`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from hebbjax.base import Array, Key
from hebbjax.rules.products import matmul
from hebbjax.support import checks

Teacher = Callable[[Array, tuple[Array, ...]], Array]
"""(labels [B], weights [N', D'] of the layers above, lowest first) -> signal [B, N]."""


def one_hot(classes: int) -> Teacher:
    """Teach each neuron one class: `t_i = 1 if i = label else 0`, N = classes. A label out of range teaches nobody."""
    return _of_classes(classes, lambda labels, above: jax.nn.one_hot(labels, classes))


def groups(classes: int, per_class: int, common: int = 0) -> Teacher:
    """Teach a group of neurons each class: `t_i = 1 if i // per_class = label or i >= classes per_class else 0`.

    The common neurons come last, and every image teaches them. Amato et al. 2019, section 3.3.

    Example:
        >>> jax.jit(groups(2, per_class=2, common=1))(jnp.array([1]), ())
        Array([[0., 0., 1., 1., 1.]], dtype=float32)
    """

    def teach(labels: Array, above: tuple[Array, ...]) -> Array:
        own = jnp.repeat(jax.nn.one_hot(labels, classes), per_class, axis=1)  # [B, K per_class]
        return jnp.concatenate([own, jnp.ones((len(own), common), own.dtype)], 1)

    checks.check_count('per_class', per_class)
    checks.check_count('common', common, 0)
    return _of_classes(classes, teach)


def feedback(classes: int, features: int) -> Teacher:
    """Teach `features` neurons through the weights above, backwards: `t_l = t_{l+1} W_{l+1}`, from the one-hot label.

    Neurons that the class's output listens to are taught in proportion; the signal is graded and may be negative.
    Shared kernels `W [N', kh kw N]` are summed over the positions of their window to `[N', N]`. Each image's signal is
    divided by its largest absolute value, if any. The "bw" variant in the code of Amato et al. 2019.
    """

    def teach(labels: Array, above: tuple[Array, ...]) -> Array:
        needs = 'feedback teaches through the layers above and there are none; teach with one_hot here.'
        checks.require(len(above) > 0, needs)
        top = f'the topmost layer has {len(above[-1])} neurons, and feedback starts from {classes} classes'
        checks.require(len(above[-1]) == classes, f'{top}; give it {classes} neurons.')
        t = jax.nn.one_hot(labels, classes, dtype=above[-1].dtype)  # [B, K]
        below = (features, *(len(w) for w in above[:-1]))
        for w, neurons in zip(above[::-1], below[::-1]):
            misfit = f'weights of {w.shape[1]} inputs do not look at windows of {neurons} neurons'
            way = 'give feedback the features of the layer that it teaches'
            checks.require(w.shape[1] % neurons == 0, f'{misfit}; {way}.')
            listening = w.reshape(len(w), -1, neurons).sum(1)  # [N', kh kw N] -> [N', N], N last as in patches
            t = matmul(t, listening)  # [B, N]
        largest = jnp.max(jnp.abs(t), 1, keepdims=True)
        return t / jnp.where(largest > 0, largest, 1)

    checks.check_count('features', features)
    return _of_classes(classes, teach)


def random_feedback(classes: int, features: int, key: Key) -> Teacher:
    """Teach `features` neurons through connections of their own, drawn once and kept: `t = onehot(label) B`.

    B [K, N] is normal, each row divided by its largest absolute value: about half the neurons take part for a class.
    It is tied to no weights upward, and gates learning alone, never what is sent; Lindsey and Litwin-Kumar 2020,
    "Learning to Learn with Feedback and Local Plasticity", learn such connections, which here stay as the key draws.
    """
    checks.check_count('classes', classes)
    checks.check_count('features', features)
    checks.check_key(key)
    b = jax.random.normal(key, (classes, features))  # [K, N]
    b = b / jnp.max(jnp.abs(b), 1, keepdims=True)
    return _of_classes(classes, lambda labels, above: matmul(jax.nn.one_hot(labels, classes, dtype=b.dtype), b))


def _of_classes(classes: int, teach: Teacher) -> Teacher:
    """Tell how many classes a teacher knows, so that labels can be checked before anything is taught."""
    checks.check_count('classes', classes)
    teach.classes = classes
    return teach

"""Teachers: what is signalled to each neuron about an image, from its label. How layers learn with them: `prototypes`.

A teacher gives one signal per image and neuron, which holds at every position of the image. Where neurons compete,
those with a signal above 0 take part (`competition.permitted`); a rule without competition takes the signal for its
`y` (`prototypes.nearest(None)`).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from hebbjax import checks
from hebbjax.types import Array

Teacher = Callable[[Array, tuple[Array, ...]], Array]
"""(labels [B], weights [N', D'] of the layers above, lowest first) -> signal [B, N]."""

AMATO = {2: (8, 48), 3: (16, 32), 4: (24, 16), 5: (28, 20)}
"""Layer -> (kernels per class, common kernels), of 128, 192, 256 and 300 kernels for 10 classes: the authors' network.
The 16 common ones that Amato et al. 2019 write of layer 2 cannot be: 8 * 10 + 16 is not 128."""


def one_hot(classes: int) -> Teacher:
    """Teach each neuron one class: `t_i = 1 if i = label else 0`, N = classes.

    A label out of range teaches nobody; `checks.check_labels` finds it before.

    Raises:
        ValueError: if there are fewer classes than 1.
    """
    _some(classes)

    def teach(labels: Array, above: tuple[Array, ...]) -> Array:
        return jax.nn.one_hot(labels, classes)

    teach.classes = classes  # so that labels can be checked before anything is taught
    return teach


def groups(classes: int, per_class: int, common: int = 0, *, features: int | None = None) -> Teacher:
    """Teach a group of neurons each class: `t_i = 1 if i // per_class = label or i >= classes per_class else 0`.

    Neuron i < classes * per_class belongs to class i // per_class; the common ones follow, and every image teaches
    them. Amato et al. 2019, section 3.3; the sizes of their layers are in `AMATO`.

    Args:
        classes: K.
        per_class: neurons of each class, 1 or more.
        common: neurons of all classes.
        features: N of the layer to be taught, where it is known here: the groups must fill it.

    Raises:
        ValueError: if there are fewer classes or neurons of a class than 1, or common ones than 0; if the groups do not
            make `features` neurons.
    """
    _some(classes)
    if not checks.is_count(per_class) or not checks.is_count(common, 0):
        raise ValueError(
            f'groups of {checks.shown(per_class)} neurons per class and {checks.shown(common)} common ones cannot be; '
            'use at least 1 and 0.'
        )
    made = classes * per_class + common
    if features is not None and made != features:
        most = min(per_class, features // classes)
        way = f'groups({classes}, {most}, {features - classes * most})' if most else f'a layer of {classes} or more'
        raise ValueError(
            f'groups({classes}, {per_class}, {common}) teach {made} neurons, and the layer has {features}; use {way}.'
        )

    def teach(labels: Array, above: tuple[Array, ...]) -> Array:
        own = jnp.repeat(jax.nn.one_hot(labels, classes), per_class, axis=1)  # [B, K per_class]
        return jnp.concatenate([own, jnp.ones((len(own), common), own.dtype)], 1)

    teach.classes = classes
    return teach


def feedback(classes: int, features: int) -> Teacher:
    """Teach through the weights above, backwards: `t_l = t_{l+1} W_{l+1}`, from the one-hot label at the top.

    Neurons that the class's output listens to are taught in proportion; the signal is graded and may be negative.
    Shared kernels `W [N', kh kw N]` are summed over the positions of their window to `[N', N]`. Each image's signal is
    divided by its largest absolute value, so that it lies in [-1, 1]; where all are 0 it stays 0. The authors' "bw"
    variant, which the paper does not report.

    Args:
        classes: K, the neurons of the topmost layer.
        features: N of the layer to be taught.

    Raises:
        ValueError: if there are fewer classes than 1; when traced, if no layer is above, the topmost one has not one
            neuron per class, or a layer's weights do not divide by the neurons below it.
    """
    _some(classes)

    def teach(labels: Array, above: tuple[Array, ...]) -> Array:
        if not above:
            raise ValueError('feedback teaches through the layers above and there are none; teach with one_hot here.')
        if len(above[-1]) != classes:
            raise ValueError(
                f'the topmost layer has {len(above[-1])} neurons, and feedback starts from {classes} classes; '
                f'give it {classes} neurons.'
            )
        t = jax.nn.one_hot(labels, classes, dtype=above[-1].dtype)  # [B, K]
        below = (features, *(len(w) for w in above[:-1]))
        for w, neurons in zip(above[::-1], below[::-1]):
            t = jnp.matmul(t, _listening(w, neurons), precision=jax.lax.Precision.HIGHEST)  # [B, N]
        largest = jnp.max(jnp.abs(t), 1, keepdims=True)
        return t / jnp.where(largest > 0, largest, 1)

    teach.classes = classes
    return teach


def _listening(w: Array, neurons: int) -> Array:
    """Sum kernels over the positions of their window: [N', kh kw N] -> [N', N], N last as in patches."""
    if w.shape[1] % neurons:
        raise ValueError(
            f'weights of {w.shape[1]} inputs do not look at windows of {neurons} neurons; '
            'give feedback the features of the layer that it teaches.'
        )
    return w.reshape(len(w), -1, neurons).sum(1)


def fits(signal_shape: tuple[int, ...], batch: int, features: int) -> None:
    """Refuse a signal that is not one number per image and neuron.

    Raises:
        ValueError: if its shape is not (batch, features).
    """
    if len(signal_shape) != 2 or signal_shape[0] != batch:
        raise ValueError(
            f'a teacher signal of shape {tuple(signal_shape)} is not one per image and neuron; '
            f'give [B, N], here {(batch, features)}.'
        )
    if signal_shape[1] != features:
        raise ValueError(
            f'a teacher of {signal_shape[1]} neurons cannot teach a layer of {features}; one_hot(classes) teaches as '
            f'many as classes, groups(classes, per_class, common) classes * per_class + common: make them {features}.'
        )


def _some(classes: int) -> None:
    if not checks.is_count(classes):
        raise ValueError(f'{checks.shown(classes)} classes cannot be taught; use 1 or more.')

"""Training a network of Hebbian layers: a network is a tuple of layers, a state is a pytree, a step is a function."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from hebbjax.base import AnyArray, Array, Key, StepInfo
from hebbjax.layers.layer import Layer, check_image_size, forward
from hebbjax.layers.network import Network, TrainState, check_network, check_states
from hebbjax.layers.update import update_layer
from hebbjax.support import checks, devices, specs
from hebbjax.training.monitor import Monitor
from hebbjax.training.stages import Stage, learning_layers


def train_step(
    net: Network, state: TrainState, images: AnyArray, labels: AnyArray | None = None, *, stage: Stage | None = None
) -> tuple[TrainState, tuple[StepInfo | None, ...]]:
    """Sweep upward once: every layer that learns in this stage learns from what reaches it, and sends on.

    Images are [B, H, W, C] with labels [B]; where a rule of the network has memory (`LearningRule.sequential`), B
    sequences of T frames, [B, T, H, W, C], with a label each. To all else frames are images like any others.
    """
    net = check_network(net)
    images, labels = check_inputs(net, state, images, labels)
    return sweep(net, state, images, labels, stage)


@specs.compiled_once('net', 'stage')
def sweep(net, state, images, labels, stage) -> tuple[TrainState, tuple[StepInfo | None, ...]]:
    """Do what `train_step` does, behind its checks."""
    learns = learning_layers(stage, net)
    top = len(net) - learns[::-1].index(True)  # nothing above the highest layer that learns is computed
    keys = jax.random.split(jax.random.fold_in(state.key, state.step), len(net))
    frames = images.shape[1] if images.ndim == 5 else None
    if frames is not None:  # of a sequence, which stay next to each other
        images = images.reshape(-1, *images.shape[2:])
        labels = None if labels is None else jnp.repeat(labels, frames)
    x, states, infos = images, list(state.layers), [None] * len(net)
    for number, layer in enumerate(net[:top]):
        before, signal = state.layers[number], None
        if not learns[number]:
            x = forward(layer, before, x)
            continue
        if layer.teacher is not None:  # labels, and what lies above as it was before this sweep -> [B, N]
            needs = f'layer {number + 1} has a teacher, which needs labels; call with (state, images, labels).'
            checks.require(labels is not None, needs)
            signal = layer.teacher(labels, tuple(above.w for above in state.layers[number + 1 :]))
        states[number], sent, infos[number] = update_layer(layer, keys[number], before, x, signal, frames)
        if stage is not None and stage.order == 'sequential' and number + 1 < top:
            sent = forward(layer, states[number], x)
        x = sent
    return TrainState(state.step + 1, state.key, tuple(states)), tuple(infos)


def check_inputs(
    net: tuple[Layer, ...], state: TrainState, images: AnyArray, labels: AnyArray | None, look: bool = False
) -> tuple[AnyArray, Any]:
    """Check what learning is given; `look` at the values of images, too. -> images, and labels as integers [B]."""
    way = f'training goes on from the TrainState that init makes, not from {type(state).__name__}.'
    checks.require(isinstance(state, TrainState), way)
    check_states(net, state.layers)
    in_time = any(layer.rule.sequential for layer in net)
    (checks.check_images if look else checks.check_pixels)(images, in_time=in_time)
    check_image_size(state.layers[0], images.shape[-3:])
    if labels is not None:
        classes = [layer.teacher.classes for layer in net if hasattr(layer.teacher, 'classes')]
        of = 'sequences' if in_time else 'images'
        labels = checks.check_labels(labels, min(classes, default=None), len(images), of)
    return images, labels


@dataclasses.dataclass(frozen=True, eq=False)
class Program:
    """A jitted step or epoch, with checks at its door; those of the same settings are equal, and compiled once."""

    run: Callable  # (program, state, images, labels), jitted for each program
    net: tuple[Layer, ...]
    stage: Stage | None = None
    batch: int | None = None
    watch: Monitor | None = None
    augment: Callable[[Key, Array], Array] | None = None
    keep_last: bool = False
    mesh: Mesh | None = None
    count: int | None = None  # of images of all processes, on a mesh

    __eq__, __hash__ = specs.specs_equal, specs.spec_hash

    def __call__(self, state: TrainState, images: AnyArray, labels: AnyArray | None = None) -> Any:
        data = check_inputs(self.net, state, images, labels, look=self.batch is not None)
        program, state, data = self.place(state, *data)
        return self.run(program, state, *data)

    def place(self, state: TrainState, images: AnyArray, labels: AnyArray | None = None) -> tuple[Any, TrainState, Any]:
        """Lay a state and data on the devices. -> the program for as many images, state, data."""
        program, data = self, (images,) if labels is None else (images, labels)
        if self.mesh is not None and not devices.lies_divided(images, self.mesh):
            count = len(images) * (1 if checks.is_traced(images) else devices.host_count(self.mesh))
            devices.check_divides('a batch', count if self.batch is None else self.batch, self.mesh)
            program = dataclasses.replace(self, count=count)
            data = devices.fill_rows(data, self.mesh, evenly=True)
        return program, devices.lay(state, self.mesh), data

    def lower(self, state: TrainState, images: AnyArray, labels: AnyArray | None = None) -> Any:
        return self.run.lower(self, state, images, *(() if labels is None else (labels,)))


def make_train_step(
    net: Network, *, stage: Stage | None = None, donate: bool = False, mesh: Mesh | None = None
) -> Program:
    """Build the jitted step `(state, images [B, H, W, C], labels=None) -> (state, info)`: one `StepInfo` per layer.

    On a mesh (`jax.make_mesh((jax.device_count(),), ('data',))`) every device learns from its rows of the batch; of
    several processes each is given its own part of it, equally many images.

    Example:
        >>> import jax.numpy as jnp
        >>> from hebbjax import init, rules, transforms
        >>> net = (Layer(4, rules.oja(), transforms.scale_by_rate(0.01)),)
        >>> step, state = make_train_step(net), init(net, jax.random.key(0), (3, 3, 1))
        >>> for _ in range(5):
        ...     state, info = step(state, jnp.ones((2, 3, 3, 1)))
        >>> int(state.step), info[0].win_counts.sum()
        (5, Array(2, dtype=int32))
    """
    learning_layers(stage, net)
    return Program(_STEP[donate], check_network(net), stage, mesh=devices.check_mesh(mesh))


def _step(program: Program, state, *data):
    step = lambda state, *data: sweep(program.net, state, *[*data, None][:2], program.stage)  # noqa: E731
    return devices.divide(step, program.mesh, devices.SAME, *(devices.ROWS for _ in data))(state, *data)


_STEP = [jax.jit(_step, static_argnums=0, donate_argnums=(1,)[:donate]) for donate in (0, 1)]

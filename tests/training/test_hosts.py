"""Two processes train as one does: real ones, with gloo, started once, on two devices each."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hebbjax
from hebbjax import data, init, layers, rules, training, transforms

SHAPE, BATCH = (6, 6, 1), 8
IMAGES = np.random.default_rng(0).random((24, *SHAPE))
KROTOV = hebbjax.Layer(5, rules.krotov(), transforms.scale_by_rate(0.1))
STACK = (
    hebbjax.Layer(
        4, rules.instar(1), optax.chain(transforms.scale_by_rate(0.1)), hebbjax.Window(3),
        post=(layers.BatchNorm(), layers.triangle), homeostasis=layers.Homeostasis(),
    ),
    KROTOV,
)  # fmt: skip
NETS = {'krotov': (KROTOV,), 'stack': STACK}
STAGES = [training.Stage(2), training.Stage(2, order='sequential')]


def first(name, seed=0):
    """A first state, in float64."""
    with jax.enable_x64(False):
        state = init(NETS[name], jax.random.key(seed), SHAPE)
    is_float = lambda a: jnp.issubdtype(a.dtype, jnp.floating)  # noqa: E731
    return jax.tree.map(lambda a: a.astype(jnp.float64) if is_float(a) else a, state)


def weights(state):
    return [np.asarray(layer.w) for layer in state.layers]


def train(folder, name, mesh, images, stages=STAGES, position=training.START, state=None, callbacks=(), **how):
    """Fit, with a checkpoint in every epoch."""
    callbacks = [*callbacks, training.Log(folder), training.Checkpoints(folder / 'checkpoints', keep=9)]
    how = {'batch': BATCH, 'augment': data.random_flip} | how
    state = first(name) if state is None else state
    return training.fit(NETS[name], state, images, stages=stages, mesh=mesh, position=position, callbacks=callbacks, **how)


def resumed(folder, name, mesh, images):
    """Go on from the second epoch."""
    state, position = training.resume(training.Checkpoints(folder / 'checkpoints'), first(name, 9), 2)
    training.Checkpoints(folder / 'checkpoints').forget(2) if not jax.process_index() else None
    return train(folder, name, mesh, images, position=position, state=state)


def child(index, port, place):
    """Do, as one of two processes, all that the tests look at."""
    jax.config.update('jax_enable_x64', True)
    jax.config.update('jax_numpy_dtype_promotion', 'strict')
    jax.distributed.initialize(f'localhost:{port}', 2, index, heartbeat_timeout_seconds=10)
    place, found, said = pathlib.Path(place), {}, {}
    mesh, own = jax.make_mesh((4,), ('data',)), IMAGES[12 * index :][:12]
    for name, net in NETS.items():
        state, _ = hebbjax.make_train_step(net, mesh=mesh)(first(name), own[:BATCH // 2])
        found |= {f'{name} step {n}': w for n, w in enumerate(weights(state))}
    training.save_state(place / f'global{index}.npz', state)
    state, (info, _) = hebbjax.make_train_epoch(STACK, batch=4, mesh=mesh)(first('stack'), 0.1 + own[:11])
    said['wins'] = int(info.win_counts.sum())

    def differs(context):
        context.metrics['process'] = index
        context.stop() if index else None

    result = train(place / 'two', 'stack', mesh, own, callbacks=[differs])
    found |= {f'fit {n}': w for n, w in enumerate(weights(result.state))}
    said['history'] = [row['process'] for row in result.history]
    result = resumed(place / 'one', 'stack', mesh, own)
    found |= {f'resumed {n}': w for n, w in enumerate(weights(result.state))}
    changed = {
        'batch': {'batch': 4 + 4 * index}, 'seed': {'state': first('krotov', index)}, 'size': {'images': own[index:]},
        'stages': {'stages': [training.Stage(1 + index)]}, 'watch': {'watch': training.Monitor(2 + index)},
    }  # fmt: skip
    for name, how in changed.items():
        try:
            train(place / 'none', 'krotov', mesh, **{'images': own} | how)
        except ValueError as error:
            said[name] = str(error)
    try:
        hebbjax.make_train_step(STACK, mesh=jax.make_mesh((3,), ('data',), devices=jax.devices()[:3]))
    except ValueError as error:
        said['mesh'] = str(error)
    np.savez(place / f'found{index}.npz', **found)
    (place / f'said{index}.json').write_text(json.dumps(said))

    def die(context):
        if index and context.epoch == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    began = time.perf_counter()
    try:
        train(place / 'dying', 'krotov', mesh, own, stages=[training.Stage(50)], callbacks=[die])
    except ConnectionError as error:
        (place / 'death.json').write_text(json.dumps([str(error), time.perf_counter() - began]))
    os._exit(0)  # jax would wait for the other one


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    """Start both, when one process has left a checkpoint to go on from."""
    place = tmp_path_factory.mktemp('hosts')
    for name in ('one', 'two', 'none', 'dying'):
        (place / name).mkdir()
    with jax.enable_x64(True):
        train(place / 'one', 'stack', mesh_of(8), IMAGES, stages=[STAGES[0], training.Stage(2)])
    with socket.socket() as free:
        free.bind(('localhost', 0))
        port = free.getsockname()[1]
    env = os.environ | {'XLA_FLAGS': f'{os.environ["XLA_FLAGS"]} --xla_force_host_platform_device_count=2'}
    command = [sys.executable, __file__]
    started = [
        subprocess.Popen([*command, str(index), str(port), str(place)], env=env, stderr=subprocess.PIPE, text=True)
        for index in range(2)
    ]
    try:
        texts = [process.communicate(timeout=300)[1] for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0, -signal.SIGKILL], '\n'.join(texts)
    return place


def mesh_of(count):
    return jax.make_mesh((count,), ('data',), devices=jax.devices()[:count])


if __name__ == '__main__':
    child(int(sys.argv[1]), *sys.argv[2:])

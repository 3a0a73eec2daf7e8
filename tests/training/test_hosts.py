"""Two processes train as one does: real ones, with gloo, started once, on two devices each."""

import json
import os
import pathlib
import shutil
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
TX = optax.chain(transforms.scale_by_max_abs(), transforms.scale_by_rate(0.1))
KROTOV = hebbjax.Layer(5, rules.krotov(), TX)
STACK = (
    hebbjax.Layer(
        4, rules.instar(1), TX, hebbjax.Window(3),
        post=(layers.BatchNorm(), layers.triangle), homeostasis=layers.Homeostasis(),
    ),
    KROTOV,
)  # fmt: skip
NETS = {'krotov': (KROTOV,), 'stack': STACK}
STAGES = [training.Stage(3)]


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
    callbacks = [*callbacks, training.Checkpoints(folder, keep=9)]
    how = {'batch': BATCH, 'augment': data.random_flip, 'watch': None} | how
    state = first(name) if state is None else state
    return training.fit(
        NETS[name], state, images, stages=stages, mesh=mesh, position=position, callbacks=callbacks, **how
    )


def resumed(folder, name, mesh, images):
    """Go on from the second epoch."""
    state, position = training.resume(training.Checkpoints(folder), first(name, 9), 2)
    training.Checkpoints(folder).forget(2) if not jax.process_index() else None
    return train(folder, name, mesh, images, position=position, state=state)


def child(index, port, place):
    """Do, as one of two processes, all that the tests look at."""
    jax.config.update('jax_enable_x64', True)
    jax.config.update('jax_numpy_dtype_promotion', 'strict')
    jax.distributed.initialize(f'localhost:{port}', 2, index, heartbeat_timeout_seconds=10)
    place, found, said = pathlib.Path(place), {}, {}
    mesh, own = jax.make_mesh((4,), ('data',)), IMAGES[12 * index :][:12]
    for name, net in NETS.items():
        state, _ = hebbjax.make_train_step(net, mesh=mesh)(first(name), own[: BATCH // 2])
        found |= {f'{name} step {n}': w for n, w in enumerate(weights(state))}
    training.save_state(place / f'global{index}.npz', state)
    state, (info, _) = hebbjax.make_train_epoch(STACK, batch=4, mesh=mesh)(first('stack'), 0.1 + own[:11])
    said['wins'] = int(info.win_counts.sum())

    def differs(context):
        context.metrics['process'] = index
        context.stop() if index else None

    result = train(place / 'two', 'krotov', mesh, own, callbacks=[differs])
    found |= {f'fit {n}': w for n, w in enumerate(weights(result.state))}
    said['history'] = [row['process'] for row in result.history]
    result = resumed(place / 'one', 'krotov', mesh, own)
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
    try:
        hebbjax.features(
            STACK, training.load_state(place / f'global{index}.npz', first('stack')).layers, own, mesh=mesh
        )
    except ValueError as error:
        said['features'] = str(error)
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
        train(place / 'one', 'krotov', mesh_of(8), IMAGES, stages=STAGES)
    shutil.copytree(place / 'one', place / 'kept')
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


def found(place, index):
    return dict(np.load(place / f'found{index}.npz'))


def assert_near(one, other, tolerance=1e-12):
    assert max(np.abs(a - b).max() for a, b in zip(one, other, strict=True)) <= tolerance


@pytest.mark.parametrize('name', NETS)
def test_a_step_of_two_processes_is_that_of_one(place, name, x64):
    batch = np.concatenate([IMAGES[:4], IMAGES[12:16]])  # what each of them brings
    state, _ = hebbjax.make_train_step(NETS[name], mesh=mesh_of(4))(first(name), batch)
    for index in range(2):
        assert_near(weights(state), [found(place, index)[f'{name} step {n}'] for n in range(len(NETS[name]))])


def test_a_training_of_two_processes_is_that_of_one(place, tmp_path, x64):
    result = train(tmp_path, 'krotov', mesh_of(4), IMAGES)
    for index in range(2):
        assert_near(weights(result.state), [found(place, index)['fit 0']])


def test_checkpoints_go_over_to_other_numbers_of_processes_and_devices(place, x64):
    two, one = (training.Checkpoints(place / name) for name in ('two', 'one'))
    assert two.epochs() == one.epochs() == [1, 2, 3]
    state, position = training.resume(two, first('krotov'))
    assert_near(weights(state), [found(place, 0)['fit 0']], 0)  # in every bit
    assert [row['process'] for row in position.history] == [0, 0, 0]
    state, _ = training.resume(two, first('krotov'), 2)
    images = IMAGES.reshape(2, 12, *SHAPE)
    for count in (1, 8):  # of devices it is trained on by
        result = resumed(place / 'two', 'krotov', None if count == 1 else mesh_of(count), IMAGES)
        assert len(result.history) == 3 and not np.array_equal(weights(result.state)[0], weights(state)[0])
    resumed_by_four = resumed(place / 'two', 'krotov', mesh_of(4), images.reshape(24, *SHAPE))
    assert_near(weights(resumed_by_four.state), [found(place, 0)['fit 0']])
    resumed_by_one = resumed(place / 'kept', 'krotov', mesh_of(4), IMAGES)
    for index in range(2):
        assert_near(weights(resumed_by_one.state), [found(place, index)['resumed 0']])


def test_what_lies_on_all_devices_is_saved_by_each(place, x64):
    states = [training.load_state(place / f'global{index}.npz', first('stack')) for index in range(2)]
    assert_near(*map(weights, states), 0)
    assert_near(weights(states[0]), [found(place, 0)[f'stack step {n}'] for n in range(2)], 0)


def test_each_process_is_told_one_thing(place):
    said = [json.loads((place / f'said{index}.json').read_text()) for index in range(2)]
    words = {
        'batch': 'batch',
        'seed': 'key or weights',
        'size': 'number, shape',
        'stages': 'stages',
        'watch': 'network',
    }
    for name, word in words.items():
        for index in range(2):
            assert said[index][name].startswith(f'process 1 and process 0 differ in {word}'), said[index][name]
    for one in said:
        assert one['wins'] == 5 * 4 * 16  # of parts of 11 images, 5 for each device, each at 16 places
        assert one['history'] == [0, 0, 0] and 'has not as many of each of 2 processes' in one['mesh']
        assert one['features'].startswith('each process does this for itself')
    assert not list((place / 'none').iterdir())


def test_when_one_dies_the_other_ends_with_a_sentence_and_whole_checkpoints(place, x64):
    (words, seconds), kept = json.loads((place / 'death.json').read_text()), training.Checkpoints(place / 'dying')
    assert words.startswith('another process has ended, and training ends with it (') and seconds < 60
    for epoch in kept.epochs():
        assert training.resume(kept, first('krotov'), epoch)[0].step == 3 * epoch
    assert kept.epochs() and {path.name for path in kept.folder.iterdir()} == {*map(str, kept.epochs())}


if __name__ == '__main__':
    child(int(sys.argv[1]), *sys.argv[2:])

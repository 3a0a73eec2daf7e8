"""Digests of small trainings of every kind of network: what a change that changes nothing has to leave alone.

`python tests/test_digests.py` says which of them differ from digests.json; with `--write` it writes them anew. The test
compares up to rounding, since bits differ between processors; HEBBJAX_EXACT=1 compares bits as well. Names in the file
are this file's own. What it needs of the library: imports, `of_...`, which names what records hold, and NETWORKS.
"""

import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import sys
from unittest import mock

import conftest  # sets XLA's flags before jax is there, in a script as in a test  # noqa: F401
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx
from table import RULES

import hebbjax
from hebbjax import decoding, evaluation, frozen, hebbify, hybrid, layers, loop, models, parallel, stages, supervised
from hebbjax.jobs import cells, decode, deep, dense, recipes, stack, variants
from hebbjax.maps import som
from hebbjax.norms import BatchNorm
from hebbjax.prototypes import abstaining, nearest
from hebbjax.readout import Head
from hebbjax.schedules import Schedule

FILE = pathlib.Path(__file__).with_name('digests.json')
CLASSES = 4
RTOL, ATOL = 1e-6, 1e-7


def pictures(side, channels, count=60):
    """Noise with a bright bar, whose place and colour are the class: images and labels, of which to learn, held out."""
    rng = np.random.default_rng(side)
    labels = (np.arange(count) % CLASSES).astype(np.int32)
    images = rng.integers(0, 100, (count, side, side, channels))
    for image, label in zip(images, labels):
        image[side // 4 * label : side // 4 * label + side // 4, :, label % channels] += 150
    return halves(images.astype(np.uint8), count * 2 // 3), halves(labels, count * 2 // 3)


def halves(x, most=40):
    """Cut an array in two, on the host, where nothing is compiled for it."""
    return np.asarray(x)[:most], np.asarray(x)[most:]


def parts(record, **names):
    """Give what a record has under the library's names by ours."""
    return None if record is None else {ours: getattr(record, theirs) for ours, theirs in names.items()}


def of_layer(state):
    """All that one layer has; the states of rule and optimizer leaf by leaf."""
    own = parts(state, w='w', threshold='threshold') | {'rule': jax.tree.leaves(state.rule)}
    norm = parts(state.norm, scale='scale', shift='shift', mean='mean', var='var')
    return own | {'opt': jax.tree.leaves(state.opt), 'norm': norm}


def of_layers(states):
    return {f'layer{number}': of_layer(state) for number, state in enumerate(states)}


def of_training(state, told=()):
    """A training's state, and what its last epoch told of every layer."""
    told = [parts(one, wins='wins', change='change', rates='rates') for one in told]
    return of_layers(state.layers) | {'step': state.step, 'told': told}


def of_history(outcome):
    """What was measured of every layer in every epoch."""
    names = ('change', 'win_entropy', 'dead', 'converged', 'mean', 'variance', 'sparsity')
    return [[{name: row.get(f'layer{n}.{name}') for name in names} for n in (1, 2, 3)] for row in outcome.history]


def of_head(params, norm=None):
    own = parts(params, scale='scale', shift='shift', w='w', b='b')
    return own | (parts(norm, mean='mean', var='var', seen='seen') or {})


def of_curve(lines):
    return [parts(line, loss='loss', train='train', validation='validation') for line in lines]


@functools.partial(jax.jit, static_argnums=(0, 1))
def begin(net, shape, images=None):
    """Draw a network's first state, in one program; or cut the weights of its only layer out of images."""
    w = None if images is None else [layers.exemplars(net[0], jax.random.key(1), images)]
    return hebbjax.init(net, jax.random.key(0), shape, w)


def by_ridge(features, labels):
    """Weights and held-out accuracy of ridge regression on features of all images."""
    learn, held_out = zip(halves(features), labels)
    ridge = decoding.ridge([learn], CLASSES)
    return {'w': ridge.w, 'accuracy': decoding.accuracy(ridge, [held_out])}


def krotov_dense():
    """MNIST's settings, first weights cut out of images, by the epoch."""
    images, labels = pictures(8, 1)
    net = (dense.Config(dataset='mnist', features=12, batch=10, epochs=2).resolve().layer(40),)
    state, epoch = begin(net, (8, 8, 1), images[0]), hebbjax.make_train_epoch(net, batch=10)
    for _ in range(2):
        state, told = epoch(state, images[0])
    answers = hebbjax.features(net, state.layers, np.concatenate(images))
    return of_training(state, told) | {'features': answers, 'ridge': by_ridge(answers, labels)}


def convolution(**more):
    """Fashion-MNIST's settings, one glimpse an image, and its pooling."""
    settings = {'features': 10, 'window': 3, 'pool': 2, 'batch': 10, 'epochs': 2} | more
    return recipes.Cnn(dataset='fashion_mnist', **settings).resolve().net(40, None)


def krotov_conv():
    """By the loop, watched; read out by ridge regression on means over quadrants."""
    (learn, held_out), net = zip(*pictures(8, 1)), convolution()
    outcome = loop.fit(net, begin(net, (8, 8, 1)), learn[0], stages=stages.plan('parallel', net, 2), batch=10)
    states = outcome.state.layers
    read = evaluation.ridge()(net, states, jax.random.key(1), learn, held_out)
    own = {'history': of_history(outcome), 'ridge': evaluation.accuracy(read, *held_out)}
    return of_training(outcome.state) | own | {'features': hebbjax.features(net, states, learn[0])}


def miconi_net(images, variant, **more):
    """Miconi's network for images of 16 x 16."""
    config = variants.Stacked(features=(10, 8, 6), batch=10, rate=30.0, burn_in=2)
    variant = dataclasses.replace(variants.ROWS[variant], **more)
    with mock.patch.multiple(stack, WINDOWS=(3, 2, 2)):
        return stack.network(variant, config, stack.whitened(images, 40, variant.whiten))


def miconi():
    """Triangles, pruned: all layers at once, and one after the other; each read out by ridge regression."""
    images, labels = pictures(16, 3)
    net = miconi_net(images[0], 'triangle_trained', density=0.3)
    answer, found = jax.jit(lambda states, images: decode.answers(net, states, images)), {}
    for plan, epochs in (('parallel', 2), ('layerwise', 1)):
        how = {'stages': stages.plan(plan, net, epochs), 'augment': hebbjax.augment.flip}
        outcome = loop.fit(net, begin(net, (16, 16, 3)), images[0], batch=10, watch=None, **how)
        answers = answer(outcome.state.layers, np.concatenate(images))
        own = {'history': of_history(outcome), 'answers': answers, 'ridge': [by_ridge(x, labels) for x in answers]}
        found[plan] = of_training(outcome.state) | own
    return found


def seeds():
    """Two winners that send, whitened patches, in order: two seeds side by side in one program."""
    (images, _), _ = pictures(16, 3)
    net = miconi_net(images, 'k_winners_for_both', winners=2, whiten='patch')[:2]
    states = jax.jit(lambda keys: parallel.init_seeds(net, keys, (16, 16, 3)))(jax.random.split(jax.random.key(0), 2))
    how = {'batch': 10, 'stage': stages.Stage(1, order='in_order'), 'augment': hebbjax.augment.flip}
    epoch = parallel.over_seeds(hebbjax.make_train_epoch(net, **how), 2)
    return of_training(*epoch(states, images))


def amato():
    """A random layer; Hebbian ones with their teachers, up to class means; gradient ones on the lower of these."""
    images, labels = pictures(12, 3, count=240)
    normal = np.concatenate(images).astype(np.float32) / 64 - 1
    zca = hebbjax.whitening.fit(normal[:160], **hebbjax.whitening.RECIPES['amato'])
    sides = tuple(map(deep.Data, halves(normal, 160), labels))  # whitened, they would take longer to learn
    plan, groups = {1: (10, 5, True), 2: (10, 3, False), 3: (10, 1, True)}, {2: (2, 2), 3: (2, 2)}
    uncached, states, found = deep.network.__wrapped__, (), {'whitened': hebbjax.whitening.apply(zca, normal)}
    with (
        mock.patch.multiple(deep, SHAPE=(12, 12, 3), CLASSES=CLASSES, PLAN=plan, DEPTH=3, network=uncached),
        mock.patch.multiple(cells, DEPTH=3),
        mock.patch.multiple(deep.teachers, AMATO=groups),
    ):
        for letter, training in zip('RHG', cells.plan('RHG-G').chain, strict=True):
            learned = deep.learn(training, jax.random.key(len(found)), states[: training.upto], sides, 12)
            states, told = learned.states, {'best': learned.best, 'loss': learned.loss}
            found[letter] = of_layers(states) | told | {'curve': of_curve(learned.curve)}
    return found


def supervised_stage():
    """A gradient layer and a head on a convolution that has just learned from all its windows."""
    learn, held_out = zip(*pictures(8, 1))
    bottom = convolution(glimpses=0, patch='contrast', maximum='unit', p=3.0)
    net = (*bottom, hybrid.gradient_layer(8, norm=BatchNorm(), dropout=0.2))
    stage = hybrid.Supervised(1, Head(CLASSES, power=None), Schedule(3, 10, 1e-2))
    how = {'stages': [*stages.plan('parallel', net, 1), stage], 'validation': held_out, 'watch': None}
    outcome = loop.fit(net, begin(net, (8, 8, 1)), *learn, batch=10, **how)
    fitted, states = outcome.taught.fitted, outcome.taught.layers
    head = of_head(fitted.params[0], fitted.averages[0])
    return of_layers(states) | {'head': head, 'curve': of_curve(fitted.curve), 'best': fitted.best}


def heads():
    """A head on cached drives of a convolution as drawn, with decay, dropout and mean."""
    (learn, held_out), (layer,) = zip(*pictures(8, 1)), convolution()
    w = begin((layer,), (8, 8, 1)).layers[0].w
    head = Head(CLASSES, power=2.0, threshold=0.5, dropout=0.2)
    cached = frozen.cache(layer, w, np.concatenate([learn[0], held_out[0]]), pool=2)
    drives = [(jax.tree.map(lambda x, n=n: halves(x)[n], cached), side[1]) for n, side in enumerate((learn, held_out))]
    model, opts = models.on_drives(head, *frozen.shape(layer, (8, 8, 1), pool=2)), []
    schedule = Schedule(3, 10, 1e-2, 0.3, 0, 5, decay=1e-2, average=4)
    keep = lambda snapshot: opts.append(jax.tree.map(np.array, snapshot.carry.opt))  # noqa: E731
    fitted = supervised.fit(model, jax.random.key(1), *drives, schedule, keep=keep)
    found = {name: of_head(optax.tree_utils.tree_get(opts[-1], name)) for name in ('mu', 'nu')}
    found |= {'high': cached.high, 'low': cached.low, 'mean': cached.mean, 'square': cached.square}
    return found | {'curve': of_curve(fitted.curve), 'head': of_head(fitted.params, fitted.averages)}


def flax_models():
    """Three steps in which a convolution learns by a rule, and the head by Adam."""
    (images, _), (labels, _) = pictures(8, 1)
    images, pool, key = images.astype(np.float32) / 255, lambda x: jax.nn.relu(x).max((1, 2)), jax.random.key(0)
    own = nnx.Sequential(nnx.Conv(1, 6, (3, 3), rngs=nnx.Rngs(0)), pool, nnx.Linear(6, CLASSES, rngs=nnx.Rngs(1)))
    other = linen.Sequential([linen.Conv(6, (3, 3), padding='VALID'), pool, linen.Dense(CLASSES)])
    how = {'rule': hebbjax.rules.instar(1), 'patch': hebbjax.patches.centred_l2}
    graph, params = nnx.split(hebbify.nnx_model(own, only=['layers/0'], **how), nnx.Param)
    names, found = {'nnx': 'layers/0', 'linen': 'layers_0'}, {}
    linear = hebbify.linen_model(other, only=['layers_0'], **how)
    own, first = (lambda params, x: nnx.merge(graph, params)(x)), jax.jit(other.init)(key, images)
    learners = {'nnx': (own, params), 'linen': (linear, first)}
    for name, (answer, params) in learners.items():
        tx = hebbify.partition(hebbjax.plasticity.ascend(0.03), optax.adam(1e-2), [names[name]])

        @jax.jit
        def step(params, opt, answer=answer, tx=tx):
            loss = lambda params: supervised.cross_entropy(answer(params, images), labels)  # noqa: E731
            value, gradient = jax.value_and_grad(loss)(params)
            updates, opt = tx.update(gradient, opt, params)
            return optax.apply_updates(params, updates), opt, value

        opt, losses = tx.init(params), []
        for _ in range(3):
            params, opt, value = step(params, opt)
            losses.append(float(value))
        found[name] = {'loss': losses, 'params': jax.tree.leaves(params)}
    return found


def bank():
    """Every rule, and several transformations of what one asks for, on one dense bank, three steps each."""
    images = pictures(8, 1)[0][0][:30, ::2, ::2]  # [30, 4, 4, 1]
    chain, plasticity, rules = optax.chain, hebbjax.plasticity, hebbjax.rules
    ascend, krotov, instar = plasticity.ascend, rules.krotov(2, 0.4, 3.0), rules.instar(1)
    falling = ascend(plasticity.anneal(0.3, 3, 1))
    pairs = {row.name: (row.make(), ascend(0.05)) for row in RULES} | {
        'som': (som((2, 4), 'gaussian'), ascend(0.3)),
        'som-doe': (som(8, 'doe', by='distance'), ascend(0.3)),
        'abstaining': (abstaining(nearest(1)), ascend(0.3)),
        'tx-annealed-layer': (krotov, chain(plasticity.scale_by_max_abs(), falling)),
        'tx-annealed-unit': (krotov, chain(plasticity.scale_by_max_abs('unit'), falling)),
        'tx-masked-unit_rows': (instar, chain(ascend(0.3), plasticity.masked(), plasticity.unit_rows())),
        'tx-after': (instar, ascend(plasticity.after(1, 0.3))),
        'tx-momentum': (instar, chain(optax.trace(0.9), ascend(0.3))),
    }
    w = np.random.default_rng(1).normal(size=(8, 16)).astype(np.float32) / 4
    w[:, ::5] = 0  # what is pruned stays pruned

    @jax.jit  # one program for all, which compiles sooner than many
    def run(images, w):
        states, x, kernel = {}, layers.intensities(images).reshape(30, 16), w.T
        for name, (rule, tx) in pairs.items():
            net = (hebbjax.Layer(8, rule, tx),)
            state = hebbjax.init(net, jax.random.key(0), (4, 4, 1), [w])
            step = lambda state, some, net=net: (hebbjax.train_step(net, state, some)[0], None)  # noqa: E731
            states[name] = of_layer(jax.lax.scan(step, state, images.reshape(3, 10, 4, 4, 1))[0].layers[0])
        for name, loss in hebbjax.surrogate.RULES.items():
            states[f'surrogate-{name}'] = jax.grad(lambda k, f=loss: f(x @ k, jax.nn.relu(x @ k), k))(kernel)
        return states

    return run(images, jnp.asarray(w))


ALL = (krotov_dense, krotov_conv, miconi, seeds, amato, supervised_stage, heads, flax_models, bank)
NETWORKS = {network.__name__: network for network in ALL}


def flat(tree, name=''):
    """Flatten dicts and lists into name -> array or number, sorted; None is nothing."""
    if not isinstance(tree, dict | list | tuple):
        return {} if tree is None else {name: tree}
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree)
    found = (flat(value, f'{name}/{key}') for key, value in pairs)
    return dict(sorted(pair for part in found for pair in part.items()))


def digest(value):
    """Sum up an array; a plain number is its own digest."""
    if isinstance(value, bool | int | float):
        return value
    value = np.asarray(value)
    x = value.astype(np.float64).reshape(-1)
    sums = {'sum': x.sum(), 'l2': np.sqrt(x @ x), 'proj': x @ np.random.default_rng(0).normal(size=x.size)}
    bits = hashlib.sha256(value.tobytes()).hexdigest()[:16]
    return {'shape': list(value.shape)} | {name: float(one) for name, one in sums.items()} | {'sha256': bits}


def digests(name):
    """Train a network and give its digests."""
    with jax.numpy_dtype_promotion('standard'):  # Adam mixes dtypes
        return {key: digest(value) for key, value in flat(NETWORKS[name](), name).items()}


def alike(one, other):
    """Say whether two digests are the same up to rounding; sums may cancel, so lengths are what rounding is part of."""
    if not (isinstance(one, dict) and isinstance(other, dict)):
        return type(one) is type(other) and bool(np.isclose(one, other, RTOL, ATOL, equal_nan=True))
    room = ATOL + RTOL * other['l2']
    return one['shape'] == other['shape'] and all(abs(one[sum] - other[sum]) <= room for sum in ('sum', 'l2', 'proj'))


def identical(one, other):
    """Say whether two digests are the same to the last bit."""
    return json.dumps(one) == json.dumps(other)  # NaN is itself


def differing(found, kept, same):
    """Give the names of digests that differ, or that only one side has."""
    return sorted(key for key in found | kept if not (key in found and key in kept and same(found[key], kept[key])))


@pytest.mark.parametrize('name', NETWORKS)
def test_a_network_learns_what_it_always_did(name):
    kept = {key: value for key, value in json.loads(FILE.read_text()).items() if key.startswith(f'{name}/')}
    same = identical if os.environ.get('HEBBJAX_EXACT') == '1' else alike
    assert kept and not differing(digests(name), kept, same)


def main(arguments):
    """Compare, or write."""
    found = {key: value for name in NETWORKS for key, value in digests(name).items()}
    if '--write' in arguments:
        lines = [f'{json.dumps(key)}: {json.dumps(value)}' for key, value in found.items()]
        FILE.write_text('{\n' + ',\n'.join(lines) + '\n}\n')
        return 0
    kept = json.loads(FILE.read_text())
    bits, far = (differing(found, kept, same) for same in (identical, alike))
    lines = [f'{"beyond rounding" if key in far else "in bits"}: {key}' for key in bits]
    print(*lines, f'of {len(found)} digests {len(bits)} differ, {len(far)} beyond rounding', sep='\n')
    return int(bool(far))


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))

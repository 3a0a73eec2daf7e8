"""Digests of small trainings of every kind of network: what a change that changes nothing has to leave alone.

`python tests/test_digests.py` says which of them differ from digests.json; with `--write` it writes them anew, or
those of networks that are named. The test compares up to rounding; HEBBJAX_EXACT=1 compares bits as well. Names in the
file are this file's own. What it needs of the library: imports, `of_...`, which names what records hold, and NETWORKS.

They are of one version of XLA and one kind of processor: others add up in another order, and a near tie is won by
another neuron. Which kind it is, what it makes of a few sums tells ('arithmetic' in the file).
Networks train in processes of their own, compiled by the emitters that users have; other tests have the quicker ones.
"""

import functools
import hashlib
import importlib.metadata
import json
import os
import pathlib
import subprocess
import sys

if __name__ == '__main__' and importlib.metadata.version('jaxlib').startswith('0.10.'):  # see conftest
    # the last of two equal flags holds
    own = '--xla_cpu_use_fusion_emitters=true --xla_cpu_parallel_codegen_split_count=32'
    os.environ['XLA_FLAGS'] = f'{os.environ.get("XLA_FLAGS", "")} {own}'

import conftest  # sets XLA's flags before jax is there, in a script as in a test  # noqa: F401
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx
from table import RULES

import hebbjax
from hebbjax import data, interop, layers, readout, rules, training, transforms
from hebbjax.layers import initializers, patches
from hebbjax.layers.normalization import uniform
from hebbjax.layers.patches import Window
from hebbjax.readout import feature_cache
from hebbjax.training import parallel

FILE = pathlib.Path(__file__).with_name('digests.json')
WRITTEN_WITH = '0.10.2'  # jaxlib
CLASSES = 4
ANOTHER = 'digests are of another kind of processor'
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


def of_norm(chain):
    """What a chain's batch norm has, if there is one."""
    for part in chain:
        if hasattr(part.params, 'scale'):
            return parts(part.params, scale='scale', shift='shift') | parts(part.stats, mean='mean', var='var')


def of_layer(state):
    """All that one layer has; the states of rule and optimizer leaf by leaf."""
    own = parts(state, w='w', threshold='threshold') | {'rule': jax.tree.leaves(state.rule)}
    return own | {'opt': jax.tree.leaves(state.opt), 'norm': of_norm(state.post)}


def of_layers(states):
    return {f'layer{number}': of_layer(state) for number, state in enumerate(states)}


def of_training(state, infos=()):
    """A training's state, and what its last epoch told of every layer."""
    told = [parts(info, wins='win_counts', change='max_update', rates='win_rates') for info in infos]
    return of_layers(state.layers) | {'step': state.step, 'told': told}


def of_history(result):
    """What was measured of every layer in every epoch."""
    same = ('win_entropy', 'dead', 'converged', 'mean', 'variance', 'sparsity')
    names = {'change': 'max_update', **dict(zip(same, same))}
    return [
        [{ours: row.get(f'layer{n}.{theirs}') for ours, theirs in names.items()} for n in (1, 2, 3)]
        for row in result.history
    ]


def of_head(state):
    """What a head has: its weights and bias, its batch norm."""
    return parts(state, w='w', threshold='threshold') | {'norm': of_norm(state.pre)}


def of_curve(lines):
    return [parts(line, loss='loss', train='train', validation='validation') for line in lines]


@functools.partial(jax.jit, static_argnums=(0, 1))
def begin(net, shape, images=None):
    """Draw a network's first state, in one program; or cut the weights of its only layer out of images."""
    w = None if images is None else [layers.from_patches(net[0], jax.random.key(1), images)]
    return hebbjax.init(net, jax.random.key(0), shape, w)


def by_ridge(features, labels):
    """Weights and held-out accuracy of ridge regression on features of all images."""
    learn, held_out = zip(halves(features), labels)
    ridge = readout.fit_ridge([learn], CLASSES)
    return {'w': ridge.w, 'accuracy': readout.linear_accuracy(ridge, [held_out])}


def krotov(features, window=Window(), k=2, delta=0.4, p=2.0, per='layer', **more):
    """Krotov and Hopfield's layer, its rate falling over 2 epochs of 4 steps."""
    rate = transforms.scale_by_rate(transforms.linear_by_epoch(0.04, 2, 4))
    tx = optax.chain(transforms.scale_by_max_abs(per), rate)
    return hebbjax.Layer(features, rules.krotov(k, delta, p), tx, window, **more)


def krotov_dense():
    """MNIST's settings, first weights cut out of images, by the epoch."""
    images, labels = pictures(8, 1)
    net = (krotov(12, delta=1.0, patch_transform=patches.l2),)
    state, epoch = begin(net, (8, 8, 1), images[0]), hebbjax.make_train_epoch(net, batch=10)
    for _ in range(2):
        state, infos = epoch(state, images[0])
    answers = hebbjax.features(net, state.layers, np.concatenate(images))
    return of_training(state, infos) | {'features': answers, 'ridge': by_ridge(answers, labels)}


def convolution(**more):
    """Fashion-MNIST's settings, one patch an image."""
    settings = {'patch_transform': patches.centred_l2, 'patches_per_image': 1} | more
    return krotov(10, Window(3), **settings)


def krotov_conv():
    """By the loop, watched; read out by ridge regression on means over quadrants."""
    learn, held_out = zip(*pictures(8, 1))
    net = (convolution(post=(layers.relu, layers.max_pool(2))),)
    how = {'stages': training.plan_stages('simultaneous', net, 2), 'batch': 10}
    result = training.fit(net, begin(net, (8, 8, 1)), learn[0], **how)
    states = result.state.layers
    probe = readout.ridge_probe()(net, states, jax.random.key(1), learn, held_out)
    own = {'history': of_history(result), 'ridge': readout.probe_accuracy(probe, *held_out)}
    return of_training(result.state) | own | {'features': hebbjax.features(net, states, learn[0])}


def wait(steps, rate):
    """0 for so many steps, then the rate."""
    return optax.join_schedules([optax.constant_schedule(0.0), optax.constant_schedule(rate)], [steps])


def miconi_net(post, k, density, pre, transform=patches.raw):
    """Miconi's network for images of 16 x 16: 10, 8 and 6 neurons."""

    def layer(number, features, size, rate):
        step = transforms.scale_by_rate(wait(2, 30.0 * rate))
        winners = min(k, max(1, features // 2))
        return hebbjax.Layer(
            features,
            rules.instar(winners, reduce=rules.sum_over_patches),
            optax.chain(step, transforms.keep_pruned(), transforms.project_unit_rows()),
            Window(size),
            pre=(layers.standardise,) if number else pre,
            patch_transform=patches.raw if number else transform,
            post=(post(winners), layers.avg_pool(2)),
            init=initializers.pruned(density if number else 1.0),
            homeostasis=hebbjax.Homeostasis(winners=winners),
        )

    return tuple(layer(n, *sizes) for n, sizes in enumerate(((10, 3, 1e-4), (8, 2, 1e-4), (6, 2, 1e-3))))


def miconi_answers(net, states, images):
    """What every layer is read out by: normalised quadrants, and all of the last."""
    x, answers = layers.to_intensities(images), []
    for number, (layer, state) in enumerate(zip(net, states), 1):
        x = layers.forward(layer, state, x)
        answers.append(x.reshape(len(x), -1) if number == len(net) else readout.quadrants(layers.standardise(x)))
    return answers


def miconi():
    """Triangles, pruned: all layers at once, and one after the other; each read out by ridge regression."""
    images, labels = pictures(16, 3)
    whitened = data.fit_whitening(
        layers.standardise(layers.to_intensities(images[0])), epsilon=1e-3, centre=False, per='input'
    )
    pre = (layers.standardise, functools.partial(data.whiten, whitened), layers.standardise)
    net, found = miconi_net(lambda k: layers.triangle, 1, 0.3, pre), {}
    answer = jax.jit(functools.partial(miconi_answers, net))
    for plan, name, epochs in (('simultaneous', 'parallel', 2), ('greedy', 'layerwise', 1)):
        how = {'stages': training.plan_stages(plan, net, epochs), 'augment': data.random_flip}
        result = training.fit(net, begin(net, (16, 16, 3)), images[0], batch=10, watch=None, **how)
        answers = answer(result.state.layers, np.concatenate(images))
        own = {'history': of_history(result), 'answers': answers, 'ridge': [by_ridge(x, labels) for x in answers]}
        found[name] = of_training(result.state) | own
    return found


def seeds():
    """Two winners that send, whitened patches, in order: two seeds side by side in one program."""
    (images, _), _ = pictures(16, 3)
    x = patches.extract_patches(Window(3, stride=4), layers.standardise(layers.to_intensities(images)))
    zca = data.fit_whitening(layers.standardise(x.reshape(-1, x.shape[-1])), epsilon=1e-3)
    rows = lambda x: layers.standardise(x.reshape(-1, x.shape[-1])).reshape(x.shape)  # noqa: E731
    whiten = lambda x: rows(data.whiten(zca, rows(x)))  # noqa: E731
    send = lambda k: layers.send_credit(rules.k_wta(k))  # noqa: E731
    net = miconi_net(send, 2, 0.01, (layers.standardise,), whiten)[:2]
    states = jax.jit(lambda keys: parallel.init_seeds(net, keys, (16, 16, 3)))(jax.random.split(jax.random.key(0), 2))
    how = {'batch': 10, 'stage': training.Stage(1, order='sequential'), 'augment': data.random_flip}
    epoch = parallel.over_seeds(hebbjax.make_train_epoch(net, **how), 2)
    return of_training(*epoch(states, images))


def amato():
    """A random layer; Hebbian ones with their teachers, up to class means; gradient ones on the lower of these."""
    images, labels = pictures(12, 3, count=240)
    normal = np.concatenate(images).astype(np.float32) / 64 - 1
    zca = data.fit_whitening(normal[:160], epsilon=0.1, subtract=False)
    sides = tuple(map(tuple, zip(halves(normal, 160), labels)))  # whitened, they would take longer to learn
    pooled, plain = (layers.relu, layers.max_pool(2)), (layers.relu,)

    def hebbian(window, post):
        rule = rules.instar(1, metric='cosine', reduce=rules.mean_over_credit)
        own = {'output': 'cosine', 'teacher': rules.groups(CLASSES, 2, 2), 'init': initializers.fan_in}
        own |= {'patch_transform': patches.raw, 'post': (*post, layers.BatchNorm(uniform))}
        return hebbjax.Layer(10, rule, transforms.scale_by_rate(0.1), Window(window), **own)

    means = rules.instar(None, metric='cosine', reduce=rules.mean_over_credit)
    own = {'teacher': rules.one_hot(CLASSES), 'output': 'projection', 'post': (), 'init': initializers.fan_in}
    taught = hebbjax.Layer(CLASSES, means, transforms.scale_by_rate(0.1), patch_transform=patches.raw, **own)
    bottom = readout.gradient_layer(10, Window(5), post=(*pooled, layers.BatchNorm(uniform)))
    middle = (hebbian(3, plain), hebbian(1, pooled), taught)
    top = readout.gradient_layer(10, Window(1), post=(*pooled, layers.BatchNorm()))
    classifier = readout.gradient_layer(CLASSES, pre=(readout.Dropout(0.5),), post=())
    found = {'whitened': data.whiten(zca, normal)}

    def key_of(number):  # draws first weights, and all else
        return jax.random.split(jax.random.key(number))

    def begin(net, number, below=()):
        one = jax.ShapeDtypeStruct((1, 12, 12, 3), 'float32')
        shape = jax.eval_shape(lambda x: hebbjax.layers.activations_of(net, below, x, len(below)), one).shape[1:]
        return (*below, *hebbjax.init(net[len(below) :], key_of(number)[0], shape).layers)

    random = begin((bottom,), 1)
    found['R'] = of_layers(random) | {'best': 0, 'loss': None, 'curve': []}

    net = (bottom, *middle)
    states, best = begin(net, 2, random), (0, None, -1)
    (inputs, held_out) = (hebbjax.layers.activations_of(net, states, x, 1) for x, _ in sides)
    state = hebbjax.TrainState(jnp.zeros((), jnp.int32), key_of(2)[1], states[1:])
    epoch, curve = hebbjax.make_train_epoch(middle, batch=64), []
    for number in range(12):
        state, _ = epoch(state, inputs, sides[0][1])
        share = lambda x, y, state=state: float(  # noqa: E731
            jnp.mean(jnp.argmax(hebbjax.features(middle, state.layers, x), 1) == y)
        )
        some = len(held_out)
        curve.append({'loss': None, 'train': share(inputs[:some], sides[0][1][:some])})
        curve[-1]['validation'] = share(held_out, sides[1][1])
        if curve[-1]['validation'] > best[2]:
            best = number, state.layers, curve[-1]['validation']
    states = (*states[:1], *best[1])
    found['H'] = of_layers(states) | {'best': best[0], 'curve': curve}

    net = (bottom, middle[0], top, classifier)
    states = begin(net, 3, states[:2])
    stage = readout.GradientStage(2, readout.Milestones(12, 64, l2=0.06))
    result = readout.fit_hybrid(net, states, stage, jax.random.split(key_of(3)[1])[1], *sides)
    found['G'] = of_layers(result.layers) | {'best': result.gradient.best, 'curve': of_curve(result.gradient.curve)}
    return found


def supervised_stage():
    """A gradient layer and a head on a convolution that has just learned from all its windows."""
    learn, held_out = zip(*pictures(8, 1))
    bottom = convolution(patches_per_image=None, patch_transform=patches.contrast, per='unit', p=3.0)
    middle = readout.gradient_layer(8, pre=readout.Dropout(0.2), post=(layers.relu, layers.BatchNorm()))
    net = (bottom, middle, readout.linear_head(CLASSES, power=None))
    how = {'stages': training.plan_stages('simultaneous', net, 1), 'batch': 10, 'watch': None}
    state = training.fit(net, begin(net, (8, 8, 1)), *learn, **how).state
    stage = readout.GradientStage(1, readout.Schedule(3, 10, 1e-2))
    result = readout.fit_hybrid(net, state.layers, stage, jax.random.key(1), learn, held_out)
    head = {'head': of_head(result.layers[2])}
    return of_layers(result.layers[:2]) | head | {'curve': of_curve(result.gradient.curve)}


def heads():
    """A head on cached drives of a convolution as drawn, with decay, dropout and mean."""
    (learn, held_out), layer = zip(*pictures(8, 1)), convolution(post=())
    head, opts = readout.linear_head(CLASSES, power=2.0, threshold=0.5, pool=2, dropout=0.2), []
    net = (layer, head)
    states = begin(net, (8, 8, 1)).layers
    cached = feature_cache.cache_drives((layer,), states[:1], np.concatenate([learn[0], held_out[0]]), 2)
    schedule = readout.Schedule(3, 10, 1e-2, 0.3, 1, 5, decay=1e-2, average=4)
    keep = lambda snapshot: opts.append(jax.tree.map(np.array, snapshot.carry.opt))  # noqa: E731
    stage = readout.GradientStage(1, schedule)
    result = readout.fit_hybrid(net, states, stage, jax.random.key(1), learn, held_out, keep=keep)
    found = {name: jax.tree.leaves(optax.tree_utils.tree_get(opts[-1], name)) for name in ('mu', 'nu')}
    found |= {'high': cached.high, 'low': cached.low, 'mean': cached.mean, 'square': cached.variance + cached.mean**2}
    return found | {'curve': of_curve(result.gradient.curve), 'head': of_head(result.layers[1])}


def flax_models():
    """Three steps in which a convolution learns by a rule, and the head by Adam."""
    (images, _), (labels, _) = pictures(8, 1)
    images, pool, key = images.astype(np.float32) / 255, lambda x: jax.nn.relu(x).max((1, 2)), jax.random.key(0)
    own = nnx.Sequential(nnx.Conv(1, 6, (3, 3), rngs=nnx.Rngs(0)), pool, nnx.Linear(6, CLASSES, rngs=nnx.Rngs(1)))
    other = linen.Sequential([linen.Conv(6, (3, 3), padding='VALID'), pool, linen.Dense(CLASSES)])
    how = {'rule': rules.instar(1), 'patch_transform': patches.centred_l2}
    graph, params = nnx.split(interop.hebbify_nnx(own, only=['layers/0'], **how), nnx.Param)
    names, found = {'nnx': 'layers/0', 'linen': 'layers_0'}, {}
    linear = interop.hebbify_linen(other, only=['layers_0'], **how)
    own, first = (lambda params, x: nnx.merge(graph, params)(x)), jax.jit(other.init)(key, images)
    learners = {'nnx': (own, params), 'linen': (linear, first)}
    for name, (answer, params) in learners.items():
        tx = interop.partition_optimizer(transforms.scale_by_rate(0.03), optax.adam(1e-2), [names[name]])

        @jax.jit
        def step(params, opt, answer=answer, tx=tx):
            def loss(params):
                return optax.softmax_cross_entropy_with_integer_labels(answer(params, images), labels).mean()

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
    chain, scale, krotov, instar = optax.chain, transforms.scale_by_rate, rules.krotov(2, 0.4, 3.0), rules.instar(1)
    falling, nearest = scale(transforms.linear_by_epoch(0.3, 3, 1)), {'reduce': rules.mean_over_credit}
    pairs = {row.name: (row.make(), scale(0.05)) for row in RULES} | {
        'som': (rules.som((2, 4), 'gaussian', metric='cosine', **nearest), scale(0.3)),
        'som-doe': (rules.som(8, 'doe', metric='euclidean', **nearest), scale(0.3)),
        'abstaining': (rules.random_abstention(rules.instar(1, metric='cosine', **nearest)), scale(0.3)),
        'tx-annealed-layer': (krotov, chain(transforms.scale_by_max_abs(), falling)),
        'tx-annealed-unit': (krotov, chain(transforms.scale_by_max_abs('unit'), falling)),
        'tx-masked-unit_rows': (instar, chain(scale(0.3), transforms.keep_pruned(), transforms.project_unit_rows())),
        'tx-after': (instar, scale(wait(1, 0.3))),
        'tx-momentum': (instar, chain(optax.trace(0.9), scale(0.3))),
    }
    w = np.random.default_rng(1).normal(size=(8, 16)).astype(np.float32) / 4
    w[:, ::5] = 0  # what is pruned stays pruned

    @jax.jit  # one program for all, which compiles sooner than many
    def run(images, w):
        states, x, kernel = {}, layers.to_intensities(images).reshape(30, 16), w.T
        for name, (rule, tx) in pairs.items():
            net = (hebbjax.Layer(8, rule, tx),)
            state = hebbjax.init(net, jax.random.key(0), (4, 4, 1), [w])
            step = lambda state, some, net=net: (hebbjax.train_step(net, state, some)[0], None)  # noqa: E731
            states[name] = of_layer(jax.lax.scan(step, state, images.reshape(3, 10, 4, 4, 1))[0].layers[0])
        for name in ('hebb', 'instar', 'oja'):
            loss = getattr(interop, f'{name}_loss')
            states[f'surrogate-{name}'] = jax.grad(lambda k, f=loss: f(x @ k, jax.nn.relu(x @ k), k))(kernel)
        return states

    return run(images, jnp.asarray(w))


GROUPS = ((krotov_dense, krotov_conv, miconi), (seeds, heads, flax_models), (amato, supervised_stage, bank))
NETWORKS = {network.__name__: network for group in GROUPS for network in group}


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


def arithmetic():
    """Name the kind of processor: a hash of what XLA makes of some products, sums and functions, to the last bit."""
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=(300, width)).astype(np.float32) for width in (257, 600))
    parts = jax.jit(lambda a, b: (a @ a.T, a.T @ b, jnp.exp(a).sum(1), jnp.tanh(b).mean(0), jax.nn.softmax(b)))(a, b)
    return hashlib.sha256(b''.join(np.asarray(part).tobytes() for part in parts)).hexdigest()[:16]


def identical(one, other):
    """Say whether two digests are the same to the last bit."""
    return json.dumps(one) == json.dumps(other)  # NaN is itself


def differing(found, kept, same):
    """Give the names of digests that differ, or that only one side has."""
    return sorted(key for key in found | kept if not (key in found and key in kept and same(found[key], kept[key])))


@pytest.mark.skipif(
    importlib.metadata.version('jaxlib') != WRITTEN_WITH,
    reason=f'digests are of jaxlib {WRITTEN_WITH}: others round otherwise',
)
@pytest.mark.parametrize('networks', [[network.__name__ for network in group] for group in GROUPS], ids=' '.join)
def test_a_network_learns_what_it_always_did(networks):
    done = subprocess.run([sys.executable, __file__, *networks], capture_output=True, text=True)
    if done.stdout.startswith(ANOTHER):
        pytest.skip(ANOTHER)
    assert done.returncode == 0 and ' 0 beyond rounding' in done.stdout, done.stdout + done.stderr


def test_digests_of_another_processor_tell_nothing(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(globals(), 'FILE', tmp_path / 'digests.json')
    FILE.write_text(text := json.dumps({'arithmetic': 'of another', 'krotov_dense/features': 1}))
    for arguments in ([], ['--write', 'krotov_dense']):  # some of them anew would leave a file of two kinds
        assert main(arguments) == 2 and capsys.readouterr().out.startswith(ANOTHER)
    assert FILE.read_text() == text


def main(arguments):
    """Compare networks, all of them if none are named, or write. -> 1 where they differ, 0 where not, 2: no telling."""
    names = [name for name in NETWORKS if name in arguments] or NETWORKS
    before, here = json.loads(FILE.read_text()) if FILE.exists() else {}, arithmetic()
    if before.pop('arithmetic', here) != here and ('--write' not in arguments or names is not NETWORKS):
        print(f'{ANOTHER}; on this one, write all of them on the commit before, and compare then.')
        return 2
    found = {key: value for name in names for key, value in digests(name).items()}
    if '--write' in arguments:
        kept = [key for key in before if key.partition('/')[0] not in names or key in found]
        found = {'arithmetic': here} | {key: before[key] for key in kept} | found
        lines = [f'{json.dumps(key)}: {json.dumps(value)}' for key, value in found.items()]
        FILE.write_text('{\n' + ',\n'.join(lines) + '\n}\n')
        return 0
    kept = {key: value for key, value in before.items() if key.partition('/')[0] in names}
    bits, far = (differing(found, kept, same) for same in (identical, alike))
    lines = [f'{"beyond rounding" if key in far else "in bits"}: {key}' for key in bits]
    print(*lines, f'of {len(found)} digests {len(bits)} differ, {len(far)} beyond rounding', sep='\n')
    return int(bool(bits if os.environ.get('HEBBJAX_EXACT') == '1' else far) or not kept)


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))

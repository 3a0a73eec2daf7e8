"""Miconi's job on a few random images: every row runs, files are whole, the table says what the JSON says."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hebbjax import cli, data, layers, whitening
from hebbjax.jobs import decode, miconi, stack, variants

SMALL = {'seeds': 2, 'epochs': 2, 'features': (10, 8, 6), 'batch': 20, 'burn_in': 1}
FLAGS = [
    '--seeds',
    '2',
    '--epochs',
    '2',
    '--features',
    '10',
    '8',
    '6',
    '--batch',
    '20',
    '--burn-in',
    '1',
    '--whitening-images',
    '30',
]


@pytest.fixture(autouse=True)
def few_images(monkeypatch):
    """Colour images of three classes that differ in brightness and in a stripe."""

    def load(name, split='train', *, data_dir=None):
        assert name == 'cifar10'
        rng = np.random.default_rng(len(split))
        labels = rng.integers(0, 3, 60 if split == 'train' else 40).astype(np.int32)
        images = rng.integers(0, 120, (len(labels), 32, 32, 3))
        for image, label in zip(images, labels):
            image[8 * label : 8 * label + 6] += 120
        return data.Split(images.astype(np.uint8), labels)

    fit, apply = whitening.fit, whitening.apply

    def quick(x, **recipe):  # 3072 dimensions take seconds; that whitening whitens is tested where it belongs
        return whitening.Whitening(jnp.zeros((32, 32, 3)), jnp.eye(1)) if np.ndim(x) == 4 else fit(x, **recipe)

    def light(zca, x):  # nor need programs hold a matrix of 3072 x 3072
        return apply(zca, x) if zca.matrix.size > 1 else x

    monkeypatch.setattr(data, 'load', load)
    monkeypatch.setattr(whitening, 'fit', quick)
    monkeypatch.setattr(whitening, 'apply', light)


def test_the_table_its_json_and_its_pictures(tmp_path, capsys):
    (tmp_path / 'figures').mkdir()
    files = ['--json', str(tmp_path / 'table.json'), '--figures', str(tmp_path / 'figures')]
    assert cli.main(['miconi', *FLAGS, *files]) == 0
    written = json.loads((tmp_path / 'table.json').read_text())
    assert [row['row'] for row in written['rows']] == list(variants.TABLE)
    for row in written['rows']:
        assert (row['paper_l1_quadrants'], row['paper_l2_quadrants'], row['paper']) == variants.PAPER[row['row']]
        for name in ('l1_quadrants', 'l2_quadrants', 'test_accuracy'):
            assert len(row[name]) == 2 and all(0 <= value <= 100 for value in row[name])
        assert max(row['l1_quadrants']) > 60  # a stripe is easily seen
        assert max(row['norm_error']) < 1e-6
        fired, sizes = np.array(row['nonzero']), np.array(SMALL['features'])
        if row['row'].startswith('default'):
            np.testing.assert_allclose(fired, 1 / sizes, rtol=1e-5)  # one winner everywhere
        else:
            assert ((fired > 0.3) & (fired < 0.7)).all()
    assert written['config']['epochs'] == 2 and not written['interrupted']
    names = {f'{row}_layer{n}.png' for row in ('default_trained', 'triangle_trained') for n in (1, 2, 3)}
    assert {path.name for path in (tmp_path / 'figures').iterdir()} == names
    assert all(path.read_bytes().startswith(b'\x89PNG') for path in (tmp_path / 'figures').iterdir())
    printed = capsys.readouterr().out
    assert '64.55' in printed and 'triangle_untrained' in printed


def test_other_findings_are_rows(capsys):
    rows = ('triangle_for_both', 'patch_whitening', 'linear_svm', 'triangle_trained')
    report = miconi.run(miconi.Config(**(SMALL | {'seeds': 1}), rows=rows))
    assert [row.row for row in report.rows] == [
        'triangle_for_both',
        'patch_whitening',
        'linear_svm',
        'triangle_trained',
    ]
    svm, ridge = report.rows[2:]
    assert svm.more['win_rates'] == ridge.more['win_rates']  # trained once, read out twice
    assert all(row.paper is None for row in report.rows[:3])
    assert svm.more['winners'] == [1, 1, 1]


def test_ablations_name_every_finding_of_the_paper():
    rows = variants.Config(ablations=True).resolve().rows
    assert rows[:4] == tuple(variants.TABLE) and len(set(rows)) == len(rows)
    found = {(v.fire, v.learn, v.density, v.winners, v.rule, v.whiten, v.decoder) for v in map(variants.ROWS.get, rows)}
    assert len(found) == len(rows) - 2  # untrained rows are twins of trained ones
    assert variants.Config(rows=('default_trained',), ablations=True).resolve().rows[:2] == (
        'default_trained',
        'triangle_only',
    )


def test_plasticity_and_burn_in_are_what_the_rows_say():
    config = variants.Config(**(SMALL | {'burn_in': 2}), rate=10.0).resolve()
    images = jnp.asarray(data.load('cifar10').images)
    for variant, moves in ((variants.TABLE['triangle_trained'], True), (variants.TABLE['triangle_untrained'], False)):
        net = stack.network(variant, config, stack.PLAIN)
        state, first = stack.train.init(net, jax.random.key(0), stack.SHAPE), None
        step = stack.train.make_train_step(net)
        for number in range(3):
            before = state
            state, _ = step(state, images[:20])
            moved = [float(jnp.abs(a.w - b.w).max()) for a, b in zip(before.layers, state.layers)]
            assert min(moved) > 1e-3 if moves and number == 2 else max(moved) < 1e-6
            assert all((a.threshold != b.threshold).any() for a, b in zip(before.layers, state.layers))
            first = first or before
        for a, b in zip(first.layers, state.layers):
            np.testing.assert_array_equal(a.w == 0, b.w == 0)


def test_the_layers_are_read_out_as_the_next_layer_sees_them():
    config = variants.Config(**SMALL).resolve()
    net = stack.network(variants.TABLE['triangle_trained'], config, stack.PLAIN)
    state = stack.train.init(net, jax.random.key(0), stack.SHAPE)
    images = jnp.asarray(data.load('cifar10').images[:5])
    found = decode.answers(net, state.layers, images)
    assert [x.shape for x in found] == [(5, 40), (5, 32), (5, 24)]
    sent = layers.respond(net[0], state.layers[0], layers.intensities(images))
    seen = layers.prepared(net[1], sent)
    np.testing.assert_allclose(found[0][:, :10], seen[:, :7, :7].mean((1, 2)), atol=1e-5)


def test_images_are_normalised_whitened_and_normalised(monkeypatch):
    """By the notebook's recipe, fitted to so many normalised images."""
    asked = {}

    def fit(x, **recipe):
        asked.update(recipe, shape=x.shape, mean=float(jnp.abs(x.mean((1, 2, 3))).max()), std=float(x.std()))
        return whitening.Whitening(jnp.zeros((32, 32, 3)), 5 * jnp.eye(3072)[::-1])

    monkeypatch.setattr(whitening, 'fit', fit)
    images = jnp.asarray(data.load('cifar10').images)
    first = stack.whitened(images, 30, 'image')
    assert asked.pop('shape') == (30, 32, 32, 3)
    assert asked.pop('mean') < 1e-5 and abs(asked.pop('std') - 1) < 1e-3
    assert asked == whitening.RECIPES['miconi_notebook']
    normal = whitening.standardise(layers.intensities(images))
    turned = normal.reshape(60, -1)[:, ::-1].reshape(normal.shape)  # what this whitening does, but for its factor
    np.testing.assert_allclose(first.images(layers.intensities(images)), turned, atol=1e-4)
    assert first.rows is stack.PLAIN.rows


@pytest.mark.parametrize(
    'flags, says',
    [
        (['--burn-in', '6'], '--burn-in 6 leaves nothing of 6 steps to learn in; use fewer than those'),
        (['--rows', 'backprop'], '--rows backprop is unknown; there are default_untrained, '),
        (['--seeds', '0'], '--seeds 0 does not fit; use a whole number from 1 to 1000.'),
        (['--rate', '0'], '--rate 0.0 does not fit'),
        (['--penalty', '0'], '--penalty 0.0 does not fit; use a number from 1e-30'),
        (['--batch', '61'], '--batch 61 is larger than the 60 training images'),
        (['--images', '10'], '--batch 20 is larger than the 10 training images'),
        (['--features', '0', '8', '6'], '--features[0] 0 does not fit'),
        (['--json', '/nowhere/table.json'], 'is no folder; make it first'),
        (['--figures', '/nowhere'], 'is no folder; make it first'),
    ],
)
def test_what_cannot_run_is_refused_in_one_sentence(flags, says, capsys):
    assert cli.main(['miconi', *FLAGS, *flags]) == 2  # the last of a flag counts
    told = capsys.readouterr().err
    assert told.startswith('hebbjax miconi: error: ') and says in told and told.count('\n') == 1

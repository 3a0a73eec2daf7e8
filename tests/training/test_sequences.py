"""Sequences of images: shaped at the door, whole in every batch and microbatch, frames like images to all else."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from hebbjax import Homeostasis, Layer, Window, data, layers, rules, train_step, training, transforms
from hebbjax.training import Monitor, Stage, epoch, make_train_epoch, make_train_step

RATE = transforms.scale_by_rate(0.1)
SIMPLE = Layer(5, rules.instar(1), RATE, Window(3), post=(layers.relu, layers.max_pool(2)))
update_layer = jax.jit(layers.update_layer, static_argnums=0, static_argnames='frames')
COMPLEX = Layer(6, rules.trace(1, 0.3), RATE, patch_transform=layers.raw)
NET = (SIMPLE, COMPLEX)


@pytest.fixture
def seen(rng):
    """Seven sequences of four frames."""
    return rng.integers(0, 256, (7, 4, 8, 8, 1), np.uint8)


def start(net=NET, seed=0):
    return layers.init(net, jax.random.key(seed), (8, 8, 1))


def weights(state):
    return [np.asarray(layer.w) for layer in state.layers]


def same(one, other, rtol=1e-5):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-6), one, other)


def test_places_of_a_convolution_remember_what_they_saw_in_any_microbatch(rng, x64):
    """Each of 9 places of each of 5 sequences is a sequence of 3 patches, in microbatches of whole sequences."""
    images, w = rng.uniform(size=(5, 3, 5, 5, 2)), rng.normal(size=(6, 18))
    x = reference.patches(images.reshape(15, 5, 5, 2), (3, 3), (1, 1), (0, 0)).reshape(5, 3, 9, 18)
    x = (x - x.mean(-1, keepdims=True)).swapaxes(1, 2).reshape(45, 3, 18)
    expected = reference.trace(x, w, 0.3, reference.winners(1))
    for microbatch in (None, 1, 7):  # 7 images are 2 sequences and a rest
        layer = Layer(6, rules.trace(1, 0.3), transforms.scale_by_rate(1.0), Window(3), microbatch=microbatch)
        state = layers.init_layer(layer, jax.random.key(0), (5, 5, 2), w)
        state, _, info = update_layer(layer, jax.random.key(1), state, images.reshape(15, 5, 5, 2), frames=3)
        np.testing.assert_allclose(state.w - w, expected, atol=1e-12)
        assert info.win_counts.sum() == 135 and info.is_finite


def test_layers_without_memory_see_frames_as_images(seen):
    """Simple cells learn the same below complex ones as alone from single images."""
    state, infos = make_train_step(NET)(start(), seen)
    layer = layers.init_layer(SIMPLE, jax.random.key(0), (8, 8, 1), start().layers[0].w)
    key = jax.random.split(jax.random.fold_in(start().key, 0), 2)[0]
    images = layers.to_intensities(jnp.asarray(seen.reshape(28, 8, 8, 1)))
    alone, _, info = update_layer(SIMPLE, key, layer, images)
    np.testing.assert_allclose(state.layers[0].w, alone.w, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(infos[0].win_counts, info.win_counts)
    assert np.any(state.layers[1].w != start().layers[1].w)


def test_an_epoch_shuffles_whole_sequences_and_moves_their_frames_alike(seen):
    """The same weights as steps over the permutation; one draw of an augmentation serves all frames of a sequence."""
    images, first = jnp.asarray(seen), start()
    key_of = lambda step, salt: jax.random.fold_in(jax.random.fold_in(first.key, step), salt)  # noqa: E731
    order, one_step = jax.random.permutation(key_of(0, epoch.ORDER_SALT), 7), make_train_step(NET)
    for augment in (None, data.random_shift(2)):
        expected = first
        for number in range(3):
            x = images[order[2 * number : 2 * number + 2]]
            if augment is not None:  # of single images, as many as sequences
                key = key_of(number, epoch.AUGMENT_SALT)
                x = jnp.stack([augment(jax.random.clone(key), x[:, t]) for t in range(4)], 1)
            expected, _ = one_step(expected, x)
        state, infos = make_train_epoch(NET, batch=2, augment=augment)(first, images)
        same(weights(state), weights(expected))
        assert [int(info.win_counts.sum()) for info in infos] == [3 * 8 * 36, 3 * 8]


def test_a_sequences_label_is_told_to_all_its_frames(seen):
    taught = (SIMPLE, dataclasses.replace(COMPLEX, teacher=rules.groups(3, 2), homeostasis=Homeostasis(0.1)))
    labels = np.array([1, 1, 1, 1, 1, 1, 1])
    state, infos = make_train_step(taught)(start(taught), seen, labels)
    moved = np.abs(state.layers[1].w - start(taught).layers[1].w).max(1) > 0
    assert moved[2:4].any() and not moved[[0, 1, 4, 5]].any() and infos[1].win_counts.sum() == 28
    # thresholds move by the credit of the trace: less than 1 a frame
    assert 0 < infos[1].win_rates.sum() < 1
    rates = infos[1].win_rates
    np.testing.assert_allclose(state.layers[1].threshold, 0.1 * (rates - rates.mean()), rtol=1e-4, atol=1e-7)
    with pytest.raises(ValueError, match='28 labels do not fit 7 sequences; give one for each'):
        make_train_step(taught)(start(taught), seen, np.zeros(28, int))


def test_fit_watches_judges_resumes_and_maps_seeds_over_sequences(seen, tmp_path):
    images, labels = seen[:, 0], np.arange(7) % 2
    stages = [Stage(4)]
    judge = training.evaluate((images, labels), (images, labels))
    keeping = training.Checkpoints(tmp_path / 'c')
    how = {'batch': 3, 'watch': Monitor(every=1, windows=40)}
    result = training.fit(NET, start(), seen, stages=stages, callbacks=[judge, keeping], **how)
    assert {'layer2.win_entropy', 'layer1.sparsity', 'validation_accuracy'} <= result.history[-1].keys()
    state, position = training.resume(training.Checkpoints(tmp_path / 'c'), start(), epoch=3)
    again = training.fit(NET, state, seen, stages=stages, position=position, **how)
    same(weights(again.state), weights(result.state), rtol=0)

    states = training.init_seeds(NET, jax.random.split(jax.random.key(0), 2), (8, 8, 1))
    both = training.fit(NET, states, seen, stages=stages, batch=3, watch=None, seeds_at_once=2).state
    alone = training.fit(NET, training.take_seed(states, 1), seen, stages=stages, **how).state
    same(weights(training.take_seed(both, 1)), weights(alone))


def test_images_are_sequences_if_and_only_if_a_rule_remembers(seen):
    """At every door, in a sentence; what a network answers, it answers to single images."""
    still, without = seen[:, 0], (SIMPLE,)
    doors = [
        lambda net, x: train_step(net, start(net), x),
        lambda net, x: make_train_step(net)(start(net), x),
        lambda net, x: make_train_epoch(net, batch=2)(start(net), x),
        lambda net, x: training.fit(net, start(net), x, stages=[Stage(1)], batch=2),
    ]
    for door in doors:
        with pytest.raises(
            ValueError, match=r'sequences, \[n, T, H, W, C\], not of shape \(7, 8, 8, 1\); use images.re'
        ):
            door(NET, still)
        with pytest.raises(ValueError, match=r'use images\.reshape\(-1, H, W, C\), frames as images, since no rule'):
            door(without, seen)
    with pytest.raises(ValueError, match=r'use images\.reshape\(-1, H, W, C\), frames as images'):
        layers.features(NET, start().layers, seen)
    with pytest.raises(ValueError, match=r'give images.shape\[1:\], of sequences images.shape\[2:\]\.'):
        layers.init(NET, jax.random.key(0), seen.shape[1:])
    with pytest.raises(ValueError, match='images of 8 x 7 x 1 do not fit a layer made for 8 x 8 x 1'):
        train_step(NET, start(), seen[..., :7, :])
    with pytest.raises(ValueError, match=r'3 non-finite values, the first in image 2'):
        wrong = np.ones(seen.shape, np.float32)
        wrong[2, 1, :3, 0, 0] = np.nan
        make_train_epoch(NET, batch=2)(start(), wrong)


def test_places_cannot_be_drawn_nor_layers_of_others_remember():
    with pytest.raises(ValueError, match='a rule with memory stays at one; leave it out'):
        Layer(6, rules.trace(), RATE, Window(3), patches_per_image=2)
    state = layers.init_layer(COMPLEX, jax.random.key(0), (8, 8, 1))
    with pytest.raises(ValueError, match='and got images that are none; train it by hebbjax'):
        layers.update_layer(COMPLEX, jax.random.key(0), state, jnp.ones((4, 8, 8, 1)))

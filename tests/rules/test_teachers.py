"""Teachers: what each neuron is told of an image, and refusals."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hebbjax import layers, rules, transforms
from hebbjax.rules import teachers

LABELS = np.array([2, 0, 1, 2])


def test_one_hot_teaches_each_neuron_one_class_and_nobody_where_there_is_none():
    np.testing.assert_array_equal(teachers.one_hot(3)(jnp.asarray(LABELS), ()), np.eye(3)[LABELS])
    np.testing.assert_array_equal(teachers.one_hot(3)(jnp.array([-1, 3]), ()), 0)


def test_groups_come_class_by_class_and_what_is_common_last():
    found = jax.jit(lambda labels: teachers.groups(3, 2, 1)(labels, ()))(jnp.asarray(LABELS))
    np.testing.assert_array_equal(
        found, [[0, 0, 0, 0, 1, 1, 1], [1, 1, 0, 0, 0, 0, 1], [0, 0, 1, 1, 0, 0, 1], [0, 0, 0, 0, 1, 1, 1]]
    )
    np.testing.assert_array_equal(teachers.groups(3, 1)(jnp.asarray(LABELS), ()), np.eye(3)[LABELS])


# Two neurons below, three of 1 x 2 windows over them, two classes.
MIDDLE = jnp.array([[1.0, 0.0, 2.0, 1.0], [0.0, -1.0, 0.0, -1.0], [5.0, 5.0, -5.0, -5.0]])
TOP = jnp.array([[1.0, 1.0, 7.0], [0.0, -2.0, 1.0]])


def test_feedback_tells_neurons_how_much_the_class_listens_to_them():
    """Shared kernels, summed over positions: [[3, 1], [0, -2], [0, 0]]; class 0: [3, -1], class 1: [0, 4]."""
    teach = teachers.feedback(2, 2)
    found = jax.jit(lambda labels: teach(labels, (MIDDLE, TOP)))(jnp.array([0, 1, 5]))
    np.testing.assert_allclose(found, [[1, -1 / 3], [0, 1], [0, 0]], rtol=1e-6)
    np.testing.assert_allclose(teachers.feedback(2, 3)(jnp.array([1]), (TOP,)), [[0, -1, 0.5]])
    np.testing.assert_array_equal(teachers.feedback(2, 3)(jnp.array([1]), (0 * TOP,)), 0)


@pytest.mark.parametrize(
    'features, above, says',
    [
        (2, (), 'through the layers above and there are none; teach with one_hot here'),
        (2, (MIDDLE,), 'topmost layer has 3 neurons, and feedback starts from 2 classes; give it 2 neurons'),
        (3, (MIDDLE, TOP), 'weights of 4 inputs do not look at windows of 3 neurons; give feedback the features'),
    ],
)
def test_feedback_that_does_not_reach_is_refused(features, above, says):
    with pytest.raises(ValueError, match=says):
        teachers.feedback(2, features)(jnp.array([0, 1]), above)
    with pytest.raises(ValueError, match='features=0 is out of range'):
        teachers.feedback(2, 0)


@pytest.mark.parametrize(
    'shape, says',
    [
        ((4,), r'of shape \(4,\) is not one number per image and neuron, here \(4, 128\); one_hot'),
        ((3, 128), r'of shape \(3, 128\) is not one number per image'),
        ((4, 200), r'of shape \(4, 200\) .* \(4, 128\); one_hot\(classes\) teaches as many neurons as classes'),
    ],
)
def test_a_signal_that_does_not_fit_is_refused(shape, says):
    layer = layers.Layer(128, rules.instar(None), transforms.scale_by_rate(0.1), teacher=teachers.one_hot(128))
    state = layers.init((layer,), jax.random.key(0), (2, 2, 1)).layers[0]
    update = lambda told: layers.update_layer(layer, jax.random.key(1), state, jnp.ones((4, 2, 2, 1)), told)  # noqa: E731
    with pytest.raises(ValueError, match=says):
        jax.eval_shape(update, jnp.ones(shape))
    jax.eval_shape(update, jnp.ones((4, 128)))


# Random feedback


def test_random_feedback_is_a_fixed_row_for_each_class_of_size_1():
    teach = teachers.random_feedback(3, 20, jax.random.key(0))
    found = np.asarray(jax.jit(lambda labels: teach(labels, ()))(jnp.array([2, 0, 1, 2, 7, -1])))
    b = np.asarray(jax.random.normal(jax.random.key(0), (3, 20)))
    for row, label in zip(found, (2, 0, 1, 2)):
        np.testing.assert_allclose(row, [value / max(abs(b[label])) for value in b[label]], rtol=1e-6)
    np.testing.assert_array_equal(found[4:], 0)
    np.testing.assert_array_equal(np.abs(found[:4]).max(1), 1)
    np.testing.assert_array_equal(teach(jnp.array([1]), (TOP, MIDDLE))[0], found[2])  # whatever lies above


def test_random_feedback_is_a_spec_of_its_settings():
    def layer(seed, classes=3):
        teacher = teachers.random_feedback(classes, 8, jax.random.key(seed))
        return layers.Layer(8, rules.instar(1), transforms.scale_by_rate(0.1), teacher=teacher)

    assert (
        layer(0) == layer(0) and hash(layer(0)) == hash(layer(0)) and pickle.loads(pickle.dumps(layer(0))) == layer(0)
    )
    assert layer(0) != layer(1) and layer(0) != layer(0, 4)
    assert layer(0).teacher.classes == 3
    with pytest.raises(ValueError, match=r'one key is wanted, such as jax.random.key\(0\), not 5'):
        teachers.random_feedback(3, 8, 5)


def test_random_feedback_gates_who_learns_and_never_what_is_sent(rng):
    """Neurons with a positive signal take part; the others stay, and answers are those of no teacher."""
    layer = layers.Layer(
        8, rules.instar(1), transforms.scale_by_rate(0.1), teacher=teachers.random_feedback(2, 8, jax.random.key(0))
    )
    images = jnp.asarray(rng.uniform(size=(30, 2, 2, 1)), jnp.float32)
    state = layers.init((layer,), jax.random.key(0), (2, 2, 1)).layers[0]
    signal = layer.teacher(jnp.zeros(30, jnp.int32), ())
    update = jax.jit(layers.update_layer, static_argnums=0)
    taught, sent, info = update(layer, jax.random.key(1), state, images, signal)
    moved = np.any(np.asarray(taught.w != state.w), 1)
    assert moved.any() and not moved[np.asarray(signal[0] <= 0)].any()
    assert info.win_counts.sum() == 30
    np.testing.assert_array_equal(sent, update(layer, jax.random.key(1), state, images)[1])

"""Teachers: what each neuron is told of an image, and refusals."""

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

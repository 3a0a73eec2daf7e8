"""Teachers: what each neuron is told of an image, and refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hebbjax import teachers

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


def test_the_authors_groups_fill_their_layers():
    for layer, features in {2: 128, 3: 192, 4: 256, 5: 300}.items():
        signal = teachers.groups(10, *teachers.AMATO[layer], features=features)(jnp.array([9]), ())
        assert signal.shape == (1, features)
        assert signal.sum() == sum(teachers.AMATO[layer])


@pytest.mark.parametrize(
    'build, says',
    [
        (lambda: teachers.one_hot(0), '0 classes cannot be taught; use 1 or more'),
        (lambda: teachers.groups(10, 0, 4), 'groups of 0 neurons per class and 4 common ones cannot be'),
        (lambda: teachers.groups(10, 2, -1), 'groups of 2 neurons per class and -1 common ones cannot be'),
        (
            lambda: teachers.groups(10, 20, 0, features=128),
            r'groups\(10, 20, 0\) teach 200 neurons, and the layer has 128; use groups\(10, 12, 8\)',
        ),
        (lambda: teachers.groups(10, 8, 16, features=128), r'teach 96 neurons.*128; use groups\(10, 8, 48\)'),
        (lambda: teachers.groups(10, 1, 0, features=7), 'the layer has 7; use a layer of 10 or more'),
        (lambda: teachers.feedback(0, 5), '0 classes cannot be taught'),
    ],
)
def test_teachers_that_cannot_be_are_refused(build, says):
    with pytest.raises(ValueError, match=says):
        build()


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
        ((4,), r'of shape \(4,\) is not one per image and neuron; give \[B, N\], here \(4, 128\)'),
        ((3, 128), r'of shape \(3, 128\) is not one per image'),
        ((4, 200), 'a teacher of 200 neurons cannot teach a layer of 128; .* make them 128'),
    ],
)
def test_a_signal_that_does_not_fit_is_refused(shape, says):
    with pytest.raises(ValueError, match=says):
        teachers.fits(shape, 4, 128)
    teachers.fits((4, 128), 4, 128)

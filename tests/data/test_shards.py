"""Data in parts: they are what the whole is, read when their turn comes, and refused in a sentence that names them."""

import logging
import threading

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from hebbjax import data
from hebbjax.support.shards import read_ahead

PIXELS = np.random.default_rng(1).integers(0, 256, (23, 6, 6, 3), np.uint8)
LABELS = np.arange(23) % 3


class Examples:
    """What data sets of torch and Hugging Face are like; `together` counts what was asked for at once."""

    def __init__(self, images, labels):
        self.images, self.labels, self.together = images, labels, []

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return {'image': self.images[index], 'label': self.labels[index]}


class Together(Examples):
    """What `tfds.data_source` is like."""

    def __getitem__(self, index):
        raise AssertionError('one by one')

    def __getitems__(self, indices):
        self.together.append(len(indices))
        return [super(Together, self).__getitem__(index) for index in indices]


def folder(root):
    for number, (pixels, label) in enumerate(zip(PIXELS, LABELS)):
        (root / f'class {label}').mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(root / f'class {label}' / f'{number:02}.png')
    return root


def npy(path):
    np.save(path / 'images.npy', PIXELS)
    return path / 'images.npy'


def npz(path, save=np.savez, **more):
    save(path / 'set.npz', **{'x_train': PIXELS, 'y_train': LABELS, 'x_test': PIXELS[:7], 'y_test': LABELS[:7]} | more)
    return path / 'set.npz'


SOURCES = {
    'npy': lambda path: (npy(path), {'labels': LABELS}),
    'npz': lambda path: (npz(path), {}),
    'an entry of its own': lambda path: (npz(path, seen=PIXELS), {'images_key': 'seen', 'labels_key': 'y_train'}),
    'memmap': lambda path: ((np.load(npy(path), mmap_mode='r'), LABELS), {}),
    'names': lambda path: ((PIXELS, np.array(['a', 'b', 'c'])[LABELS]), {}),
    'mapping': lambda path: ({'images': PIXELS, 'labels': LABELS}, {}),
    'rows of pixels': lambda path: ((PIXELS.reshape(23, -1), LABELS), {'shape': (6, 6, 3)}),
    'folder': lambda path: (folder(path), {}),
    'examples': lambda path: (Examples(PIXELS, LABELS), {}),
    'examples together': lambda path: (Together(PIXELS, LABELS), {}),
    'labels apart': lambda path: (([*PIXELS], LABELS), {}),
}


@pytest.mark.parametrize('source', SOURCES)
def test_parts_of_any_source_are_its_images(source, tmp_path):
    source, how = SOURCES[source](tmp_path)
    shards = data.open_shards(source, 5, **how)
    assert (len(shards), shards.shape, shards.dtype, shards.count_classes()) == (4, (20, 6, 6, 3), np.uint8, 3)
    images, labels = (np.concatenate(column) for column in zip(*shards))
    rows = [next(i for i, pixels in enumerate(PIXELS) if (pixels == image).all()) for image in images]
    assert len({*rows}) == 20 and labels.dtype == np.int32  # each once
    np.testing.assert_array_equal(labels, LABELS[rows])
    np.testing.assert_array_equal(shards[-1].images, images[15:])
    assert all(len({*labels[start : start + 5]}) == 3 for start in range(0, 20, 5))  # classes lie mixed


def test_only_the_rows_of_a_part_are_read(tmp_path, monkeypatch):
    mapped, of_numpy = [], np.memmap
    monkeypatch.setattr(np, 'memmap', lambda *args: mapped.append(args[-1]) or of_numpy(*args))
    for source in (npy(tmp_path), npz(tmp_path)):
        shards = data.open_shards(source, 10)
        np.testing.assert_array_equal(shards[1].images, PIXELS[10:20])
    assert mapped == [(10, 6, 6, 3)] * 4
    asked = Together(PIXELS, LABELS)
    assert data.open_shards(asked, 5)[2].labels.tolist() == LABELS[2:20:4].tolist()
    assert {*asked.together} == {5}
    opened, of_pillow = [], Image.open
    monkeypatch.setattr(Image, 'open', lambda path, *args: opened.append(path) or of_pillow(path, *args))
    assert data.open_shards(folder(tmp_path / 'pictures'), 11).classes == ('class 0', 'class 1', 'class 2')
    assert len(opened) == 11


def test_a_list_holds_parts_of_any_kind(tmp_path):
    np.savez(tmp_path / 'a.npz', images=PIXELS[:5], labels=LABELS[:5])
    parts = [tmp_path / 'a.npz', (PIXELS[5:10], LABELS[5:10]), lambda: (PIXELS[10:15], LABELS[10:15])]
    shards = data.open_shards(parts)
    np.testing.assert_array_equal(np.concatenate([part.images for part in shards]), PIXELS[:15])
    assert (shards.shape, shards.classes, shards.count_classes()) == ((15, 6, 6, 3), (), 3)


def test_names_are_numbered_over_all_parts():
    shards = data.open_shards((PIXELS, ['b', 'a', *'c' * 21]), 10)
    assert shards.classes == ('a', 'b', 'c') and shards.count_classes() == 3
    assert shards[0].labels[:3].tolist() == [1, 0, 2] and set(shards[1].labels) == {2}


def test_floats_are_taken_as_they_are_and_white_is_told():
    floats = np.full((4, 6, 6, 1), 0.25, np.float32)
    assert data.open_shards(floats, 2)[0].images.max() == 0.25
    assert data.open_shards(floats * 400, 2, white=200)[1].images.max() == 0.5


def test_what_sits_out_is_said(caplog):
    with caplog.at_level(logging.INFO, 'hebbjax'):
        data.open_shards(PIXELS, 10)
    assert caplog.messages == ['23 images make 2 parts of 10, and the last 3 sit out.']


def test_images_sorted_by_class_are_warned_about():
    with pytest.warns(UserWarning, match='sorted by class, so its parts hold few classes each; shuffle it once'):
        data.open_shards((PIXELS, np.sort(LABELS)), 5)


def test_the_next_part_is_read_while_one_is_used_and_no_more():
    began, allowed, before = [], threading.Semaphore(0), {*threading.enumerate()}

    def read(number):
        began.append(number)
        allowed.release()
        return number

    parts = read_ahead(read, range(5))
    for number in range(5):
        assert next(parts) == number
        for _ in range(2 if number == 0 else number < 4):  # it has begun, on a thread
            assert allowed.acquire(timeout=10)
        assert began == [*range(min(number + 2, 5))]
    assert next(parts, None) is None
    assert {*threading.enumerate()} <= before


def test_the_thread_computes_as_who_asks(x64):
    assert next(read_ahead(lambda number: jnp.ones(1).dtype, [0])) == np.float64


def test_what_fails_on_the_way_is_raised_where_its_turn_comes():
    def read(number):
        if number == 2:
            raise ValueError('broken')
        return number

    parts = read_ahead(read, range(5))
    assert [next(parts), next(parts)] == [0, 1]
    with pytest.raises(ValueError, match='broken'):
        next(parts)


def test_a_setting_that_there_is_not_is_refused():
    with pytest.raises(TypeError, match='hue'):
        data.open_shards(PIXELS, 5, hue=1)


def test_whatever_a_function_raises_is_one_sentence():
    def fail():
        raise RuntimeError('no\nnetwork')

    with pytest.raises(ValueError, match=r'^shards\[1\] cannot be read: no network\.$'):
        data.open_shards([(PIXELS, LABELS), fail])[1]
    with pytest.raises(IndexError):
        data.open_shards(PIXELS, 5)[4]


def missing(path):
    return [(PIXELS[:5], LABELS[:5]), path / 'gone.npz']


def truncated(path):
    file = npy(path)
    file.write_bytes(file.read_bytes()[:-1000])
    return file, 10


BAD = {
    'no such setting': (lambda path: (npz(path), 5, 'train', None, {'skip_unreadable': True}), 'says nothing about'),
    'white of digits': (lambda path: ('digits', 5, 'train', None, {'white': 16}), 'white says nothing about digits'),
    'unequal parts': (lambda path: (folder(path), 5, 'train', None, {'skip_unreadable': True}), 'makes unequal parts'),
    'no part': (lambda path: ([],), 'a list holds parts, one or more'),
    'unequal size': (
        lambda path: ([(PIXELS[:5], LABELS[:5]), (PIXELS[:4], LABELS[:4])],),
        'shards[1] holds 4 images of 6 x 6 x 3, uint8, with labels, and shards[0] 5 images of 6 x 6 x 3, uint8, with',
    ),
    'unequal classes': (lambda path: ([(PIXELS[:2], ['a', 'b']), (PIXELS[:2], ['a', 'c'])],), 'labels of a, c, and'),
    'missing': (lambda path: (missing(path),), 'shards[1] cannot be read: /'),
    'no image': (lambda path: ([np.zeros((2, 6, 6), np.uint8), 'nonsense'],), 'there is no file or folder'),
    'a guess': (lambda path: ([PIXELS[:5] * 1.0] * 2,), 'give white=255'),
    'truncated': (truncated, 'shards[1] cannot be read: mmap length'),
    'too few': (lambda path: (PIXELS, 24), '23 images make no part of 24; use images_per_part <= 23.'),
    'no number': (lambda path: (PIXELS, None), 'images_per_part=None is out of range'),
    'compressed': (lambda path: (npz(path, np.savez_compressed), 5), 'it is compressed, so no part of it can be read'),
    'in columns': (lambda path: (npz(path, x_train=np.asfortranarray(PIXELS)), 5), 'no rows of numbers that follow'),
    'table': (lambda path: ((path / 'set.csv').write_text('a') and path / 'set.csv', 5), 'cannot be read in parts'),
    'no test': (lambda path: (npy(path), 5, 'test'), 'has no test part'),
    'labels twice': (lambda path: (npz(path), 5, 'train', LABELS), 'images come with labels of their own'),
    'few labels': (lambda path: (PIXELS, 5, 'train', LABELS[:3]), '3 labels do not fit 23 images'),
    'cut list': (lambda path: ([PIXELS], 5), 'leave images_per_part and labels out'),
}


@pytest.mark.parametrize('case', BAD)
def test_what_does_not_fit_is_refused_in_a_sentence(case, tmp_path):
    make, says = BAD[case]
    given = make(tmp_path)
    source, per, split, labels, how = *given, *(None, 'train', None, {})[len(given) - 1 :]
    with pytest.raises(ValueError) as error:
        [*data.open_shards(source, per, split=split, labels=labels, **how)]
    sentence = str(error.value)
    assert says in sentence and '\n' not in sentence and sentence.endswith('.')

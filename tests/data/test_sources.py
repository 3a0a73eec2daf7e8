"""Images of one's own: whatever form they come in, the same features come out; what was made of them is said."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import hebbjax
from hebbjax import data, rules, transforms

PIXELS = np.random.default_rng(3).integers(0, 256, (12, 10, 10, 3), np.uint8)
GREY = PIXELS[..., :1]
LABELS = np.repeat(np.arange(3), 4)
NAMES = ('ant', 'bee', 'cät 猫')
NAMED = np.array(NAMES)[LABELS]


class Tensor:
    """What torch's tensors are like: with a gradient, on another device."""

    def __init__(self, array, stage=0):
        self.array, self.stage = array, stage

    shape = property(lambda self: self.array.shape)
    ndim = property(lambda self: self.array.ndim)

    def detach(self):
        return Tensor(self.array, 1)

    def cpu(self):
        assert self.stage == 1, 'has a gradient'
        return Tensor(self.array, 2)

    def numpy(self):
        assert self.stage == 2, 'lies on another device'
        return self.array

    def __array__(self, dtype=None, copy=None):
        return self.numpy() if dtype is None else self.numpy().astype(dtype)


class Examples:
    """What data sets of torch and Hugging Face are like."""

    def __init__(self, examples, **attributes):
        self.examples = examples
        self.__dict__.update(attributes)

    def __len__(self):
        return len(self.examples)

    def __getitem__(self, index):
        return self.examples[index]


class ClassLabel:
    names = NAMES


def to_image(pixels):
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def folder(root, images, suffix='png', change=lambda image: image, labelled=True, **how):
    """Write images as files, into a folder for each class."""
    for index, pixels in enumerate(images):
        place = root / NAMED[index] if labelled else root
        place.mkdir(parents=True, exist_ok=True)
        change(to_image(pixels)).save(place / f'ünï {index:02d}.{suffix}', **how)
    return root


def npz(path, **arrays):
    np.savez(path / 'set.npz', **arrays)
    return path / 'set.npz'


def npy(path, images):
    np.save(path / 'set.npy', images)
    return path / 'set.npy'


def csv(path, images, header=True, first='label', labels=LABELS):
    rows = [','.join(map(str, [label, *row.ravel().tolist()])) for label, row in zip(labels, images, strict=True)]
    names = ','.join([first, *(f'pixel{i}' for i in range(images[0].size))])
    (path / 'set.csv').write_text('\n'.join([names] * header + rows) + '\n', encoding='utf-8')
    return path / 'set.csv'


def parquet(path, images, **columns):
    import pyarrow
    import pyarrow.parquet

    pixels = {f'p{i}': column for i, column in enumerate(images.reshape(len(images), -1).T)}
    pyarrow.parquet.write_table(pyarrow.table(columns | pixels), path / 'set.parquet')
    return path / 'set.parquet'


def torch_tensor(array):
    torch = pytest.importorskip('torch')
    return torch.from_numpy(array.copy()).requires_grad_(array.dtype == np.float32)


def pictures(images, key='image'):
    return [{key: to_image(pixels), 'label': int(label)} for pixels, label in zip(images, LABELS, strict=True)]


FIRST = np.moveaxis(PIXELS, 3, 1)  # channels first
UNIT = (PIXELS / 255).astype(np.float32)
FORMS = {  # a folder to write into -> (source, settings); grey or rgb says which images it holds, - that labels lack
    'grey array': lambda path: ((GREY, LABELS), {}),
    'grey array without channels': lambda path: ((GREY[..., 0], LABELS), {}),
    'grey array, channels first': lambda path: ((GREY[:, None, :, :, 0], LABELS), {}),
    'grey floats in 0..1': lambda path: ((GREY / 255, LABELS), {}),
    'grey floats in 0..255': lambda path: ((GREY.astype(np.float32), LABELS[:, None]), {}),
    'grey half precision': lambda path: ((jnp.asarray(GREY).astype(jnp.bfloat16), LABELS), {}),
    'grey uint16': lambda path: ((257 * GREY.astype(np.uint16), LABELS), {}),
    'grey int64': lambda path: ((GREY.astype(int), LABELS.astype(float)), {}),
    'grey floats in 0..16': lambda path: ((GREY * (16 / 255), LABELS), {'white': 16}),
    'grey lists': lambda path: ((GREY.tolist(), LABELS.tolist()), {}),
    'grey list of images': lambda path: (([*GREY], [*NAMED]), {}),
    'grey -array alone': lambda path: (GREY, {}),
    'grey mapping': lambda path: ({'data': GREY, 'target': NAMED}, {}),
    'grey npz': lambda path: (npz(path, images=GREY, labels=LABELS), {}),
    'grey npz of rows': lambda path: (npz(path, X=GREY.reshape(12, -1), y=np.eye(3)[LABELS]), {}),
    'grey npz of splits': lambda path: (
        npz(path, x_train=GREY, y_train=NAMED, x_val=GREY[:2], y_val=NAMED[:2], x_test=GREY[:2], y_test=NAMED[:2]),
        {},
    ),
    'grey npz, keys named': lambda path: (npz(path, a=LABELS, b=GREY), {'images_key': 'b', 'labels_key': 'a'}),
    'grey -npy': lambda path: (str(npy(path, GREY)), {}),
    'grey csv': lambda path: (csv(path, GREY, first='class', labels=NAMED), {}),
    'grey csv without a line of names': lambda path: (csv(path, GREY, header=False), {}),
    'grey csv of floats': lambda path: (csv(path, GREY / 255), {}),
    'grey parquet': lambda path: (parquet(path, GREY, label=[*NAMED]), {}),
    'grey pngs': lambda path: (folder(path / 'cät', GREY), {}),
    'grey pngs in train': lambda path: (folder(path / 'train', GREY).parent, {}),
    'grey pngs in a deeper folder': lambda path: (folder(path, GREY, labelled=True), {}),
    'grey -pngs without labels': lambda path: (str(folder(path, GREY, labelled=False)), {}),
    'grey pngs of 16 bits': lambda path: (
        folder(path, GREY, change=lambda image: Image.fromarray(np.asarray(image) * np.uint16(257))),
        {},
    ),
    'grey pngs with a palette': lambda path: (folder(path, GREY, change=lambda image: image.convert('P')), {}),
    'grey pngs with alpha': lambda path: (folder(path, GREY, change=lambda image: image.convert('LA')), {}),
    'grey gifs': lambda path: (folder(path, GREY, 'GIF'), {}),
    'grey pgms': lambda path: (folder(path, GREY, 'pgm'), {}),
    'grey tiffs of floats': lambda path: (folder(path, GREY, 'tif', lambda image: image.convert('F')), {}),
    'grey pictures in dicts': lambda path: (
        Examples(pictures(GREY), features={'label': ClassLabel(), 'image': None}),
        {},
    ),
    'grey pictures and labels': lambda path: (Examples([*zip(map(to_image, GREY), LABELS, strict=True)]), {}),
    'rgb array': lambda path: ((PIXELS, LABELS), {}),
    'rgb array, channels first': lambda path: ((FIRST, LABELS), {}),
    'rgb array, channels told': lambda path: ((FIRST, LABELS), {'channels_first': True}),
    'rgb tensors like torch': lambda path: ((Tensor(FIRST), Tensor(LABELS)), {}),
    'rgb tensors of torch': lambda path: ((torch_tensor(UNIT), torch_tensor(LABELS)), {}),
    'rgb tensors and labels': lambda path: (
        Examples([(Tensor(np.moveaxis(x, 2, 0)), int(y)) for x, y in zip(UNIT, LABELS, strict=True)], classes=[*NAMES]),
        {},
    ),
    'rgb pictures in dicts': lambda path: (pictures(PIXELS, 'photo'), {'images_key': 'photo'}),
    'rgb csv': lambda path: (csv(path, PIXELS, first='kind'), {'shape': (10, 10, 3), 'labels_key': 'kind'}),
    'rgb csv, channels first': lambda path: (csv(path, FIRST), {'shape': (3, 10, 10)}),
    'rgb bmps': lambda path: (folder(path, PIXELS, 'bmp'), {}),
    'rgb webps': lambda path: (folder(path, PIXELS, 'webp', lossless=True), {}),
    'rgb tiffs in CMYK': lambda path: (folder(path, PIXELS, 'tiff', lambda image: image.convert('CMYK')), {}),
    'rgb pngs with alpha': lambda path: (folder(path, PIXELS, change=lambda image: image.convert('RGBA')), {}),
}  # fmt: skip


@pytest.fixture(scope='module')
def features():
    """Features by one layer that stays as it was made."""
    made = {}

    def of(images):
        shape = images.shape[1:]
        if shape not in made:
            net = (hebbjax.Layer(5, rules.instar(), transforms.scale_by_rate(0.1), hebbjax.Window(3)),)
            made[shape] = net, hebbjax.init(net, jax.random.key(0), shape)
        net, state = made[shape]
        return hebbjax.features(net, state.layers, images)

    return of


@pytest.mark.parametrize('form', FORMS)
def test_whatever_form_images_come_in_the_same_features_come_out(form, tmp_path, features):
    source, how = FORMS[form](tmp_path)
    images, labels, classes, notes = data.read(source, **how)
    np.testing.assert_allclose(features(images), features(GREY if form[:4] == 'grey' else PIXELS), atol=1e-6)
    if '-' in form:
        assert labels is None and classes == ()
    else:
        assert labels.dtype == np.int32 and labels.tolist() == LABELS.tolist()
        assert classes in ((), NAMES)
    assert notes[0].startswith(f'12 images of 10 x 10, {"RGB" if form[:3] == "rgb" else "grey"}, {images.dtype}; ')
    assert all(note.endswith('.') and '\n' not in note for note in notes)
    again = data.load(source, 'train', **how)
    assert type(again) is data.Split and data.digest(*again) == data.digest(images, labels)
    assert 'train' in data.splits_of(source, **how)


@pytest.mark.parametrize('shape', [None, (4, 4), (16, 1), (2, 8), (8, 2), (4, 4, 1)])
@pytest.mark.parametrize('channels_first', [None, True, False])
def test_rows_of_pixels_may_make_narrow_images(shape, channels_first):
    if shape is not None and len(shape) == 3 and channels_first:
        shape = 1, 4, 4
    rows = np.arange(48, dtype=np.uint8).reshape(3, 16) * 5
    images = data.read({'images': rows}, shape=shape, channels_first=channels_first).images
    expected = (4, 4) if shape is None or len(shape) == 3 else shape
    np.testing.assert_array_equal(images, rows.reshape(3, *expected, 1))


def test_there_are_twenty_forms_and_more():
    assert len(FORMS) >= 20


# What is made of them, and said


def test_splits_are_found_where_a_source_has_them(tmp_path):
    folder(tmp_path / 'set' / 'train', GREY)
    folder(tmp_path / 'set' / 'test', GREY[4:8])  # writes them as ants
    place = npz(tmp_path, x_train=GREY, y_train=NAMED, x_test=GREY[4:8], y_test=NAMED[4:8], x_val=GREY[:1])
    for source, of_test in ((tmp_path / 'set', [0] * 4), (place, [1] * 4)):
        assert data.splits_of(source) == ('train', 'test')
        images, labels, classes, _ = data.read(source, 'test')
        assert classes == NAMES and labels.tolist() == of_test  # numbered as in training
        np.testing.assert_array_equal(images, GREY[4:8])
    folder(tmp_path / 'set' / 'test 2', GREY[:1]).parent.joinpath('val').mkdir()
    assert data.read(tmp_path / 'set').notes[1:] == ('folders beside train and test were left out (test 2, val).',)
    for name in ('train', 'test'):
        folder(tmp_path / 'no classes' / name, GREY[:2], labelled=False)
    assert data.load(tmp_path / 'no classes', 'test').labels is None
    assert 'x_val of' in data.read(place).notes[1] and 'was left out' in data.read(place).notes[1]
    assert data.splits_of('digits') == data.splits_of('mnist') == ('train', 'test')
    assert data.splits_of(csv(tmp_path, GREY)) == data.splits_of(GREY) == data.splits_of(place, images_key='x_val')


def test_named_sets_tell_their_classes_and_can_be_resized():
    images, labels, classes, notes = data.read('digits', 'test')
    assert classes == tuple('0123456789') and notes == () and data.load('digits', 'test').labels is not labels
    small = data.load('digits', 'test', resize=(4, 6)).images
    assert small.shape == (597, 4, 6, 1) and small.dtype == np.uint8
    np.testing.assert_allclose(small.mean(), images.mean(), atol=2)


def test_classes_are_numbered_as_their_names_sort_whole_numbers_as_numbers(tmp_path):
    for name in ('10', '9', '0'):
        folder(tmp_path / 'numbers' / name, GREY[:1], labelled=False)
    assert data.read(tmp_path / 'numbers').classes == ('0', '9', '10')
    assert data.read((GREY[:3], ['b', 'a', 'b'])).classes == ('a', 'b')
    assert data.load((GREY[:2], [3, 7])).labels.tolist() == [3, 7]  # numbers are kept
    assert data.read((GREY[:2], np.array([b'caf\xc3\xa9', b'tea']))).classes == ('café', 'tea')


@pytest.mark.parametrize(
    'images, white, dtype, factor, says',
    [
        (GREY > 100, None, bool, None, '1 notes'),
        ((GREY > 100).astype(int), None, bool, None, '1 was taken for white'),
        (GREY, None, np.uint8, None, '1 notes'),
        (GREY // 16, None, np.uint8, None, 'reach 15 of 255; if 15 is white, give white=15.'),
        (GREY // 16, 15, np.float32, 15, '1 notes'),
        (GREY, 255, np.uint8, None, '1 notes'),
        (GREY.astype(int) * 256, None, np.uint16, None, '65535 was taken for white'),
        (GREY / 255, None, np.float32, 1, 'run from 0 to 1, and 1 was taken for white'),
        (GREY.astype(float), None, np.float32, 255, '255 was taken for white'),
        (GREY.astype(np.float32) * 257, None, np.float32, 65535, '65535 was taken for white'),
        ((GREY / 128) - 1, None, np.float32, 1, 'run from -1'),
        (GREY.astype(int) // 16, 15, np.float32, 15, '1 notes'),
        (GREY.astype(np.float32), 1, np.float32, 1, '1 notes'),
        (
            (GREY.astype(np.uint16) * 257).astype('>u2'),
            None,
            np.uint16,
            None,
            '1 notes',
        ),  # in another machine's order of bytes
    ],
)
def test_what_white_is_is_told_by_types_else_recognised_and_said(images, white, dtype, factor, says):
    before = images.copy()
    if white == 1:
        with pytest.warns(UserWarning, match='are taken as they are'):
            reading = data.read(images, white=white)
    else:
        reading = data.read(images, white=white)
    assert reading.images.dtype == dtype
    np.testing.assert_allclose(reading.images, images if factor is None else images / factor, rtol=1e-6)
    assert len(reading.notes) == 1 if says == '1 notes' else says in reading.notes[1]
    np.testing.assert_array_equal(before, images)  # nobody's arrays are written into


def test_what_was_recognised_of_arrays_is_said():
    reading = data.read(FIRST / 255)
    assert reading.images.shape == (12, 10, 10, 3)
    said = ' '.join(reading.notes)
    assert '3 in images [n, 3, 10, 10] was taken for their channels.' in said and 'taken for white' in said


def test_channels_that_could_be_either_are_last_unless_told():
    images = PIXELS[:, :3, :4]  # [n, 3, 4, 3]
    assert data.load(images).images.shape == (12, 3, 4, 3)
    assert data.load(images, channels_first=True).images.shape == (12, 4, 3, 3)
    assert data.load(PIXELS[:, :3, :, :1].repeat(8, 3), channels_first=False).images.shape == (12, 3, 10, 8)


def test_pictures_of_all_kinds_in_one_folder_become_rgb_and_it_is_said(tmp_path):
    folder(tmp_path, PIXELS[:3], labelled=False)
    black = np.zeros((10, 10), np.uint8)
    clear = Image.fromarray(np.dstack([PIXELS[3], black]))  # all of it transparent
    clear.save(tmp_path / 'a clear.png')
    to_image(GREY[4]).save(tmp_path / 'b grey.png')
    frames = [to_image(x).convert('P') for x in GREY[5:8]]
    frames[0].save(tmp_path / 'c moving.gif', save_all=True, append_images=frames[1:])
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    to_image(PIXELS[8]).save(tmp_path / 'd turned.png', exif=exif)
    for name in ('.DS_Store', 'Thumbs.db', 'other.DB', 'a.txt', 'b.txt', 'c.txt'):
        (tmp_path / name).write_text('no image')
    images, labels, _, notes = data.read(tmp_path)
    assert images.shape == (7, 10, 10, 3) and labels is None
    assert not images[0].any()
    np.testing.assert_array_equal(images[1], GREY[4].repeat(3, 2))
    np.testing.assert_array_equal(images[2], GREY[5].repeat(3, 2))
    np.testing.assert_array_equal(images[3], np.rot90(PIXELS[8], -1))
    assert {*notes[1:]} == {
        'images that are transparent in places were composed on black (1 of them).',
        'grey images among RGB ones became RGB (2 of them).',
        'of animated images the first frame was taken (1 of them).',
        'files that are no images by name were left out (3 .txt, 2 .db, 1 hidden).',
    }


def test_16_bits_among_8_and_sizes_that_differ(tmp_path):
    folder(tmp_path, GREY[:2], labelled=False)
    Image.fromarray(GREY[2, ..., 0] * np.uint16(257)).save(tmp_path / 'ýz.png')
    images = data.load(tmp_path).images
    np.testing.assert_array_equal(images, GREY[:3] * np.uint16(257))
    to_image(PIXELS[3].repeat(2, 0)).save(tmp_path / 'long.png')
    images = data.load(tmp_path, resize=(5, 10)).images
    assert images.shape == (4, 5, 10, 3) and images.dtype == np.uint16
    np.testing.assert_allclose(images.mean((1, 2))[1:], GREY[:3].mean((1, 2)).repeat(3, 1) * 257, rtol=0.1)
    mixed = [to_image(GREY[0]), to_image(PIXELS[1].repeat(2, 1))]
    assert data.load(mixed, resize=6).images.shape == (2, 6, 6, 3)
    deep = [GREY[0], GREY[1] * np.uint16(257), PIXELS[2]]  # whichever comes first
    for order in ((0, 1, 2), (2, 1, 0)):
        images = data.load([deep[place] for place in order]).images
        np.testing.assert_array_equal(images[order[1]], GREY[1].repeat(3, 2) * np.uint16(257))
        np.testing.assert_array_equal(images[order.index(2)], PIXELS[2] * np.uint16(257))


def test_what_cannot_be_read_is_skipped_if_that_is_asked_for(tmp_path):
    folder(tmp_path, GREY)
    whole = (tmp_path / 'ant' / 'ünï 01.png').read_bytes()
    (tmp_path / 'ant' / 'ünï 01.png').write_bytes(whole[:60])  # a header that promises more
    (tmp_path / 'bee' / 'ünï 05.png').write_bytes(b'')
    (tmp_path / 'bee' / 'gone.png').symlink_to('nowhere')
    images, labels, _, notes = data.read(tmp_path, skip_unreadable=True)
    assert labels.tolist() == [0] * 3 + [1] * 3 + [2] * 4
    np.testing.assert_array_equal(images, np.delete(GREY, [1, 5], 0))
    assert notes[-1].startswith(f'images that could not be read were skipped (3 of them, the first {tmp_path}')


def test_labels_are_sought_and_it_is_said_where_there_are_none(tmp_path):
    assert (
        'no labels' in data.read(csv(tmp_path, GREY.reshape(12, 100)[:, :99], first='pixel'), labels_key=None).notes[0]
    )
    assert 'name them by labels_key.' in data.read([{'image': image, 'fine': 1} for image in GREY]).notes[1]


# Time and memory

MEASURE = """
import pathlib, sys, time, numpy as np
from hebbjax import data
data.load(sys.argv[1])  # everything is imported
status = lambda: dict(line.split(':') for line in pathlib.Path('/proc/self/status').read_text().splitlines())
for folder in sys.argv[2:]:
    pathlib.Path('/proc/self/clear_refs').write_text('5')  # the peak is forgotten
    before, start = int(status()['VmRSS'].split()[0]), time.perf_counter()
    images, labels = data.load(folder)
    seconds = time.perf_counter() - start
    print(seconds, int(status()['VmHWM'].split()[0]) / 1024 - before / 1024, images.nbytes / 2**20)
"""


@pytest.mark.skipif(not os.path.exists('/proc/self/clear_refs'), reason='the peak of memory is read from /proc')
def test_2000_pngs_are_read_in_seconds_and_in_twice_their_memory(tmp_path, rng):
    folders = [tmp_path / 'few', tmp_path / 'small', tmp_path / 'large']
    for place, shape, count in zip(folders, [(8, 8, 1), (28, 28, 1), (64, 64, 3)], [1, 200, 200], strict=True):
        for name in range(10):
            (place / str(name)).mkdir(parents=True)
            to_image(rng.integers(0, 256, shape, np.uint8)).save(place / str(name) / '0.png')
            for index in range(1, count):
                os.link(place / str(name) / '0.png', place / str(name) / f'{index}.png')
    done = subprocess.run([sys.executable, '-c', MEASURE, *map(str, folders)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for line, mebibytes in zip(done.stdout.splitlines(), (1.5, 23.4), strict=True):
        seconds, peak, size = map(float, line.split())
        assert abs(size - mebibytes) < 0.1 and seconds < 10  # less than one on an idle core
        assert peak < 2 * size + 1  # names and pillow's own take their part
        print(line)


# Parts of it, for one of several processes


def sources(place):
    """The same images and labels in every form that they may come in."""
    npz(place, images=PIXELS, labels=NAMED)
    examples = [{'image': to_image(pixels), 'label': label} for pixels, label in zip(PIXELS, LABELS)]
    mapping = {'images': PIXELS, 'labels': LABELS}
    return [folder(place / 'folder', PIXELS), place / 'set.npz', mapping, (PIXELS, NAMED), Examples(examples)]


def test_parts_are_every_nth_image_and_of_equal_size_whatever_they_come_in(tmp_path, monkeypatch):
    decoded, decode = [], data.folders.pictures.decode
    monkeypatch.setattr(data.folders.pictures, 'decode', lambda *args: decoded.append(args) or decode(*args))
    for source in sources(tmp_path):
        for number in range(5):
            decoded.clear()
            images, labels, classes, notes = data.read(source, part=(number, 5))
            np.testing.assert_array_equal(images, PIXELS[number:10:5])  # 2 of 12 are left over
            np.testing.assert_array_equal(labels, LABELS[number:10:5])  # numbered as those of all are
            assert notes[-1] == f'2 images are part {number} of 5, of equal size.'
            assert len(decoded) <= 2 or isinstance(source, Examples)
    assert classes == () and data.load(PIXELS, part=(1, 2)).labels is None
    whole, parts = data.load('digits', 'test'), [data.load('digits', 'test', part=(i, 4)) for i in range(4)]
    for i, part in enumerate(parts):
        assert all(np.array_equal(a, b[i:596:4]) for a, b in zip(part, whole))


def test_a_part_of_a_folder_guesses_nothing_that_others_may_guess_otherwise(tmp_path):
    for number, white in enumerate((200, 200, 8, 8)):
        Image.fromarray(np.full((6, 6), white, np.float32)).save(tmp_path / f'{number}.tif')
    with pytest.raises(ValueError, match='parts of float pictures may differ in what is white; give white=1, or'):
        data.read(tmp_path, part=(1, 2))
    assert data.read(tmp_path, part=(1, 2), white=200).images.max() == 1
    with pytest.raises(ValueError, match='skip_unreadable makes unequal parts'):
        data.read(tmp_path, part=(1, 2), skip_unreadable=True)


@pytest.mark.parametrize('part, says', [
    ((3, 2), 'part=(3, 2) is none of 0 to n - 1 of n parts'), ((-1, 2), 'part=(-1, 2) is'), (2, 'part=2 is none'),
    ((0, 0), 'part=(0, 0) is'), ((0, 13), '12 images do not make 13 parts; use fewer.'), ((0, 2, 1), 'part=(0, 2, 1)'),
])  # fmt: skip
def test_parts_that_there_are_not_are_refused(part, says, tmp_path):
    for source in (PIXELS, folder(tmp_path, PIXELS)):
        with pytest.raises(ValueError) as refused:
            data.read(source, part=part)
        assert str(refused.value).startswith(says)

"""Images of one's own that do not fit are met with one sentence: what came, and what to do."""

import os
import zipfile

import jax
import numpy as np
import pytest
from PIL import Image

from hebbjax import data
from hebbjax.data import pictures

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 10, 10, 1), np.uint8)
LABELS = np.arange(6) % 2


def refusal(source, *args, kind=ValueError, **how):
    """What a source is refused with: one line that says what to do."""
    with pytest.raises(kind) as error:
        data.load(source, *args, **how)
    said = str(error.value)
    assert type(error.value) is kind and '\n' not in said and 20 < len(said) < 500 and said.endswith('.'), said
    said.encode()  # can be printed
    return said


def png(path, shape=(10, 10), value=200):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full(shape, value, np.uint8)).save(path)
    return path


def classes(root, count=2):
    for name in ('a', 'b'):
        for index in range(count):
            png(root / name / f'{index}.png')
    return root


# Folders


def mixed_sizes(root):
    png(classes(root) / 'b' / '1.png', (12, 11))


def no_images(root):
    (root / 'a.txt').write_text('')
    (root / 'b.txt').write_text('')


def damaged(root):
    place = classes(root) / 'b' / '1.png'
    Image.fromarray(IMAGES[0, ..., 0]).save(place)
    place.write_bytes(place.read_bytes()[:80])  # a header that promises more


def link_back(root):
    (classes(root) / 'b' / 'up').symlink_to(root)


def link_to_itself(root):
    (classes(root) / 'b' / 'loop').symlink_to(root / 'b' / 'loop')


def floats_among_bytes(root):
    Image.fromarray(np.ones((10, 10), np.float32)).save(classes(root) / 'a' / '2.tif')


def bad_bytes(root):
    os.close(os.open(os.fsencode(root) + b'/\xff\xfe.png', os.O_CREAT))


def line_break(root):
    (root / 'a\nb.png').write_bytes(b'no')


@pytest.mark.parametrize(
    'make, how, says',
    [
        (mixed_sizes, {}, ['b/1.png is 12 x 11 x 1 uint8 and ', 'a/0.png 10 x 10 x 1 uint8; give', 'resize=28 (--']),
        (no_images, {}, ['holds no images that pillow reads among its 2 files (.txt)', 'root/class/name.png']),
        (lambda root: None, {}, ['holds no images that pillow reads; put']),
        (damaged, {}, ['b/1.png is damaged (', 'skip_unreadable=True (--skip-unreadable)']),
        (lambda root: (root / 'x.png').write_text('no image'), {}, ['x.png is damaged (cannot identify']),
        (lambda root: (root / 'x.png').symlink_to('gone'), {}, ['x.png is damaged ([Errno 2]']),
        (bad_bytes, {}, ['.png is damaged (']),
        (line_break, {}, ['a b.png is damaged (']),
        (lambda root: (root / 'x.png').write_text(''), {'skip_unreadable': True}, ['none of the 1 images can be read']),
        (lambda root: (classes(root) / 'c').mkdir(), {}, ['/c holds no images; remove this empty class']),
        (lambda root: png(classes(root) / 'x.png'), {}, ['holds images as well as folders; put each']),
        (lambda root: classes(root / 'test'), {}, ['holds a folder test and none train']),
        (lambda root: (classes(root / 'train'), png(root / 'test' / 'c' / '1.png')), {'split': 'test'},
         ['test holds c, which train lacks']),
        (classes, {'split': 'test'}, ['has no test part', 'data.split_validation']),
        (classes, {'split': 'val'}, ["split='val' is unknown; there are train, test."]),
        (link_back, {}, ['b/up leads back to a folder that it lies in; remove this link']),
        (link_to_itself, {}, ['cannot be listed (Too many levels of symbolic links)']),
        (floats_among_bytes, {}, ['2.tif is 10 x 10 x 1 float32 and ', '0.png 10 x 10 x 1 uint8; give']),
        (classes, {'resize': 0}, ['resize=0 is out of range']),
        (classes, {'resize': (3, 4, 5)}, ['resize=(3, 4, 5) is out of range; use a side']),
        (classes, {'resize': 'small'}, ["resize='small' is out of range"]),
        (classes, {'resize': 10**9}, ['an image of 1000000000 x 1000000000 takes', 'GiB']),
        (classes, {'white': -1}, ['white=-1 is out of range']),
        (classes, {'shape': (10, 10), 'images_key': 'x'}, ['shape, images_key says nothing about']),
    ],
)  # fmt: skip
def test_folders(tmp_path, make, how, says):
    root = tmp_path / 'mäin'
    root.mkdir()
    make(root)
    said = refusal(root, **how)
    assert all(part in said for part in says), said


def test_a_folder_that_may_not_be_listed(tmp_path, monkeypatch):
    whole = os.scandir

    def scandir(folder):
        if str(folder).endswith('/b'):
            raise PermissionError(13, 'Permission denied', folder)
        return whole(folder)

    monkeypatch.setattr(os, 'scandir', scandir)  # chmod does not stop root
    assert 'b cannot be listed (Permission denied); make it readable' in refusal(classes(tmp_path))


def test_a_folder_of_very_many_files_is_listed_as_it_streams_and_no_file_is_looked_at(tmp_path, monkeypatch):
    class Entry:
        def __init__(self, name):
            self.name = name

        def is_dir(self):
            return False

        def is_file(self):
            return True

        def stat(self):
            pytest.fail('looks at a file')

    class Stream:
        def __enter__(self):
            return (Entry(f'{index:07d}.txt' if index % 10 else f'{index:07d}.png') for index in range(200_000))

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(os, 'scandir', lambda folder: Stream())
    seen = []

    def stop(path, *_):
        seen.append(path)
        raise OSError('seen')

    monkeypatch.setattr(Image, 'open', stop)
    assert '0000000.png is damaged (seen)' in refusal(tmp_path)
    assert len(seen) == 1


# Files


def write(path, content=b'nonsense'):
    path.write_bytes(content)
    return path


def npz(root, **arrays):
    np.savez(root / 'set.npz', **arrays)
    return root / 'set.npz'


def npz_of_objects(root):
    return npz(root, images=np.array([{}, 3], object))


def npz_with_twice_the_same(root):
    path = npz(root, images=IMAGES)
    with zipfile.ZipFile(path) as file:
        content = file.read('images.npy')
    with pytest.warns(UserWarning, match='Duplicate'), zipfile.ZipFile(path, 'a') as file:
        file.writestr('images.npy', content)
    return path


def cut(path):
    return write(path, path.read_bytes()[:-200])


def csv(root, text):
    return write(root / 'set.csv', text.encode())


def parquet(root, **columns):
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table(columns), root / 'set.parquet')
    return root / 'set.parquet'


FOUR = 'label,a,b,c,d\n'


@pytest.mark.parametrize(
    'make, how, says',
    [
        (lambda root: write(root / 'set.npz'), {}, ['set.npz is damaged (', 'numpy.savez']),
        (lambda root: write(root / 'set.npz', b''), {}, ['set.npz is damaged (']),
        (lambda root: cut(npz(root, images=IMAGES)), {}, ['set.npz is damaged (']),
        (npz_of_objects, {}, ['set.npz is damaged (Object arrays cannot be loaded when allow_pickle=False)']),
        (npz_with_twice_the_same, {}, ["set.npz holds 'images' twice; write each array once"]),
        (lambda root: npz(root, labels=LABELS), {}, ['there are no images by name among labels']),
        (lambda root: npz(root), {}, ['there are no images by name among no entries']),
        (lambda root: npz(root, x=IMAGES, images=IMAGES), {}, ['x, images may all be images; name one by images_key']),
        (lambda root: npz(root, a=IMAGES), {'images_key': 'b'}, ["images_key='b' is unknown; there are a."]),
        (lambda root: npz(root, x=IMAGES), {'labels_key': 'y'}, ["labels_key='y' is unknown"]),
        (lambda root: npz(root, x=IMAGES, y=LABELS[:4]), {}, ['4 labels do not fit 6 images']),
        (lambda root: npz(root, x=IMAGES, y=LABELS), {'split': 'test'}, ['set.npz has no test part']),
        (lambda root: npz(root, x_train=IMAGES, y_train=['a'] * 6, x_test=IMAGES, y_test=['b'] * 6), {'split': 'test'},
         ["class 'b' is not among the 1 that training has"]),
        (lambda root: npz(root, x=IMAGES.reshape(6, 100)[:, :99]), {}, ['hold 99 values, which make no grey square']),
        (lambda root: npz(root, x=IMAGES), {'shape': (9, 9)}, ['hold 100 values, which do not make (9, 9)']),
        (lambda root: npz(root, x=IMAGES), {'shape': 7}, ['shape=7 is out of range']),
        (lambda root: npz(root, x=IMAGES), {'shape': (10, 10.0)}, ['shape=10.0 is out of range']),
        (lambda root: npz(root, x=IMAGES), {'skip_unreadable': True}, ['skip_unreadable says nothing about']),
        (lambda root: write(root / 'set.npy'), {}, ['set.npy is damaged (']),
        (lambda root: csv(root, ''), {}, ['set.csv']),
        (lambda root: csv(root, FOUR), {}, ['set.csv is damaged (it has no rows)']),
        (lambda root: csv(root, FOUR + '1,2,3,4,200\n1,2,x,4,5\n'), {}, ['set.csv is damaged (', "'x'"]),
        (lambda root: csv(root, FOUR + '1,2,3,4,200\n1,2,3\n'), {}, ['set.csv is damaged (']),
        (lambda root: csv(root, FOUR + '1,2,3,4,200\n1,2,,4,5\n'), {}, ['row 2 lacks values']),
        (lambda root: csv(root, '9,,1,200\n0,1,2,255\n'), {}, ['row 1 lacks values']),
        (lambda root: csv(root, '9,nan,1,200\n0,1,2,255\n'), {}, ['row 1 lacks values']),
        (lambda root: csv(root, FOUR + ',2,3,4,200\n'), {}, ['a row has no label']),
        (lambda root: csv(root, FOUR + '-1,2,3,4,200\n'), {}, ['labels run from -1 to -1']),
        (lambda root: csv(root, FOUR + '0.5,2,3,4,200\n'), {}, ['labels are whole numbers']),
        (lambda root: csv(root, FOUR + '1,2,3,4,16\n'), {}, ['do not say what white is; give white=16, say']),
        (lambda root: csv(root, 'label,a,a,b,c\n1,2,3,4,200\n'), {}, ['set.csv holds columns of the same name']),
        (lambda root: csv(root, 'label,y,a,b,c\n1,2,3,4,200\n'), {}, ['label, y may all be labels']),
        (lambda root: csv(root, FOUR + '1,2,3,4,200\n'), {'labels_key': 'e'}, ["labels_key='e' is unknown"]),
        (lambda root: csv(root, FOUR + '1,2,3,4,200\n'), {'shape': (3, 1)}, ['4 values, which do not make (3, 1)']),
        (lambda root: csv(root, 'a,b,c\n2,3,200\n'), {}, ['3 values, which make no grey square']),
        (lambda root: csv(root, FOUR + '1,2,3,4,200\n'), {'split': 'test'}, ['set.csv has no test part']),
        (lambda root: write(root / 'set.csv', b'label,\xff\n1,200\n'), {}, ['set.csv is damaged (']),
        (lambda root: write(root / 'set.parquet'), {}, ['set.parquet is damaged (']),
        (lambda root: parquet(root, a=[1, 2], b=['x', 'y']), {}, ['set.parquet is damaged (', 'hold numbers']),
        (lambda root: parquet(root, a=[1, None], label=[0, 1]), {}, ['row 2 lacks values']),
        (lambda root: parquet(root, a=[1, 2], label=[0, None]), {}, ['a row has no label']),
        (lambda root: write(root / 'set.tar'), {}, ['set.tar is no data set; name a folder']),
        (lambda root: png(root / 'one.png'), {}, ['one.png is no data set; name a folder']),
    ],
)  # fmt: skip
def test_files(tmp_path, make, how, says):
    said = refusal(make(tmp_path), **how)
    assert all(part in said for part in says), said


def test_paths_that_lead_nowhere(tmp_path):
    for path in (tmp_path / 'gone', f'{tmp_path}/gone.npz', '~/göne/nowhere.csv', 'gone.parquet'):
        assert 'does not exist; name a folder of images, a file .npz' in refusal(path, kind=FileNotFoundError)
    says = "there is no file or folder 'gone' here; name one that there is, or one of digits, mnist, "
    assert refusal('gone') == f'{says}fashion_mnist, cifar10.'
    os.mkfifo(tmp_path / 'pipe.csv')  # would be waited for, for ever
    assert 'pipe.csv is no data set' in refusal(tmp_path / 'pipe.csv')


# Arrays


class Opaque:
    def __array__(self, dtype=None, copy=None):
        raise RuntimeError('is not for numpy')

    ndim = 4


@pytest.mark.parametrize(
    'source, says',
    [
        (None, 'NoneType holds no images'),
        (5, 'int holds no images'),
        ([], 'no images among 0 examples'),
        ((np.zeros((0, 5, 5)), []), 'images of shape (0, 5, 5) are none'),
        (np.zeros((6, 100), np.uint8), 'rows of pixels by reshape(-1, H, W, C)'),
        (np.zeros((10, 10, 3), np.uint8), 'look like one image [H, W, C]; write images[None]'),
        (np.zeros((2, 3, 10, 10, 3), np.uint8), 'of shape (2, 3, 10, 10, 3) are none'),
        (IMAGES.astype(complex), 'images are numbers, not complex128'),
        (np.full((2, 8, 8), 'a'), 'images are numbers, not <U1'),
        (
            IMAGES // 16 * np.int64(1),
            'images of int64 run from 0 to 15 and do not say what white is; give white=15, say',
        ),
        (IMAGES.astype(int) - 5, 'do not say what white is'),
        (np.zeros((2, 8, 8), int), 'run from 0 to 0 and do not say what white is; give white=255, say'),
        (IMAGES * np.nan, 'non-finite values, the first in image 0'),
        (IMAGES / 8, 'run from 0 to 31.875 and do not say what white is'),
        (IMAGES * 1e6, 'do not say what white is'),
        (Opaque(), 'Opaque cannot be made an array (is not for numpy)'),
        (jax.random.split(jax.random.key(0), 2), 'cannot be made an array'),
        ((IMAGES, LABELS[:5]), '5 labels do not fit 6 images'),
        ((IMAGES, LABELS - 1), 'labels run from -1 to 0'),
        ((IMAGES, LABELS + 0.5), 'labels are whole numbers'),
        ((IMAGES, [None] * 6), 'labels are classes 0, 1, ..., not object'),
        ((IMAGES, np.ones((6, 2))), 'one-hot [B, K], not of shape (6, 2)'),
        ((IMAGES, np.full((6, 2), 'a')), 'labels are one name for each image, [n], not of shape (6, 2)'),
        ((IMAGES, LABELS * 10**10), 'which are no classes'),
        ((None, LABELS), 'NoneType holds no images'),
        ([IMAGES[0], IMAGES[1, :5]], 'image 1 is 5 x 10 x 1 uint8 and image 0 10 x 10 x 1 uint8; give'),
        ([IMAGES[0], IMAGES[1] / 255], 'image 1 is 10 x 10 x 1 float32 and image 0'),
        ([(IMAGES[0], 1), (IMAGES[1], None)], '1 of 2 examples have no label'),
        ([{'photo': IMAGES[0]}], 'there are no images by name among photo; name them by images_key'),
        ([[[1, 2], [3]]], 'cannot be made an array'),
        ({'labels': LABELS}, 'there are no images by name among labels'),
        ({'train': [1], 'test': [2]}, "these are splits; give one of them, such as source['train']"),
        (([(IMAGES[0], 1)], [1]), 'come with labels of their own'),
    ],
    ids=lambda part: part if isinstance(part, str) else type(part).__name__,
)
def test_arrays(source, says):
    assert says in refusal(source)


def test_settings_and_splits_of_arrays():
    assert 'has no test part' in refusal(IMAGES, 'test')
    assert 'shape says nothing about this ndarray' in refusal(IMAGES, shape=(10, 10))
    assert 'white says nothing about digits' in refusal('digits', white=16)
    for source in (IMAGES, (IMAGES, LABELS), [(IMAGES[0], 1)]):
        assert 'images_key and labels_key name what stands in a dict' in refusal(source, images_key='x')
    for white in (np.nan, np.inf, -1.0, 0, True, 'fast'):
        assert f'white={white!r} is out of range' in refusal(IMAGES, white=white)
    with pytest.raises(TypeError, match='colour'):
        data.load(IMAGES, colour=True)


STRANGE = [
    None, True, -1, 1.5, np.nan, 10**20, 'a', '', 'a\nb', b'x', [], {}, [[1, 2], [3]], (1, 2, 3), {1, 2}, object(), 1j,
    np.ones(3), np.array(3), np.array(['a']), np.array([None]), np.zeros((3, 5, 5), 'datetime64[s]'), [None], [[], []],
    {'x': None}, {3: IMAGES}, {'train': IMAGES}, [{}], [{'image': None}], [(IMAGES[0], 1, 2)], iter([1]), bytearray(5),
    jax.random.key(0), memoryview(IMAGES), IMAGES.astype(object), os.path, (IMAGES, 'abcdef'), (IMAGES, {1: 2}),
    (IMAGES, [[1]] * 5 + [[1, 2]]), (IMAGES, [*range(5), 'a']), (IMAGES, np.zeros((6, 0))), '/dev/null', IMAGES,
]  # fmt: skip
DOORS = {
    'load': data.load,
    'splits_of': data.splits_of,
    'labels': lambda value: data.load((IMAGES, value)),
    'split': lambda value: data.load(IMAGES, value),
    **{
        name: lambda value, name=name: data.load({'x': IMAGES}, **{name: value})
        for name in ('resize', 'shape', 'images_key', 'labels_key', 'channels_first', 'white', 'skip_unreadable')
    },
}


@pytest.mark.parametrize('door', DOORS)
@pytest.mark.filterwarnings('ignore:images of floats run')
def test_nothing_strange_gets_past(door):
    for value in STRANGE:
        try:
            DOORS[door](value)
        except (ValueError, FileNotFoundError) as error:
            said = str(error)
            assert said.endswith('.') and '\n' not in said and len(said) < 420, (value, said)


def test_images_without_labels_are_held_out_by_labels_of_one_class():
    images, labels = data.load(IMAGES)
    with pytest.raises(ValueError, match='no labels to hold classes out by') as error:
        data.split_validation(labels, 0.5, seed=0)
    assert 'numpy.zeros(len(images), int)' in str(error.value)
    train, held_out = data.split_validation(np.zeros(len(images), int), 0.5, seed=0)
    assert len(train) == len(held_out) == 3
    assert data.digest(images, labels) == data.digest(images) != data.digest(images, LABELS)


def test_suffixes_are_those_that_pillow_opens():
    assert {'.png', '.jpg', '.webp', '.tif', '.mpo', '.gif'} <= pictures.picture_suffixes()
    assert not {'.pdf', '.txt', ''} & pictures.picture_suffixes()

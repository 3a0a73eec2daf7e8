"""Folders of pictures: root/class/*, root/{train,test}/class/*, or pictures without labels in one folder.

Folders are listed as they stream in, and only names are held. Headers tell sizes and kinds; then pictures are decoded
one by one into one array, so that little more memory is taken than the images themselves need.
"""

import collections
import os
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from hebbjax.data import pictures
from hebbjax.data.forms import Reading, assemble, check_part, sort_names, spell
from hebbjax.support.checks import check_memory, require
from hebbjax.support.files import reading


class Folder(NamedTuple):
    """One folder of pictures, of one class."""

    path: str
    names: list[str]  # sorted
    label: int  # -1: none


def splits_of_folder(root: str | os.PathLike) -> dict[str, str]:
    """Give the folder of each split: subfolders train and, if there is one, test; else all is 'train'."""
    root = os.fspath(root)
    folders, _ = _scan(root)
    way = 'put images for training into train, or call classes otherwise'
    require('train' in folders or 'test' not in folders, f'{spell(root)} holds a folder test and none train; {way}.')
    parts = [split for split in ('train', 'test') if split in folders]
    return {split: os.path.join(root, split) for split in parts} or {'train': root}


def read_folder(
    root: str | os.PathLike, split: str = 'train', *, resize=None, white=None, skip_unreadable: bool = False
) -> Reading:
    """Read the pictures of a folder, class by class, by name; grey where all are grey, else RGB.

    Args:
        root: what holds a folder for each class, with pictures at any depth; or such folders in train and test; or
            pictures only, which then have no labels. Hidden files, and those whose ending pillow does not know, are
            left out, which a note says.
        split: 'train' or 'test'.
        resize: a side, or (H, W), that all pictures are stretched to; None: they have one size.
        white: the value that is white, where types do not tell.
        skip_unreadable: whether pictures that cannot be read are left out, with a note, and not refused.
    """
    parts = splits_of_folder(root)
    check_part(split, [*parts], spell(root))
    ignored, told, skipped = collections.Counter(), collections.Counter(), [] if skip_unreadable else None
    classes = tuple(sort_names(_scan(parts['train'])[0]))
    folders = list(_list_folders(parts[split], classes, ignored))
    size, channels, dtype = _survey(folders, None if resize is None else pictures.sides_of(resize), skipped)
    unreadable = frozenset(skipped or ())
    count = sum(len(folder.names) for folder in folders) - len(unreadable)
    check_memory(count * np.prod((*size, channels)) * dtype.itemsize, f'an array of {count} images', 'resize them')
    images, labels, row = np.empty((count, *size, channels), dtype), np.empty(count, np.int32), 0
    for path, label in _each(folders):
        pixels = None if path in unreadable else _take(path, lambda image: pictures.decode(image, told), skipped)
        if pixels is None:
            continue
        told[pictures.GREY_AMONG_RGB] += pixels.shape[2] < channels
        pixels = pixels if resize is None else pictures.resize_pixels(pixels, size)
        images[row] = pixels * np.uint16(257) if pixels.dtype.itemsize < dtype.itemsize == 2 else pixels
        labels[row] = label
        row += 1
    require(row > 0, f'none of the images in {spell(root)} can be read; put others there.')
    notes = pictures.tell(told)
    if skipped:
        what = f'{len(skipped)} of them, the first {spell(skipped[0])}'
        notes.append(f'images that could not be read were skipped ({what}).')
    if parts['train'] != os.fspath(root) and (beside := [name for name in _scan(root)[0] if name not in parts]):
        notes.append(f'folders beside train and test were left out ({spell(", ".join(beside[:5]))}).')
    if ignored:
        kinds = ', '.join(f'{count} {kind}' for kind, count in sorted(ignored.items(), key=lambda item: -item[1])[:5])
        notes.append(f'files that are no images by name were left out ({kinds}).')
    is_labelled = folders[0].label >= 0
    labels = labels[:row] if is_labelled else None
    return assemble(images[:row], labels, classes, notes, white=white, channels_first=False)


def _scan(folder, ignored=None) -> tuple[list[str], list[str]]:
    """List a folder: subfolders, names of pictures; the rest is counted. No file is looked at but links."""
    folders, names, ignored = [], [], collections.Counter() if ignored is None else ignored
    suffixes = pictures.picture_suffixes()
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                suffix = os.path.splitext(entry.name)[1].lower()
                if entry.name.startswith('.'):
                    ignored['hidden'] += 1
                elif entry.is_dir():
                    folders.append(entry.name)
                elif suffix in suffixes and (entry.is_file() or entry.is_symlink()):
                    names.append(entry.name)
                else:
                    ignored[spell(suffix) or 'without an ending'] += 1
    except OSError as error:  # no permission; a link to itself
        where = spell(error.filename or folder)
        raise ValueError(f'{where} cannot be listed ({error.strerror}); make it readable, or remove it.') from None
    return sorted(folders), sorted(names)


def _list_folders(root, classes, ignored) -> Iterator[Folder]:
    """Give all folders with pictures of a split, or refuse what is no data set."""
    found, names = _scan(root, ignored)
    way = 'put each into the folder of its class, root/class/name.png, or all into one folder'
    require(not (found and names), f'{spell(root)} holds images as well as folders; {way}.')
    if not found:
        suffixes = ', '.join(kind for kind, _ in ignored.most_common(3))
        among = f' among its {ignored.total()} files ({suffixes})' if ignored else ''
        require(bool(names), f'{spell(root)} holds no images that pillow reads{among}; {way}.')
        yield Folder(root, names, -1)
        return
    strange = [name for name in found if name not in classes]
    require(not strange, f'{spell(root)} holds {spell(", ".join(strange[:3]))}, which train lacks; make them one set.')
    for name in sort_names(found):
        folder = os.path.join(root, name)
        listed = [Folder(*part, classes.index(name)) for part in _walk(folder, {_identity(root)}, ignored)]
        is_empty = not any(part.names for part in listed)
        require(not is_empty, f'{spell(folder)} holds no images; remove this empty class, or fill it.')
        yield from listed


def _walk(folder, above, ignored) -> Iterator[tuple[str, list[str]]]:
    """Go through a folder and all below it; `above` are those it lies in."""
    identity = _identity(folder)
    require(identity not in above, f'{spell(folder)} leads back to a folder that it lies in; remove this link.')
    folders, names = _scan(folder, ignored)
    yield folder, names
    for name in folders:
        yield from _walk(os.path.join(folder, name), above | {identity}, ignored)


def _identity(folder) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _each(folders) -> Iterator[tuple[str, int]]:
    for folder in folders:
        for name in folder.names:
            yield os.path.join(folder.path, name), folder.label


def _take(path, take, skipped):
    """Open a picture and take something of it; what cannot be read is refused, or None where it may be skipped."""
    from PIL import Image

    try:
        way = 'delete it, or go on without it by skip_unreadable=True (--skip-unreadable)'
        with reading(spell(path), way), Image.open(path) as image:
            return take(image)
    except ValueError:
        if skipped is None:
            raise
        skipped.append(path)
        return None


def _survey(folders, size, skipped) -> pictures.Look:
    """Look at all headers: the size and kind that all pictures have, or are to have."""
    sizes, dtypes, channels = {}, {}, 1
    for path, _ in _each(folders):
        look = _take(path, pictures.look_at, skipped)
        if look is None:
            continue
        channels = max(channels, look.channels)
        dtypes.setdefault(look.dtype, path)
        sizes.setdefault(look.size, path) if len(sizes) < 2 else None
    if size is None and len(sizes) > 1:
        first, second = (f'{spell(path)} is {h} x {w}' for (h, w), path in sizes.items())
        raise ValueError(f'images differ in size: {first} and {second}; give resize=28 (--resize), say, for one size.')
    floats = dtypes.get(np.dtype(np.float32))
    mixed = spell(floats or '')
    require(not floats or len(dtypes) == 1, f'{mixed} holds numbers, and others bytes; convert it.')
    dtype = max(dtypes, key=lambda dtype: dtype.itemsize, default=np.dtype(np.uint8))
    return pictures.Look(size or next(iter(sizes), (1, 1)), channels, dtype)

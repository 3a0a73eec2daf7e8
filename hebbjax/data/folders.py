"""Folders of pictures: root/class/*, root/{train,test}/class/*, or pictures without labels in one folder.

Folders are listed as they stream in, and only names are held. Pictures are decoded one by one into one array, so that
little more memory is taken than the images themselves need.
"""

import collections
import itertools
import os
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from hebbjax.data import pictures
from hebbjax.data.forms import Found, check_part, part_of, sort_names, spell
from hebbjax.support.checks import require
from hebbjax.support.files import reading


def splits_of_folder(root: str) -> dict[str, str]:
    """Give the folder of each split: subfolders train and, if there is one, test; else all is 'train'."""
    folders, _ = _scan(root)
    way = 'put images for training into train, or call classes otherwise'
    require('train' in folders or 'test' not in folders, f'{spell(root)} holds a folder test and none train; {way}.')
    parts = [split for split in ('train', 'test') if split in folders]
    return {split: os.path.join(root, split) for split in parts} or {'train': root}


class Listing(NamedTuple):
    """The pictures of a split, class by class, by name; none of them was looked at."""

    folders: list[tuple[str, list[str], int | None]]  # where they lie, their names, their class
    classes: tuple[str, ...]
    notes: list[str]  # what was left out
    rows: slice = slice(None)  # those that are to be read

    @property
    def total(self) -> int:
        return sum(len(names) for _, names, _ in self.folders)


def list_folder(root: str, split: str) -> Listing:
    """List the pictures of a split, see `read_folder`."""
    parts = splits_of_folder(root)
    check_part(split, [*parts], spell(root))
    ignored, notes = collections.Counter(), []
    classes = tuple(sort_names(_scan(parts['train'])[0]))
    listed = [*_list_pictures(parts[split], classes, ignored)]
    if parts['train'] != root and (beside := [name for name in _scan(root)[0] if name not in parts]):
        notes.append(f'folders beside train and test were left out ({spell(", ".join(beside[:5]))}).')
    if ignored:
        kinds = ', '.join(f'{count} {kind}' for kind, count in ignored.most_common(5))
        notes.append(f'files that are no images by name were left out ({kinds}).')
    return Listing(listed, classes, notes)


def read_folder(
    root: str | Listing, split: str, notes: list[str], *, resize=None, skip_unreadable: bool = False, part=None
) -> Found:
    """Read the pictures of a folder, class by class, by name; grey where all are grey, else RGB.

    Args:
        root: what holds a folder for each class, with pictures at any depth; or such folders in train and test; or
            pictures only, which then have no labels. Hidden files, and those whose ending pillow does not know, are
            left out, which a note says. Or a folder that was listed before.
        resize: (H, W) that all pictures are stretched to; None: they have one size.
        skip_unreadable: whether pictures that cannot be read are left out, with a note, and not refused.
        part: see `part_of`.
    """
    from PIL import Image

    listing = root if isinstance(root, Listing) else list_folder(root, split)
    rows = range(listing.total)[listing.rows]
    rows = rows[part_of(part, len(rows))]
    conversions, skipped, labels = collections.Counter(), [], []
    listed = ((os.path.join(folder, name), label) for folder, names, label in listing.folders for name in names)

    def decode_each() -> Iterator[tuple[str, np.ndarray]]:
        way = 'delete it, or go on without it by skip_unreadable=True (--skip-unreadable)'
        for path, label in itertools.islice(listed, rows.start, rows.stop, rows.step):
            try:
                with reading(spell(path), way), Image.open(path) as image:
                    pixels = pictures.decode(image, conversions)
            except ValueError:
                if not skip_unreadable:
                    raise
                skipped.append(spell(path))
                continue
            labels.append(label)
            yield spell(path), pixels

    images = pictures.gather(decode_each(), len(rows), resize, conversions)
    notes += pictures.describe(conversions)
    if skipped:
        notes.append(f'images that could not be read were skipped ({len(skipped)} of them, the first {skipped[0]}).')
    notes += listing.notes
    return Found(images, None if None in labels else np.array(labels, np.int32), listing.classes)


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


def _list_pictures(root, classes, ignored) -> Iterator[tuple[str, list[str], int | None]]:
    """Give folders of a split, the pictures in each, and their class, or refuse what is no data set."""
    found, names = _scan(root, ignored)
    way = 'put each into the folder of its class, root/class/name.png, or all into one folder'
    require(not (found and names), f'{spell(root)} holds images as well as folders; {way}.')
    if not found:
        suffixes = ', '.join(kind for kind, _ in ignored.most_common(3))
        among = f' among its {ignored.total()} files ({suffixes})' if ignored else ''
        require(bool(names), f'{spell(root)} holds no images that pillow reads{among}; {way}.')
        yield root, names, None
        return
    strange = [name for name in found if name not in classes]
    require(not strange, f'{spell(root)} holds {spell(", ".join(strange[:3]))}, which train lacks; make them one set.')
    for name in sort_names(found):
        folder = os.path.join(root, name)
        listed = [(*part, classes.index(name)) for part in _walk(folder, {os.path.realpath(root)}, ignored)]
        is_empty = not any(names for _, names, _ in listed)
        require(not is_empty, f'{spell(folder)} holds no images; remove this empty class, or fill it.')
        yield from listed


def _walk(folder, above, ignored) -> Iterator[tuple[str, list[str]]]:
    """Go through a folder and all below it; `above` are those it lies in."""
    real = os.path.realpath(folder)
    require(real not in above, f'{spell(folder)} leads back to a folder that it lies in; remove this link.')
    folders, names = _scan(folder, ignored)
    yield folder, names
    for name in folders:
        yield from _walk(os.path.join(folder, name), above | {real}, ignored)

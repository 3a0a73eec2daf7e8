"""One picture, as pillow opens it, as pixels [H, W, C]: uint8, uint16 of 16-bit grey, float32 of TIFF's numbers.

Palettes, CMYK and the like become RGB, or grey where all their colours are. Alpha is dropped where it is opaque, else
the picture is composed on black. Of animations the first frame counts. EXIF tells which way is up.
"""

import collections
import functools
import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from hebbjax.support.checks import check_memory, require

_ANIMATED = 'of animated images the first frame was taken'
_TRANSPARENT = 'images that are transparent in places were composed on black'
_DEEP = 'of images with 16 bits a colour pillow read 8'
_GREY_AMONG_RGB = 'grey images among RGB ones became RGB'


@functools.cache
def picture_suffixes() -> frozenset[str]:
    """Give the endings of all files that pillow may read, in small letters."""
    from PIL import Image

    known = Image.registered_extensions()
    return frozenset(suffix for suffix, form in known.items() if form in Image.OPEN or form == 'MPO')


def decode(image, conversions: collections.Counter) -> np.ndarray:
    """Decode an open picture to [H, W, C]; what was done to it is counted in `conversions`."""
    from PIL import Image, ImageOps

    conversions[_ANIMATED] += getattr(image, 'is_animated', False)
    conversions[_DEEP] += image.mode in ('RGB', 'RGBA') and ';16' in str(getattr(image, 'tile', ''))
    is_grey, mode = _is_grey(image), image.mode
    if 'exif' in image.info:
        image = ImageOps.exif_transpose(image)
    if mode in ('I', 'F') or mode.startswith('I;16'):
        return np.asarray(image, np.float32 if mode in ('I', 'F') else np.uint16)[..., None]
    if image.has_transparency_data:
        image = image.convert('RGBA')
        if image.getchannel('A').getextrema()[0] < 255:
            conversions[_TRANSPARENT] += 1
            image = Image.alpha_composite(Image.new('RGBA', image.size, (0, 0, 0, 255)), image)
    mode = 'L' if is_grey else 'RGB'
    pixels = np.asarray(image if image.mode == mode else image.convert(mode))
    return pixels[..., None] if is_grey else pixels


def gather(
    pictures: Iterable[tuple[str, np.ndarray]], count: int, resize: Any, conversions: collections.Counter | None = None
) -> np.ndarray:
    """Put pictures, `count` at most, one by one into one array [n, H, W, C]: RGB if one is, of 16 bits if one has them.

    A picture is what a sentence calls it, and pixels [H, W, C]; `resize` is the (H, W) to stretch them to, or None.
    """
    images: Any = None
    first, row, grey = '', 0, 0
    for name, pixels in pictures:
        pixels = pixels if resize is None else resize_pixels(pixels, resize)
        if images is None:
            check_memory(count * pixels.nbytes, f'an array of {count} images', 'resize them')
            images, first = np.empty((count, *pixels.shape), pixels.dtype), name
        grey += pixels.shape[2] == 1
        if images.shape[3] == 1 and pixels.shape[2] == 3:
            images = np.repeat(images, 3, 3)
        if {images.dtype, pixels.dtype} == {np.dtype(np.uint8), np.dtype(np.uint16)}:
            images, pixels = (part if part.dtype == np.uint16 else part * np.uint16(257) for part in (images, pixels))
        fits = pixels.shape[:2] == images.shape[1:3] and pixels.shape[2] in (1, images.shape[3])
        what = f'{name} is {_spell(pixels)} and {first} {_spell(images[0])}'
        way = 'give images of one kind, or resize=28 (--resize), say, where sizes differ'
        require(fits and pixels.dtype == images.dtype, f'{what}; {way}.')
        images[row] = pixels
        row += 1
    require(row > 0, f'none of the {count} images can be read; give others.')
    if conversions is not None and images.shape[3] == 3:
        conversions[_GREY_AMONG_RGB] += grey
    return images[:row]


def _spell(pixels) -> str:
    return f'{" x ".join(map(str, pixels.shape))} {pixels.dtype}'


def resize_pixels(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Stretch pixels [H, W, C] to a size (H, W), by pillow's bilinear filter; bool becomes float32."""
    from PIL import Image

    if pixels.shape[:2] == size:
        return pixels
    check_memory(math.prod(size) * pixels.shape[2], f'an image of {size[0]} x {size[1]}', 'resize to less')
    way = {'size': size[::-1], 'resample': Image.Resampling.BILINEAR}
    if pixels.dtype == np.uint8 and pixels.shape[2] in (1, 3):
        image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else np.ascontiguousarray(pixels))
        return np.asarray(image.resize(**way)).reshape(*size, -1)
    planes = [Image.fromarray(plane.astype(np.float32)).resize(**way) for plane in np.moveaxis(pixels, 2, 0)]
    resized = np.stack(planes, 2)  # pillow resizes floats one channel at a time
    return np.rint(resized).astype(pixels.dtype) if pixels.dtype.kind in 'ui' else resized


def describe(conversions: collections.Counter) -> list[str]:
    """Make a sentence each of what was counted."""
    return [f'{what} ({count} of them).' for what, count in conversions.items() if count]


def _is_grey(image) -> bool:
    if image.mode in ('P', 'PA'):
        colours = np.reshape(image.getpalette('RGB'), (-1, 3))
        return bool((colours == colours[:, :1]).all())
    return image.mode in ('1', 'L', 'LA', 'La', 'I', 'F') or image.mode.startswith('I;16')

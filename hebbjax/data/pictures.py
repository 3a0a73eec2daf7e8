"""One picture, as pillow opens it, as pixels [H, W, C]: uint8, uint16 of 16-bit grey, float32 of TIFF's numbers.

Palettes, CMYK and the like become RGB, or grey where all their colours are. Alpha is dropped where it is opaque, else
the picture is composed on black. Of animations the first frame counts. EXIF tells which way is up.
"""

import collections
import functools
from typing import NamedTuple

import numpy as np

from hebbjax.support.checks import check_count, require, show

_ORIENTATION = 0x0112  # the EXIF tag
_ANIMATED = 'of animated images the first frame was taken'
_TRANSPARENT = 'images that are transparent in places were composed on black'
_DEEP = 'of images with 16 bits a colour pillow read 8'
GREY_AMONG_RGB = 'grey images among RGB ones became RGB'


class Look(NamedTuple):
    """What the header of a picture tells before it is decoded."""

    size: tuple[int, int]  # (H, W), upright
    channels: int  # 1 or 3
    dtype: np.dtype


@functools.cache
def picture_suffixes() -> frozenset[str]:
    """Give the endings of all files that pillow may read, in small letters."""
    from PIL import Image

    known = Image.registered_extensions()
    return frozenset(suffix for suffix, form in known.items() if form in Image.OPEN or form == 'MPO')


def look_at(image) -> Look:
    """Tell size, channels and dtype of an open picture, from its header alone but for palettes."""
    width, height = image.size
    size = (width, height) if _orientation(image) >= 5 else (height, width)  # 5 to 8 lie on their side
    deep = {'I': np.float32, 'F': np.float32}.get(image.mode, np.uint16 if image.mode[:4] == 'I;16' else np.uint8)
    return Look(size, 1 if _is_grey(image) else 3, np.dtype(deep))


def decode(image, told: collections.Counter) -> np.ndarray:
    """Decode an open picture to [H, W, C], as `look_at` foretells; what was done to it is counted in `told`."""
    from PIL import Image, ImageOps

    told[_ANIMATED] += getattr(image, 'is_animated', False)
    told[_DEEP] += image.mode in ('RGB', 'RGBA') and ';16' in str(getattr(image, 'tile', ''))
    is_grey, dtype = _is_grey(image), look_at(image).dtype
    if _orientation(image) != 1:
        image = ImageOps.exif_transpose(image)
    if dtype != np.uint8:
        return np.asarray(image, dtype)[..., None]
    if image.has_transparency_data:
        image = image.convert('RGBA')
        if image.getchannel('A').getextrema()[0] < 255:
            told[_TRANSPARENT] += 1
            image = Image.alpha_composite(Image.new('RGBA', image.size, (0, 0, 0, 255)), image)
    mode = 'L' if is_grey else 'RGB'
    pixels = np.asarray(image if image.mode == mode else image.convert(mode))
    return pixels[..., None] if is_grey else pixels


def sides_of(resize) -> tuple[int, int]:
    """Give (H, W) of a side, or of (H, W)."""
    sides = tuple(resize) if isinstance(resize, tuple | list) else (resize, resize)
    require(len(sides) == 2, f'resize={show(resize)} is out of range; use a side in pixels, or (H, W).')
    for side in sides:
        check_count('resize', side)
    return sides


def resize_pixels(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Stretch pixels [H, W, C] to a size (H, W), by means over what falls into a pixel; bool becomes float32."""
    from PIL import Image

    if pixels.shape[:2] == size:
        return pixels
    way = {'size': size[::-1], 'resample': Image.Resampling.BILINEAR}
    if pixels.dtype == np.uint8 and pixels.shape[2] in (1, 3):
        image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else np.ascontiguousarray(pixels))
        return np.asarray(image.resize(**way)).reshape(*size, -1)
    planes = [Image.fromarray(plane.astype(np.float32)).resize(**way) for plane in np.moveaxis(pixels, 2, 0)]
    resized = np.stack(planes, 2)  # pillow resizes floats one channel at a time
    return np.rint(resized).astype(pixels.dtype) if pixels.dtype.kind in 'ui' else resized


def resize_images(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Stretch images [n, H, W, C] to a size (H, W), one by one into one array."""
    first = resize_pixels(images[0], size)
    resized = np.empty((len(images), *first.shape), first.dtype)
    for index, pixels in enumerate(images):
        resized[index] = resize_pixels(pixels, size)
    return resized


def fits_into(pixels: np.ndarray, others: np.ndarray) -> bool:
    """Say whether pixels fit into an array of others: of one kind, but grey ones fit RGB too."""
    same = pixels.shape[:2] == others.shape[:2] and pixels.dtype == others.dtype
    return same and pixels.shape[2] in (1, others.shape[2])


def tell(told: collections.Counter) -> list[str]:
    """Make a sentence each of what was counted."""
    return [f'{what} ({count} of them).' for what, count in told.items() if count]


def _orientation(image) -> int:
    return image.getexif().get(_ORIENTATION, 1) if 'exif' in image.info else 1


def _is_grey(image) -> bool:
    if image.mode in ('P', 'PA'):
        colours = np.reshape(image.getpalette('RGB'), (-1, 3))
        return bool((colours == colours[:, :1]).all())
    return image.mode in ('1', 'L', 'LA', 'La', 'I', 'F') or image.mode.startswith('I;16')

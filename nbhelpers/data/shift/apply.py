"""Applies given shift parameters to one image and its mask.

Rotation, crop and translation are one affine map of both the image and the mask. Then the image
alone gets illumination, brightness, contrast, saturation (with the formulas of torchvision's
ColorJitter), blur and noise, in this order. Values are rounded and clipped once, at the end.

Everything is computed in double precision by NumPy, SciPy and Pillow, so that rounding gives the
same pixels on every processor. OpenCV's warp and blur have single precision, and their last digits
depend on the processor's vector instructions.

Lengths in pixels (blur, noise grain, the rounding of the illumination) refer to an image of 224 px
and grow with the image. A blur of 3 px or white noise drawn at 1024 px would almost vanish when the
image is shrunk for the network, and one setting would be another shift for each image size.
"""

from __future__ import annotations

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from nbhelpers.data.shift.parameters import ShiftParameters

REFERENCE_SIZE = 224  # side of the image to which the configured lengths in pixels refer
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as in torchvision


def _scale(shape: tuple[int, int]) -> float:
    """Pixels of this image per pixel at ``REFERENCE_SIZE``; by area, for images that are not square."""
    return float(np.sqrt(shape[0] * shape[1])) / REFERENCE_SIZE


def geometric_matrix(shape: tuple[int, int], parameters: ShiftParameters) -> np.ndarray:
    """The ``(2, 3)`` affine map from a pixel (x, y) of the source to its position in the shifted image.

    The source is rotated about its centre and moved; then a window of the frame is enlarged to the
    full frame.

    Args:
        shape: Height and width of the image, pixels.
        parameters: The parameters of the shift.
    """
    height, width = shape
    size = np.array([width, height], float)
    center = (size - 1) / 2
    window = np.sqrt(
        parameters.crop_scale * np.array([parameters.crop_aspect, 1 / parameters.crop_aspect])
    )
    offset = (np.array([parameters.crop_x, parameters.crop_y]) - 0.5) * (1 - window) * size
    move = np.array([parameters.translation_x, parameters.translation_y]) * size
    angle = np.deg2rad(parameters.rotation_degrees)
    turn = np.array(
        [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]
    )  # y points down
    linear = np.diag(1 / window) @ turn
    shift = center + (move - offset) / window - linear @ center
    return np.column_stack([linear, shift])


def _inverse(shape: tuple[int, int], parameters: ShiftParameters) -> np.ndarray:
    """The ``(2, 3)`` inverse map, from a pixel (x, y) of the shifted image to its position in the
    source.
    """
    (a, b, x), (c, d, y) = geometric_matrix(shape, parameters)
    back = np.array([[d, -b], [-c, a]]) / (a * d - b * c)
    return np.column_stack([back, -(back[:, 0] * x + back[:, 1] * y)])


def _is_moved(parameters: ShiftParameters) -> bool:
    """Whether the affine map changes anything."""
    still = ShiftParameters()
    names = ("rotation_degrees", "crop_scale", "crop_aspect", "translation_x", "translation_y")
    return any(getattr(parameters, name) != getattr(still, name) for name in names)


def _warp_image(pixels: np.ndarray, parameters: ShiftParameters) -> np.ndarray:
    """Warp ``(H, W, C)`` values in grey levels by cubic interpolation; mirror them beyond the frame.

    The window is never larger than the image, so nothing shrinks and nothing aliases. Cubic
    interpolation keeps 93 % of the fine texture of the magnetic tiles at 224 px, linear
    interpolation only 77 %; its blur would be a further shift that is not configured.
    """
    height, width = pixels.shape[:2]
    back = _inverse((height, width), parameters)
    corners = back @ [[0, width - 1, 0, width - 1], [0, 0, height - 1, height - 1], [1, 1, 1, 1]]
    reach = 3  # pixels around a position that its interpolation may read
    beyond = [
        (
            max(0, reach - int(np.floor(positions.min()))),
            max(0, reach + int(np.ceil(positions.max())) - last),
        )
        for positions, last in zip(corners, (width - 1, height - 1), strict=True)
    ]
    # Pillow counts from a pixel's corner, half a pixel before its centre
    origin = back[:, 2] + [beyond[0][0], beyond[1][0]] + 0.5 - 0.5 * back[:, :2].sum(1)
    coefficients = (*back[0, :2], origin[0], *back[1, :2], origin[1])
    warped = np.empty(pixels.shape)
    for channel in range(pixels.shape[2]):
        plane = np.pad(
            pixels[:, :, channel].astype(np.float32), (beyond[1], beyond[0]), mode="reflect"
        )
        picture = Image.fromarray(plane).transform(
            (width, height), Image.Transform.AFFINE, coefficients, Image.Resampling.BICUBIC
        )
        warped[:, :, channel] = np.asarray(picture)
    return warped


def _mirror(index: np.ndarray, count: int) -> np.ndarray:
    """Mirror indices beyond ``[0, count)`` at the first and the last one, as ``np.pad`` does with
    ``mode="reflect"``.
    """
    period = max(1, 2 * (count - 1))
    index = np.abs(index) % period
    return np.minimum(index, period - index)


def warp_mask(
    mask: np.ndarray, parameters: ShiftParameters, *, mirrored: bool = True
) -> np.ndarray:
    """Warp an ``(H, W)`` 0/1 uint8 mask; it stays 0/1.

    It takes the nearest neighbour. With a map that never shrinks, this keeps areas without bias,
    also of single pixels and thin scratches; a threshold on interpolated coverage would remove 39 %
    of all single pixels.

    Args:
        mask: ``(H, W)`` uint8 of 0 and 1.
        parameters: The parameters of the shift.
        mirrored: Whether the mask is mirrored beyond the frame like the image, so that each pixel
            has the label of the pixel that it shows. A copy of a defect in the mirrored strip looks
            anomalous to any detector, and labelled good it would make a correct finding a false
            alarm. If False, all pixels from beyond the frame are good.
    """
    if not _is_moved(parameters):
        return mask.copy()
    height, width = mask.shape
    x, y = np.arange(width)[None, :], np.arange(height)[:, None]
    column, row = (
        np.rint(a * x + b * y + c).astype(int) for a, b, c in _inverse(mask.shape, parameters)
    )
    warped = mask[_mirror(row, height), _mirror(column, width)]
    if not mirrored:
        warped[(row < 0) | (row >= height) | (column < 0) | (column >= width)] = 0
    return warped


def mirrored_pixels(mask: np.ndarray, parameters: ShiftParameters) -> int:
    """The number of defect pixels of the shifted mask that lie in the mirrored strip."""
    return int(warp_mask(mask, parameters).sum()) - int(
        warp_mask(mask, parameters, mirrored=False).sum()
    )


def _ramp(position: np.ndarray, sigma: float) -> np.ndarray:
    """A ramp over positions in [0, 1], exactly 0 at 0 and 1 at 1, whose ends a Gaussian rounds.

    The blur alone would pull both ends towards the middle (at sigma 80 of 224 to 0.28 and 0.72),
    and the gradient would be weaker than configured. So the blurred ramp is stretched back.
    """
    samples = np.linspace(0, 1, 1025)
    rounded = gaussian_filter1d(
        samples, sigma / REFERENCE_SIZE * (len(samples) - 1), mode="reflect"
    )
    rounded = (rounded - rounded[0]) / (rounded[-1] - rounded[0])
    return np.interp(position, samples, rounded)


def illumination_gain(shape: tuple[int, int], parameters: ShiftParameters) -> np.ndarray:
    """The factor on each pixel's light, ``(H, W)`` float64, from exactly ``illumination_strength`` to
    exactly 1.
    """
    height, width = shape
    if not parameters.illumination_applied:
        return np.ones(shape)
    across, down = np.linspace(0, 1, width)[None, :], np.linspace(0, 1, height)[:, None]
    direction = parameters.illumination_direction
    if parameters.illumination_kind == "linear":
        darkness = {"left": across, "right": 1 - across, "top": down, "bottom": 1 - down}[direction]
    else:
        radius = np.hypot((across - 0.5) * width, (down - 0.5) * height)
        # an even number of pixels has no middle pixel; then the innermost ones are the centre
        radius = (radius - radius.min()) / max(float(np.ptp(radius)), np.finfo(float).tiny)
        darkness = 1 - radius if direction == "center_dark" else radius
    dark = _ramp(darkness, parameters.illumination_sigma)
    return np.broadcast_to(parameters.illumination_strength * dark + (1 - dark), shape)


def _blur(pixels: np.ndarray, parameters: ShiftParameters) -> np.ndarray:
    scale = _scale(pixels.shape[:2])
    radius = max(1, round(parameters.blur_kernel // 2 * scale))
    return gaussian_filter(
        pixels, parameters.blur_sigma * scale, radius=radius, axes=(0, 1), mode="mirror"
    )


def _noise(shape: tuple[int, int, int], parameters: ShiftParameters) -> np.ndarray:
    """Gaussian noise in grey levels, white up to 224 px; above, its grain grows with the image."""
    rng = np.random.default_rng(parameters.noise_seed)
    grain = rng.standard_normal(shape, dtype=np.float32)
    scale = _scale(shape[:2])
    if scale > 1:
        # half a pixel at 224 px: an image of 1024 px that is shrunk to 224 px keeps 86 % of the
        # noise's deviation; with white noise it would keep 20 %
        grain = gaussian_filter(grain.astype(float), 0.5 * scale, axes=(0, 1), mode="mirror")
        grain /= grain.std()
    return grain * (255 * parameters.noise_sigma)


def _grey(pixels: np.ndarray) -> np.ndarray:
    """Luma ``(H, W)`` of ``(H, W, 3)`` values; of ``(H, W, 1)`` values, these values."""
    if pixels.shape[2] == 1:
        return pixels[:, :, 0]
    red, green, blue = LUMA
    return red * pixels[:, :, 0] + green * pixels[:, :, 1] + blue * pixels[:, :, 2]


def _photometric(image: np.ndarray, parameters: ShiftParameters) -> np.ndarray:
    """Apply illumination to noise to ``(H, W, C)`` float64 grey levels; C is 1 for a grey image."""
    pixels = image * illumination_gain(image.shape[:2], parameters)[:, :, None]
    pixels *= parameters.brightness
    if parameters.contrast != 1:
        grey_mean = _grey(pixels).mean()
        pixels = parameters.contrast * pixels + (1 - parameters.contrast) * grey_mean
    if parameters.saturation != 1:
        pixels = (
            parameters.saturation * pixels + (1 - parameters.saturation) * _grey(pixels)[:, :, None]
        )
    if parameters.blur_applied:
        pixels = _blur(pixels, parameters)
    if parameters.noise_applied:
        pixels += _noise(pixels.shape, parameters)
    return pixels


def apply_shift(
    image: np.ndarray, mask: np.ndarray | None, parameters: ShiftParameters
) -> tuple[np.ndarray, np.ndarray | None]:
    """Shift one image and its mask.

    Args:
        image: ``(H, W, 3)`` uint8 RGB of any size. A grey image (equal channels) stays grey.
        mask: ``(H, W)`` uint8 of 0 and 1, or None.
        parameters: From ``sample_parameters``.

    Returns:
        Image and mask of the same sizes and types; equal to the input when all parameters have
        their default values.
    """
    grey = bool((image == image[:, :, :1]).all())
    pixels = image[:, :, : 1 if grey else 3].astype(float)
    if _is_moved(parameters):
        pixels = _warp_image(pixels, parameters)
    pixels = _photometric(pixels, parameters)
    shifted = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
    if grey:
        shifted = np.repeat(shifted, 3, axis=2)
    return shifted, None if mask is None else warp_mask(mask, parameters)

"""Bands that look like real ones, for timings: relief, fields with sharp edges, rivers, a sensor's blur and noise.

The bits for each pixel, which decide how long decoding takes, are those of bands of ESA (5 to 7).
"""

import numpy as np


def clouds(random, side, steepness):
    """Noise whose amplitude falls with frequency, mean 0, deviation 1."""
    size = 1 << (side - 1).bit_length()
    spectrum = np.fft.rfft2(random.standard_normal((size, size), dtype=np.float32))
    rows = np.fft.fftfreq(size).astype(np.float32)[:, None]
    cols = np.fft.rfftfreq(size).astype(np.float32)[None, :]
    frequency = np.hypot(rows, cols)
    frequency[0, 0] = np.inf
    spectrum *= frequency**-steepness
    noise = np.fft.irfft2(spectrum, s=(size, size))[:side, :side].astype(np.float32)
    return (noise - noise.mean()) / noise.std()


def band(side, seed=7):
    """DN of a band: `[row, column]`, u16 of 15 bits."""
    random = np.random.default_rng(seed)
    relief, canopy = clouds(random, side, 1.5), clouds(random, side, 1.0)
    # Fields: a skewed grid, bent by a smooth shift, each cell of one brightness.
    bend = 20 * clouds(random, side, 1.7)
    row, col = np.arange(side, dtype=np.float32)[:, None], np.arange(side, dtype=np.float32)[None, :]
    across = ((0.9 * col + 0.4 * row + bend) // 37).astype(np.int64)
    down = ((0.9 * row - 0.4 * col + bend) // 31).astype(np.int64)
    brightness = random.gamma(4, 110, 1 << 14).astype(np.float32)
    fields = brightness[(across * 2654435761 ^ down * 40503) % (1 << 14)]
    dn = 700 + 220 * relief + np.where(clouds(random, side, 1.5) > 0.1, fields, 40 * canopy)
    dn = np.where(np.abs(bend) < 0.2, 200, dn)
    # The sensor: a pixel sees a little of its neighbours, and noise grows with the signal.
    for axis in (0, 1):
        dn = 0.6 * dn + 0.2 * (np.roll(dn, 1, axis) + np.roll(dn, -1, axis))
    dn += random.standard_normal(dn.shape, dtype=np.float32) * (2 + 0.0045 * np.abs(dn))
    return np.clip(np.rint(dn), 1, 32767).astype(np.uint16)

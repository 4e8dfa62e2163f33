"""Makes band_uint15_512_tiles256.jp2, a seeded band as Sentinel-2 stores it: 15 bits, lossless 5/3, 64 x 64 code-blocks.

    python make_jp2.py        # rasterio 1.4.4 (GDAL 3.10.3, OpenJPEG 2.5), numpy

Prints the sum of the samples and the same weighted by row * 7 + col * 13, which the bench checks.
"""

from pathlib import Path

import numpy as np
import rasterio

SIDE, TILE = 512, 256
random = np.random.default_rng(2)


def surface(octaves):
    """Smooth noise: bilinear interpolation of random grids, each octave finer and weaker."""
    total = np.zeros((SIDE, SIDE))
    for octave in range(octaves):
        cells = 4 << octave
        grid = random.standard_normal((cells + 1, cells + 1))
        at = np.linspace(0, cells, SIDE, endpoint=False)
        low = at.astype(int)
        t = at - low
        rows = grid[low] * (1 - t)[:, None] + grid[low + 1] * t[:, None]
        total += (rows[:, low] * (1 - t) + rows[:, low + 1] * t) / 1.8**octave
    return total


dn = 1900 + 350 * surface(7) + 12 * random.standard_normal((SIDE, SIDE))
dn = np.clip(np.rint(dn), 1, 32767).astype(np.uint16)
dn[:, :30] = 0  # nodata at the swath's edge

path = Path(__file__).parent / "band_uint15_512_tiles256.jp2"
with rasterio.open(
    path, "w", driver="JP2OpenJPEG", height=SIDE, width=SIDE, count=1, dtype="uint16",
    QUALITY=100, REVERSIBLE="YES", RESOLUTIONS=5, BLOCKXSIZE=TILE, BLOCKYSIZE=TILE, NBITS=15,
) as file:
    file.write(dn, 1)
with rasterio.open(path) as file:
    assert (file.read(1) == dn).all()
path.with_suffix(".jp2.aux.xml").unlink(missing_ok=True)

row, col = np.indices(dn.shape, dtype=np.uint64)
print("bytes", path.stat().st_size)
print("sum", int(dn.sum(dtype=np.uint64)))
print("weighted", int(((row * 7 + col * 13) * dn).sum()))

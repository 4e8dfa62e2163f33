"""The same work as the benches, done by Python's libraries, under the same names.

    python peers/peers.py [filter]      # from the folder benches; rasterio 1.4.4 (GDAL 3.10.3), numpy, scikit-learn

Prints the best of several runs, in milliseconds, of functions that check their result first. The inputs are seeded,
of the same size and structure as those of the benches but not the same pixels (band and window of s2_jp2 are).
GDAL decodes JPEG 2000 with OpenJPEG and uses all cores, as we do.
"""

import os
import sys
import time
import warnings
from pathlib import Path

os.environ["GDAL_NUM_THREADS"] = "ALL_CPUS"

import numpy as np
import rasterio
import rasterio.features
from rasterio.io import MemoryFile
from rasterio.transform import from_origin
from rasterio.windows import Window
from sklearn.metrics import confusion_matrix

warnings.simplefilter("ignore")
SIDE = 2048
TRANSFORM = from_origin(600000, 1000020, 10, 10)
random = np.random.default_rng(1)


def surface(side):
    total = np.zeros((side, side))
    for cell, weight in [(64, 0.6), (16, 0.3), (4, 0.1)]:
        grid = random.random((side // cell + 2, side // cell + 2))
        at = np.arange(side)
        low, t = at // cell, at % cell / cell
        rows = grid[low] * (1 - t)[:, None] + grid[low + 1] * t[:, None]
        total += weight * (rows[:, low] * (1 - t) + rows[:, low + 1] * t)
    return total


def dn():
    band = (1000 + 5000 * surface(SIDE) + 40 * random.random((SIDE, SIDE))).astype(np.uint16)
    row, col = np.indices(band.shape)
    band[col * 16 < SIDE - row] = 0
    return band


def time_of(name, function, check=lambda result: True):
    if len(sys.argv) > 1 and sys.argv[1] not in name:
        return
    assert check(function()), name
    best = float("inf")
    started = time.perf_counter()
    while time.perf_counter() - started < 3:
        start = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - start)
    print(f"{name:50} {best * 1e3:9.2f} ms")


def read(file, window=None):
    with file.open() as opened:
        return opened.read(window=window)


# s2_jp2
codestream = (Path(__file__).parent.parent / "data" / "band_uint15_512_tiles256.jp2").read_bytes()
jp2 = MemoryFile(codestream, ext=".jp2")
time_of("s2_jp2/decode/gdal/512", lambda: read(jp2), lambda band: band.sum() == 457644077)
time_of("s2_jp2/decode_window/gdal/200", lambda: read(jp2, Window(280, 20, 200, 200)))

# s2_io
stack = np.stack([dn() for _ in range(4)])
path = "/vsimem/stack.tif"
profile = dict(driver="COG", height=SIDE, width=SIDE, count=4, dtype="uint16", crs="EPSG:32629", transform=TRANSFORM,
               nodata=0, compress="DEFLATE", predictor=2, blocksize=512, overview_resampling="average")


def write():
    with rasterio.open(path, "w", **profile) as file:
        file.write(stack)


def read_path(window=None):
    with rasterio.open(path) as file:
        return file.read(window=window)


write()
time_of("s2_io/write_cog/gdal/2048", write, lambda _: (read_path() == stack).all())
time_of("s2_io/read/gdal/2048", read_path, lambda data: (data == stack).all())
time_of("s2_io/read_window/gdal/572", lambda: read_path(Window(900, 700, 572, 572)))

# s2_scl
scl = (surface(SIDE) * 12).clip(0, 11).astype(np.uint8)
classes = np.arange(12, dtype=np.uint8)[:, None, None]
time_of("s2_scl/one_hot/numpy/2048", lambda: (scl == classes).astype(np.float32), lambda x: x.sum() == SIDE * SIDE)
time_of("s2_scl/mask/numpy/2048", lambda: np.isin(scl, [0, 1, 8, 9]))
time_of("s2_scl/upsample_nearest/numpy/2048", lambda: scl.repeat(2, 0).repeat(2, 1))

# s2_normalize
band, excluded = stack[0], surface(SIDE) > 0.66
time_of("s2_normalize/percentiles/numpy/2048", lambda: np.percentile(band[(band != 0) & ~excluded], [2, 98]))
time_of("s2_normalize/normalize/numpy/2048",
        lambda: (2 * (band.astype(np.float32) - 1500) / 3000 - 1).clip(-1, 1), lambda x: x.dtype == np.float32)

# s2_patches
scene = random.random((24, 1200, 1200), dtype=np.float32)
time_of("s2_patches/extract/numpy-inside/572", lambda: scene[:, 300:872, 300:872].copy())
time_of("s2_patches/extract/numpy-corner/572",
        lambda: np.pad(scene[:, :480, :480], ((0, 0), (92, 0), (92, 0)), mode="reflect"),
        lambda x: x.shape == (24, 572, 572))

# s2_vector
mask = (surface(SIDE) > 0.66).astype(np.uint8)
shapes = [shape for shape, _ in rasterio.features.shapes(mask, mask.astype(bool), transform=TRANSFORM)]
time_of("s2_vector/polygonize/gdal/2048",
        lambda: list(rasterio.features.shapes(mask, mask.astype(bool), transform=TRANSFORM)))
time_of("s2_vector/rasterize/gdal/2048",
        lambda: rasterio.features.rasterize(shapes, (SIDE, SIDE), transform=TRANSFORM), lambda x: (x == mask).all())

# seg_metrics
truth, predicted = mask.astype(bool).ravel(), random.random(SIDE * SIDE) > 0.9
time_of("seg_metrics/confusion/scikit-learn/2048", lambda: confusion_matrix(truth, predicted))
time_of("seg_metrics/confusion/numpy/2048", lambda: np.bincount(truth * 2 + predicted, minlength=4),
        lambda counts: (counts.reshape(2, 2) == confusion_matrix(truth, predicted)).all())

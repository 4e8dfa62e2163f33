"""Golden values of numpy and GDAL for the tests of s2-normalize.

    python crates/s2-normalize/tests/data/make_golden.py

Made with Python 3.11.7, numpy 2.4.6, rasterio 1.4.4 (GDAL 3.10.3), seed 2022. Writes beside itself:

- percentiles.json: numpy.percentile (default method) of DN + offset over random DN without nodata and masked pixels;
  the large case is a formula of the pixel number, so that only its percentiles are stored
- scaling.json: reflectance and scaled values by numpy in f64, rounded to f32
- bilinear.json: GDAL bilinear resampling to half the pixel size, without and with nodata 0
"""

import json
from pathlib import Path

import numpy as np
from rasterio.transform import from_origin
from rasterio.warp import Resampling, reproject

here = Path(__file__).parent
rng = np.random.default_rng(2022)


def write(name, value):
    (here / name).write_text(json.dumps(value, separators=(",", ":")) + "\n")


def percentiles(valid):
    qs = [0.0, 0.1, 2.0, 12.5, 25.0, 100 / 3, 50.0, 75.0, 98.0, 99.9, 100.0]
    return [
        {"offset": offset, "q": q, "value": float(np.percentile(valid.astype(np.int32) + offset, q))}
        for offset in (0, -1000)
        for q in qs
    ]


cases = []
for shape, low, high in [((1, 1), 1, 65536), ((1, 2), 1, 65536), ((3, 1), 900, 1100), ((9, 11), 0, 65536),
                         ((8, 8), 0, 4), ((23, 31), 1000, 1400), ((17, 20), 0, 12000)]:
    dn = rng.integers(low, high, shape, dtype=np.uint16)
    excluded = rng.random(shape) < (0.3 if dn.size > 3 else 0.0)
    cases.append({
        "shape": shape,
        "dn": dn.ravel().tolist(),
        "excluded": np.flatnonzero(excluded).tolist(),
        "percentiles": percentiles(dn[(dn != 0) & ~excluded]),
    })

pixel = np.arange(1_000_003, dtype=np.uint64)
dn = (pixel * 2654435761 % 2**32 >> 17).astype(np.uint16)
excluded = pixel * 2246822519 % 2**32 >> 30 == 0
large = {"pixels": len(pixel), "percentiles": percentiles(dn[(dn != 0) & ~excluded])}
write("percentiles.json", {"cases": cases, "large": large})

scaling = []
for low, high, offset, quantification in [(0.0123, 0.2871, 0, 10000), (0.0123, 0.2871, -1000, 10000),
                                          (-0.0213, 0.99, -1000, 10000), (0.1, 0.1001, 0, 1000)]:
    dn = np.unique(np.concatenate([rng.integers(1, 5000, 60), rng.integers(1, 65536, 20), [1, 1000, 65535]]))
    reflectance = (dn + offset) / quantification
    scaled = np.clip(2 * (reflectance - low) / (high - low) - 1, -1, 1)
    scaling.append({
        "low": low, "high": high, "offset": offset, "quantification": quantification, "dn": dn.tolist(),
        "reflectance": reflectance.astype(np.float32).astype(float).tolist(),
        "scaled": scaled.astype(np.float32).astype(float).tolist(),
    })
write("scaling.json", scaling)


def resample(dn, nodata):
    fine = np.zeros((2 * dn.shape[0], 2 * dn.shape[1]), dn.dtype)
    place = {"src_crs": "EPSG:32629", "dst_crs": "EPSG:32629", "src_transform": from_origin(600000, 1000020, 20, 20)}
    reproject(dn, fine, dst_transform=from_origin(600000, 1000020, 10, 10), resampling=Resampling.bilinear,
              src_nodata=nodata, dst_nodata=nodata, **place)
    return fine


bilinear = []
for name, dn, nodata in [
    ("random", rng.integers(1, 65536, (14, 17), dtype=np.uint16), None),
    ("dark", rng.integers(1, 60, (20, 9), dtype=np.uint16), None),
    ("nodata", rng.integers(1, 12000, (16, 16), dtype=np.uint16) * (rng.random((16, 16)) > 0.3), 0),
]:
    dn = dn.astype(np.uint16)
    fine = resample(dn, nodata)
    bilinear.append({"name": name, "shape": dn.shape, "dn": dn.ravel().tolist(), "fine": fine.ravel().tolist()})
write("bilinear.json", bilinear)

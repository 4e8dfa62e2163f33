"""Checks GeoTIFFs that `geotiff_write.rs` wrote, with GDAL's reader and the validator of rio-cogeo.

    python check_with_gdal.py FOLDER

Needs rasterio (1.4.4, GDAL 3.10.3), rio-cogeo and numpy. For each `NAME.json` in the folder, which says what
was asked for, `NAME.tif` must hold it; the samples are in `NAME.raw`, little-endian, by band, row and column.
Overviews are made again by the slow, obvious rule and must be equal.
"""

import json
import math
import sys
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import rasterio
from rasterio.errors import NotGeoreferencedWarning
from rio_cogeo.cogeo import cog_validate

warnings.simplefilter("ignore", NotGeoreferencedWarning)


def halve(data, rule, nodata):
    """The overview of `data` by a loop over its pixels."""
    bands, height, width = data.shape
    half = np.empty((bands, (height + 1) // 2, (width + 1) // 2), data.dtype)
    for band, row, col in np.ndindex(half.shape):
        pixels = data[band, 2 * row:2 * row + 2, 2 * col:2 * col + 2].ravel()
        valid = [p for p in pixels.tolist() if p != nodata and not math.isnan(p)]
        if rule == "nearest":
            value = pixels[0]
        elif not valid:
            value = pixels[0] if nodata is None else nodata
        elif rule == "mode":
            count = Counter(valid)
            value = max(valid, key=lambda p: count[p])  # `max` takes the first of equals
        else:
            value = sum(valid) / len(valid)
            if data.dtype.kind in "iu":
                value = math.floor(abs(value) + 0.5) * (1 if value >= 0 else -1)
            if data.dtype.type(value) == nodata:
                value = valid[0]
        half[band, row, col] = value
    return half


def check(path, wanted):
    data = np.fromfile(path.with_suffix(".raw"), np.dtype(wanted["dtype"]).newbyteorder("<"))
    data = data.reshape(wanted["shape"]).astype(wanted["dtype"])
    bands, height, width = data.shape
    block = wanted["block_size"]
    with rasterio.open(path) as dataset:
        assert dataset.dtypes == (wanted["dtype"],) * bands, dataset.dtypes
        np.testing.assert_array_equal(dataset.read(), data)
        x0, dx, rx, y0, ry, dy = wanted["transform"]
        assert tuple(dataset.transform)[:6] == (dx, rx, x0, ry, dy, y0), dataset.transform
        epsg = dataset.crs.to_epsg() if dataset.crs else None
        assert epsg == wanted["epsg"], dataset.crs
        if epsg:  # the definition, not only the number
            assert dataset.crs == rasterio.crs.CRS.from_epsg(epsg)
        nodata = None if wanted["nodata"] is None else float(wanted["nodata"])
        assert str(dataset.nodata) == str(nodata), dataset.nodata
        assert [name or "" for name in dataset.descriptions] == wanted["band_names"]
        assert [list(pair) for pair in zip(dataset.scales, dataset.offsets)] == wanted["scale_offset"]
        tags = {key: value for key, value in dataset.tags().items() if key != "AREA_OR_POINT"}
        assert tags == wanted["metadata"], tags
        assert dataset.block_shapes == [(block, block)] * bands, dataset.block_shapes
        assert dataset.compression.name == wanted["compression"] and dataset.interleaving.name == ("pixel" if bands > 1 else "band")
        if wanted["colors"] is not None:
            colormap = dataset.colormap(1)
            for i in range(256):
                color = wanted["colors"][i] if i < len(wanted["colors"]) else [0, 0, 0]
                assert colormap[i] == (*color, 0 if i == nodata else 255), (i, colormap[i])
        interpretation = [band.name for band in dataset.colorinterp]
        if wanted["colors"] is not None:
            assert interpretation == ["palette"]
        elif bands == 3 and wanted["dtype"] == "uint8":
            assert interpretation == ["red", "green", "blue"]
        else:
            assert interpretation == ["gray"] + ["undefined"] * (bands - 1), interpretation
        levels = dataset.overviews(1)
    expected = []
    while wanted["overviews"] != "none" and max(data.shape[1:]) > block:
        data = halve(data, wanted["overviews"], nodata)
        expected.append(data)
    assert len(levels) == len(expected), levels
    for level, overview in enumerate(expected):
        with rasterio.open(path, overview_level=level) as dataset:
            assert str(dataset.nodata) == str(nodata), "nodata of an overview"
            np.testing.assert_array_equal(dataset.read(), overview)
    if wanted["overviews"] != "none" or max(height, width) <= 512:
        valid, errors, notes = cog_validate(path, strict=True, quiet=True)
        assert valid and not errors and not notes, (errors, notes)


def main():
    wanted = sorted(Path(sys.argv[1]).glob("*.json"))
    assert wanted, "nothing to check"
    for path in wanted:
        try:
            check(path.with_suffix(".tif"), json.loads(path.read_text()))
        except Exception as error:
            raise SystemExit(f"{path.stem}: {type(error).__name__} {error}") from error
    print(f"{len(wanted)} files are as asked for, rasterio {rasterio.__version__}, GDAL {rasterio.__gdal_version__}")


if __name__ == "__main__":
    main()

"""Makes the GeoTIFF fixtures of this folder and the golden values of the reading tests.

    python make_geotiff.py [SHARED_DATA]

Python 3.11, rasterio 1.4.4 (GDAL 3.10.3), numpy 2. Pixels are seeded; the golden values are what GDAL reads.
With SHARED_DATA the files of its folders `cogs_29RKH` and `tailings_brazil` are hashed as well
(`geotiff_shared.json`); without it that file stays as it is.

crc32: zlib.crc32 of all samples as little-endian bytes, in the order band, row, column.
"""

import json
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import rasterio
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import Affine

warnings.simplefilter("ignore", NotGeoreferencedWarning)
HERE = Path(__file__).parent
UTM = CRS.from_epsg(32629)
NORTH_UP = Affine(10, 0, 199980, 0, -10, 3400020)


def pixels(dtype, bands, height, width):
    """A smooth field with some noise, so that predictors and dictionaries have something to do."""
    random = np.random.default_rng(2022)
    band, row, col = np.ogrid[:bands, :height, :width]
    field = 90 + 60 * np.sin(row / 9 + band) * np.cos(col / 7) + random.integers(0, 4, (bands, height, width))
    if np.dtype(dtype).kind == "i":
        field = field - 100
    if np.dtype(dtype).itemsize > 1:
        field = field * 60
    return field.astype(dtype)


def write(name, dtype, shape=(1, 29, 37), crs=UTM, transform=NORTH_UP, nodata=None, edit=None, fill=True, **options):
    bands, height, width = shape
    path = HERE / f"{name}.tif"
    # Statistics and such would go to a side file, which the reader does not look at.
    with rasterio.Env(GDAL_PAM_ENABLED="NO"):
        with rasterio.open(path, "w", driver="GTiff", dtype=dtype, count=bands, height=height, width=width,
                           crs=crs, transform=transform, nodata=nodata, **options) as dataset:
            if fill:
                data = pixels(dtype, bands, height, width)
                if nodata is not None:
                    data[:, 3:9, 5:20] = nodata
                dataset.write(data)
            if edit:
                edit(dataset)


def describe(dataset):
    dataset.descriptions = ("B02", "", "B8A & \"co\"")
    dataset.scales = (0.0001, 1.0, 0.0001)
    dataset.offsets = (-0.1, 0.0, 0.0)
    dataset.update_tags(PRODUCT="S2A <test>", BASELINE="05.09")
    dataset.update_tags(ns="OTHER", HIDDEN="yes")
    dataset.update_tags(1, STATISTICS_MEAN="12")


def one_tile(dataset):
    data = pixels("uint16", 1, 16, 16)[0]
    dataset.write(data, 1, window=rasterio.windows.Window(16, 16, 16, 16))


def fixtures():
    tiled = dict(tiled=True, blockxsize=16, blockysize=16)
    write("strip_u8_none", "uint8", blockysize=7)
    write("strip_u8_packbits", "uint8", compress="packbits", blockysize=29)
    write("strip_i16_lzw_predictor2", "int16", compress="lzw", predictor=2, blockysize=5, nodata=-9999)
    write("strip_i32_planar_deflate_predictor2", "int32", (3, 20, 23), interleave="band", compress="deflate",
          predictor=2, blockysize=8)
    write("strip_u32_packbits", "uint32", (1, 11, 13), compress="packbits", blockysize=4)
    write("strip_f32_none_nodata_nan", "float32", (1, 17, 19), nodata=float("nan"), blockysize=3)
    write("strip_f64_lzw_predictor3", "float64", (2, 17, 19), compress="lzw", predictor=3, blockysize=6,
          interleave="pixel")
    write("tiled_u8_lzw_palette", "uint8", compress="lzw", nodata=0, **tiled, photometric="palette",
          edit=lambda d: d.write_colormap(1, {0: (0, 0, 0), 90: (255, 128, 0)}))
    write("tiled_u16_pixel_deflate_predictor2", "uint16", (3, 29, 37), compress="deflate", predictor=2,
          interleave="pixel", nodata=0, **tiled)
    write("tiled_u16_planar_lzw", "uint16", (3, 29, 37), compress="lzw", interleave="band", **tiled)
    write("tiled_u32_deflate_predictor2", "uint32", compress="deflate", predictor=2, **tiled)
    write("tiled_f32_deflate_predictor3", "float32", (2, 29, 37), compress="deflate", predictor=3,
          interleave="pixel", nodata=-1e30, **tiled)
    write("tiled_f32_deflate_predictor2", "float32", compress="deflate", predictor=2, **tiled)
    write("tiled_f64_planar_deflate_predictor3", "float64", (2, 29, 37), compress="deflate", predictor=3,
          interleave="band", **tiled)
    write("big_tiff_u16_lzw_predictor2", "uint16", compress="lzw", predictor=2, BIGTIFF="YES", **tiled)
    write("big_endian_u16_deflate_predictor2", "uint16", (2, 29, 37), compress="deflate", predictor=2,
          interleave="pixel", ENDIANNESS="BIG", **tiled)
    write("big_endian_big_tiff_f32_lzw_predictor3", "float32", compress="lzw", predictor=3, BIGTIFF="YES",
          ENDIANNESS="BIG", **tiled)
    write("big_endian_f64_none", "float64", (1, 9, 7), ENDIANNESS="BIG")
    write("sparse_u16_nodata_7", "uint16", (1, 40, 40), compress="deflate", nodata=7, SPARSE_OK="TRUE", fill=False,
          edit=one_tile, **tiled)
    write("metadata_u16", "uint16", (3, 5, 6), edit=describe)
    write("geographic_f32", "float32", (1, 5, 6), crs=CRS.from_epsg(4326), transform=Affine(9e-5, 0, -57.5, 0, -9e-5, -6.25))
    write("user_defined_crs_u8", "uint8", (1, 5, 6), crs=CRS.from_proj4("+proj=laea +lat_0=7 +lon_0=-5 +datum=WGS84"))
    write("rotated_u8", "uint8", (1, 5, 6), transform=Affine(8, 6, 500000, 6, -8, 100000))
    write("south_up_u8", "uint8", (1, 5, 6), transform=Affine(10, 0, 500000, 0, 10, 100000))
    write("no_georeference_u8", "uint8", (1, 5, 6), crs=None, transform=None)
    write("pixel_is_point_u8", "uint8", (1, 5, 6), edit=lambda d: d.update_tags(AREA_OR_POINT="Point"))
    write("overviews_u16", "uint16", (1, 70, 70), compress="deflate", **tiled,
          edit=lambda d: d.build_overviews([2, 4]))
    write("tiled_u16_pixel_zstd_predictor2", "uint16", (3, 29, 37), compress="zstd", predictor=2, interleave="pixel",
          nodata=0, **tiled)
    write("strip_f32_zstd_predictor3", "float32", (1, 17, 19), compress="zstd", predictor=3, blockysize=6)
    # What the reader must refuse.
    write("refused_lerc", "uint8", (1, 5, 6), compress="lerc")
    write("refused_complex", "complex64", (1, 5, 6))
    write("refused_4_bits", "uint8", (1, 5, 6), NBITS=4, photometric="minisblack")


def golden(path):
    with rasterio.open(path) as dataset:
        data = dataset.read()
        grid = dataset.transform
        return {
            "dtype": data.dtype.name,
            "shape": data.shape,
            "crc32": zlib.crc32(data.astype(data.dtype.newbyteorder("<")).tobytes()),
            "transform": [grid.c, grid.a, grid.b, grid.f, grid.d, grid.e],
            "epsg": dataset.crs.to_epsg() if dataset.crs else None,
            "nodata": None if dataset.nodata is None else str(dataset.nodata),
            "band_names": [name or "" for name in dataset.descriptions],
            "scales": dataset.scales,
            "offsets": dataset.offsets,
            "metadata": {k: v for k, v in dataset.tags().items() if k != "AREA_OR_POINT"},
        }


def main():
    fixtures()
    named = {p.name: golden(p) for p in sorted(HERE.glob("*.tif")) if not p.name.startswith("refused_")}
    (HERE / "geotiff_fixtures.json").write_text(json.dumps(named, indent=1) + "\n")
    if len(sys.argv) > 1:
        shared = Path(sys.argv[1])
        paths = [p for folder in ("cogs_29RKH", "tailings_brazil") for p in sorted((shared / folder).rglob("*.tif"))]
        named = {str(p.relative_to(shared)): golden(p) for p in paths}
        lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(values)}" for name, values in named.items())
        (HERE / "geotiff_shared.json").write_text("{\n" + lines + "\n}\n")


if __name__ == "__main__":
    main()

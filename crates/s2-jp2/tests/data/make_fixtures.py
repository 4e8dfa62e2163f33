"""Writes the small JPEG 2000 files of this folder and golden.json, what GDAL decodes from them. Of the irreversible
file all samples are kept (.gdal.raw), because its arithmetic is not exact.

Needs OpenJPEG's opj_compress 2.5.0, rasterio 1.4.4 (GDAL 3.10.3) and numpy; run it in this folder:
    python make_fixtures.py
The pixels are synthetic (seeded) and belong to nobody. The layouts follow bands of Sentinel-2: tiles, code-blocks,
precincts, PLT and TLM markers, the GMLJP2 box.
"""
import json
import pathlib
import struct
import subprocess
import tempfile

import numpy as np
import rasterio

HERE = pathlib.Path(__file__).parent
EPSG, ULX, ULY = 32629, 199980, 3400020


def terrain(height, width, maximum, seed):
    """Smooth hills, some noise, a block of nodata and a few extreme values."""
    rng = np.random.default_rng(seed)
    row, col = np.mgrid[:height, :width]
    hills = np.sin(row / 9 + seed) + np.cos(col / 7) + 0.15 * rng.standard_normal((height, width))
    image = (hills + 3) / 6 * maximum * 0.4
    image[: height // 4, : width // 5] = 0
    image[-1, -1] = maximum
    return np.clip(image, 0, maximum).astype(np.uint16)


def classes(height, width, seed):
    """Patches of the classes 0 to 11."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 12, (height // 6 + 1, width // 6 + 1))
    return np.kron(coarse, np.ones((6, 6), int))[:height, :width].astype(np.uint16)


def gml(height, width, res):
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<gml:FeatureCollection xmlns:gml="http://www.opengis.net/gml"><gml:featureMember><gml:FeatureCollection>
<gml:featureMember><gml:RectifiedGridCoverage dimension="2" gml:id="RGC0001"><gml:rectifiedGridDomain>
<gml:RectifiedGrid dimension="2"><gml:limits><gml:GridEnvelope><gml:low>1 1</gml:low>
<gml:high>{width} {height}</gml:high></gml:GridEnvelope></gml:limits>
<gml:axisName>x</gml:axisName><gml:axisName>y</gml:axisName>
<gml:origin><gml:Point gml:id="P0001" srsName="urn:ogc:def:crs:EPSG::{EPSG}">
<gml:pos>{ULX + res // 2} {ULY - res // 2}</gml:pos></gml:Point></gml:origin>
<gml:offsetVector srsName="urn:ogc:def:crs:EPSG::{EPSG}">{res} 0</gml:offsetVector>
<gml:offsetVector srsName="urn:ogc:def:crs:EPSG::{EPSG}">0 -{res}</gml:offsetVector>
</gml:RectifiedGrid></gml:rectifiedGridDomain></gml:RectifiedGridCoverage></gml:featureMember>
</gml:FeatureCollection></gml:featureMember></gml:FeatureCollection>""".encode()


def box(kind, body):
    return struct.pack(">I4s", len(body) + 8, kind) + body


def write(name, image, bits, options, res=None, reversible=True):
    """`image`: [component, row, column]."""
    count, height, width = image.shape
    path = HERE / name
    with tempfile.TemporaryDirectory() as folder:
        source = pathlib.Path(folder) / ("image.pgm" if count == 1 else "image.ppm")
        header = f"P{5 if count == 1 else 6}\n{width} {height}\n{2**bits - 1}\n".encode()
        pixels = np.moveaxis(image, 0, -1).astype(">u2" if bits > 8 else "u1")
        source.write_bytes(header + pixels.tobytes())
        command = ["opj_compress", "-i", source, "-o", path, *options]
        subprocess.run(command, check=True, capture_output=True)
    data = path.read_bytes()
    if res:
        georeference = box(b"asoc", box(b"lbl ", b"gml.data") + box(
            b"asoc", box(b"lbl ", b"gml.root-instance") + box(b"xml ", gml(height, width, res))))
        at = data.index(b"jp2c") - 4
        data = data[:at] + georeference + data[at:]
        path.write_bytes(data)
    with rasterio.open(path) as dataset:
        decoded = dataset.read()
        place = {"epsg": dataset.crs.to_epsg() if dataset.crs else None, "transform": list(dataset.transform.to_gdal())}
    if reversible:
        assert (decoded == image).all(), name
    else:
        decoded.astype("u1").tofile(path.with_suffix(".gdal.raw"))
    return {"shape": list(decoded.shape), "bits": bits, "fnv1a": fnv1a(decoded), "bytes": len(data), **place}


def fnv1a(samples):
    """FNV-1a, 64 bit, over whole samples instead of bytes."""
    value = 0xCBF29CE484222325
    for sample in samples.ravel().tolist():
        value = ((value ^ sample) * 0x100000001B3) % 2**64
    return f"{value:016x}"


def precincts(size):
    return ["-c", ",".join([f"[{size},{size}]"] * 5)]


rgb = np.stack([terrain(40, 53, 255, seed) for seed in (5, 6, 7)])
golden = {
    # A band of 10 m in small: several tiles, odd sizes, 15 bit.
    "b04_15bit_tiles32.jp2": write("b04_15bit_tiles32.jp2", terrain(61, 97, 32767, 1)[None], 15,
        ["-n", "5", "-t", "32,32", *precincts(256), "-PLT"], res=10),
    # A band of 60 m in small: code-blocks of 4 x 4, with TLM as current products have.
    "b01_15bit_blocks4_tlm.jp2": write("b01_15bit_blocks4_tlm.jp2", terrain(30, 30, 9000, 2)[None], 15,
        ["-n", "5", "-t", "24,24", "-b", "4,4", *precincts(64), "-PLT", "-TLM"], res=60),
    # A scene classification.
    "scl_8bit.jp2": write("scl_8bit.jp2", classes(47, 61, 3)[None], 8,
        ["-n", "5", "-t", "24,24", *precincts(128), "-PLT"], res=20),
    # A true-colour image: three components and the reversible colour transform.
    "tci_3components.jp2": write("tci_3components.jp2", rgb, 8, ["-n", "3", "-t", "32,32", "-mct", "1"], res=10),
    # The same with the irreversible transforms, in one tile.
    "tci_irreversible.jp2": write("tci_irreversible.jp2", rgb, 8, ["-n", "3", "-I", "-r", "4"], reversible=False),
    # A raw codestream; image and tiles begin off the origin of the reference grid, four tile-parts a tile.
    "offset_tileparts.j2k": write("offset_tileparts.j2k", terrain(45, 38, 4095, 4)[None], 12,
        ["-n", "4", "-d", "5,3", "-T", "2,1", "-t", "16,16", "-p", "RPCL", "-TP", "R"]),
    # All 16 bits, SOP and EPH markers, three quality layers, another progression.
    "layers_16bit.jp2": write("layers_16bit.jp2", terrain(33, 50, 65535, 8)[None], 16,
        ["-n", "4", "-t", "32,32", "-SOP", "-EPH", "-r", "20,8,1", "-p", "CPRL"]),
    # All samples are nodata: tiles without any code-block data.
    "nodata.jp2": write("nodata.jp2", np.zeros((1, 20, 20), np.uint16), 15, ["-n", "3", "-t", "16,16"]),
}
(HERE / "golden.json").write_text(json.dumps(golden, indent=1) + "\n")
print({name: entry["bytes"] for name, entry in golden.items()})

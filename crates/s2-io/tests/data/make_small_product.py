"""Writes a small L2A product, its archive-free folder in this directory, and small_golden.json: what GDAL reads from it.

Needs OpenJPEG's opj_compress 2.5.0, rasterio 1.4.4 (GDAL 3.10.3) and numpy; run it in this folder:
    python make_small_product.py
Pixels are synthetic (seeded); the metadata hold only the elements that are read, in the order of real ones. Files have
the layout of real bands (tiles, 5/3 transform, 15 bit, PLT, GMLJP2), 48 x 48 pixels at 10 m. One more file has its
place in a GeoJP2 box, as GDAL writes it.
"""
import json
import pathlib
import struct
import subprocess
import tempfile

import numpy as np
import rasterio
from rasterio.transform import from_origin

HERE = pathlib.Path(__file__).parent
NAME = "S2A_MSIL2A_20200219T112111_N0509_R037_T29RKH_20200219T140000"
GRANULE = "GRANULE/L2A_T29RKH_A024342_20200219T112111"
EPSG, ULX, ULY = 32629, 199980, 3400020
SIZES = {10: 48, 20: 24, 60: 8}
BANDS = [("B04", 10), ("B08", 10), ("B05", 20), ("B8A", 20), ("SCL", 20), ("B01", 60), ("SCL", 60)]
BAND_NAMES = "B1 B2 B3 B4 B5 B6 B7 B8 B8A B9 B10 B11 B12".split()


def box(kind, body):
    return struct.pack(">I4s", len(body) + 8, kind) + body


def gml(size, res):
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<gml:FeatureCollection xmlns:gml="http://www.opengis.net/gml"><gml:featureMember><gml:RectifiedGridCoverage dimension="2">
<gml:rectifiedGridDomain><gml:RectifiedGrid dimension="2"><gml:limits><gml:GridEnvelope><gml:low>1 1</gml:low>
<gml:high>{size} {size}</gml:high></gml:GridEnvelope></gml:limits><gml:axisName>x</gml:axisName>
<gml:axisName>y</gml:axisName><gml:origin><gml:Point gml:id="P0001" srsName="urn:ogc:def:crs:EPSG::{EPSG}">
<gml:pos>{ULX + res // 2} {ULY - res // 2}</gml:pos></gml:Point></gml:origin>
<gml:offsetVector srsName="urn:ogc:def:crs:EPSG::{EPSG}">{res} 0</gml:offsetVector>
<gml:offsetVector srsName="urn:ogc:def:crs:EPSG::{EPSG}">0 -{res}</gml:offsetVector></gml:RectifiedGrid>
</gml:rectifiedGridDomain></gml:RectifiedGridCoverage></gml:featureMember></gml:FeatureCollection>""".encode()


def write_band(path, image, bits, res):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        source = pathlib.Path(folder) / "image.pgm"
        header = f"P5\n{image.shape[1]} {image.shape[0]}\n{2**bits - 1}\n".encode()
        source.write_bytes(header + image.astype(">u2" if bits > 8 else "u1").tobytes())
        subprocess.run(["opj_compress", "-i", source, "-o", path, "-n", "3", "-t", "16,16", "-PLT"], check=True,
                       capture_output=True)
    data = path.read_bytes()
    place = box(b"asoc", box(b"lbl ", b"gml.data") + box(
        b"asoc", box(b"lbl ", b"gml.root-instance") + box(b"xml ", gml(image.shape[0], res))))
    at = data.index(b"jp2c") - 4
    path.write_bytes(data[:at] + place + data[at:])


def fnv1a(samples):
    """FNV-1a, 64 bit, over whole samples instead of bytes."""
    value = 0xCBF29CE484222325
    for sample in samples.ravel().tolist():
        value = ((value ^ sample) * 0x100000001B3) % 2**64
    return f"{value:016x}"


def golden(path):
    with rasterio.open(path) as dataset:
        return {"shape": [dataset.count, *dataset.shape], "epsg": dataset.crs.to_epsg(),
                "transform": list(dataset.transform.to_gdal()), "fnv1a": fnv1a(dataset.read())}


root = HERE / f"{NAME}.SAFE"
rng = np.random.default_rng(29)
answers, files = {}, []
for name, res in BANDS:
    size = SIZES[res]
    row, col = np.mgrid[:size, :size]
    if name == "SCL":
        image, bits = rng.integers(0, 12, (size // 4, size // 4)).repeat(4, 0).repeat(4, 1), 8
    else:
        image, bits = 1000 + (900 * (2 + np.sin(row / 5 + len(files)) + np.cos(col / 7))).astype(int), 15
        image[: size // 3, : size // 8] = 0
    file = f"{GRANULE}/IMG_DATA/R{res}m/T29RKH_20200219T112111_{name}_{res}m"
    write_band(root / f"{file}.jp2", image, bits, res)
    files.append(file)
    answers[f"{name}_{res}m"] = golden(root / f"{file}.jp2")

image_files = "\n".join(f"            <IMAGE_FILE>{file}</IMAGE_FILE>" for file in files)
offsets = "\n".join(f'        <BOA_ADD_OFFSET band_id="{i}">-1000</BOA_ADD_OFFSET>' for i, _ in enumerate(BAND_NAMES))
(root / "MTD_MSIL2A.xml").write_text(f"""<?xml version="1.0" encoding="UTF-8" standalone="no"?>
<n1:Level-2A_User_Product xmlns:n1="https://psd-14.sentinel2.eo.esa.int/PSD/User_Product_Level-2A.xsd">
  <n1:General_Info>
    <Product_Info>
      <PRODUCT_START_TIME>2020-02-19T11:21:11.024Z</PRODUCT_START_TIME>
      <PRODUCT_URI>{NAME}.SAFE</PRODUCT_URI>
      <PROCESSING_LEVEL>Level-2A</PROCESSING_LEVEL>
      <PROCESSING_BASELINE>05.09</PROCESSING_BASELINE>
      <Product_Organisation>
        <Granule_List>
          <Granule imageFormat="JPEG2000">
{image_files}
          </Granule>
        </Granule_List>
      </Product_Organisation>
    </Product_Info>
    <Product_Image_Characteristics>
      <QUANTIFICATION_VALUES_LIST>
        <BOA_QUANTIFICATION_VALUE unit="none">10000</BOA_QUANTIFICATION_VALUE>
      </QUANTIFICATION_VALUES_LIST>
      <BOA_ADD_OFFSET_VALUES_LIST>
{offsets}
      </BOA_ADD_OFFSET_VALUES_LIST>
    </Product_Image_Characteristics>
  </n1:General_Info>
</n1:Level-2A_User_Product>
""")
sizes = "\n".join(f'      <Size resolution="{res}"><NROWS>{n}</NROWS><NCOLS>{n}</NCOLS></Size>' for res, n in SIZES.items())
places = "\n".join(f'      <Geoposition resolution="{res}"><ULX>{ULX}</ULX><ULY>{ULY}</ULY><XDIM>{res}</XDIM>'
                   f"<YDIM>-{res}</YDIM></Geoposition>" for res in SIZES)
(root / GRANULE / "MTD_TL.xml").write_text(f"""<?xml version="1.0" encoding="UTF-8" standalone="no"?>
<n1:Level-2A_Tile_ID xmlns:n1="https://psd-14.sentinel2.eo.esa.int/PSD/S2_PDI_Level-2A_Tile_Metadata.xsd">
  <n1:General_Info>
    <L1C_TILE_ID>S2A_OPER_MSI_L1C_TL_TEST_20200219T130000_A024342_T29RKH_N05.09</L1C_TILE_ID>
    <TILE_ID>S2A_OPER_MSI_L2A_TL_TEST_20200219T140000_A024342_T29RKH_N05.09</TILE_ID>
  </n1:General_Info>
  <n1:Geometric_Info>
    <Tile_Geocoding>
      <HORIZONTAL_CS_NAME>WGS84 / UTM zone 29N</HORIZONTAL_CS_NAME>
      <HORIZONTAL_CS_CODE>EPSG:{EPSG}</HORIZONTAL_CS_CODE>
{sizes}
{places}
    </Tile_Geocoding>
  </n1:Geometric_Info>
</n1:Level-2A_Tile_ID>
""")

rgb = rng.integers(0, 256, (3, 21, 30), dtype=np.uint8)
with rasterio.open(HERE / "rgb_geojp2.jp2", "w", driver="JP2OpenJPEG", width=30, height=21, count=3, dtype="uint8",
                   crs="EPSG:32721", transform=from_origin(500123.25, 9000456.5, 9.75, 9.75), QUALITY="100",
                   REVERSIBLE="YES", GMLJP2="NO", GEOJP2="YES", RESOLUTIONS=2) as dataset:
    dataset.write(rgb)
answers["rgb_geojp2"] = golden(HERE / "rgb_geojp2.jp2")
(HERE / "rgb_geojp2.jp2.aux.xml").unlink(missing_ok=True)
(HERE / "small_golden.json").write_text(json.dumps(answers, indent=1) + "\n")

"""Writes jp2_golden.json and safe_golden.json: what GDAL and Python's XML parser read from the shared test data.

Needs rasterio 1.4.4 (GDAL 3.10.3) and numpy; run it in this folder with the folder of the shared data:
    python make_shared_golden.py ../../../../../shared/data
jp2_golden.json: samples, EPSG code and transform of every JPEG 2000 file. safe_golden.json: metadata of every product,
read with xml.etree and none of the rules of the crate.
"""
import json
import pathlib
import sys
import warnings
import xml.etree.ElementTree as ElementTree

import rasterio

warnings.simplefilter("ignore")
HERE, DATA = pathlib.Path(__file__).parent, pathlib.Path(sys.argv[1])


def fnv1a(samples):
    """FNV-1a, 64 bit, over whole samples instead of bytes."""
    value = 0xCBF29CE484222325
    for sample in samples.ravel().tolist():
        value = ((value ^ sample) * 0x100000001B3) % 2**64
    return f"{value:016x}"


images = {}
for folder in ("mini_safe_29RKH", "safe_l1c_0206", "aws_jp2_previews"):
    for path in sorted((DATA / folder).rglob("*.jp2")):
        with rasterio.open(path) as dataset:
            if dataset.driver != "JP2OpenJPEG":
                continue
            samples = dataset.read()
            images[path.relative_to(DATA).as_posix()] = {
                "shape": list(samples.shape),
                "dtype": str(samples.dtype),
                "epsg": dataset.crs.to_epsg() if dataset.crs else None,
                "transform": list(dataset.transform.to_gdal()),
                "fnv1a": fnv1a(samples),
            }
            if path.name == "TCI.jp2":  # 9/7 transform, which decoders round differently now and then
                images[path.relative_to(DATA).as_posix()]["sum"] = int(samples.sum())
(HERE / "jp2_golden.json").write_text(json.dumps(images, indent=1) + "\n")


def tree(path):
    root = ElementTree.parse(path).getroot()
    return [(element.tag.split("}")[-1], element) for element in root.iter()]


def all_of(elements, name):
    return [element for tag, element in elements if tag == name]


def texts(elements, name):
    return [element.text.strip() for element in all_of(elements, name)]


products = {}
for folder in ("mini_safe_29RKH", "safe_l1c_0206", "safe_metadata", "gdal_fake_safe"):
    candidates = [p for p in (DATA / folder).rglob("*.xml") if p.name.lower() in ("mtd_msil1c.xml", "mtd_msil2a.xml")]
    candidates += (DATA / folder).rglob("product_metadata.xml")
    for path in sorted(candidates):
        root = path.parent
        tiles = sorted(root.glob("GRANULE/*/MTD_TL.xml")) or sorted(root.glob("MTD_TL.xml")) or sorted(root.glob("metadata.xml"))
        if not tiles:
            continue
        (tile,) = tiles
        product, granule = tree(path), tree(tile)
        level = texts(product, "PROCESSING_LEVEL")[0]
        l1c = level == "Level-1C"
        offsets = all_of(product, "RADIO_ADD_OFFSET" if l1c else "BOA_ADD_OFFSET")
        offsets = {element.get("band_id"): int(element.text) for element in offsets}
        geocoding = all_of(granule, "Tile_Geocoding")[0]
        grids = {}
        for size in geocoding.findall("Size"):
            place = geocoding.find(f"Geoposition[@resolution='{size.get('resolution')}']")
            x, y, dx, dy = (float(place.find(n).text) for n in ("ULX", "ULY", "XDIM", "YDIM"))
            grids[size.get("resolution")] = {
                "shape": [int(size.find("NROWS").text), int(size.find("NCOLS").text)],
                "transform": [x, dx, 0.0, y, 0.0, dy],
            }
        bands = sorted(
            p.name
            for p in root.rglob("*.jp2")
            if "IMG_DATA" in p.parts and any(f"_{b}" in p.name for b in ("B0", "B1", "B8A"))
        )
        products[root.relative_to(DATA).as_posix()] = {
            "metadata": [path.name, tile.relative_to(root).as_posix()],
            "level": "L1C" if l1c else "L2A",
            "baseline": texts(product, "PROCESSING_BASELINE")[0],
            "sensing_start": texts(product, "PRODUCT_START_TIME")[0],
            "quantification": int(texts(product, "QUANTIFICATION_VALUE" if l1c else "BOA_QUANTIFICATION_VALUE")[0]),
            "offsets": [offsets.get(str(i), 0) for i in range(13)],
            "tile": texts(granule, "TILE_ID")[0].split("_T")[-1][:5],
            "epsg": int(texts(granule, "HORIZONTAL_CS_CODE")[0].removeprefix("EPSG:")),
            "grids": grids,
            "bands": len(bands),
        }
(HERE / "safe_golden.json").write_text(json.dumps(products, indent=1) + "\n")
print(len(images), "images,", len(products), "products")

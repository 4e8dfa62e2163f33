"""Makes the golden values beside this script: python make_golden.py

Made with Python 3.11.7, rasterio 1.4.4 (GDAL 3.10.3), affine 3.0.1, shapely 2.2.0, pyproj 3.7.2 (PROJ 9.5.1),
numpy 2.4.6.
Seeded: the same versions give the same files. Values of our own making, licensed like the crate.

utm.csv         PROJ: longitude, latitude -> easting, northing, point scale; and back
rasterize.json  GDAL: polygons burnt with all_touched=False
polygonize.json GDAL: masks traced with connectivity=4; per polygon area, perimeter, holes, bounds (shapely)
areas.csv       PROJ's geodesics: the area of polygons given in UTM, their edges cut into short pieces
"""

import csv
import json
import math
import pathlib

import numpy as np
import pyproj
import rasterio.features
import shapely
import shapely.geometry
from affine import Affine

HERE = pathlib.Path(__file__).parent
rng = np.random.default_rng(20220907)


def utm_points():
    with open(HERE / "utm.csv", "w", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(["epsg", "lon", "lat", "x", "y", "scale", "inverse_x", "inverse_y", "inverse_lon", "inverse_lat"])
        for epsg in [32629, 32601, 32660, 32631, 32735, 32718]:
            to_utm = pyproj.Transformer.from_crs(4326, epsg, always_xy=True)
            factors = pyproj.Proj(epsg)
            south = epsg >= 32700
            for _ in range(40):
                lon = (epsg % 100) * 6 - 183 + rng.uniform(-3.6, 3.6)
                lon = (lon + 180) % 360 - 180
                lat = rng.uniform(-80, 0) if south else rng.uniform(0, 84)
                x, y = to_utm.transform(lon, lat)
                scale = factors.get_factors(lon, lat).meridional_scale
                ix, iy = rng.uniform(2e5, 8e5), rng.uniform(1.2e6, 1e7) if south else rng.uniform(0, 9.3e6)
                if abs(to_utm.transform(*to_utm.transform(ix, iy, direction="INVERSE"))[0] - ix) > 1e-6:
                    raise SystemExit("PROJ does not round trip")
                ilon, ilat = to_utm.transform(ix, iy, direction="INVERSE")
                out.writerow([epsg] + [repr(float(v)) for v in [lon, lat, x, y, scale, ix, iy, ilon, ilat]])


def star(centre, radius, corners):
    """A simple ring around its centre, counter-clockwise, closed."""
    angles = np.sort(rng.uniform(0, 2 * math.pi, corners))
    radii = radius * rng.uniform(0.4, 1, corners)
    ring = [[centre[0] + r * math.cos(a), centre[1] + r * math.sin(a)] for a, r in zip(angles, radii)]
    return ring + [ring[0]]


def burnt():
    cases = []

    def case(name, polygons, transform, height, width):
        mask = rasterio.features.rasterize(
            [({"type": "Polygon", "coordinates": rings}, 1) for rings in polygons],
            out_shape=(height, width), transform=transform, dtype="uint8")
        rows = ["".join("#" if v else "." for v in row) for row in mask]
        cases.append({"name": name, "transform": transform.to_gdal(), "polygons": polygons, "mask": rows})

    def to_map(transform, rings):
        return [[list(transform @ tuple(p)) for p in ring] for ring in rings]

    for name, transform in {
        "north up, 10 m": Affine(10, 0, 600000, 0, -10, 700000),
        "north up, a third": Affine(1 / 3, 0, -9, 0, -1 / 3, 5),
        "south up": Affine(2, 0, 100, 0, 2, 50),
        "rotated by 30 degrees": Affine(10, 0, 3e5, 0, -10, 5e5) @ Affine.rotation(30),
        "sheared": Affine(10, 3, 3e5, -2, -9, 5e5),
    }.items():
        for i in range(3):
            polygons = []
            for _ in range(i + 1):
                centre = rng.uniform(2, 22, 2)
                rings = [star(centre, 10, 12)]
                if i:
                    rings.append(star(centre, 3.5, 7))
                polygons.append(to_map(transform, rings))
            case(f"{name}, stars {i}", polygons, transform, 20, 24)

    # Corners on multiples of half a pixel: many centres lie on edges. Exact in binary, so that GDAL's rule and
    # nothing else decides. Both directions of the rings.
    for name, transform in {
        "unit": Affine(1, 0, 0, 0, -1, 0),
        "south up": Affine(1, 0, 0, 0, 1, 0),
        "east to the left": Affine(-2, 0, 48, 0, -2, 0),
        "turned by 180 degrees": Affine(-0.5, 0, 4, 0, 0.5, 16),
    }.items():
        for i in range(6):
            rings = []
            while True:
                ring = [[round(2 * x) / 2, round(2 * y) / 2] for x, y in star((7, 6), 7, 9)]
                if shapely.Polygon(ring).is_valid:
                    break
            rings.append(ring)
            if i >= 2:
                while True:
                    hole = [[round(2 * x) / 2, round(2 * y) / 2] for x, y in star((7, 6), 3, 5)]
                    if shapely.Polygon(ring, [hole]).is_valid:
                        break
                rings.append(hole)
            rings = [r[::-1] if rng.integers(2) else r for r in rings]
            case(f"corners on centres, {name} {i}", [to_map(transform, rings)], transform, 12, 14)
        square = [[1.5, 1.5], [5.5, 1.5], [5.5, 5.5], [1.5, 5.5], [1.5, 1.5]]
        frame = [[7, 0.5], [13.5, 0.5], [13.5, 9.5], [7, 9.5], [7, 0.5]]
        hole = [[8.5, 2.5], [11.5, 2.5], [11.5, 6.5], [8.5, 6.5], [8.5, 2.5]]
        case(f"squares, {name}", [to_map(transform, [square]), to_map(transform, [frame, hole])], transform, 12, 14)
        case(f"squares, {name}, reversed", [to_map(transform, [square[::-1]]), to_map(transform, [frame[::-1], hole])],
             transform, 12, 14)

    unit = Affine(1, 0, 0, 0, -1, 0)
    case("outside on all sides", [[[[-5, 3], [8, 3], [8, -20], [-5, -20], [-5, 3]]],
                                  [[[20, 0], [30, 0], [30, -9], [20, 0]]], [[[-9, 5], [-3, 5], [-3, -9], [-9, 5]]]],
         unit, 6, 7)
    case("crosses itself", [[[[0, 0], [8, -8], [8, 0.2], [0, -8], [0, 0]]]], unit, 8, 8)
    case("thinner than a pixel", [[[[1.6, 0], [2.4, 0], [2.4, -6], [1.6, -6], [1.6, 0]]]], unit, 6, 6)
    (HERE / "rasterize.json").write_text(dump(cases))


def traced():
    cases = []
    masks = {f"density {d}, {h} by {w}": rng.random((h, w)) < d
             for d, h, w in [(0.1, 9, 14), (0.3, 16, 11), (0.5, 24, 24), (0.6, 30, 20), (0.8, 20, 30), (0.95, 12, 12)]}
    masks["all"] = np.ones((3, 5), bool)
    masks["none"] = np.zeros((3, 5), bool)
    masks["chessboard"] = np.indices((7, 8)).sum(0) % 2 == 0
    masks["ring closed at a corner"] = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 0]], bool)
    masks["hole in a hole"] = np.pad(np.pad(np.pad(np.ones((1, 1), bool), 1), 1, constant_values=True), 1)
    for name, mask in masks.items():
        transform = Affine(10, 0, 600000, 0, -10, 700000)
        shapes = rasterio.features.shapes(mask.astype("uint8"), mask, connectivity=4, transform=transform)
        polygons = [shapely.geometry.shape(s) for s, _ in shapes]
        rows = sorted([p.area, p.length, *p.bounds] for p in polygons)
        cases.append({"name": name, "transform": transform.to_gdal(),
                      "mask": ["".join("#" if v else "." for v in row) for row in mask],
                      "area_length_bounds": rows})
    (HERE / "polygonize.json").write_text(dump(cases))


def areas():
    geod = pyproj.Geod(ellps="WGS84")
    with open(HERE / "areas.csv", "w", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(["epsg", "x", "y", "size_m", "area_ha"])
        for epsg, y0 in [(32629, 5e5), (32629, 5e6), (32629, 9e6), (32735, 6.5e6)]:
            to_utm = pyproj.Transformer.from_crs(4326, epsg, always_xy=True)
            for x0 in [160000, 500000, 700000, 833000]:
                for size in [10, 1000, 10000, 100000]:
                    # An L with a hole: (0,0) (1,0) (1,.5) (.5,.5) (.5,1) (0,1), hole (.1,.1) (.4,.4).
                    shell = [(0, 0), (1, 0), (1, 0.5), (0.5, 0.5), (0.5, 1), (0, 1)]
                    hole = [(0.1, 0.1), (0.1, 0.4), (0.4, 0.4), (0.4, 0.1)]
                    total = 0
                    for ring in [shell, hole]:
                        pieces = max(1, size // 50)
                        corners = np.array(ring + ring[:1], float) * size + (x0, y0)
                        x, y = [np.concatenate([np.linspace(a, b, pieces, endpoint=False)
                                                for a, b in zip(corners[:-1, axis], corners[1:, axis])]) for axis in (0, 1)]
                        lon, lat = to_utm.transform(x, y, direction="INVERSE")
                        total += geod.polygon_area_perimeter(lon, lat)[0]  # the hole runs clockwise: negative
                    out.writerow([epsg, x0, int(y0), size, repr(total / 1e4)])


def dump(cases):
    """One case a line."""
    return "[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n"


utm_points()
burnt()
traced()
areas()

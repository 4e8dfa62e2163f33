"""The rows of `run.sh`: the same work done by us and by a Python peer, in turn.

    python rows.py WORK EXAMPLES [--list | ROW…]

Both clocks run inside the process, from opening the file to having the samples, so that Python's start and imports
count for nothing. Each pair is checked: the same samples, or the row fails.
"""

import filecmp
import json
import os
import random
import statistics
import subprocess
import sys
import time
import warnings
from pathlib import Path

from process import measured

work, examples = Path(sys.argv[1]), Path(sys.argv[2])
mine, theirs = work / "ours.raw", work / "peer.raw"


def run(threads, *command):
    """Runs one of our examples, and gives the seconds that it prints."""
    command = [*map(str, command), "--threads", str(threads)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(printed[: printed.rindex(" s")].split()[-1])


def ours(threads, file, *options):
    """Seconds that we need; the samples go to `mine`."""
    if file.suffix == ".tif":
        return run(threads, examples / "cog", "read", file, mine, *options)
    return run(threads, examples / "decode", file, mine, *options)


def peer(threads, library, file, *options):
    """Seconds that a library needs, in a process with so many threads; the samples go to `theirs`."""
    command = [sys.executable, __file__, work, examples, "--peer", library, file, *map(str, options)]
    environment = dict(os.environ, GDAL_NUM_THREADS=str(threads), OPENJPEG_THREADS=str(threads))
    return float(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)


def in_turn(rounds, threads, library, file, options=lambda round: []):
    """Medians of both, after a round that warms the caches."""
    times = []
    for number in range(rounds + 1):
        times.append((ours(threads, file, *options(number)), peer(threads, library, file, *options(number))))
        assert filecmp.cmp(mine, theirs, shallow=False), "the samples differ"
    return [statistics.median(column) for column in zip(*times[1:])]


def made(name, side, bits=15, **options):
    """A made band of 15 bits, written by GDAL with the structure of bands of ESA; of fewer bits, its upper ones."""
    file = work / f"{name}.jp2"
    if not file.exists():
        import rasterio.shutil
        from rasterio.io import MemoryFile

        from bands import band

        print(f"making {file}", file=sys.stderr)
        with MemoryFile() as memory:
            with memory.open(driver="GTiff", height=side, width=side, count=1, dtype="uint16" if bits > 8 else "uint8",
                             nbits=bits) as raw:
                raw.write((band(side) >> (15 - bits)).astype(raw.dtypes[0]), 1)
            part = file.with_suffix(".part.jp2")
            with memory.open() as raw:
                rasterio.shutil.copy(raw, part, driver="JP2OpenJPEG", REVERSIBLE="YES", QUALITY=100, YCC="NO",
                                     RESOLUTIONS=5, PROGRESSION="LRCP", TLM="YES", **options)
        part.rename(file)
    return file


def band_10m():
    return made("band_10m", 10980, BLOCKXSIZE=1024, BLOCKYSIZE=1024, CODEBLOCK_WIDTH=64, CODEBLOCK_HEIGHT=64,
                PRECINCTS=",".join(["{256,256}"] * 5), PLT="YES")


def band_60m():
    """Tiles of 192 and code-blocks of 4, as the bands of 60 m have them."""
    return made("band_60m", 1830, BLOCKXSIZE=192, BLOCKYSIZE=192, CODEBLOCK_WIDTH=4, CODEBLOCK_HEIGHT=4)


def cog():
    """The made band as GDAL writes it: deflate, predictor 2, tiles of 512, overviews."""
    file = work / "band_10m_cog.tif"
    if not file.exists():
        import rasterio

        part = file.with_suffix(".part.tif")
        with rasterio.open(band_10m()) as opened:
            write_cog(part, opened.read(), opened.profile)
        part.rename(file)
    return file


def write_cog(file, samples, profile):
    import rasterio

    profile = {name: profile[name] for name in ("height", "width", "count", "dtype", "crs", "transform")}
    with rasterio.open(file, "w", driver="COG", compress="DEFLATE", predictor=2, blocksize=512,
                       overview_resampling="average", **profile) as out:
        out.write(samples)


def cog_read(threads):
    return cog(), in_turn(5, threads, "rasterio", cog())


def cog_window(threads):
    place = random.Random(5).randrange
    windows = [f"{place(10980 - 572)},{place(10980 - 572)},572,572" for _ in range(20)]
    return cog(), in_turn(19, threads, "rasterio", cog(), lambda round: ["--window", windows[round]])


def cog_write(threads):
    """Deflate with overviews of means: ours at its default level, GDAL at its own, 6. Both from memory."""
    file, made_by_us, made_by_gdal = cog(), work / "ours.tif", work / "peer.tif"
    times = []
    for _ in range(4):
        ours = run(threads, examples / "cog", "write", file, made_by_us)
        times.append((ours, peer(threads, "rasterio", file, "--write", made_by_gdal)))
    larger = made_by_us.stat().st_size / made_by_gdal.stat().st_size
    assert larger <= 1.02, f"the file is {larger:.3f} times as large"
    return file, [statistics.median(column) for column in zip(*times[1:])]


# Layers of the stack, with their resolution in metres.
LAYERS = [("B02", 10), ("B03", 10), ("B04", 10), ("B05", 20), ("B06", 20), ("B07", 20), ("B08", 10), ("B8A", 20),
          ("B11", 20), ("B12", 20), ("SCL", 20)]
GRANULE = "GRANULE/L2A_T29RKH_A024342_20200219T112111"


def layer_file(product, layer, resolution):
    return product / GRANULE / f"IMG_DATA/R{resolution}m/T29RKH_20200219T112111_{layer}_{resolution}m.jp2"


def product():
    """A product of a whole tile: the metadata of the small one of s2-io, every band of a resolution the same made one."""
    name = "S2A_MSIL2A_20200219T112111_N0509_R037_T29RKH_20200219T140000.SAFE"
    small, whole = Path("crates/s2-io/tests/data") / name, work / name
    bands = {10: band_10m(), 20: made("band_20m", 5490, BLOCKXSIZE=1024, BLOCKYSIZE=1024, CODEBLOCK_WIDTH=64,
                                      CODEBLOCK_HEIGHT=64, PRECINCTS=",".join(["{256,256}"] * 5), PLT="YES")}
    classes = made("scl_20m", 5490, bits=4, BLOCKXSIZE=1024, BLOCKYSIZE=1024)
    (whole / GRANULE).mkdir(parents=True, exist_ok=True)
    for file in ("MTD_MSIL2A.xml", f"{GRANULE}/MTD_TL.xml"):
        text = (small / file).read_text()
        for old, new in ((48, 10980), (24, 5490), (8, 1830)):
            text = text.replace(f"<NROWS>{old}</NROWS><NCOLS>{old}</NCOLS>", f"<NROWS>{new}</NROWS><NCOLS>{new}</NCOLS>")
        (whole / file).write_text(text)
    for layer, resolution in LAYERS:
        file = layer_file(whole, layer, resolution)
        file.parent.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            os.link(classes if layer == "SCL" else bands[resolution], file)
    return whole


def stack(threads):
    """Ten bands and SCL on the grid of 10 m, in memory; ours may take 1.5 times the memory of the result."""
    import numpy

    folder, times = product(), []
    for number in range(3):
        out = [mine] if number == 0 else []
        command = [examples / "stack", folder, *out, "--threads", str(threads)]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        seconds, peak = float(printed[printed.index("s") - 1]), None
        if "peak" in printed:
            peak = int(printed[printed.index("peak") + 1]) * 1024 / (len(LAYERS) * 10980 * 10980 * 2)
            assert peak <= 1.5, f"a peak of {peak:.2f} times the result"
        times.append((seconds, peer(threads, "stack", folder, "--check", number == 0)))
        if number == 0:
            shape = (len(LAYERS), 10980, 10980)
            both = (numpy.memmap(file, "<u2", "r", shape=shape) for file in (mine, theirs))
            for (layer, resolution), one, other in zip(LAYERS, *both):
                strays = max(int(abs(one[rows : rows + 1000].astype(int) - other[rows : rows + 1000]).max())
                             for rows in range(0, 10980, 1000))
                assert strays <= (layer != "SCL" and resolution == 20), f"{layer} differs by {strays}"
            mine.unlink(), theirs.unlink()
    if peak:
        print(f"stack: peak {peak:.2f} times the result", file=sys.stderr)
    return folder, [statistics.median(column) for column in zip(*times)]


def full(threads):
    """A whole band, in 64 MiB and a tile a thread beside the samples."""
    times = in_turn(3, threads, "rasterio", band_10m())
    *_, peak = measured(examples / "decode", band_10m(), mine, "--threads", threads)
    beside = peak - 10980 * 10980 * 2 / 1e6
    print(f"jp2-full: {beside:.0f} MB beside the samples", file=sys.stderr)
    assert beside <= 68 + threads * 1024 * 1024 * 4 / 1e6, "more memory than that"
    return band_10m(), times


def sixty(threads):
    return band_60m(), in_turn(9, threads, "rasterio", band_60m())


def sixty_openjpeg(threads):
    return band_60m(), in_turn(9, threads, "glymur", band_60m())


def window(threads):
    """572 x 572 at random places, opened each time."""
    place = random.Random(5).randrange
    windows = [f"{place(10980 - 572)},{place(10980 - 572)},572,572" for _ in range(20)]
    return band_10m(), in_turn(19, threads, "rasterio", band_10m(), lambda round: ["--window", windows[round]])


def reduced(level):
    def decode(threads):
        return band_10m(), in_turn(5, threads, "rasterio", band_10m(), lambda round: ["--reduce", level])

    return decode


def served():
    """A file of 1 GB and the address of a server on loopback that sends it, a millisecond late."""
    import http.server
    import threading

    file = work / "served.bin"
    if not file.exists():
        print(f"making {file}", file=sys.stderr)
        piece = random.Random(7).randbytes(1 << 20)
        with open(part := file.with_suffix(".part"), "wb") as out:
            for number in range(1000):
                out.write(number.to_bytes(4, "little") + piece[4:])
        part.rename(file)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            time.sleep(0.001)
            self.send_response(200)
            self.send_header("Content-Length", str(file.stat().st_size))
            self.end_headers()
            self.wfile.flush()
            with open(file, "rb") as source:
                self.connection.sendfile(source)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return file, f"http://127.0.0.1:{server.server_port}/served.bin"


def download(checked):
    """One connection beside curl; `checked` makes both compare the MD5."""

    def fetch(_):
        import hashlib

        file, url = served()
        with open(file, "rb") as source:
            digest = hashlib.file_digest(source, "md5").hexdigest()
        times = []
        for number in range(6):
            mine.unlink(missing_ok=True), theirs.unlink(missing_ok=True)
            command = [examples / "fetch", url, mine, *(["--md5", digest] if checked else [])]
            printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            peak = int(printed.split("peak ")[1].split()[0]) if "kB" in printed else 0
            assert peak <= 64 << 10, f"{peak} kB of memory"
            start = time.perf_counter()
            subprocess.run(["curl", "--silent", "--fail", "--output", theirs, url], check=True)
            if checked:
                found = subprocess.run(["md5sum", theirs], check=True, capture_output=True, text=True).stdout
                assert found.startswith(digest)
            times.append((float(printed.split()[-2]), time.perf_counter() - start))
            assert filecmp.cmp(mine, theirs, shallow=False), "the files differ"
        mine.unlink(), theirs.unlink()
        print(f"download: peak {peak} kB", file=sys.stderr)
        return file, [statistics.median(column) for column in zip(*times[1:])]

    return fetch


def network_peer(what, folder, number):
    """What it prints, and its memory."""
    printed, _, peak = measured(sys.executable, Path(__file__).with_name("network.py"), what, folder, number)
    return printed, peak


def model(batch, name=None):
    """A network of 16 filters for 22 channels, and an input of 572 x 572."""
    folder = work / (name or f"network{batch}")
    if not (folder / "input.json").exists():
        subprocess.run([examples / "speed", "make", folder, "572", str(batch), "22", "16"], check=True)
    return folder


def network(what, batch, rounds):
    """One pass or one step of training, beside PyTorch."""

    def both(threads):
        import numpy

        folder, times = model(batch), []
        environment = dict(os.environ, RAYON_NUM_THREADS=str(threads))
        for _ in range(rounds):
            printed, _, peak = measured(examples / "speed", what, folder, environment=environment)
            peers, peers_peak = network_peer(what, folder, threads)
            times.append((float(printed), float(peers)))
            if what == "forward":
                one, other = (numpy.fromfile(folder / name, "<f4") for name in ("ours.raw", "peer.raw"))
                off = abs(one - other).max() / abs(other).max()
                assert off < 1e-5, f"the probabilities differ by {off} of the largest"
        print(f"{what}: peak {peak:.0f} MB, PyTorch {peers_peak:.0f} MB", file=sys.stderr)
        return folder / "input.raw", [statistics.median(column) for column in zip(*times)]

    return both


def made_scene(folder, side):
    if not (folder / "scene/statistics.json").exists():
        print(f"making {folder / 'scene'}", file=sys.stderr)
        network_peer("make-scene", folder, side)


def predict(folder, threads):
    """Seconds of the whole process, from stack to map with everything that it writes, and its memory."""
    return measured(examples.parent / "predict", folder / "scene", "--model", folder, "--out", folder / "maps",
                    "--device", "cpu", "--threads", threads, "--quiet")[1:]


def network_scene(side, rounds):
    """A scene from its stack to the map, in 2 GiB at most."""

    def both(threads):
        folder, times = model(1, f"scene{side}"), []
        made_scene(folder, side)
        for _ in range(rounds):
            seconds, peak = predict(folder, threads)
            peers, peers_peak = network_peer("scene", folder, threads)
            times.append((seconds, float(peers)))
        print(f"scene: peak {peak:.0f} MB, PyTorch {peers_peak:.0f} MB", file=sys.stderr)
        assert peak <= 2147, "more than 2 GiB"
        off = float(network_peer("difference", folder, 0)[0])
        assert off < 1e-4, f"the maps differ by {off} of the largest probability"
        return folder / "scene/stack.tif", [statistics.median(column) for column in zip(*times)]

    return both


def memory_step(threads):
    """Peak memory of a training step, in MB, beside PyTorch's."""
    folder = model(4)
    environment = dict(os.environ, RAYON_NUM_THREADS=str(threads))
    *_, peak = measured(examples / "speed", "step", folder, environment=environment)
    _, peers_peak = network_peer("step", folder, threads)
    assert peak <= 1.2 * peers_peak, "more memory than PyTorch by a fifth"
    return folder / "input.raw", [peak, peers_peak]


def memory_tile(threads):
    """Peak memory of the prediction of a whole tile, in MB, beside the 2 GiB that it may take."""
    folder = model(1, "scene10980")
    made_scene(folder, 10980)
    _, peak = predict(folder, threads)
    allowed = 2 * 2**30 / 1e6
    assert peak <= allowed, "more than 2 GiB"
    return folder / "scene/stack.tif", [peak, allowed]


# Name, what to do, and how many times faster we mean to be (or smaller: rows of memory fail when it is more).
ROWS = [
    ("jp2-full", full, 2.2),
    ("jp2-60m", sixty, 7),
    ("jp2-60m-openjpeg", sixty_openjpeg, 2),
    ("jp2-window", window, 5),
    ("jp2-reduced2", reduced(1), 2),
    ("jp2-reduced4", reduced(2), 2),
    ("jp2-reduced8", reduced(3), 2),
    ("stack", stack, 2),
    ("cog-read", cog_read, {1: 2.2, 2: 1.5}),
    ("cog-window", cog_window, 1.7),
    ("cog-write", cog_write, 2.5),
    ("download", download(False), 0.9),
    ("download-md5", download(True), 0.9),
    ("network-forward", network("forward", 1, 5), 1.0),
    ("network-step", network("step", 4, 3), 0.7),
    ("network-scene", network_scene(5490, 3), 2),
    ("network-tile", network_scene(10980, 1), 2),
    ("network-memory-step", memory_step, 0.83),
    ("network-memory-tile", memory_tile, 1.0),
]


def decode_as_peer(library, file, *options):
    warnings.simplefilter("ignore")
    import glymur
    import rasterio
    from rasterio.windows import Window

    glymur.set_option("lib.num_threads", int(os.environ["OPENJPEG_THREADS"]))
    options = dict(zip(options[::2], options[1::2]))
    place, level = None, {}
    if "--window" in options:
        row, col, height, width = map(int, options["--window"].split(","))
        place = Window(col, row, width, height)
    if "--write" in options:
        with rasterio.open(file) as opened:
            samples, profile = opened.read(), opened.profile
        start = time.perf_counter()
        write_cog(options["--write"], samples, profile)
        print(time.perf_counter() - start)
        return
    if library == "stack":
        stack_as_peer(Path(file), options["--check"] == "True")
        return
    if "--reduce" in options:
        level = {"OVERVIEW_LEVEL": int(options["--reduce"]) - 1}
    start = time.perf_counter()
    if library == "glymur":
        samples = glymur.Jp2k(file)[:]
    else:
        with rasterio.open(file, **level) as opened:
            samples = opened.read(1, window=place)
    print(time.perf_counter() - start)
    samples.astype("<u2").tofile(theirs)


def stack_as_peer(product, check):
    import numpy
    import rasterio
    from rasterio.enums import Resampling

    start = time.perf_counter()
    samples = numpy.empty((len(LAYERS), 10980, 10980), "uint16")
    for (layer, resolution), plane in zip(LAYERS, samples):
        with rasterio.open(layer_file(product, layer, resolution)) as opened:
            resampling = Resampling.nearest if layer == "SCL" else Resampling.bilinear
            opened.read(1, out=plane, resampling=resampling)
    print(time.perf_counter() - start)
    if check:
        samples.astype("<u2", copy=False).tofile(theirs)


def size_of(file):
    return sum(part.stat().st_size for part in file.rglob("*")) if file.is_dir() else file.stat().st_size


def main(arguments):
    if arguments[:1] == ["--peer"]:
        decode_as_peer(*arguments[1:])
        return
    rows = {f"{name}-{threads}": (work, goal, threads) for threads in (1, 2) for name, work, goal in ROWS}
    if arguments == ["--list"]:
        print(*rows, sep="\n")
        return
    if unknown := set(arguments) - set(rows):
        sys.exit(f"no such row: {', '.join(sorted(unknown))}; --list shows them")
    for name in arguments or rows:
        function, goal, threads = rows[name]
        file, (our_time, peer_time) = function(threads)
        goal = goal[threads] if isinstance(goal, dict) else goal
        result = {"row": name, "ours": round(our_time, 5), "peer": round(peer_time, 5),
                  "ratio": round(peer_time / our_time, 2), "goal": goal, "threads": threads,
                  "size": f"{file.name}, {size_of(file) / 1e6:.1f} MB"}
        print(json.dumps(result), flush=True)


main(sys.argv[3:])

"""The network on a graphics card beside PyTorch on the same card; see run.sh.

    measure.py PACK OUT.json [--device vulkan] [--small]

First the probabilities of the card are compared with those of the CPU, then rows are measured, ours and PyTorch's in turn. OUT.json
gets a line for each: medians in seconds, ratio = PyTorch / ours, null where there is no PyTorch with CUDA. `--small` tries
all of it with a small network, for any adapter.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy


def command(*words):
    """What it prints; its errors go where ours do."""
    return subprocess.run([str(word) for word in words], check=True, text=True, stdout=subprocess.PIPE).stdout


def card():
    try:
        return command("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader").strip()
    except (OSError, subprocess.CalledProcessError):
        return "no NVIDIA card"


class Bench:
    def __init__(self, work, pack, out, device, small):
        self.work, self.pack, self.device, self.out = work, pack, device, out.open("w")
        self.sizes = ["188", "1", "22", "4"] if small else ["572", "8", "22", "64"]
        self.scene_side = 600 if small else 10980
        self.speed, self.predict = pack / "bin/speed", pack / "bin/predict"
        try:
            import safetensors  # noqa: F401
            import torch

            self.torch, self.modes = True, ["tf32", "amp"] if torch.cuda.is_available() else []
        except ImportError:
            self.torch, self.modes = False, []
        if not self.modes:
            print("PyTorch with CUDA and safetensors are not here: the peer's cells stay empty", file=sys.stderr)

    def write(self, **row):
        line = json.dumps(row | {"device": self.device, "card": card()})
        print(line)
        print(line, file=self.out, flush=True)

    def model(self, name, *sizes):
        folder = self.work / name
        command(self.speed, "make", folder, *sizes)
        return folder

    def peer(self, what, folder, mode):
        return float(command(sys.executable, self.pack / "benches/peers/network.py", what, folder, 8, mode))

    def parity(self):
        folder, maps = self.model("parity", self.sizes[0], 1, 22, 16), {}
        for device in ("cpu", self.device):
            command(self.speed, "forward", folder, device)
            maps[device] = numpy.fromfile(folder / "ours.raw", "<f4")
        off = float(abs(maps[self.device] - maps["cpu"]).max() / abs(maps["cpu"]).max())
        self.write(row="parity", difference=off, of="the largest probability", allowed=1e-4)
        assert off < 1e-4, f"the card's probabilities differ by {off} of the largest"

    def rows(self, what, goal, folder, ours, size):
        """Ours, and PyTorch in each mode, in turn; three times."""
        modes, times = self.modes or [None], []
        for _ in range(3):
            times.append([ours()] + [self.peer(what, folder, mode) for mode in self.modes])
        medians = numpy.median(times, axis=0)
        for index, mode in enumerate(modes):
            peer = float(medians[index + 1]) if mode else None
            self.write(row=f"gpu-{what}", mode=mode, ours=float(medians[0]), peer=peer,
                       ratio=peer / medians[0] if peer else None, goal=goal, size=size)

    def network(self, what):
        folder = self.model("network", *self.sizes)
        size, batch, channels, filters = self.sizes
        self.rows(what, 0.5, folder, lambda: float(command(self.speed, what, folder, self.device)),
                  f"{batch} x {channels} x {size}^2, {filters} filters")

    def scene(self):
        try:
            import rasterio  # noqa: F401
        except ImportError:
            self.torch = False
        if not self.torch:
            print("rasterio or PyTorch is not here: the row of the scene is left out", file=sys.stderr)
            return
        folder = self.model("scene", self.sizes[0], 1, 22, self.sizes[3])
        command(sys.executable, self.pack / "benches/peers/network.py", "make-scene", folder, self.scene_side)

        def ours():
            start = time.perf_counter()
            command(self.predict, folder / "scene", "--model", folder, "--out", folder / "maps", "--device", self.device, "--quiet")
            return time.perf_counter() - start

        self.rows("scene", 1.0, folder, ours, f"{self.scene_side}^2, {self.sizes[3]} filters, from stack to map")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pack", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--device", default="vulkan")
    parser.add_argument("--small", action="store_true")
    failed = []
    with tempfile.TemporaryDirectory() as work:
        bench = Bench(Path(work), **vars(parser.parse_args()))
        bench.parity()
        for row in (lambda: bench.network("forward"), lambda: bench.network("step"), bench.scene):
            try:
                row()
            except subprocess.CalledProcessError as error:
                print(f"a row is missing: {error}", file=sys.stderr)
                failed.append(error)
    sys.exit(1 if failed else 0)

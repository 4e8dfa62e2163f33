"""The network on a graphics card beside PyTorch on the same card; see run.sh.

    measure.py PACK OUT.json [--device vulkan] [--small]

First the tests of unet-burn that look for a card run, and the probabilities of the card are compared with those of the CPU.
Then rows are measured, ours and PyTorch's in turn: in single precision beside TF32, and with halves (mixed precision in
training) beside AMP; the maps of the scene are compared, too.
OUT.json gets a line for each: medians in seconds, ratio = PyTorch / ours, null where there is no PyTorch with CUDA; the largest
memory of the processes on the host and, by nvidia-smi, of the whole card, in MB. `--small` tries all of it with a small network,
for any adapter.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

try:
    import numpy
except ImportError:
    sys.exit("measure.py needs numpy")

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "peers"))
from process import measured  # noqa: E402


def command(*words):
    """What it prints; its errors go where ours do."""
    return subprocess.run([str(word) for word in words], check=True, text=True, stdout=subprocess.PIPE).stdout


def asked(field):
    """What nvidia-smi says of the first card; None without one."""
    try:
        return command("nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader,nounits").splitlines()[0].strip()
    except (OSError, subprocess.CalledProcessError, IndexError):
        return None


def watched(*words):
    """What it prints, its seconds, and the largest memory on the host and on the first card meanwhile, in MB."""
    used, done = [], threading.Event()

    def watch():
        while (now := asked("memory.used")) is not None:
            used.append(int(now) * 2**20 / 1e6)
            if done.wait(1):
                break

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        printed, seconds, host = measured(*words)
    finally:
        done.set()
        watcher.join()
    return printed, seconds, host, max(used, default=None)


class Wrong(Exception):
    """A result, or its memory, is not as it has to be."""


class Bench:
    def __init__(self, work, pack, out, device, small):
        self.work, self.pack, self.device, self.out = work, pack, device, out.open("w")
        self.adapter = None
        self.sizes = ["188", "2", "22", "4"] if small else ["572", "8", "22", "64"]
        self.scene_side = 600 if small else 10980
        self.speed, self.predict = pack / "bin/speed", pack / "bin/predict"
        self.small = small
        self.torch = all(importlib.util.find_spec(name) for name in ("torch", "safetensors"))
        self.rasterio = self.torch and importlib.util.find_spec("rasterio")
        self.cuda = self.torch and importlib.import_module("torch").cuda.is_available()
        if not self.cuda:
            print("PyTorch with CUDA and safetensors are not here: the peer's cells stay empty", file=sys.stderr)

    def write(self, **row):
        card = asked("name,driver_version")
        line = json.dumps(row | {"device": self.device, "adapter": self.adapter, "card": card})
        print(line)
        print(line, file=self.out, flush=True)

    def model(self, name, *sizes):
        folder = self.work / name
        command(self.speed, "make", folder, *sizes)
        return folder

    def peer(self, what, folder, mode):
        printed, _, *memory = watched(sys.executable, self.pack / "benches/peers/network.py", what, folder, 8, mode)
        return float(printed), *memory

    def self_test(self):
        """The tests of unet-burn that look for a card."""
        environment = os.environ | {"UNET_BURN_TEST_ADAPTER": self.device}
        done = subprocess.run([self.pack / "bin/test-adapter", "--nocapture"], env=environment, text=True, capture_output=True)
        lines = (done.stdout + done.stderr).splitlines()
        self.adapter = next((line.removeprefix("adapter: ") for line in lines if line.startswith("adapter: ")), None)
        skips = [line for line in lines if line.startswith("skipped")]
        self.write(row="self-test", passed=done.returncode == 0, skips=skips)
        if done.returncode:
            sys.exit(f"the tests fail or find no card: {done.stdout[-3000:]}{done.stderr[-3000:]}")
        self.halves = not any("no halves" in line for line in skips)

    def agree(self, row, off, allowed, **facts):
        self.write(row=row, difference=off, allowed=allowed, **facts)
        if not off < allowed:
            raise Wrong(f"{row}: a difference of {off} of the largest probability")

    def parity(self, batch, filters):
        """Probabilities of the card and of the CPU, by the largest; halves differ by 0.0024 of it on the CPU itself."""
        folder = self.model("parity", self.sizes[0], batch, 22, filters)

        def probabilities(*options):
            command(self.speed, "forward", folder, *options)
            return numpy.fromfile(folder / "ours.raw", "<f4")

        cpu = probabilities("cpu")
        for allowed, *options in [(1e-4,), (1e-2, "mixed")][: 1 + self.halves]:
            off = float(abs(probabilities(self.device, *options) - cpu).max() / cpu.max())
            self.agree("parity", off, allowed, filters=int(filters), batch=int(batch), mode=options)

    def row(self, what, mode, goal, folder, ours, size):
        """Ours and PyTorch's in turn, three times: seconds, and memory on the host and on the card; gives our memory."""
        pairs = [(ours(), self.peer(what, folder, mode) if self.cuda else None) for _ in range(3)]

        def summary(runs):
            seconds, host, card = zip(*runs)
            return float(numpy.median(seconds)), max(host), max(card) if None not in card else None

        (mine, *memory), (theirs, *their_memory) = (summary(side) if None not in side else [None] for side in zip(*pairs))
        self.write(row=f"gpu-{what}", mode=mode, ours=mine, peer=theirs, ratio=theirs / mine if theirs else None, goal=goal,
                   memory=memory, peer_memory=their_memory or None, size=size)
        return memory

    def network(self, what, mode):
        folder = self.model("network", *self.sizes)
        size, batch, channels, filters = self.sizes
        halves = ["mixed"] if mode == "amp" else []

        def ours():
            printed, _, *memory = watched(self.speed, what, folder, self.device, *halves)
            return float(printed), *memory

        self.row(what, mode, 0.5, folder, ours, f"{batch} x {channels} x {size}^2, {filters} filters")

    def scene(self, mode):
        if not self.rasterio:
            print("rasterio or PyTorch is not here: the row of the scene is left out", file=sys.stderr)
            return
        folder = self.model("scene", self.sizes[0], 1, 22, self.sizes[3])
        command(sys.executable, self.pack / "benches/peers/network.py", "make-scene", folder, self.scene_side)

        def ours():
            halves = ["--half"] if mode == "amp" else []
            _, *figures = watched(self.predict, folder / "scene", "--model", folder, "--out", folder / "maps",
                                   "--device", self.device, "--quiet", *halves)
            return figures

        size = f"{self.scene_side}^2, {self.sizes[3]} filters, from stack to map"
        host, card = self.row("scene", mode, 1.0, folder, ours, size)
        # A software adapter's memory is the host's.
        if card and host > 2 * 2**30 / 1e6:
            raise Wrong(f"the scene took {host:.0f} MB of the host: 2 GiB are allowed")
        if self.small and not self.cuda:
            self.peer("scene", folder, "cpu")
        if self.small or self.cuda:
            off = float(command(sys.executable, self.pack / "benches/peers/network.py", "difference", folder, 0))
            # TF32 keeps as many digits as halves do.
            self.agree("scene-map", off, 1e-2 if self.cuda or mode == "amp" else 1e-4, mode=mode)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pack", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--device", default="vulkan")
    parser.add_argument("--small", action="store_true")
    failed = []
    with tempfile.TemporaryDirectory() as work:
        bench = Bench(Path(work), **vars(parser.parse_args()))
        # A bench of wrong results ends here.
        bench.self_test()
        try:
            bench.parity("1", "16")
            bench.parity(bench.sizes[1], bench.sizes[3])
        except Wrong as error:
            sys.exit(str(error))
        if not bench.halves:
            print("the card has no halves: rows with them are left out", file=sys.stderr)
        for mode in ["tf32", "amp"][: 1 + bench.halves]:
            for row, *what in (bench.network, "forward"), (bench.network, "step"), (bench.scene,):
                try:
                    row(*what, mode)
                except (subprocess.CalledProcessError, Wrong) as error:
                    print(f"a row fails: {error}", file=sys.stderr)
                    failed.append(error)
    sys.exit(1 if failed else 0)

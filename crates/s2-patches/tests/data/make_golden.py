"""Golden values of numpy for the tests of s2-patches.

    python crates/s2-patches/tests/data/make_golden.py

Made with Python 3.11.7, numpy 2.4.6. Nothing is random. Writes beside itself:

- pad_reflect.txt: a line for each case, `length before after : numpy.pad(arange(length), (before, after), "reflect")`
- pad_reflect_scene.txt: numpy.pad of arange(2 * 5 * 7) as [2, 5, 7], 9 pixels on each side of rows and columns
- dihedral.txt: a line for each element, `name rows columns : values` for arange(2 * 3 * 4) as [2, 3, 4]
"""

from pathlib import Path

import numpy as np

here = Path(__file__).parent


def words(values):
    return " ".join(str(int(v)) for v in np.asarray(values).ravel())


with open(here / "pad_reflect.txt", "w") as out:
    for length in (1, 2, 3, 5, 8):
        for before, after in ((0, 0), (1, 2), (4, 9), (17, 3), (30, 30)):
            padded = np.pad(np.arange(length), (before, after), mode="reflect")
            out.write(f"{length} {before} {after} : {words(padded)}\n")

scene = np.arange(2 * 5 * 7).reshape(2, 5, 7)
with open(here / "pad_reflect_scene.txt", "w") as out:
    for line in np.pad(scene, ((0, 0), (9, 9), (9, 9)), mode="reflect").reshape(-1, 7 + 18):
        out.write(words(line) + "\n")

patch = np.arange(2 * 3 * 4).reshape(2, 3, 4)
moved = {
    "Identity": patch,
    "Rotate90": np.rot90(patch, 1, axes=(1, 2)),
    "Rotate180": np.rot90(patch, 2, axes=(1, 2)),
    "Rotate270": np.rot90(patch, 3, axes=(1, 2)),
    "FlipHorizontal": np.flip(patch, axis=2),
    "FlipVertical": np.flip(patch, axis=1),
    "Transpose": patch.transpose(0, 2, 1),
    "AntiTranspose": np.rot90(patch.transpose(0, 2, 1), 2, axes=(1, 2)),
}
with open(here / "dihedral.txt", "w") as out:
    for name, values in moved.items():
        out.write(f"{name} {values.shape[1]} {values.shape[2]} : {words(values)}\n")

"""Makes golden.json beside this script: python make_golden.py

Made with Python 3.11.7, scikit-learn 1.9.1, numpy 2.4.6. Seeded: the same versions give the same file. Values of our
own making, licensed like the crate.

masks       scikit-learn's scores of pairs of binary maps; null where the denominator is zero
large       Matthews' coefficient of large counts, in decimal arithmetic with 60 digits
thresholds  scikit-learn's confusion matrices of float32 probabilities at thresholds, values on the thresholds and
            next to them included; the best thresholds by a loop
"""

import decimal
import json
import pathlib

import numpy as np
from sklearn import metrics

rng = np.random.default_rng(267963)


def counts(truth, predicted):
    (tn, fp), (fn, tp) = metrics.confusion_matrix(truth, predicted, labels=[False, True]).tolist()
    return tp, fp, fn, tn


def text(mask):
    return "".join("#" if v else "." for v in mask)


def masks():
    pairs = {f"random, {p}": (rng.random(60) < p, rng.random(60) < q) for p, q in
             [(0.5, 0.5), (0.1, 0.2), (0.9, 0.7), (0.02, 0.05), (0.98, 0.9)]}
    truth = rng.random(60) < 0.3
    pairs["agrees mostly"] = (truth, truth ^ (rng.random(60) < 0.1))
    pairs["perfect"] = (truth, truth)
    pairs["opposite"] = (truth, ~truth)
    no, yes = np.zeros(20, bool), np.ones(20, bool)
    some = np.arange(20) < 3
    for a, left in {"none": no, "all": yes, "some": some}.items():
        for b, right in {"none": no, "all": yes, "some": some[::-1]}.items():
            pairs[f"truth {a}, predicted {b}"] = (left, right)
    out = []
    for name, (truth, predicted) in pairs.items():
        tp, fp, fn, tn = counts(truth, predicted)
        kwargs = {"zero_division": np.nan}
        scores = {
            "precision": metrics.precision_score(truth, predicted, **kwargs),
            "recall": metrics.recall_score(truth, predicted, **kwargs),
            "specificity": metrics.recall_score(~truth, ~predicted, **kwargs),
            "f1": metrics.f1_score(truth, predicted, **kwargs),
            "f05": metrics.fbeta_score(truth, predicted, beta=0.5, **kwargs),
            "f2": metrics.fbeta_score(truth, predicted, beta=2, **kwargs),
            "iou": metrics.jaccard_score(truth, predicted, zero_division=0) if tp + fp + fn else np.nan,
            "accuracy": metrics.accuracy_score(truth, predicted),
            # 0 in scikit-learn where a map is constant.
            "mcc": metrics.matthews_corrcoef(truth, predicted)
            if (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn) else np.nan,
            "prevalence": truth.mean(),
        }
        scores = {k: None if np.isnan(v) else float(v) for k, v in scores.items()}
        out.append({"name": name, "truth": text(truth), "predicted": text(predicted),
                    "counts": [tp, fp, fn, tn], "scores": scores})
    return out


def large():
    decimal.getcontext().prec = 60
    out = []
    for tp, fp, fn, tn in [
        (10**6, 10**5, 10**5, 12 * 10**7),
        (10**9 + 1, 10**9, 10**9, 10**9 - 1),
        (2**53 + 1, 2**53 - 1, 3, 2**54),
        (2**40 + 1, 2**40, 2**40, 2**40),
        (2**62, 2**61, 2**60, 2**62),
        (7, 2**62, 2**61, 1),
        (2**64 - 1, 2**64 - 1, 2**64 - 1, 2**64 - 2),
        (1, 2**64 - 1, 2**64 - 1, 0),
    ]:
        product = decimal.Decimal((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
        mcc = decimal.Decimal(tp * tn - fp * fn) / product.sqrt()
        # As text: numbers above 2^53 are not safe in JSON.
        out.append({"counts": [str(v) for v in (tp, fp, fn, tn)], "mcc": float(mcc)})
    return out


def thresholds():
    steps = np.arange(1001)
    on = (steps / 1000).astype(np.float32)
    probabilities = np.concatenate([
        rng.beta(0.5, 0.8, 1500).astype(np.float32),
        on, np.nextafter(on[1:], np.float32(0)), np.nextafter(on[:-1], np.float32(1)),
    ])
    truth = rng.random(probabilities.size) < probabilities
    matrices = [counts(truth, probabilities >= np.float32(step / 1000)) for step in steps]

    def best(score):
        values = [score(*c) for c in matrices]
        top = max(v for v in values if v is not None)
        step = min((abs(s - 500), s) for s, v in zip(steps.tolist(), values) if v == top)[1]
        return step / 1000

    def ratio(a, b):
        return a / b if b else None

    def mcc(tp, fp, fn, tn):
        product = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
        return (tp * tn - fp * fn) / product**0.5 if product else None

    return {
        # Bits, because the decimals of a float32 invite rounding on the way.
        "probability_bits": probabilities.view(np.uint32).tolist(),
        "truth": text(truth),
        "counts": [m for m in matrices],
        "best": {
            "f1": best(lambda tp, fp, fn, tn: ratio(2 * tp, 2 * tp + fp + fn)),
            "f05": best(lambda tp, fp, fn, tn: ratio(1.25 * tp, 1.25 * tp + 0.25 * fn + fp)),
            "iou": best(lambda tp, fp, fn, tn: ratio(tp, tp + fp + fn)),
            "mcc": best(mcc),
            "precision": best(lambda tp, fp, fn, tn: ratio(tp, tp + fp)),
        },
    }


golden = {"masks": masks(), "large": large(), "thresholds": thresholds()}
path = pathlib.Path(__file__).with_name("golden.json")
path.write_text(json.dumps(golden).replace('{"name"', '\n{"name"').replace('], [', '],\n[') + "\n")

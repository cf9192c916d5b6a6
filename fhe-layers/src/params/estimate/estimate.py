#!/usr/bin/env python3
"""Runs the lattice estimator on the parameter sets of fhe-layers and prints every attack, one line each.

    python3 estimate.py CHECKOUT > estimates.txt

CHECKOUT: a checkout of https://github.com/malb/lattice-estimator. Needs SageMath (`pip install passagemath-standard` is
enough). Each line: set, reduction cost model, attack, log2 of the cost in operations, log2 of the memory, block size.
Secret: uniform binary. Noise: a discrete Gaussian of the standard deviation of TUniform(b), sqrt((2^(2b+1) + 1) / 6).
Samples: unlimited.
"""
import math
import subprocess
import sys
import warnings

warnings.filterwarnings("ignore")
sys.path.insert(0, sys.argv[1])

from estimator import LWE, ND  # noqa: E402
from estimator.reduction import ADPS16, MATZOV, LaaMosPol14  # noqa: E402
from sage.all import oo  # noqa: E402

Q = 2**50 - 2**14 + 1
SETS = [("n2048-q50-t5", 5), ("n2048-q50-t4-l1", 4)]
MODELS = [
    ("MATZOV", MATZOV()),
    ("LaaMosPol14", LaaMosPol14()),
    ("core-SVP classical", ADPS16(mode="classical")),
    ("core-SVP quantum", ADPS16(mode="quantum")),
]

ATTACKS = ["primal_usvp", "primal_bdd", "primal_hybrid", "dual", "dual_hybrid"]

def main():
    commit = subprocess.run(["git", "-C", sys.argv[1], "log", "-1", "--format=%h of %as"], capture_output=True, text=True)
    print(f"# lattice-estimator {commit.stdout.strip()}; n 2048, q {Q}, binary secret, unlimited samples")
    print("# set | model | attack | log2 operations | log2 memory | block size")
    for name, bound in SETS:
        deviation = math.sqrt((2 ** (2 * bound + 1) + 1) / 6)
        lwe = LWE.Parameters(n=2048, q=Q, Xs=ND.Uniform(0, 1), Xe=ND.DiscreteGaussian(deviation), m=oo)
        for model_name, model in MODELS:
            for attack in ATTACKS:
                try:
                    cost = getattr(LWE, attack)(lwe, red_cost_model=model)
                except Exception as error:  # a model that an attack does not support is a line of the record, too
                    print(f"{name} | {model_name} | {attack} | not supported: {type(error).__name__}", flush=True)
                    continue
                log2 = lambda key: f"{math.log2(float(cost[key])):.1f}" if key in cost and float(cost[key]) > 0 else "-"
                print(f"{name} | {model_name} | {attack} | {log2('rop')} | {log2('mem')} | {cost['beta']}", flush=True)

if __name__ == "__main__":
    main()

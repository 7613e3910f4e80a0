# SPDX-License-Identifier: BSD-2-Clause
"""make bench.  docs/benchmarks.md says how to read what this prints."""

import argparse
import importlib

import bed
import measure

SCENARIOS = ("credentials", "tenants", "changes", "onboarding", "tier", "mesh", "attribution")


def main():
    parser = argparse.ArgumentParser(description="Measures against references in the same run.")
    parser.add_argument("scenario", nargs="*", default=SCENARIOS, help=" ".join(SCENARIOS))
    parser.add_argument("--turns", type=int, default=20, help="slices of time of each target, where they interleave (20)")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds a target, of mesh (5)")
    options = parser.parse_args()
    measure.raise_limits()
    print(f"Machine: {bed.environment_line()}; gateway on core {measure.GATEWAY_CORE}, "
          f"load and backend on core {measure.LOAD_CORE}")
    for name in options.scenario:
        if name not in SCENARIOS:
            parser.error(f"no scenario {name}; there are {' '.join(SCENARIOS)}")
        importlib.import_module(name).run(options)


if __name__ == "__main__":
    main()

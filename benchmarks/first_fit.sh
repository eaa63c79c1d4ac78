#!/bin/sh
# What a stranger waits for: from a clone of this repository to the first fit of a model of their own, in an environment that has nothing.
# sh benchmarks/first_fit.sh [PYTHON] writes the seconds of each stage, and before them the processor time of all (which other work does not stretch). The folder has a space in its name; home, caches and environment are new.
set -eu
python=${1:-python3}
source=$(cd "$(dirname "$0")/.." && pwd)
folder=$(mktemp -d)/"a stranger"
mkdir -p "$folder/home"
trap 'rm -rf "$(dirname "$folder")"' EXIT
export HOME="$folder/home" XDG_CACHE_HOME="$folder/home/cache" PIP_NO_CACHE_DIR=1
unset PYTHONPATH VIPACK_CACHE
now() { date +%s; }
begin=$(now)
git clone -q "$source" "$folder/vipack"
cd "$folder/vipack"
cloned=$(now)
"$python" -m venv "$folder/environment"
"$folder/environment/bin/python" -m pip install -q -c constraints.txt .
installed=$(now)
mkdir "$folder/work" && cd "$folder/work"
cat > own.py <<'PROGRAM'
import pyro
import pyro.distributions as dist
import torch

import vipack as vi

hours = torch.tensor([1.0, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 7.5, 8.0, 9.0])
passed = torch.tensor([0.0, 0.0, 0.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0])


def model(hours, passed):
    slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
    middle = pyro.sample("middle", dist.Normal(5.0, 3.0))
    with pyro.plate("students", len(hours)):
        pyro.sample("passed", dist.Bernoulli(logits=slope * (hours - middle)), obs=passed)


fit = vi.fit(model, data=(hours, passed))
print(fit.diagnose().verdict.value)
print(fit.summary().round(2))
PROGRAM
"$folder/environment/bin/python" own.py
fitted=$(now)
"$folder/environment/bin/vipack" --help > /dev/null
times
echo "clone $((cloned - begin)) s, install $((installed - cloned)) s, first fit $((fitted - installed)) s, together $((fitted - begin)) s"

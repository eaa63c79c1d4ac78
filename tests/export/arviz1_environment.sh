#!/bin/sh
# Makes an environment with Python >= 3.12 and ArviZ 1.x, without torch, where test_arviz1.py runs the adapter.
# Where there is no such Python, or nothing can be installed, it says so and leaves nothing behind: that is no failure.
target=${1:-.venv-arviz1}

# pyenv puts a python3.12 on the path that fails unless that version is selected, hence the trial and the last pattern.
for python in python3.12 python3.13 python3.14 python3 "$HOME"/.pyenv/versions/3.1[2-9]*/bin/python3; do
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 12))' >/dev/null 2>&1 || continue
    rm -rf "$target"
    if "$python" -m venv "$target" && "$target/bin/python" -m pip install -q --timeout 20 --retries 1 \
        --disable-pip-version-check "arviz>=1,<2" 2>/dev/null; then
        echo "ArviZ 1.x with $("$target/bin/python" --version) in $target"
        exit 0
    fi
    rm -rf "$target"
done
echo "no environment for ArviZ 1.x (it needs Python >= 3.12): its tests use arviz-base and arviz-stats instead"

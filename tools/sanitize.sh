#!/bin/sh
# Builds the compiled kernels with AddressSanitizer and UndefinedBehaviorSanitizer and runs the
# kernel tests under them. Run from the root of the repository, in an environment where the package
# and its `dev` extra are installed. Takes six minutes on two cores.
set -eu

python=${PYTHON:-python}
build=build/sanitize

cmake -S . -B $build -DCMAKE_BUILD_TYPE=RelWithDebInfo -DKINKCHECK_SANITIZE=ON \
    -DPython_EXECUTABLE="$($python -c 'import sys; print(sys.executable)')" \
    -Dnanobind_DIR="$($python -m nanobind --cmake_dir)" >/dev/null
cmake --build $build --parallel

# The tests run on a copy of the sources with the sanitized extension beside them. Without `site`
# (-S) no editable install comes before it.
rm -rf $build/src
cp -r src $build/src
cp $build/_extension.* $build/src/kinkcheck/kernels/cpu/
packages=$($python -c 'import os, torch; print(os.path.dirname(os.path.dirname(torch.__file__)))')

# Python itself is not instrumented and keeps memory until it exits: leaks are not looked for.
LD_PRELOAD="$(${CXX:-g++} -print-file-name=libasan.so) $(${CXX:-g++} -print-file-name=libubsan.so)" \
ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 \
PYTHONPATH=$build/src:$packages KINKCHECK_SANITIZED=1 KINKCHECK_KERNELS=cpu \
    $python -S -m pytest tests/test_kernels.py -q -p no:cacheprovider "$@"

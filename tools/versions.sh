#!/bin/sh
# The core tests under several versions of PyTorch, one after the other: for each an environment is
# made, the package installed, the tests run and the environment removed. Prints one line a version;
# all that was said stays in build/versions. Run from the root of the repository, with options for
# pytest. Each version needs up to 7 GB of disk and some minutes.
set -eu

python=${PYTHON:-python3.11}
versions=${VERSIONS:-2.6.0 2.9.1 2.13.0 newest}
core="as_found audit causes derivatives exact* hooks lift max_pool monitor nn noise norm_pool opinfo
      relu rows* segments selection tape* torch_integration unseen user_programs*"

build=build/versions
environment=$build/environment
rm -rf $build
mkdir -p $build
trap 'rm -rf $environment' EXIT
trap 'exit 1' INT TERM

# PyTorch has pins of its own, other ones in each version.
grep -vE '^(torch|triton|sympy)==' constraints.txt >$build/constraints.txt
export PIP_CONSTRAINT=$build/constraints.txt

$python -m pip wheel --quiet --no-deps --wheel-dir $build .
package="$(echo $build/*.whl)[data,exact,sample,transformers]"
tests=$(for name in $core; do echo tests/test_$name.py; done)

status=0
for version in $versions; do
    log=$build/$version.log
    torch=torch
    [ "$version" = newest ] || torch=torch==$version
    {
        $python -m venv $environment &&
            $environment/bin/pip install --quiet $torch "$package" \
                expecttest hypothesis pytest 'pytest-xdist[psutil]' &&
            $environment/bin/python -m pytest -q -p no:cacheprovider "$@" $tests
    } >$log 2>&1 || status=1
    installed=$($environment/bin/pip show torch 2>/dev/null | sed -n 's/^Version: //p')
    echo "PyTorch ${installed:-$version}: $(tail -n 1 $log)"
    rm -rf $environment
done
exit $status

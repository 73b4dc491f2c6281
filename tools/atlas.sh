#!/bin/sh
# What each framework returns at kinks, measured again, one framework after the other: for each an
# environment is made, its probes are measured and the environment is removed. Then the table of the
# package and docs/atlas.md are written, and what has changed in the table is printed. All that was
# said stays in build/atlas. Run from the root of the repository.
#
# COLUMNS chooses what is measured: an adapter, a colon and what pip installs. PyTorch needs up to
# 7 GB of disk and some minutes, the others less. Dr.Jit needs an LLVM newer than 16, whose place
# DRJIT_LIBLLVM_PATH says.
set -eu

python=${PYTHON:-python3.11}
columns=${COLUMNS:-torch:torch==2.6.0 torch:torch==2.9.1 torch:torch==2.13.0 torch:torch==2.14.1
    torch:torch jax:jax tensorflow:tensorflow-cpu mlx:mlx[cpu] tinygrad:tinygrad autograd:autograd
    pytensor:pytensor paddle:paddlepaddle casadi:casadi warp:warp-lang drjit:drjit}

build=build/atlas
environment=$build/environment
table=src/kinkcheck/atlas/conventions.json
rm -rf $build
mkdir -p $build
cp $table $build/before.json
trap 'rm -rf $environment' EXIT
trap 'exit 1' INT TERM
export PYTHONPATH=src PYTHONDONTWRITEBYTECODE=1 OMP_NUM_THREADS=1
unset PIP_CONSTRAINT

status=0
count=0
measured=
for column in $columns; do
    count=$((count + 1))
    file=$build/$count.json
    log=$build/$count.log
    if {
        $python -m venv $environment &&
            $environment/bin/pip install --quiet numpy "${column#*:}" &&
            $environment/bin/python -m kinkcheck.atlas.measuring "${column%%:*}" $file
    } >$log 2>&1; then
        echo "${column#*:}: measured"
        measured="$measured $file"
    else
        echo "${column#*:}: failed, see $log: $(tail -n 1 $log)"
        status=1
    fi
    rm -rf $environment
done

[ -z "$measured" ] || $python -m kinkcheck.atlas.writing $measured
$python tools/atlas_page.py
if diff $build/before.json $table; then
    echo "The table is as it was."
fi
exit $status

// The kernels of one instruction set: compiled once for each, under another name and other flags.
#include "backward.hpp"
#include "cells.hpp"
#include "pixels.hpp"
#include "plain.hpp"
#include "problem.hpp"
#include "threes.hpp"
#include "vectorised.hpp"

namespace kinkcheck {

#define NAME_(x) #x
#define NAME(x) NAME_(x)
#define OF_EACH_TYPE(kernel) {kernel<float>, kernel<double>, kernel<Half>, kernel<Brain>}

extern const Kernels KINKCHECK_KERNELS;
const Kernels KINKCHECK_KERNELS = {
    NAME(KINKCHECK_KERNELS),
    {OF_EACH_TYPE(forward), OF_EACH_TYPE(ties), OF_EACH_TYPE(vjp), OF_EACH_TYPE(jvp)},
    {OF_EACH_TYPE(forward_cells), OF_EACH_TYPE(ties_cells), OF_EACH_TYPE(vjp_cells), {}},
    {OF_EACH_TYPE(forward_pixels), OF_EACH_TYPE(ties_pixels), OF_EACH_TYPE(vjp_pixels), {}},
    {OF_EACH_TYPE(forward_threes), OF_EACH_TYPE(ties_threes), OF_EACH_TYPE(vjp_threes), {}},
    OF_EACH_TYPE(plain_ties),
    OF_EACH_TYPE(plain_vjp),
    OF_EACH_TYPE(plain_jvp),
};

}  // namespace kinkcheck

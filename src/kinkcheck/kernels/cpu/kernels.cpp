// The kernels of one instruction set and element type: compiled once for each, under other names and
// flags. general.hpp takes every geometry. Three others are faster where they apply: cells.hpp (2×2
// windows that tile), threes.hpp (3×3 at a stride of 2), both contiguous, and pixels.hpp
// (channels_last). plain.hpp does over what holds a NaN. The baseline, for processors without AVX2,
// has the general path alone.
#include "general.hpp"
#include "plain.hpp"
#include "problem.hpp"
#if defined(__AVX2__)
#include "cells.hpp"
#include "pixels.hpp"
#include "threes.hpp"
#endif

namespace kinkcheck {

using T = KINKCHECK_ELEMENT;

extern const Kernels KINKCHECK_KERNELS;
const Kernels KINKCHECK_KERNELS = {
    {forward<T>, ties<T>, vjp<T>, jvp<T>},
#if defined(__AVX2__)
    {forward_cells<T>, ties_cells<T>, vjp_cells<T>, nullptr},
    {forward_threes<T>, ties_threes<T>, vjp_threes<T>, nullptr},
    {forward_pixels<T>, ties_pixels<T>, vjp_pixels<T>, nullptr},
#else
    {},
    {},
    {},
#endif
    plain_ties<T>,
    plain_vjp<T>,
    plain_jvp<T>,
};

}  // namespace kinkcheck

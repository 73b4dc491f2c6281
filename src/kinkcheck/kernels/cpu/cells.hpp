// Max pooling of cells: windows of two entries along each pooled dimension that tile the input
// without padding, the commonest of all. They need no scratch memory: a vector of windows is read
// from the tensor, decided in registers, and its gradient written back.
#pragma once

#include "problem.hpp"
#include "rows.hpp"
#include "vectorised.hpp"
#include "vectors.hpp"

namespace {

// The entries of a vector of windows, in scan order.
template <class S, int K>
struct Cell {
  Vec<S> entry[K];
};

// Where to find them: the elements at which the K/2 runs of two entries begin, how far apart the
// two are (side by side if 1, else in different pixels), and how many windows are meant.
template <int K>
struct Place {
  Index run[K / 2];
  Index apart;
  Index count;
};

template <int K, class T>
INLINE Cell<Scalar<T>, K> read(const T* input, const Place<K>& place) {
  using S = Scalar<T>;
  constexpr Index n = Lanes<S>::count;
  Cell<S, K> cell;
  for (int r = 0; r < K / 2; ++r) {
    const T* const from = input + place.run[r];
    if (place.apart == 1) {
      deinterleave<S>(widen_some(from, 2 * place.count),
                      widen_some(from + n, 2 * place.count - n), cell.entry[2 * r],
                      cell.entry[2 * r + 1]);
    } else {
      cell.entry[2 * r] = widen_some(from, place.count);
      cell.entry[2 * r + 1] = widen_some(from + place.apart, place.count);
    }
  }
  return cell;
}

template <int K, class T>
INLINE void write(const Cell<Scalar<T>, K>& cell, T* output, const Place<K>& place) {
  using S = Scalar<T>;
  constexpr Index n = Lanes<S>::count;
  for (int r = 0; r < K / 2; ++r) {
    T* const to = output + place.run[r];
    if (place.apart == 1) {
      Vec<S> a, b;
      interleave<S>(cell.entry[2 * r], cell.entry[2 * r + 1], a, b);
      narrow_some(a, to, 2 * place.count);
      narrow_some(b, to + n, 2 * place.count - n);
    } else {
      narrow_some(cell.entry[2 * r], to, place.count);
      narrow_some(cell.entry[2 * r + 1], to + place.apart, place.count);
    }
  }
}

// Calls act(place, element of the output) for the windows of a block, vector by vector. Unless it
// is to be `once` a window, the last two vectors of a row may overlap.
template <int K, class S, bool once, class Act>
INLINE void for_cells(const Problem& problem, const Block& block, const Act& act) {
  const auto &depth = problem.depth, &height = problem.height, &width = problem.width;
  constexpr Index n = Lanes<S>::count;
  const Index inner = problem.inner, line = width.inputs * inner;
  for (Index outer = block.outer; outer < block.outer + block.planes; ++outer)
    for (Index od = block.begin; od < block.end; ++od)
      for (Index oh = 0; oh < height.outputs; ++oh) {
        Index corner[K / 2];
        for (int r = 0; r < K / 2; ++r) {
          const Index d = od * depth.stride + r / height.kernel;
          const Index h = oh * height.stride + r % height.kernel;
          corner[r] = ((outer * depth.inputs + d) * height.inputs + h) * line;
        }
        const Index at = ((outer * depth.outputs + od) * height.outputs + oh) * width.outputs;
        const auto visit = [&](Index offset, Index apart, Index count, Index window) INLINED {
          Place<K> place;
          for (int r = 0; r < K / 2; ++r) place.run[r] = corner[r] + offset;
          place.apart = apart;
          place.count = count;
          act(place, window);
        };
        // Calls visit for `count` windows whose first entries lie `step` apart.
        const auto run = [&](Index offset, Index apart, Index step, Index count,
                             Index window) INLINED {
          Index i = 0;
          for (; i + n <= count; i += n) visit(offset + i * step, apart, n, window + i);
          if (i == count) return;
          if (!once && count >= n)
            visit(offset + (count - n) * step, apart, n, window + count - n);
          else
            visit(offset + i * step, apart, count - i, window + i);
        };
        if (inner == 1) {
          run(0, 1, 2, width.outputs, at);
        } else {
          for (Index ow = 0; ow < width.outputs; ++ow)
            run(2 * ow * inner, inner, 1, inner, (at + ow) * inner);
        }
      }
}

// Clears what lies beyond the last window: the odd column, row and slice.
template <class T>
void clear_rest(const Problem& problem, const Block& block, T* output) {
  const auto &depth = problem.depth, &height = problem.height, &width = problem.width;
  const Index inner = problem.inner, line = width.inputs * inner;
  const Index columns = width.outputs * width.stride * inner;
  const Index rows = height.outputs * height.stride;
  const auto clear = [](T* from, T* to) {
    for (; from < to; ++from) *from = T{};
  };
  for (Index outer = block.outer; outer < block.outer + block.planes; ++outer) {
    const Index end =
        block.end == depth.outputs ? depth.inputs : block.end * depth.stride;
    for (Index d = block.begin * depth.stride; d < end; ++d)
      for (Index h = 0; h < height.inputs; ++h) {
        T* const start = output + ((outer * depth.inputs + d) * height.inputs + h) * line;
        const bool reached = h < rows && d < depth.outputs * depth.stride;
        clear(start + (reached ? columns : 0), start + line);
      }
  }
}

template <class T, class Act>
INLINE void with_cell_size(const Job& job, const Act& act) {
  switch (job.problem.depth.kernel * job.problem.height.kernel) {
    case 1: return act.template operator()<2>();
    case 2: return act.template operator()<4>();
    default: return act.template operator()<8>();
  }
}

template <class T>
Report forward_cells(const Job& job, const Block& block, std::byte*) {
  using S = Scalar<T>;
  with_cell_size<T>(job, [&]<int K>() {
    for_cells<K, S, false>(job.problem, block, [&](const Place<K>& place, Index at) INLINED {
      const auto cell = read<K>(static_cast<const T*>(job.input), place);
      Vec<S> value = all(-infinity<S>);
      UNROLLED for (const Vec<S>& x : cell.entry) value = (x > value) | (x != x) ? x : value;
      narrow_some(value, static_cast<T*>(job.result) + at, place.count);
    });
  });
  return {};
}

// Looks for NaN in the entries and for −∞ in the values, if that is asked.
template <class S>
class CellWatch {
 public:
  explicit CellWatch(S infinity) : infinity_(all(infinity)) {}

  template <int K>
  INLINE void operator()(const Cell<S, K>& cell, Vec<S> value) {
    UNROLLED for (int k = 0; k < K; k += 2) seen_.unordered(cell.entry[k], cell.entry[k + 1]);
    seen_.equal(value, infinity_);
  }
  INLINE bool alarmed() const { return seen_.met(); }

 private:
  Vec<S> infinity_;
  Flag<S> seen_;
};

// Value and number of active entries of a vector of windows.
template <int K, class S>
INLINE void decide(const Cell<S, K>& cell, CellWatch<S>& watch, Vec<S>& value, Int<S>& size) {
  value = all(-infinity<S>);
  UNROLLED for (const Vec<S>& x : cell.entry) value = x > value ? x : value;
  watch(cell, value);
  size = Int<S>{};
  UNROLLED for (const Vec<S>& x : cell.entry) size -= x == value;
}

template <class T>
Report ties_cells(const Job& job, const Block& block, std::byte*) {
  using S = Scalar<T>;
  CellWatch<S> watch(nan<S>);
  Report report{};
  Int<S> lane, tied{}, tied_at_zero{};
  for (int i = 0; i < Lanes<S>::count; ++i) lane[i] = i;
  with_cell_size<T>(job, [&]<int K>() {
    for_cells<K, S, true>(job.problem, block, [&](const Place<K>& place, Index at) {
      const auto cell = read<K>(static_cast<const T*>(job.input), place);
      Vec<S> value;
      Int<S> size;
      decide(cell, watch, value, size);
      const Vec<S> zero{};
      Int<S> zeros = value == zero;
      UNROLLED for (const Vec<S>& x : cell.entry) zeros &= x == zero;
      const Int<S> tie =
          (size > 1) & (lane < static_cast<typename Lanes<S>::Integer>(place.count));
      tied -= tie;
      tied_at_zero -= tie & zeros;
      if (job.result) narrow_some(value, static_cast<T*>(job.result) + at, place.count);
    });
  });
  for (int i = 0; i < Lanes<S>::count; ++i) {
    report.census.tied += tied[i];
    report.census.tied_at_zero += tied_at_zero[i];
  }
  report.unordered = watch.alarmed();
  return report;
}

template <Sharing sharing, int K, class T>
void share_cells(const Job& job, const Block& block, CellWatch<Scalar<T>>& watch) {
  using S = Scalar<T>;
  for_cells<K, S, false>(job.problem, block, [&](const Place<K>& place, Index at) INLINED {
    auto cell = read<K>(static_cast<const T*>(job.input), place);
    const Vec<S> gradient = widen_some(static_cast<const T*>(job.gradient) + at, place.count);
    Vec<S> value;
    Int<S> size;
    decide(cell, watch, value, size);
    Vec<S> chosen = gradient, other{};
    if constexpr (sharing != Sharing::one) {
      chosen = weighted<T>(job.chosen, size, K, gradient);
      if constexpr (sharing == Sharing::split) other = weighted<T>(job.other, size, K, gradient);
    }
    // Adding to zero turns −0 into +0, as every sum of contributions does.
    chosen += Vec<S>{};
    other += Vec<S>{};
    Int<S> before{};
    UNROLLED for (Vec<S>& x : cell.entry) {
      const Int<S> active = x == value;
      if constexpr (sharing == Sharing::even) {
        x = keep<S>(active, chosen);
      } else {
        x = keep<S>(active, before ? other : chosen);
        before |= active;
      }
    }
    write<K>(cell, static_cast<T*>(job.result), place);
  });
}

template <class T>
Report vjp_cells(const Job& job, const Block& block, std::byte*) {
  using S = Scalar<T>;
  CellWatch<S> watch(job.watch_infinity ? -infinity<S> : nan<S>);
  with_cell_size<T>(job, [&]<int K>() {
    switch (job.choice.sharing) {
      case Sharing::one: return share_cells<Sharing::one, K, T>(job, block, watch);
      case Sharing::even: return share_cells<Sharing::even, K, T>(job, block, watch);
      case Sharing::split: return share_cells<Sharing::split, K, T>(job, block, watch);
    }
  });
  clear_rest(job.problem, block, static_cast<T*>(job.result));
  return {{}, watch.alarmed()};
}

}  // namespace

// Max pooling of cells: windows of two entries along each pooled dimension that tile contiguous
// images without padding, the commonest of all. They need no scratch memory: a vector of windows is
// read from the tensor, decided in registers, and its gradient written back.
#pragma once

#include <cstring>

#include "problem.hpp"
#include "rows.hpp"
#include "shares.hpp"
#include "vectors.hpp"

namespace {

using kinkcheck::Axis;
using kinkcheck::Report;

// The entries of a vector of windows, in scan order: pairs that lie side by side in memory.
template <class S, int pairs>
struct Cell {
  Vec<S> pair[pairs][2];
};

// Calls visit(entry) for each.
template <class C, class Visit>
INLINE void for_each_entry(C& cell, const Visit& visit) {
  UNROLLED for (auto& pair : cell.pair)
    UNROLLED for (auto& entry : pair) visit(entry);
}

// Where to find them: the elements at which the runs of pairs begin, and how many windows are meant.
template <int pairs>
struct Place {
  Index run[pairs];
  Index count;
};

// `end` is that of the tensor. Of what lies beyond the windows meant, some is read with them: it is
// of no account.
template <int pairs, class T>
INLINE Cell<Scalar<T>, pairs> read(const T* input, const T* end, const Place<pairs>& place) {
  using S = Scalar<T>;
  constexpr Index n = Lanes<S>::count;
  Cell<S, pairs> cell;
  for (int r = 0; r < pairs; ++r) {
    const T* const from = input + place.run[r];
    Vec<S> memory[2] = {widen_within(from, 2 * place.count, end)};
    if (2 * place.count > n) memory[1] = widen_within(from + n, 2 * place.count - n, end);
    deinterleave<S>(memory, cell.pair[r]);
  }
  return cell;
}

template <int pairs, class T>
INLINE void write(const Cell<Scalar<T>, pairs>& cell, T* output, const Place<pairs>& place) {
  using S = Scalar<T>;
  constexpr Index n = Lanes<S>::count;
  for (int r = 0; r < pairs; ++r) {
    Vec<S> memory[2];
    interleave<S>(cell.pair[r], memory);
    narrow_some(memory[0], output + place.run[r], 2 * place.count);
    narrow_some(memory[1], output + place.run[r] + n, 2 * place.count - n);
  }
}

// Calls act(place, element of the output) for the windows of a block, vector by vector. Unless it
// is to be `once` a window, the last two vectors of a row may overlap.
template <int pairs, class S, bool once, class Act>
INLINE void for_cells(const Problem& problem, const Block& block, const Act& act) {
  const auto &depth = problem.depth, &height = problem.height, &width = problem.width;
  constexpr Index n = Lanes<S>::count;
  const Index count = width.outputs;
  Index runs[pairs];
  for (int r = 0; r < pairs; ++r)
    runs[r] = (r / height.kernel * height.inputs + r % height.kernel) * width.inputs;
  for (Index outer = block.outer; outer < block.outer + block.planes; ++outer)
    for (Index od = block.begin; od < block.end; ++od)
      for (Index oh = 0; oh < height.outputs; ++oh) {
        const Index d = outer * depth.inputs + od * depth.stride, h = oh * height.stride;
        const Index corner = (d * height.inputs + h) * width.inputs;
        const Index at = ((outer * depth.outputs + od) * height.outputs + oh) * count;
        const auto visit = [&](Index first, Index some) INLINED {
          Place<pairs> place;
          for (int r = 0; r < pairs; ++r) place.run[r] = corner + runs[r] + 2 * first;
          place.count = some;
          act(place, at + first);
        };
        Index i = 0;
        for (; i + n <= count; i += n) visit(i, n);
        if (i == count) continue;
        if (!once && count >= n)
          visit(count - n, n);
        else
          visit(i, count - i);
      }
}

// Clears what lies beyond the last window: the columns, rows and slices left over.
template <class T>
void clear_rest(const Problem& problem, const Block& block, T* output) {
  const auto &depth = problem.depth, &height = problem.height, &width = problem.width;
  const Index columns = width.outputs * width.stride, rows = height.outputs * height.stride;
  const Index end = block.end == depth.outputs ? depth.inputs : block.end * depth.stride;
  for (Index outer = block.outer; outer < block.outer + block.planes; ++outer)
    for (Index d = block.begin * depth.stride; d < end; ++d)
      for (Index h = 0; h < height.inputs; ++h) {
        T* const line = output + ((outer * depth.inputs + d) * height.inputs + h) * width.inputs;
        const bool reached = h < rows && d < depth.outputs * depth.stride;
        for (Index w = reached ? columns : 0; w < width.inputs; ++w) line[w] = T{};
      }
}

// Calls act<pairs>().
template <class Act>
INLINE void with_pairs(const Problem& problem, const Act& act) {
  switch (problem.depth.kernel * problem.height.kernel) {
    case 1: return act.template operator()<1>();
    case 2: return act.template operator()<2>();
    default: return act.template operator()<4>();
  }
}

template <class T>
Report forward_cells(const Job& job, const Block& block, std::byte*) {
  using S = Scalar<T>;
  const auto [input, end] = elements_of(static_cast<const T*>(job.input), job.problem, true);
  T* const result = static_cast<T*>(job.result);
  with_pairs(job.problem, [&]<int pairs>() {
    for_cells<pairs, S, false>(job.problem, block, [&](const Place<pairs>& place,
                                                       Index at) INLINED {
      const auto cell = read<pairs>(input, end, place);
      Vec<S> value = all(-infinity<S>);
      for_each_entry(cell, [&](Vec<S> x) INLINED {
        value = (x > value) | (x != x) ? x : value;
      });
      narrow_some(value, result + at, place.count);
    });
  });
  return {};
}

// Looks for NaN in the entries and for −∞ in the values, if that is asked.
template <class S>
class CellWatch {
 public:
  explicit CellWatch(S infinity) : infinity_(all(infinity)) {}

  template <int pairs>
  INLINE void operator()(const Cell<S, pairs>& cell, Vec<S> value) {
    UNROLLED for (const auto& pair : cell.pair) seen_.unordered(pair[0], pair[1]);
    seen_.equal(value, infinity_);
  }
  INLINE bool alarmed() const { return seen_.met(); }

 private:
  Vec<S> infinity_;
  Flag<S> seen_;
};

// Value and number of active entries of a vector of windows.
template <int pairs, class S>
INLINE void decide(const Cell<S, pairs>& cell, CellWatch<S>& watch, Vec<S>& value, Int<S>& size) {
  value = all(-infinity<S>);
  for_each_entry(cell, [&](Vec<S> x) INLINED { value = x > value ? x : value; });
  watch(cell, value);
  size = Int<S>{};
  for_each_entry(cell, [&](Vec<S> x) INLINED { size -= x == value; });
}

template <class T>
Report ties_cells(const Job& job, const Block& block, std::byte*) {
  using S = Scalar<T>;
  CellWatch<S> watch(nan<S>);
  Int<S> tied{}, tied_at_zero{};
  const auto [input, end] = elements_of(static_cast<const T*>(job.input), job.problem, true);
  with_pairs(job.problem, [&]<int pairs>() {
    for_cells<pairs, S, true>(job.problem, block, [&](const Place<pairs>& place, Index at) {
      const auto cell = read<pairs>(input, end, place);
      Vec<S> value;
      Int<S> size;
      decide(cell, watch, value, size);
      Int<S> zeros = value == Vec<S>{};
      for_each_entry(cell, [&](Vec<S> x) INLINED { zeros &= x == Vec<S>{}; });
      const Int<S> tie = (size > 1) & among<S>(place.count);
      tied -= tie;
      tied_at_zero -= tie & zeros;
      if (job.result) narrow_some(value, static_cast<T*>(job.result) + at, place.count);
    });
  });
  return {census_of<S>(tied, tied_at_zero), watch.alarmed()};
}

template <class T>
Report vjp_cells(const Job& job, const Block& block, std::byte*) {
  using S = Scalar<T>;
  const Problem& problem = job.problem;
  CellWatch<S> watch(job.watch_infinity ? -infinity<S> : nan<S>);
  const auto [input, end] = elements_of(static_cast<const T*>(job.input), problem, true);
  const auto [gradients, gradients_end] =
      elements_of(static_cast<const T*>(job.gradient), problem, false);
  T* const result = static_cast<T*>(job.result);
  const Tables tables = job.tables;
  with_pairs(problem, [&]<int pairs>() {
    for_cells<pairs, S, false>(problem, block, [&](const Place<pairs>& place, Index at) INLINED {
      auto cell = read<pairs>(input, end, place);
      const Vec<S> gradient = widen_within(gradients + at, place.count, gradients_end);
      Vec<S> value;
      Int<S> size;
      decide(cell, watch, value, size);
      const Shares<S> shares = shares_of<T>(tables, size, 2 * pairs, gradient);
      // Adding to zero turns −0 into +0, as every sum of contributions does.
      Vec<S> own = shares.chosen + Vec<S>{};
      const Vec<S> rest = shares.other + Vec<S>{};
      // The first active entry takes its share and leaves the rest to the others.
      for_each_entry(cell, [&](Vec<S>& x) INLINED {
        const Int<S> active = x == value;
        x = keep<S>(active, own);
        own = active ? rest : own;
      });
      write<pairs>(cell, result, place);
    });
  });
  clear_rest(problem, block, result);
  return {{}, watch.alarmed()};
}

}  // namespace

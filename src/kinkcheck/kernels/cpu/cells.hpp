// Max pooling of cells: windows of two entries along each pooled dimension, or of three, that tile
// the input without padding, the commonest of all. They need no scratch memory: a vector of windows
// is read from the tensor, decided in registers, and its gradient written back.
#pragma once

#include <cstring>

#include "problem.hpp"
#include "rows.hpp"
#include "vectorised.hpp"
#include "vectors.hpp"

namespace {

using kinkcheck::Axis;

// The entries of a vector of windows, in scan order: some runs of `edge` each.
template <class S, int edge, int runs>
struct Cell {
  Vec<S> run[runs][edge];
};

// Calls visit(entry) for each.
template <class C, class Visit>
INLINE void for_each_entry(C& cell, const Visit& visit) {
  UNROLLED for (auto& run : cell.run)
    UNROLLED for (auto& entry : run) visit(entry);
}

// Where to find them: the elements at which the runs begin, how far apart the entries of one are
// (side by side if 1, else in different pixels), and how many windows are meant.
template <int edge, int runs>
struct Place {
  Index run[runs];
  Index apart;
  Index count;
};

// `end` is that of the tensor. Of what lies beyond the windows meant, some is read with them: it is
// of no account.
template <int edge, int runs, class T>
INLINE Cell<Scalar<T>, edge, runs> read(const T* input, const T* end,
                                        const Place<edge, runs>& place) {
  using S = Scalar<T>;
  constexpr Index n = Lanes<S>::count;
  Cell<S, edge, runs> cell;
  for (int r = 0; r < runs; ++r) {
    const T* const from = input + place.run[r];
    auto& run = cell.run[r];
    if (place.apart == 1) {
      Vec<S> memory[edge];
      for (int v = 0; v < edge; ++v)
        memory[v] = edge * place.count > v * n
                        ? widen_within(from + v * n, edge * place.count - v * n, end)
                        : Vec<S>{};
      deinterleave<S>(memory, run);
    } else {
      for (int e = 0; e < edge; ++e)
        run[e] = widen_within(from + e * place.apart, place.count, end);
    }
  }
  return cell;
}

template <int edge, int runs, class T>
INLINE void write(const Cell<Scalar<T>, edge, runs>& cell, T* output,
                  const Place<edge, runs>& place) {
  using S = Scalar<T>;
  constexpr Index n = Lanes<S>::count;
  for (int r = 0; r < runs; ++r) {
    T* const to = output + place.run[r];
    const auto& run = cell.run[r];
    if (place.apart == 1) {
      Vec<S> memory[edge];
      interleave<S>(run, memory);
      for (int v = 0; v < edge; ++v)
        narrow_some(memory[v], to + v * n, edge * place.count - v * n);
    } else {
      for (int e = 0; e < edge; ++e) narrow_some(run[e], to + e * place.apart, place.count);
    }
  }
}

// Asks for the entries of the next windows: they lie in more runs of memory than processors follow.
template <class T, int edge, int runs>
INLINE void announce(const T* memory, const Place<edge, runs>& place) {
  if (place.apart == 1) return;
  for (const Index run : place.run)
    UNROLLED for (int e = edge; e < 2 * edge; ++e)
      __builtin_prefetch(memory + run + e * place.apart);
}

// Calls act(place, element of the output) for the windows of a block, vector by vector. Unless it
// is to be `once` a window, the last two vectors of a row may overlap.
template <int edge, int runs, class S, bool once, class Act>
INLINE void for_cells(const Problem& problem, const Block& block, const Act& act) {
  const auto &depth = problem.depth, &height = problem.height, &width = problem.width;
  constexpr Index n = Lanes<S>::count;
  const Index inner = problem.inner, line = width.inputs * inner;
  for (Index outer = block.outer; outer < block.outer + block.planes; ++outer)
    for (Index od = block.begin; od < block.end; ++od)
      for (Index oh = 0; oh < height.outputs; ++oh) {
        Index corner[runs];
        for (int r = 0; r < runs; ++r) {
          const Index d = od * depth.stride + r / height.kernel;
          const Index h = oh * height.stride + r % height.kernel;
          corner[r] = ((outer * depth.inputs + d) * height.inputs + h) * line;
        }
        const Index at = ((outer * depth.outputs + od) * height.outputs + oh) * width.outputs;
        const auto visit = [&](Index offset, Index apart, Index count, Index window) INLINED {
          Place<edge, runs> place;
          for (int r = 0; r < runs; ++r) place.run[r] = corner[r] + offset;
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
          run(0, 1, edge, width.outputs, at);
        } else {
          for (Index ow = 0; ow < width.outputs; ++ow)
            run(edge * ow * inner, inner, 1, inner, (at + ow) * inner);
        }
      }
}

// Clears what lies beyond the last window: the columns, rows and slices left over.
template <class T>
void clear_rest(const Problem& problem, const Block& block, T* output) {
  const auto &depth = problem.depth, &height = problem.height, &width = problem.width;
  const Index inner = problem.inner, line = width.inputs * inner;
  const Index columns = width.outputs * width.stride * inner;
  const Index rows = height.outputs * height.stride;
  const auto clear = [](T* from, T* to) {
    for (; from < to; ++from) *from = T{};
  };
  const Index end = block.end == depth.outputs ? depth.inputs : block.end * depth.stride;
  for (Index outer = block.outer; outer < block.outer + block.planes; ++outer)
    for (Index d = block.begin * depth.stride; d < end; ++d)
      for (Index h = 0; h < height.inputs; ++h) {
        T* const start = output + ((outer * depth.inputs + d) * height.inputs + h) * line;
        const bool reached = h < rows && d < depth.outputs * depth.stride;
        clear(start + (reached ? columns : 0), start + line);
      }
}

// Clears the whole block.
template <class T>
void clear_block(const Problem& problem, const Block& block, T* output) {
  const Axis& depth = problem.depth;
  const Index slice = problem.height.inputs * problem.width.inputs * problem.inner;
  const Index end = block.end == depth.outputs ? depth.inputs : block.end * depth.stride;
  for (Index outer = block.outer; outer < block.outer + block.planes; ++outer)
    for (Index d = block.begin * depth.stride; d < end; ++d)
      std::memset(static_cast<void*>(output + (outer * depth.inputs + d) * slice), 0,
                  static_cast<std::size_t>(slice) * sizeof(T));
}

// Calls act<edge, runs>().
template <class Act>
INLINE void with_cell_size(const Job& job, const Act& act) {
  const Index runs = job.problem.depth.kernel * job.problem.height.kernel;
  if (job.problem.width.kernel == 2) {
    if (runs == 1) return act.template operator()<2, 1>();
    if (runs == 2) return act.template operator()<2, 2>();
    return act.template operator()<2, 4>();
  }
  if (runs == 1) return act.template operator()<3, 1>();
  if (runs == 3) return act.template operator()<3, 3>();
  return act.template operator()<3, 9>();
}

template <class T>
Report forward_cells(const Job& job, const Block& block, std::byte*) {
  using S = Scalar<T>;
  const auto [input, end] = elements_of(static_cast<const T*>(job.input), job.problem, true);
  with_cell_size(job, [&]<int edge, int runs>() {
    const auto visit = [&](const Place<edge, runs>& place, Index at) INLINED {
      if constexpr (runs > 1) announce(input, place);
      const auto cell = read<edge, runs>(input, end, place);
      Vec<S> value = all(-infinity<S>);
      for_each_entry(cell, [&](Vec<S> x) INLINED {
        value = (x > value) | (x != x) ? x : value;
      });
      narrow_some(value, static_cast<T*>(job.result) + at, place.count);
    };
    for_cells<edge, runs, S, false>(job.problem, block, visit);
  });
  return {};
}

// Looks for NaN in the entries and for −∞ in the values, if that is asked.
template <class S>
class CellWatch {
 public:
  explicit CellWatch(S infinity) : infinity_(all(infinity)) {}

  template <int edge, int runs>
  INLINE void operator()(const Cell<S, edge, runs>& cell, Vec<S> value) {
    UNROLLED for (const auto& run : cell.run) {
      seen_.unordered(run[0], run[1]);
      if constexpr (edge == 3) seen_.unordered(run[2], run[2]);
    }
    seen_.equal(value, infinity_);
  }
  INLINE bool alarmed() const { return seen_.met(); }

 private:
  Vec<S> infinity_;
  Flag<S> seen_;
};

// Value and number of active entries of a vector of windows.
template <int edge, int runs, class S>
INLINE void decide(const Cell<S, edge, runs>& cell, CellWatch<S>& watch, Vec<S>& value,
                   Int<S>& size) {
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
  Report report{};
  Int<S> lane, tied{}, tied_at_zero{};
  for (int i = 0; i < Lanes<S>::count; ++i) lane[i] = i;
  const auto [input, end] = elements_of(static_cast<const T*>(job.input), job.problem, true);
  with_cell_size(job, [&]<int edge, int runs>() {
    for_cells<edge, runs, S, true>(job.problem, block, [&](const Place<edge, runs>& place,
                                                           Index at) {
      const auto cell = read<edge, runs>(input, end, place);
      Vec<S> value;
      Int<S> size;
      decide(cell, watch, value, size);
      const Vec<S> zero{};
      Int<S> zeros = value == zero;
      for_each_entry(cell, [&](Vec<S> x) INLINED { zeros &= x == zero; });
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

template <Sharing sharing, int edge, int runs, class T>
void share_cells(const Job& job, const Block& block, CellWatch<Scalar<T>>& watch) {
  using S = Scalar<T>;
  const auto [input, end] = elements_of(static_cast<const T*>(job.input), job.problem, true);
  const auto [gradients, gradients_end] =
      elements_of(static_cast<const T*>(job.gradient), job.problem, false);
  T* const result = static_cast<T*>(job.result);
  for_cells<edge, runs, S, false>(job.problem, block, [&](const Place<edge, runs>& place,
                                                          Index at) INLINED {
    if constexpr (runs > 1) {
      announce(input, place);
      announce(static_cast<const T*>(result), place);
    }
    auto cell = read<edge, runs>(input, end, place);
    const Vec<S> gradient = widen_within(gradients + at, place.count, gradients_end);
    Vec<S> value;
    Int<S> size;
    decide(cell, watch, value, size);
    Vec<S> chosen = gradient, other{};
    // Of three entries and more along a dimension the greatest is mostly alone.
    if (sharing != Sharing::one && (edge == 2 || any<S>(size > 1))) {
      chosen = weighted<T>(job.chosen, size, edge * runs, gradient);
      if constexpr (sharing == Sharing::split)
        other = weighted<T>(job.other, size, edge * runs, gradient);
    }
    // Adding to zero turns −0 into +0, as every sum of contributions does.
    chosen += Vec<S>{};
    other += Vec<S>{};
    Int<S> before{};
    for_each_entry(cell, [&](Vec<S>& x) INLINED {
      const Int<S> active = x == value;
      if constexpr (sharing == Sharing::even) {
        x = keep<S>(active, chosen);
      } else {
        x = keep<S>(active, before ? other : chosen);
        before |= active;
      }
    });
    write<edge, runs>(cell, result, place);
  });
}

template <class T>
Report vjp_cells(const Job& job, const Block& block, std::byte*) {
  using S = Scalar<T>;
  CellWatch<S> watch(job.watch_infinity ? -infinity<S> : nan<S>);
  const Problem& problem = job.problem;
  const Axis& width = problem.width;
  T* const result = static_cast<T*>(job.result);
  // What is left over of short rows is cleared before they are written, with all the block.
  constexpr Index short_line = 64;
  const bool is_short = width.inputs * problem.inner < short_line &&
                        width.outputs * width.stride < width.inputs;
  if (is_short) clear_block(problem, block, result);
  with_cell_size(job, [&]<int edge, int runs>() {
    switch (job.choice.sharing) {
      case Sharing::one: return share_cells<Sharing::one, edge, runs, T>(job, block, watch);
      case Sharing::even: return share_cells<Sharing::even, edge, runs, T>(job, block, watch);
      case Sharing::split: return share_cells<Sharing::split, edge, runs, T>(job, block, watch);
    }
  });
  if (!is_short) clear_rest(problem, block, result);
  return {{}, watch.alarmed()};
}

}  // namespace

// Between memory, where elements lie in the tensor's order and type, and rows of scratch, where
// they lie by phase (see Layout) and in the computing type.
#pragma once

#include <utility>

#include "problem.hpp"
#include "vectors.hpp"

namespace {

using kinkcheck::Block;
using kinkcheck::Index;
using kinkcheck::Layout;
using kinkcheck::Problem;

INLINE Index least(Index a, Index b) { return a < b ? a : b; }
INLINE Index most(Index a, Index b) { return a < b ? b : a; }
INLINE Index round_up(Index a, Index b) { return (a + b - 1) / b * b; }
// For b > 0 and any a.
INLINE Index floor_divide(Index a, Index b) { return a / b - (a % b < 0); }
INLINE Index ceil_divide(Index a, Index b) { return a / b + (a % b > 0); }

// Looks out for values that the vectorised kernels cannot order.
template <class S>
class Watch {
 public:
  // `infinity`: −∞, or NaN (which equals nothing) when −∞ is nothing special.
  explicit Watch(S infinity) : infinity_(all(infinity)) {}

  INLINE void operator()(Vec<S> v) {
    seen_.unordered(v, v);
    seen_.equal(v, infinity_);
  }
  INLINE void operator()(S value) { (*this)(all(value)); }
  INLINE bool alarmed() const { return seen_.met(); }

 private:
  Vec<S> infinity_;
  Flag<S> seen_;
};

// Looks out for nothing.
struct Unwatched {
  template <class Any>
  INLINE void operator()(Any) {}
};

template <class T, class Watcher>
INLINE void widen_run(const T* from, Scalar<T>* to, Index count, Watcher& watch) {
  constexpr Index step = Lanes<Scalar<T>>::count;
  Index i = 0;
  for (; i + step <= count; i += step) {
    const auto v = widen_vector(from + i);
    watch(v);
    store(to + i, v);
  }
  if (i < count) {
    const auto v = widen_some(from + i, count - i);
    watch(v);
    store_some(to + i, v, count - i);
  }
}

template <class T>
INLINE void narrow_run(const Scalar<T>* from, T* to, Index count) {
  constexpr Index step = Lanes<Scalar<T>>::count;
  Index i = 0;
  for (; i + step <= count; i += step) narrow_vector(load(from + i), to + i);
  if (i < count) narrow_some(load(from + i), to + i, count - i);
}

template <class S>
INLINE void fill_run(S* to, Index count, S value) {
  for (Index i = 0; i < count; ++i) to[i] = value;
}

// Every second element, from the first and from the second on.
template <class S>
INLINE void deinterleave(Vec<S> a, Vec<S> b, Vec<S>& even, Vec<S>& odd) {
  constexpr int n = Lanes<S>::count;
  [&]<int... lane>(std::integer_sequence<int, lane...>) {
    even = __builtin_shufflevector(a, b, (2 * lane)...);
    odd = __builtin_shufflevector(a, b, (2 * lane + 1)...);
  }(std::make_integer_sequence<int, n>{});
}

// Lanes u = t − (begin − lead) of one plane.
struct Range {
  Index low, high;
};

// Where the lanes of a block lie in a row of memory; the same for all its rows.
class Geometry {
 public:
  Geometry(const Problem& problem, const Layout& layout, const Block& block)
      : problem(problem), layout(layout), block(block), stride(problem.width.stride) {
    lanes = layout.lead + (block.end - block.begin) + layout.reach;
    origin = (block.begin - layout.lead) * stride - problem.width.padding;
    columns = {block.begin == 0 ? 0 : block.begin * stride - problem.width.padding,
               block.end == layout.extent ? problem.width.inputs
                                          : block.end * stride - problem.width.padding};
    whole_rows = columns.low == 0 && columns.high == problem.width.inputs;
    for (Index i = 0; i < 2 && i < layout.slots; ++i) inside_[i] = inside(layout.phase[i]);
    paired = stride == 2 && problem.inner == 1 && layout.slots == 2;
    whole = stride == 1 && block.channels == problem.inner;
    const Index first = most(block.begin - layout.lead, 0);
    const Index last = most(first, least(block.end, problem.width.outputs));
    windows = {first - (block.begin - layout.lead), last - (block.begin - layout.lead)};
    first_window = first;
  }

  // The lanes of a slot that exist.
  Range held(Index slot) const { return slot < 2 ? inside_[slot] : inside(layout.phase[slot]); }

  const Problem& problem;
  const Layout& layout;
  const Block& block;
  Index stride;
  Index lanes;         // of one plane, without channels
  Index origin;        // the width of lane 0 of phase 0
  Range windows;       // the lanes that are windows
  Index first_window;  // the window of windows.low
  Range columns;       // widths that are in no other block, if blocks are cut along the input
  bool whole_rows;     // these are all there are
  bool paired;         // two phases of single elements, side by side in memory
  bool whole;          // a row in memory is a row of lanes

 private:
  Range inside(Index phase) const {
    const Index low = ceil_divide(-origin - phase, stride);
    const Index high = floor_divide(problem.width.inputs - 1 - origin - phase, stride) + 1;
    const Index from = least(most(low, 0), lanes);
    return {from, most(from, least(high, lanes))};
  }

  Range inside_[2];
};

// Reads one row of the input's shape. The lanes that lie in the padding are left as they are.
template <class T, class Watcher>
void pack_row(const Geometry& geometry, const T* input, Index depth, Index height,
              Scalar<T>* row, Watcher& watch) {
  using S = Scalar<T>;
  const Problem& problem = geometry.problem;
  const Layout& layout = geometry.layout;
  const Block& block = geometry.block;
  const Index inner = problem.inner, channels = block.channels, stride = geometry.stride;
  const Index line = problem.width.inputs * inner;
  const Index plane = problem.depth.inputs * problem.height.inputs * line;
  const T* from = input + block.outer * plane +
                  (depth * problem.height.inputs + height) * line + block.channel +
                  geometry.origin * inner;
  for (Index p = 0; p < block.planes; ++p, from += plane, row += layout.pitch) {
    if (geometry.paired) {
      const Range even = geometry.held(0), odd = geometry.held(1);
      S *const evens = row, *const odds = row + layout.row;
      if (odd.low < even.low) watch(odds[odd.low] = widen(from[2 * odd.low + 1]));
      if (odd.high < even.high) watch(evens[odd.high] = widen(from[2 * odd.high]));
      constexpr Index step = Lanes<S>::count;
      for (Index u = even.low; u < odd.high; u += step) {
        const Index count = least(step, odd.high - u);
        const auto a = widen_some(from + 2 * u, 2 * count);
        const auto b = widen_some(from + 2 * u + step, 2 * count - step);
        watch(a);
        watch(b);
        Vec<S> x, y;
        deinterleave<S>(a, b, x, y);
        store_some(evens + u, x, count);
        store_some(odds + u, y, count);
      }
      continue;
    }
    for (Index slot = 0; slot < layout.slots; ++slot) {
      const Range range = geometry.held(slot);
      const T* const phase = from + layout.phase[slot] * inner;
      S* const to = row + slot * layout.row;
      if (geometry.whole) {
        widen_run(phase + range.low * inner, to + range.low * inner,
                  (range.high - range.low) * inner, watch);
      } else if (inner == 1) {
        for (Index u = range.low; u < range.high; ++u) to[u] = widen(phase[u * stride]);
        constexpr Index step = Lanes<S>::count;
        for (Index u = range.low; u < range.high; u += step)
          watch(widen_some(to + u, range.high - u));
      } else {
        for (Index u = range.low; u < range.high; ++u)
          widen_run(phase + u * stride * inner, to + u * channels, channels, watch);
      }
    }
  }
}

// Calls move(element of a tensor of the output's shape, lane, count) for every run of one row.
template <class Move>
INLINE void for_output_runs(const Geometry& geometry, Index depth, Index height,
                            const Move& move) {
  const Problem& problem = geometry.problem;
  const Block& block = geometry.block;
  const Index inner = problem.inner, channels = block.channels;
  const Index line = problem.width.outputs * inner;
  const Index plane = problem.depth.outputs * problem.height.outputs * line;
  const auto [low, high] = geometry.windows;
  Index at = block.outer * plane + (depth * problem.height.outputs + height) * line +
             geometry.first_window * inner + block.channel;
  Index lane = low * channels;
  for (Index p = 0; p < block.planes; ++p, at += plane, lane += geometry.layout.pitch) {
    if (channels == inner) {
      if (low < high) move(at, lane, (high - low) * inner);
    } else {
      for (Index w = 0; w < high - low; ++w) move(at + w * inner, lane + w * channels, channels);
    }
  }
}

}  // namespace

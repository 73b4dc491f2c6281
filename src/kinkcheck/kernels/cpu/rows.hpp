// Between memory, where elements lie in the tensor's order and type, and rows of scratch, where
// they lie by phase (see Layout) and in the computing type.
#pragma once

#include <cstddef>
#include <limits>
#include <utility>

#include "problem.hpp"
#include "vectors.hpp"

namespace {

using kinkcheck::Block;
using kinkcheck::Index;
using kinkcheck::Job;
using kinkcheck::Layout;
using kinkcheck::Problem;

template <class S>
constexpr S infinity = std::numeric_limits<S>::infinity();
template <class S>
constexpr S nan = std::numeric_limits<S>::quiet_NaN();

INLINE Index least(Index a, Index b) { return a < b ? a : b; }
INLINE Index most(Index a, Index b) { return a < b ? b : a; }
INLINE Index round_up(Index a, Index b) { return (a + b - 1) / b * b; }
// For b > 0 and any a.
INLINE Index floor_divide(Index a, Index b) { return a / b - (a % b < 0); }
INLINE Index ceil_divide(Index a, Index b) { return a / b + (a % b > 0); }

// A tensor of the input's shape or of the output's, and where it ends.
template <class T>
struct Elements {
  T *first, *end;
};

template <class T>
INLINE Elements<T> elements_of(T* first, const Problem& problem, bool as_input) {
  const auto size = [&](const kinkcheck::Axis& axis) {
    return as_input ? axis.inputs : axis.outputs;
  };
  return {first, first + problem.outer * problem.inner * size(problem.depth) *
                             size(problem.height) * size(problem.width)};
}

// Which lanes are among the first `count`.
template <class S>
INLINE Int<S> among(Index count) {
  Int<S> lane;
  for (int i = 0; i < Lanes<S>::count; ++i) lane[i] = i;
  return lane < static_cast<typename Lanes<S>::Integer>(least(count, Lanes<S>::count));
}

// What the lanes counted.
template <class S>
INLINE kinkcheck::Census census_of(Int<S> tied, Int<S> tied_at_zero) {
  kinkcheck::Census census{};
  for (int i = 0; i < Lanes<S>::count; ++i) {
    census.tied += tied[i];
    census.tied_at_zero += tied_at_zero[i];
  }
  return census;
}

// Takes memory for some items off the front.
template <class Item>
Item* take(std::byte*& memory, Index count) {
  Item* const taken = reinterpret_cast<Item*>(memory);
  memory += round_up(count * static_cast<Index>(sizeof(Item)), 64);
  return taken;
}

// Calls visit(i) for vectors of n elements that cover `count`, the last two of which may overlap,
// and rest(i) for what is less than a vector.
template <Index n, class Visit, class Rest>
INLINE void for_vectors(Index count, const Visit& visit, const Rest& rest) {
  if (count < n) {
    if (count > 0) rest(count);
    return;
  }
  Index i = 0;
  for (; i + n <= count; i += n) visit(i);
  if (i < count) visit(count - n);
}

// Looks for values that the vectorised kernels cannot order: NaN, and −∞ if that is asked.
template <class T>
INLINE void watch_run(const T* from, Index count, bool infinite, Flag<Scalar<T>>& seen) {
  using S = Scalar<T>;
  constexpr Index n = Lanes<S>::count;
  for_vectors<2 * n>(
      count,
      [&](Index i) INLINED {
        seen.unordered(widen_vector(from + i), widen_vector(from + i + n));
      },
      [&](Index some) INLINED {
        seen.unordered(widen_some(from, some), widen_some(from + n, some - n));
      });
  if (infinite)
    for (Index i = 0; i < count; i += n)
      seen.equal(widen_some(from + i, count - i), all(-infinity<S>));
}

// The vector at `from`, of which `count` elements are wanted and the others are of no account. To
// read less than a vector takes long: that is for the last elements of a tensor.
template <class T>
INLINE Vec<Scalar<T>> widen_within(const T* from, Index count, const T* end) {
  return Lanes<Scalar<T>>::count <= end - from ? widen_vector(from) : widen_some(from, count);
}

template <class T>
INLINE void widen_run(const T* from, Scalar<T>* to, Index count) {
  for_vectors<Lanes<Scalar<T>>::count>(
      count, [&](Index i) INLINED { store(to + i, widen_vector(from + i)); },
      [&](Index some) INLINED { store_some(to, widen_some(from, some), some); });
}

template <class T>
INLINE void narrow_run(const Scalar<T>* from, T* to, Index count) {
  for_vectors<Lanes<Scalar<T>>::count>(
      count, [&](Index i) INLINED { narrow_vector(load(from + i), to + i); },
      [&](Index some) INLINED { narrow_some(load(from), to, some); });
}

template <class S>
INLINE void fill_run(S* to, Index count, S value) {
  for (Index i = 0; i < count; ++i) to[i] = value;
}

// The phases of two vectors of memory: every second element, from the first and from the second on.
template <class S>
INLINE void deinterleave(const Vec<S> (&memory)[2], Vec<S> (&phases)[2]) {
  constexpr int n = Lanes<S>::count;
  [&]<int... lane>(std::integer_sequence<int, lane...>) INLINED {
    phases[0] = __builtin_shufflevector(memory[0], memory[1], (2 * lane)...);
    phases[1] = __builtin_shufflevector(memory[0], memory[1], (2 * lane + 1)...);
  }(std::make_integer_sequence<int, n>{});
}

// The other way round.
template <class S>
INLINE void interleave(const Vec<S> (&phases)[2], Vec<S> (&memory)[2]) {
  constexpr int n = Lanes<S>::count;
  [&]<int... lane>(std::integer_sequence<int, lane...>) INLINED {
    memory[0] = __builtin_shufflevector(phases[0], phases[1], (lane / 2 + lane % 2 * n)...);
    memory[1] =
        __builtin_shufflevector(phases[0], phases[1], (n / 2 + lane / 2 + lane % 2 * n)...);
  }(std::make_integer_sequence<int, n>{});
}

// Lanes u = t − (begin − lead) of one plane.
struct Range {
  Index low, high;
};

// Rows up to this length are dealt out by a list.
constexpr Index short_row = 64;

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
    plane = problem.depth.inputs * problem.height.inputs * problem.width.inputs * problem.inner;
    for (Index i = 0; i < 2 && i < layout.slots; ++i) inside_[i] = inside(layout.phase[i]);
    const bool single = stride > 1 && problem.inner == 1;
    paired = single && stride == 2 && layout.slots == 2;
    dealt = single && lanes * stride <= short_row;
    whole = stride == 1 && block.channels == problem.inner;
    const Index first = most(block.begin - layout.lead, 0);
    const Index last = most(first, least(block.end, problem.width.outputs));
    windows = {first - (block.begin - layout.lead), last - (block.begin - layout.lead)};
    first_window = first;
  }

  // The element of a tensor of the input's shape where lane 0 of phase 0 lies, in the first plane.
  Index element(Index depth, Index height) const {
    const Index row = depth * problem.height.inputs + height;
    return block.outer * plane + (row * problem.width.inputs + origin) * problem.inner +
           block.channel;
  }

  // The lanes of a slot that exist.
  Range held(Index slot) const { return slot < 2 ? inside_[slot] : inside(layout.phase[slot]); }

  // Those of them that are in no other block.
  Range owned(Index slot) const {
    return lanes_of(layout.phase[slot], columns.low, columns.high);
  }

  const Problem& problem;
  const Layout& layout;
  const Block& block;
  Index stride;
  Index lanes;         // of one plane, without channels
  Index origin;        // the width of lane 0 of phase 0
  Index plane;         // elements of one outer index of the input
  Range windows;       // the lanes that are windows
  Index first_window;  // the window of windows.low
  Range columns;       // widths that are in no other block, if blocks are cut along the input
  bool whole_rows;     // these are all there are
  bool paired;         // two phases of single elements, side by side in memory
  bool dealt;          // single elements in a short row
  bool whole;          // a row in memory is a row of lanes

 private:
  Range inside(Index phase) const { return lanes_of(phase, 0, problem.width.inputs); }

  // The lanes of a phase for widths from `first` to before `end`.
  Range lanes_of(Index phase, Index first, Index end) const {
    const Index low = ceil_divide(first - origin - phase, stride);
    const Index high = floor_divide(end - 1 - origin - phase, stride) + 1;
    const Index from = least(most(low, 0), lanes);
    return {from, most(from, least(high, lanes))};
  }

  Range inside_[2] = {};
};

// How a short row of single elements is dealt out to the lanes of their phases: a list of which
// goes where.
class Deal {
 public:
  Deal() = default;

  // Each array has room for every element of a row of lanes.
  Deal(const Geometry& geometry, Index* elements, Index* lanes)
      : elements_(elements), lanes_(lanes) {
    const Layout& layout = geometry.layout;
    for (Index u = 0; u < geometry.lanes; ++u)
      for (Index slot = 0; slot < layout.slots; ++slot) {
        const Range range = geometry.held(slot);
        if (u < range.low || u >= range.high) continue;
        elements_[count_] = u * geometry.stride + layout.phase[slot];
        lanes_[count_++] = slot * layout.row + u;
      }
  }

  template <class T>
  INLINE void out(const T* from, Scalar<T>* row) const {
    for (Index i = 0; i < count_; ++i) row[lanes_[i]] = widen(from[elements_[i]]);
  }

  template <class T>
  INLINE void back(const Scalar<T>* row, T* to) const {
    for (Index i = 0; i < count_; ++i) narrow(row[lanes_[i]], to[elements_[i]]);
  }

 private:
  Index *elements_ = nullptr, *lanes_ = nullptr;
  Index count_ = 0;
};

// Reads one row of the input's shape. The lanes that lie in the padding are left as they are.
template <class T>
void pack_row(const Geometry& geometry, const Deal& deal, const T* input, Index depth,
              Index height, Scalar<T>* row) {
  using S = Scalar<T>;
  constexpr Index n = Lanes<S>::count;
  const Layout& layout = geometry.layout;
  const Block& block = geometry.block;
  const Index inner = geometry.problem.inner, channels = block.channels;
  const Index stride = geometry.stride, plane = geometry.plane;
  const Range even = geometry.held(0), odd = geometry.held(1);
  const bool paired = geometry.paired && odd.high - even.low >= n;
  const T* from = input + geometry.element(depth, height);
  for (Index p = 0; p < block.planes; ++p, from += plane, row += layout.pitch) {
    if (paired) {
      S *const evens = row, *const odds = row + layout.row;
      if (odd.low < even.low) odds[odd.low] = widen(from[2 * odd.low + 1]);
      if (odd.high < even.high) evens[odd.high] = widen(from[2 * odd.high]);
      for_vectors<n>(
          odd.high - even.low,
          [&](Index i) INLINED {
            const Index u = even.low + i;
            Vec<S> phases[2];
            deinterleave<S>({widen_vector(from + 2 * u), widen_vector(from + 2 * u + n)}, phases);
            store(evens + u, phases[0]);
            store(odds + u, phases[1]);
          },
          [](Index) {});
    } else if (geometry.dealt) {
      deal.out(from, row);
    } else {
      for (Index slot = 0; slot < layout.slots; ++slot) {
        const Range range = geometry.held(slot);
        const T* const phase = from + layout.phase[slot] * inner;
        S* const to = row + slot * layout.row;
        if (geometry.whole) {
          widen_run(phase + range.low * inner, to + range.low * inner,
                    (range.high - range.low) * inner);
        } else if (inner == 1) {
          for (Index u = range.low; u < range.high; ++u) to[u] = widen(phase[u * stride]);
        } else {
          for (Index u = range.low; u < range.high; ++u)
            widen_run(phase + u * stride * inner, to + u * channels, channels);
        }
      }
    }
  }
}

// The other way round: writes the lanes that are in no other block.
template <class T>
void unpack_row(const Geometry& geometry, const Deal& deal, const Scalar<T>* row, Index depth,
                Index height, T* output) {
  using S = Scalar<T>;
  constexpr Index n = Lanes<S>::count;
  const Layout& layout = geometry.layout;
  const Block& block = geometry.block;
  const Index inner = geometry.problem.inner, channels = block.channels;
  const Index stride = geometry.stride, plane = geometry.plane;
  const bool dealt = geometry.dealt && geometry.whole_rows;
  T* to = output + geometry.element(depth, height);
  for (Index p = 0; p < block.planes; ++p, to += plane, row += layout.pitch) {
    if (dealt) {
      deal.back(row, to);
      continue;
    }
    Range paired{};  // the lanes that are written two phases at a time
    if (geometry.paired) {
      const Range even = geometry.owned(0), odd = geometry.owned(1);
      paired.low = most(even.low, odd.low);
      paired.high = paired.low + most(0, least(even.high, odd.high) - paired.low) / n * n;
      for (Index u = paired.low; u < paired.high; u += n) {
        Vec<S> memory[2];
        interleave<S>({load(row + u), load(row + layout.row + u)}, memory);
        narrow_vector(memory[0], to + 2 * u);
        narrow_vector(memory[1], to + 2 * u + n);
      }
    }
    for (Index slot = 0; slot < layout.slots; ++slot) {
      const Range range = geometry.owned(slot);
      T* const phase = to + layout.phase[slot] * inner;
      const S* const from = row + slot * layout.row;
      if (geometry.whole) {
        narrow_run(from + range.low * inner, phase + range.low * inner,
                   (range.high - range.low) * inner);
      } else if (inner == 1) {
        const auto narrow_lanes = [&](Index low, Index high) {
          for (Index u = low; u < high; ++u) narrow(from[u], phase[u * stride]);
        };
        narrow_lanes(range.low, paired.low < paired.high ? paired.low : range.high);
        if (paired.low < paired.high) narrow_lanes(paired.high, range.high);
      } else {
        for (Index u = range.low; u < range.high; ++u)
          narrow_run(from + u * channels, phase + u * stride * inner, channels);
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

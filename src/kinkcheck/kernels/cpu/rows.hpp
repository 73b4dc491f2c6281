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
struct Watch {
  S infinity;  // −∞, or NaN (which equals nothing) when −∞ is nothing special
  Int<S> found{};

  INLINE void operator()(Vec<S> v) {
    found |= (v != v);
    found |= (v == all(infinity));
  }
  INLINE void operator()(S value) {
    if (value != value || value == infinity) found -= 1;
  }
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
  for (; i < count; ++i) {
    to[i] = widen(from[i]);
    watch(to[i]);
  }
}

template <class T>
INLINE void narrow_run(const Scalar<T>* from, T* to, Index count) {
  constexpr Index step = Lanes<Scalar<T>>::count;
  Index i = 0;
  for (; i + step <= count; i += step) narrow_vector(load(from + i), to + i);
  for (; i < count; ++i) narrow(from[i], to[i]);
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

template <class S>
INLINE void interleave(Vec<S> even, Vec<S> odd, Vec<S>& a, Vec<S>& b) {
  constexpr int n = Lanes<S>::count;
  [&]<int... lane>(std::integer_sequence<int, lane...>) {
    a = __builtin_shufflevector(even, odd, (lane / 2 + lane % 2 * n)...);
    b = __builtin_shufflevector(even, odd, (n / 2 + lane / 2 + lane % 2 * n)...);
  }(std::make_integer_sequence<int, n>{});
}

// The lanes of one phase and plane that exist, as a range of u = t − (begin − lead).
struct Range {
  Index low, high;
};

INLINE Range inside(const Problem& problem, const Block& block, Index lead, Index phase,
                    Index lanes) {
  const auto& width = problem.width;
  const Index origin = block.begin - lead;
  const Index low = ceil_divide(width.padding - phase, width.stride) - origin;
  const Index high =
      floor_divide(width.inputs - 1 + width.padding - phase, width.stride) + 1 - origin;
  const Index from = least(most(low, 0), lanes);
  return {from, most(from, least(high, lanes))};
}

// Reads one row of the input's shape. Lanes that lie in the padding become `pad`.
template <class T, class Watcher>
void pack_row(const Problem& problem, const Layout& layout, const Block& block, const T* input,
              Index depth, Index height, Scalar<T> pad, Scalar<T>* row, Watcher& watch) {
  const auto& width = problem.width;
  const Index inner = problem.inner, channels = block.channels, stride = width.stride;
  const Index origin = block.begin - layout.lead;
  const Index lanes = layout.lead + (block.end - block.begin) + layout.reach;
  for (Index plane = 0; plane < block.planes; ++plane) {
    const T* from = input +
                    (((block.outer + plane) * problem.depth.inputs + depth) *
                         problem.height.inputs +
                     height) *
                        width.inputs * inner +
                    block.channel;
    Scalar<T>* to = row + plane * layout.pitch;
    if (stride == 2 && inner == 1 && layout.slots == 2) {
      const Range even = inside(problem, block, layout.lead, 0, lanes);
      const Range odd = inside(problem, block, layout.lead, 1, lanes);
      Scalar<T>*const evens = to, *const odds = to + layout.row;
      fill_run(evens, even.low, pad);
      fill_run(odds, odd.low, pad);
      fill_run(evens + even.high, lanes - even.high, pad);
      fill_run(odds + odd.high, lanes - odd.high, pad);
      const T* const pairs = from + 2 * origin - width.padding;
      const Index low = most(even.low, odd.low), high = least(even.high, odd.high);
      if (even.low < low) watch(evens[even.low] = widen(pairs[2 * even.low]));
      if (odd.low < low) watch(odds[odd.low] = widen(pairs[2 * odd.low + 1]));
      constexpr Index step = Lanes<Scalar<T>>::count;
      Index u = low;
      for (; u + step <= high; u += step) {
        const auto a = widen_vector(pairs + 2 * u), b = widen_vector(pairs + 2 * u + step);
        watch(a);
        watch(b);
        Vec<Scalar<T>> x, y;
        deinterleave<Scalar<T>>(a, b, x, y);
        store(evens + u, x);
        store(odds + u, y);
      }
      const Index rest = u;
      for (u = rest; u < even.high; ++u) watch(evens[u] = widen(pairs[2 * u]));
      for (u = rest; u < odd.high; ++u) watch(odds[u] = widen(pairs[2 * u + 1]));
      continue;
    }
    for (Index slot = 0; slot < layout.slots; ++slot, to += layout.row) {
      const Range range = inside(problem, block, layout.lead, layout.phase[slot], lanes);
      fill_run(to, range.low * channels, pad);
      fill_run(to + range.high * channels, (lanes - range.high) * channels, pad);
      const T* const phase = from + (origin * stride + layout.phase[slot] - width.padding) * inner;
      if (stride == 1 && channels == inner) {
        widen_run(phase + range.low * inner, to + range.low * inner,
                  (range.high - range.low) * inner, watch);
      } else if (inner == 1) {
        for (Index u = range.low; u < range.high; ++u) watch(to[u] = widen(phase[u * stride]));
      } else {
        for (Index u = range.low; u < range.high; ++u)
          widen_run(phase + u * stride * inner, to + u * channels, channels, watch);
      }
    }
  }
}

// Writes one row of the input's shape. Phases without a slot hold no entry and become zero.
template <class T>
void unpack_row(const Problem& problem, const Layout& layout, const Block& block,
                const Scalar<T>* row, Index depth, Index height, T* output) {
  const auto& width = problem.width;
  const Index inner = problem.inner, channels = block.channels, stride = width.stride;
  const Index origin = block.begin - layout.lead;
  for (Index plane = 0; plane < block.planes; ++plane) {
    T* const to = output +
                  (((block.outer + plane) * problem.depth.inputs + depth) *
                       problem.height.inputs +
                   height) *
                      width.inputs * inner +
                  block.channel;
    const Scalar<T>* from = row + plane * layout.pitch;
    const Index low = most(0, block.begin * stride - width.padding);
    const Index high = least(width.inputs, block.end * stride - width.padding);
    const auto clear = [&](Index first, Index last) {
      for (Index w = first; w < last; ++w)
        for (Index c = 0; c < channels; ++c) to[w * inner + c] = T{};
    };
    if (!row) {
      clear(low, high);
      continue;
    }
    const Index end = layout.lead + block.end - block.begin;
    const auto owned = [&](Index phase) {
      const Range range = inside(problem, block, layout.lead, phase, end);
      return Range{most(range.low, layout.lead), most(range.high, layout.lead)};
    };
    if (stride == 2 && inner == 1 && layout.slots == 2) {
      const Range even = owned(0), odd = owned(1);
      const Scalar<T>*const evens = from, *const odds = from + layout.row;
      T* const pairs = to + 2 * origin - width.padding;
      const Index first = most(even.low, odd.low), last = least(even.high, odd.high);
      if (even.low < first) narrow(evens[even.low], pairs[2 * even.low]);
      if (odd.low < first) narrow(odds[odd.low], pairs[2 * odd.low + 1]);
      constexpr Index step = Lanes<Scalar<T>>::count;
      Index u = first;
      for (; u + step <= last; u += step) {
        Vec<Scalar<T>> a, b;
        interleave<Scalar<T>>(load(evens + u), load(odds + u), a, b);
        narrow_vector(a, pairs + 2 * u);
        narrow_vector(b, pairs + 2 * u + step);
      }
      const Index rest = u;
      for (u = rest; u < even.high; ++u) narrow(evens[u], pairs[2 * u]);
      for (u = rest; u < odd.high; ++u) narrow(odds[u], pairs[2 * u + 1]);
      continue;
    }
    if (layout.slots < stride) clear(low, high);
    for (Index slot = 0; slot < layout.slots; ++slot, from += layout.row) {
      const Range range = owned(layout.phase[slot]);
      T* const phase = to + (origin * stride + layout.phase[slot] - width.padding) * inner;
      if (stride == 1 && channels == inner) {
        narrow_run(from + range.low * inner, phase + range.low * inner,
                   (range.high - range.low) * inner);
      } else if (inner == 1) {
        for (Index u = range.low; u < range.high; ++u) narrow(from[u], phase[u * stride]);
      } else {
        for (Index u = range.low; u < range.high; ++u)
          narrow_run(from + u * channels, phase + u * stride * inner, channels);
      }
    }
  }
}

// Calls move(element of a tensor of the output's shape, lane, count) for every run of one row.
template <class Move>
INLINE void for_output_runs(const Problem& problem, const Layout& layout, const Block& block,
                            Index depth, Index height, const Move& move) {
  const Index inner = problem.inner, channels = block.channels;
  const Index first = most(block.begin - layout.lead, 0);
  const Index last = least(block.end, problem.width.outputs);
  const Index skipped = first - (block.begin - layout.lead);
  for (Index plane = 0; plane < block.planes; ++plane) {
    const Index at = (((block.outer + plane) * problem.depth.outputs + depth) *
                          problem.height.outputs +
                      height) *
                         problem.width.outputs * inner +
                     first * inner + block.channel;
    const Index lane = plane * layout.pitch + skipped * channels;
    if (first >= last) continue;
    if (channels == inner) {
      move(at, lane, (last - first) * inner);
    } else {
      for (Index w = 0; w < last - first; ++w) move(at + w * inner, lane + w * channels, channels);
    }
  }
}

}  // namespace

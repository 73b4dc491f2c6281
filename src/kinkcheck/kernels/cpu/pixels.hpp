// Max pooling of channels_last tensors: a vector of windows is one place in the image and a few
// channels, whose entries are read straight from the tensor, wherever they lie.
//
// The backward pass clears the gradient a slice ahead of the windows and adds each window's
// contributions where they belong, window by window in ascending order.
#pragma once

#include <cstring>
#include <limits>
#include <type_traits>

#include "problem.hpp"
#include "rows.hpp"
#include "shares.hpp"
#include "vectors.hpp"

namespace {

using kinkcheck::Pick;
using kinkcheck::Report;

// A window as a list of its entries, in scan order.
struct Pixel {
  const Index* entries;  // elements from the corner to each entry
  Index count;
  Index corner;  // the element of the input where a whole window would begin, of channel 0
  Index place;   // the element of the output, of channel 0
};

// Of slices of depth as many are made ready as the windows need, or more if together they have no
// more elements than this.
constexpr Index elements_ahead = 1024;

// Calls act(pixel) for every window of a block, one outer index after the other, and before(first
// element, number of slices) for slices of depth that are about to be reached.
template <class Act, class Before>
INLINE void for_pixels(const Problem& problem, const Block& block, std::byte* scratch,
                       const Act& act, const Before& before) {
  const auto &depth = problem.depth, &height = problem.height, &width = problem.width;
  const Index inner = problem.inner, volume = depth.kernel * height.kernel * width.kernel;
  Index* const whole = reinterpret_cast<Index*>(scratch);
  Index* const clipped = whole + volume;
  // Lists the entries of the window whose corner is (d0, h0, w0); `within`: all of them.
  const auto list = [&](Index* entries, Index d0, Index h0, Index w0, bool within) {
    Index count = 0;
    for (Index d = 0; d < depth.kernel * depth.dilation; d += depth.dilation) {
      if (!within && (d0 + d < 0 || d0 + d >= depth.inputs)) continue;
      for (Index h = 0; h < height.kernel * height.dilation; h += height.dilation) {
        if (!within && (h0 + h < 0 || h0 + h >= height.inputs)) continue;
        for (Index w = 0; w < width.kernel * width.dilation; w += width.dilation)
          if (within || (0 <= w0 + w && w0 + w < width.inputs))
            entries[count++] = ((d * height.inputs + h) * width.inputs + w) * inner;
      }
    }
    return count;
  };
  const auto inside = [](const kinkcheck::Axis& axis, Index first) {
    return first >= 0 && first + (axis.kernel - 1) * axis.dilation < axis.inputs;
  };
  list(whole, 0, 0, 0, true);
  const Index slice = height.inputs * width.inputs * inner;
  for (Index outer = block.outer; outer < block.outer + block.planes; ++outer) {
    Index reached = 0;
    Index place = outer * depth.outputs * height.outputs * width.outputs * inner;
    for (Index od = 0; od < depth.outputs; ++od) {
      const Index d0 = od * depth.stride - depth.padding;
      const Index end = od + 1 == depth.outputs
                            ? depth.inputs
                            : least(depth.inputs, d0 + (depth.kernel - 1) * depth.dilation + 1);
      if (reached < end) {
        const Index next =
            least(depth.inputs, most(end, reached + elements_ahead / slice));
        before((outer * depth.inputs + reached) * slice, next - reached);
        reached = next;
      }
      for (Index oh = 0; oh < height.outputs; ++oh) {
        const Index h0 = oh * height.stride - height.padding;
        const bool row_inside = inside(depth, d0) && inside(height, h0);
        const Index row = ((outer * depth.inputs + d0) * height.inputs + h0) * width.inputs;
        for (Index ow = 0; ow < width.outputs; ++ow, place += inner) {
          const Index w0 = ow * width.stride - width.padding;
          const Index corner = (row + w0) * inner;
          if (row_inside && inside(width, w0))
            act(Pixel{whole, volume, corner, place});
          else
            act(Pixel{clipped, list(clipped, d0, h0, w0, false), corner, place});
        }
      }
    }
  }
}

// Calls act(channel, number of channels) for the channels of a block, vector by vector; the number
// is a constant of the type where it can be.
template <class S, class Act>
INLINE void for_channels(const Block& block, const Act& act) {
  constexpr Index n = Lanes<S>::count;
  const Index end = block.channel + block.channels;
  Index c = block.channel;
  for (; c + n <= end; c += n) act(c, std::integral_constant<Index, n>{});
  if (c < end) act(c, end - c);
}

// Calls visit(0), visit(1), ...; K is their number if known when compiling, else 0.
template <int K, class Visit>
INLINE void for_entries(Index count, const Visit& visit) {
  if constexpr (K > 0) {
    UNROLLED for (Index i = 0; i < K; ++i) visit(i);
  } else {
    _Pragma("GCC unroll 4") for (Index i = 0; i < count; ++i) visit(i);
  }
}

// Calls act<K>() with K the number of entries where it is a common one, else 0.
template <class Act>
INLINE void with_entries(Index count, const Act& act) {
  switch (count) {
    case 4: return act.template operator()<4>();
    case 9: return act.template operator()<9>();
    default: return act.template operator()<0>();
  }
}

// Calls visit(element, count) for the runs of memory that a block has of some slices of depth.
template <class Visit>
INLINE void for_runs_of_slices(const Problem& problem, const Block& block, Index first,
                               Index slices, const Visit& visit) {
  const Index inner = problem.inner;
  const Index pixels = slices * problem.height.inputs * problem.width.inputs;
  if (block.channels == inner) return visit(first, pixels * inner);
  for (Index i = 0; i < pixels; ++i) visit(first + i * inner + block.channel, block.channels);
}

// Looks at slices of depth for NaN, and for −∞ if that is asked: to look at every element once
// costs less than to look at every entry of every window.
template <class T>
INLINE void watch_slices(const Job& job, const Block& block, Index first, Index slices,
                         Flag<Scalar<T>>& seen) {
  for_runs_of_slices(job.problem, block, first, slices, [&](Index from, Index count) INLINED {
    watch_run(static_cast<const T*>(job.input) + from, count, job.watch_infinity, seen);
  });
}

template <class T>
Report forward_pixels(const Job& job, const Block& block, std::byte* scratch) {
  using S = Scalar<T>;
  Flag<S> seen;
  for_pixels(
      job.problem, block, scratch,
      [&](const Pixel& pixel) {
        const T* const input = static_cast<const T*>(job.input) + pixel.corner;
        T* const output = static_cast<T*>(job.result) + pixel.place;
        const bool with_nan = seen.met();
        with_entries(pixel.count, [&]<int K>() INLINED {
          for_channels<S>(block, [&](Index c, auto channels) INLINED {
            const auto entry = [&](Index i) INLINED {
              return widen_some(input + pixel.entries[i] + c, channels);
            };
            Vec<S> value = all(-infinity<S>);
            if (!with_nan)
              for_entries<K>(pixel.count, [&](Index i) INLINED {
                const Vec<S> x = entry(i);
                value = x > value ? x : value;
              });
            else
              for_entries<0>(pixel.count, [&](Index i) INLINED {
                const Vec<S> x = entry(i);
                value = (x > value) | (x != x) ? x : value;
              });
            narrow_some(value, output + c, channels);
          });
        });
      },
      [&](Index first, Index slices) { watch_slices<T>(job, block, first, slices, seen); });
  return {};
}

// Value and number of active entries of a vector of windows.
template <class S>
struct Decision {
  Vec<S> value;
  Int<S> size;
};

// Notes which entries are active, if K > 0.
template <int K, class T, class Count>
INLINE Decision<Scalar<T>> decide_pixel(const T* input, const Pixel& pixel, Count channels,
                                        Int<Scalar<T>>* active) {
  using S = Scalar<T>;
  Vec<S> value = all(-infinity<S>);
  Int<S> size{};
  const Index* const entries = pixel.entries;
  for_entries<K>(pixel.count, [&](Index i) INLINED {
    const Vec<S> x = widen_some(input + entries[i], channels);
    value = x > value ? x : value;
  });
  if constexpr (K > 4) load_again();
  for_entries<K>(pixel.count, [&](Index i) INLINED {
    const Int<S> is_active = widen_some(input + entries[i], channels) == value;
    size -= is_active;
    if constexpr (K > 0) active[i] = is_active;
  });
  return {value, size};
}

template <class T>
Report ties_pixels(const Job& job, const Block& block, std::byte* scratch) {
  using S = Scalar<T>;
  Flag<S> seen;
  Int<S> tied{}, tied_at_zero{};
  for_pixels(
      job.problem, block, scratch,
      [&](const Pixel& pixel) {
        const T* const input = static_cast<const T*>(job.input) + pixel.corner;
        with_entries(pixel.count, [&]<int K>() INLINED {
          for_channels<S>(block, [&](Index c, auto channels) INLINED {
            Int<S> active[K ? K : 1];
            const auto decision = decide_pixel<K>(input + c, pixel, channels, active);
            Int<S> zeros = decision.value == Vec<S>{};
            if (any<S>(zeros))
              for (Index i = 0; i < pixel.count; ++i)
                zeros &= widen_some(input + pixel.entries[i] + c, channels) == Vec<S>{};
            const Int<S> tie = (decision.size > 1) & among<S>(channels);
            tied -= tie;
            tied_at_zero -= tie & zeros;
            T* const output = static_cast<T*>(job.result);
            if (output) narrow_some(decision.value, output + pixel.place + c, channels);
          });
        });
      },
      [&](Index first, Index slices) { watch_slices<T>(job, block, first, slices, seen); });
  return {census_of<S>(tied, tied_at_zero), seen.met()};
}

// What the windows at one pixel give, of channel 0.
template <class T>
struct Spot {
  Pixel pixel;
  Tables tables;
  const T *input, *gradient;
  T* result;
};

// Adds the contributions of a vector of windows where they belong, entry by entry. The first active
// entry takes its share and leaves the rest to the others.
template <int K, class T, class Count>
INLINE void share_by_entries(const Spot<T>& spot, Index c, Count channels) {
  using S = Scalar<T>;
  const Index *const entries = spot.pixel.entries, count = spot.pixel.count;
  const T* const input = spot.input + c;
  T* const result = spot.result + c;
  const Vec<S> gradient = widen_some(spot.gradient + c, channels);
  Int<S> active[K ? K : 1];
  const Decision<S> decision = decide_pixel<K>(input, spot.pixel, channels, active);
  const Shares<S> shares = shares_of<T>(spot.tables, decision.size, count, gradient);
  Vec<S> own = shares.chosen;
  for_entries<K>(count, [&](Index i) INLINED {
    T* const to = result + entries[i];
    const Int<S> takes = K ? active[K ? i : 0]
                           : widen_some(input + entries[i], channels) == decision.value;
    narrow_some(widen_some(to, channels) + keep<S>(takes, own), to, channels);
    own = takes ? shares.other : own;
  });
}

// What is rarer, and not worth the code in every place. The spot is copied: it stays in registers.
template <class T>
__attribute__((noinline)) void share_some(Spot<T> spot, Index c, Index channels) {
  share_by_entries<0>(spot, c, channels);
}

// The entry that takes all, by its number; −1 if there are several. 16-bit floats are compared as
// integers, twice as many at a time.
template <class T>
using Code = std::conditional_t<sizeof(T) == 2, Key, typename Lanes<Scalar<T>>::Integer>;

template <class T>
INLINE auto load_ordered(const T* from) {
  if constexpr (sizeof(T) == 2)
    return load_keys(from);
  else
    return load(from);
}

// Notes the codes of vectors of windows; returns the channel after the last.
template <int K, class T>
INLINE Index note_codes(const Spot<T>& spot, const Block& block, Code<T>* codes) {
  using Values = decltype(load_ordered(spot.input));
  using Codes = decltype(Values{} == Values{});
  constexpr Index n = sizeof(Codes) / sizeof(Code<T>);
  const Index *const entries = spot.pixel.entries, count = K ? K : spot.pixel.count;
  const bool shared = spot.tables.chosen;
  Values least{};
  if constexpr (sizeof(T) == 2)
    least += least_key;
  else
    least += -infinity<T>;
  Index c = block.channel;
  for (; c + n <= block.channel + block.channels; c += n) {
    const T* const input = spot.input + c;
    Values value = least;
    for_entries<K>(count, [&](Index i) INLINED {
      const Values x = load_ordered(input + entries[i]);
      value = x > value ? x : value;
    });
    Codes code = Codes{} - 1, size{}, number = Codes{} + static_cast<Code<T>>(count - 1);
    for_entries<K>(count, [&](Index i) INLINED {
      const Codes active = load_ordered(input + entries[count - 1 - i]) == value;
      size -= active;
      code = active ? number : code;
      number -= 1;
    });
    if (shared) code = size == 1 ? code : Codes{} - 1;
    std::memcpy(codes + (c - block.channel), &code, sizeof code);
  }
  return c;
}

// Of many entries most get nothing: first all windows are decided, then their gradients are added
// one by one, for a processor that looks ahead sees more of either.
template <int K, class T>
INLINE void share_by_codes(const Spot<T>& spot, const Block& block, Code<T>* codes) {
  constexpr Index n = Lanes<Scalar<T>>::count;
  const Index end = note_codes<K>(spot, block, codes);
  Index c = block.channel;
  for (; c < end; c += n, codes += n) {
    if (any_negative<n>(codes)) {
      share_some(spot, c, n);
      continue;
    }
    const T* const given = spot.gradient + c;
    T* to[n];
    UNROLLED for (Index i = 0; i < n; ++i)
      to[i] = spot.result + c + spot.pixel.entries[codes[i]] + i;
    if constexpr (sizeof(T) == 2) {
      // Rounding by vectors saves more than it takes to put one together.
      T sums[n];
      Lanes<float>::H bits;
      UNROLLED for (Index i = 0; i < n; ++i) bits[i] = to[i]->bits;
      std::memcpy(sums, &bits, sizeof bits);
      narrow_vector(widen_vector(sums) + widen_vector(given), sums);
      std::memcpy(&bits, sums, sizeof bits);
      UNROLLED for (Index i = 0; i < n; ++i) to[i]->bits = bits[i];
    } else {
      UNROLLED for (Index i = 0; i < n; ++i) *to[i] += given[i];
    }
  }
  for (; c < block.channel + block.channels; c += n)
    share_some(spot, c, block.channel + block.channels - c);
}

// Gives all of the gradients to another pick than the first.
template <class T>
void share_picked(const Job& job, const Spot<T>& spot, Index c, Index channels) {
  using S = Scalar<T>;
  using Integer = typename Lanes<S>::Integer;
  const auto &depth = job.problem.depth, &height = job.problem.height;
  const Index image = depth.outputs * height.outputs * job.problem.width.outputs;
  const Pixel& pixel = spot.pixel;
  const Index inner = job.problem.inner, at = pixel.place / inner;
  const Index position = (at / image * inner + c) * image + at % image;
  const std::uint32_t key = random_key(job.choice.seed);
  const T* const input = spot.input + c;
  T* const result = spot.result + c;
  const Vec<S> gradient = widen_some(spot.gradient + c, channels);
  const Decision<S> decision = decide_pixel<0>(input, pixel, channels, nullptr);
  Int<S> rank = decision.size - 1;
  if (job.choice.pick == Pick::random)
    for (int i = 0; i < Lanes<S>::count; ++i)
      rank[i] = static_cast<Integer>(
          random_rank(key, static_cast<std::uint64_t>(position + i * image),
                      static_cast<std::uint64_t>(decision.size[i])));
  for (Index i = 0; i < pixel.count; ++i) {
    T* const to = result + pixel.entries[i];
    const Int<S> active = widen_some(input + pixel.entries[i], channels) == decision.value;
    narrow_some(widen_some(to, channels) + keep<S>(active & (rank == 0), gradient), to, channels);
    rank += active;
  }
}

template <class T>
Report vjp_pixels(const Job& job, const Block& block, std::byte* scratch) {
  using S = Scalar<T>;
  const Problem& problem = job.problem;
  const Index volume = problem.depth.kernel * problem.height.kernel * problem.width.kernel;
  auto* const codes = reinterpret_cast<Code<T>*>(scratch + 2 * volume * sizeof(Index));
  Flag<S> seen;
  for_pixels(
      problem, block, scratch,
      [&](const Pixel& pixel) {
        const Spot<T> spot{pixel, job.tables, static_cast<const T*>(job.input) + pixel.corner,
                           static_cast<const T*>(job.gradient) + pixel.place,
                           static_cast<T*>(job.result) + pixel.corner};
        if (job.choice.pick != Pick::first)
          return for_channels<S>(block, [&](Index c, Index channels) {
            share_picked<T>(job, spot, c, channels);
          });
        with_entries(pixel.count, [&]<int K>() INLINED {
          // Entries of 16 bits take longer, for every sum is rounded.
          constexpr bool few = K == 4 || (K == 9 && sizeof(T) > 2);
          if (few || pixel.count < 4 || pixel.count > std::numeric_limits<Code<T>>::max())
            for_channels<S>(block, [&](Index c, auto channels) INLINED {
              share_by_entries<few ? K : 0>(spot, c, channels);
            });
          else
            share_by_codes<K>(spot, block, codes);
        });
      },
      [&](Index first, Index slices) {
        watch_slices<T>(job, block, first, slices, seen);
        for_runs_of_slices(problem, block, first, slices, [&](Index from, Index count) {
          std::memset(static_cast<void*>(static_cast<T*>(job.result) + from), 0,
                      static_cast<std::size_t>(count) * sizeof(T));
        });
      });
  return {{}, seen.met()};
}

}  // namespace

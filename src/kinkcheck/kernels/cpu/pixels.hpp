// Max pooling of channels_last tensors: a vector of windows is one place in the image and a few
// channels, whose entries are read straight from the tensor, wherever they lie.
//
// The backward pass clears the gradient a slice ahead of the windows and adds each window's
// contributions where they belong, window by window in ascending order.
#pragma once

#include <cstring>
#include <type_traits>

#include "problem.hpp"
#include "random.hpp"
#include "rows.hpp"
#include "vectorised.hpp"
#include "vectors.hpp"

namespace {

// A window as a list of its entries: elements of channel 0 of an outer index, in scan order.
struct Pixel {
  const Index* entries;
  Index count;
  Index outer;
  Index place;  // in the image of outputs
};

// Calls act(pixel) for every window of a block, one outer index after the other, and before(d) for
// every slice of depth d that is about to be reached.
template <class Act, class Before>
INLINE void for_pixels(const Problem& problem, const Block& block, std::byte* scratch,
                       const Act& act, const Before& before) {
  const auto &depth = problem.depth, &height = problem.height, &width = problem.width;
  Index* const entries = reinterpret_cast<Index*>(scratch);
  for (Index outer = block.outer; outer < block.outer + block.planes; ++outer) {
    Index reached = 0, place = 0;
    for (Index od = 0; od < depth.outputs; ++od) {
      const Index d0 = od * depth.stride - depth.padding;
      const Index end = od + 1 == depth.outputs
                            ? depth.inputs
                            : least(depth.inputs, d0 + (depth.kernel - 1) * depth.dilation + 1);
      for (; reached < end; ++reached) before(outer, reached);
      for (Index oh = 0; oh < height.outputs; ++oh) {
        const Index h0 = oh * height.stride - height.padding;
        for (Index ow = 0; ow < width.outputs; ++ow, ++place) {
          const Index w0 = ow * width.stride - width.padding;
          Index count = 0;
          for (Index kd = 0, d = d0; kd < depth.kernel; ++kd, d += depth.dilation) {
            if (d < 0 || d >= depth.inputs) continue;
            for (Index kh = 0, h = h0; kh < height.kernel; ++kh, h += height.dilation) {
              if (h < 0 || h >= height.inputs) continue;
              for (Index kw = 0, w = w0; kw < width.kernel; ++kw, w += width.dilation)
                if (0 <= w && w < width.inputs)
                  entries[count++] =
                      ((d * height.inputs + h) * width.inputs + w) * problem.inner;
            }
          }
          act(Pixel{entries, count, outer, place});
        }
      }
    }
  }
}

// Calls act(channel, number of channels) for the vectors of a block; the number is a constant of
// the type where it can be.
template <class S, class Act>
INLINE void for_channels(const Block& block, const Act& act) {
  constexpr Index n = Lanes<S>::count;
  const Index end = block.channel + block.channels;
  Index c = block.channel;
  for (; c + n <= end; c += n) act(c, std::integral_constant<Index, n>{});
  if (c < end) act(c, end - c);
}

INLINE Index image_of(const Problem& problem, bool inputs) {
  const auto size = [&](const kinkcheck::Axis& axis) {
    return inputs ? axis.inputs : axis.outputs;
  };
  return size(problem.depth) * size(problem.height) * size(problem.width);
}

template <class T>
Report forward_pixels(const Job& job, const Block& block, std::byte* scratch) {
  using S = Scalar<T>;
  const Problem& problem = job.problem;
  const Index image = image_of(problem, true) * problem.inner;
  const Index pixels = image_of(problem, false);
  for_pixels(
      problem, block, scratch,
      [&](const Pixel& pixel) {
        const T* const input = static_cast<const T*>(job.input) + pixel.outer * image;
        T* const output =
            static_cast<T*>(job.result) + (pixel.outer * pixels + pixel.place) * problem.inner;
        for_channels<S>(block, [&](Index c, auto channels) {
          const auto entry = [&](Index i) {
            return widen_some(input + pixel.entries[i] + c, channels);
          };
          Vec<S> value = all(-infinity<S>);
          Flag<S> unordered;
          for (Index i = 0; i < pixel.count; ++i) {
            const Vec<S> x = entry(i);
            unordered.unordered(x, x);
            value = x > value ? x : value;
          }
          // To carry NaN along takes a longer chain of instructions from entry to entry.
          if (unordered.met())
            for (Index i = 0; i < pixel.count; ++i) {
              const Vec<S> x = entry(i);
              value = (x > value) | (x != x) ? x : value;
            }
          narrow_some(value, output + c, channels);
        });
      },
      [](Index, Index) {});
  return {};
}

// Value, number of active entries and pick (an index of the list) of a vector of windows.
template <class S>
struct Decision {
  Vec<S> value;
  Int<S> size, pick;
};

template <bool sizes, bool picks, Pick pick, class T, class Count>
INLINE Decision<Scalar<T>> decide_pixel(const T* input, const Pixel& pixel, Count channels,
                                        Flag<Scalar<T>>& unordered) {
  using S = Scalar<T>;
  using Integer = typename Lanes<S>::Integer;
  const auto entry = [&](Index i) { return widen_some(input + pixel.entries[i], channels); };
  Decision<S> decision{all(-infinity<S>), Int<S>{}, Int<S>{} - 1};
  for (Index i = 0; i < pixel.count; ++i) {
    const Vec<S> x = entry(i);
    unordered.unordered(x, x);
    decision.value = x > decision.value ? x : decision.value;
  }
  for (Index i = 0; i < pixel.count; ++i) {
    const Index at = pick == Pick::first ? pixel.count - 1 - i : i;
    const Int<S> active = entry(at) == decision.value;
    if constexpr (sizes || pick == Pick::random)
      decision.size = active ? decision.size + 1 : decision.size;
    if constexpr (picks && pick != Pick::random)
      decision.pick = active ? Int<S>{} + static_cast<Integer>(at) : decision.pick;
  }
  return decision;
}

template <class T>
Report ties_pixels(const Job& job, const Block& block, std::byte* scratch) {
  using S = Scalar<T>;
  const Problem& problem = job.problem;
  const Index image = image_of(problem, true) * problem.inner;
  const Index pixels = image_of(problem, false);
  Flag<S> unordered;
  Int<S> lane, tied{}, tied_at_zero{};
  for (int i = 0; i < Lanes<S>::count; ++i) lane[i] = i;
  for_pixels(
      problem, block, scratch,
      [&](const Pixel& pixel) {
        const T* const input = static_cast<const T*>(job.input) + pixel.outer * image;
        const Index at = (pixel.outer * pixels + pixel.place) * problem.inner;
        for_channels<S>(block, [&](Index c, auto channels) {
          const auto decision =
              decide_pixel<true, false, Pick::first>(input + c, pixel, channels, unordered);
          const Vec<S> zero{};
          Int<S> zeros = decision.value == zero;
          if (any<S>(zeros))
            for (Index i = 0; i < pixel.count; ++i)
              zeros &= widen_some(input + pixel.entries[i] + c, channels) == zero;
          const Int<S> tie = (decision.size > 1) &
                             (lane < static_cast<typename Lanes<S>::Integer>(channels));
          tied -= tie;
          tied_at_zero -= tie & zeros;
          if (job.result) narrow_some(decision.value, static_cast<T*>(job.result) + at + c, channels);
        });
      },
      [](Index, Index) {});
  Report report{};
  for (int i = 0; i < Lanes<S>::count; ++i) {
    report.census.tied += tied[i];
    report.census.tied_at_zero += tied_at_zero[i];
  }
  report.unordered = unordered.met();
  return report;
}

// The pick of the `rank`-th active entry, as drawn.
template <class T, class Count>
INLINE Int<Scalar<T>> draw(const T* input, const Pixel& pixel, Count channels,
                           const Decision<Scalar<T>>& decision, std::uint32_t key,
                           Index position, Index next_channel) {
  using S = Scalar<T>;
  using Integer = typename Lanes<S>::Integer;
  Int<S> rank, pick = Int<S>{} - 1;
  for (int i = 0; i < Lanes<S>::count; ++i)
    rank[i] = static_cast<Integer>(
        random_rank(key, static_cast<std::uint64_t>(position + i * next_channel),
                    static_cast<std::uint64_t>(decision.size[i])));
  for (Index i = 0; i < pixel.count; ++i) {
    const Int<S> active =
        widen_some(input + pixel.entries[i], channels) == decision.value;
    pick = active & (rank == 0) ? Int<S>{} + static_cast<Integer>(i) : pick;
    rank += active;
  }
  return pick;
}

// Up to this many entries it is faster to visit all entries of a vector of windows than to add to
// the picked ones one by one.
constexpr Index few_entries = 4;

template <Sharing sharing, Pick pick, class T>
Report vjp_pixels_of(const Job& job, const Block& block, std::byte* scratch) {
  using S = Scalar<T>;
  using Integer = typename Lanes<S>::Integer;
  constexpr bool sizes = sharing != Sharing::one;
  const Problem& problem = job.problem;
  const Index inner = problem.inner;
  const Index slice = problem.height.inputs * problem.width.inputs;
  const Index image = image_of(problem, true) * inner;
  const Index pixels = image_of(problem, false);
  const std::uint32_t key = pick == Pick::random ? random_key(job.choice.seed) : 0;
  const Vec<S> watched = all(job.watch_infinity ? -infinity<S> : nan<S>);
  const auto clear = [](T* to, Index count) {
    std::memset(static_cast<void*>(to), 0, static_cast<std::size_t>(count) * sizeof(T));
  };
  Flag<S> unordered;
  for_pixels(
      problem, block, scratch,
      [&](const Pixel& pixel) {
        const Index at = pixel.outer * pixels + pixel.place;
        for_channels<S>(block, [&](Index c, auto channels) {
          const T* const input = static_cast<const T*>(job.input) + pixel.outer * image + c;
          T* const result = static_cast<T*>(job.result) + pixel.outer * image + c;
          auto decision = decide_pixel<sizes, true, pick>(input, pixel, channels, unordered);
          unordered.equal(decision.value, watched);
          if constexpr (pick == Pick::random)
            decision.pick = draw(input, pixel, channels, decision, key,
                                 (pixel.outer * inner + c) * pixels + pixel.place, pixels);
          const T* const given = static_cast<const T*>(job.gradient) + at * inner + c;
          // Where one entry alone attains the maximum, it takes the gradient under any selection.
          if (channels == Lanes<S>::count && pixel.count > few_entries &&
              !any<S>(sizes ? decision.size != 1 : decision.pick < 0)) {
            Integer picks[Lanes<S>::count];
            store_integers<S>(picks, decision.pick);
            UNROLLED for (Index i = 0; i < Lanes<S>::count; ++i)
              add(widen(given[i]), result[pixel.entries[picks[i]] + i]);
            return;
          }
          const Vec<S> gradient = widen_some(given, channels);
          Vec<S> chosen = gradient, other{};
          if constexpr (sharing != Sharing::one) {
            const auto share = [&](const void* table) {
              const Vec<S> factor = weight<S>(table, decision.size, pixel.count);
              return keep<S>(factor != Vec<S>{}, rounded_vector<T>(factor * gradient));
            };
            chosen = share(job.chosen);
            other = sharing == Sharing::even ? chosen : share(job.other);
          }
          for (Index i = 0; i < pixel.count; ++i) {
            const Int<S> picked = decision.pick == Int<S>{} + static_cast<Integer>(i);
            Vec<S> contribution;
            if constexpr (sharing == Sharing::one) {
              contribution = keep<S>(picked, chosen);
            } else {
              contribution = keep<S>(
                  widen_some(input + pixel.entries[i], channels) == decision.value,
                  picked ? chosen : other);
            }
            T* const to = result + pixel.entries[i];
            narrow_some(widen_some(to, channels) + contribution, to, channels);
          }
        });
      },
      [&](Index outer, Index depth) {
        T* to = static_cast<T*>(job.result) + outer * image + depth * slice * inner;
        if (block.channels == inner) return clear(to, slice * inner);
        to += block.channel;
        for (Index i = 0; i < slice; ++i, to += inner) clear(to, block.channels);
      });
  return {{}, unordered.met()};
}

template <class T>
Report vjp_pixels(const Job& job, const Block& block, std::byte* scratch) {
  Report report{};
  with_choice(job.choice, [&]<Sharing sharing, Pick pick>() {
    report = vjp_pixels_of<sharing, pick, T>(job, block, scratch);
  });
  return report;
}

}  // namespace

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
#include "random.hpp"
#include "rows.hpp"
#include "vectorised.hpp"
#include "vectors.hpp"

namespace {

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

// Calls act(channel, number of channels of each vector, number of vectors) for the channels of a
// block from one on, `most` vectors at a time where there are as many; the numbers are constants of
// the type where they can be.
template <class S, int most, class Act>
INLINE void for_channels(Index c, const Block& block, const Act& act) {
  constexpr Index n = Lanes<S>::count;
  const Index end = block.channel + block.channels;
  constexpr auto one = std::integral_constant<int, 1>{};
  if constexpr (most > 1)
    for (; c + most * n <= end; c += most * n)
      act(c, std::integral_constant<Index, n>{}, std::integral_constant<int, most>{});
  for (; c + n <= end; c += n) act(c, std::integral_constant<Index, n>{}, one);
  if (c < end) act(c, end - c, one);
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

// Calls visit(element, count) for the runs of memory that a block has of some slices of depth.
template <class Visit>
INLINE void for_runs_of_slices(const Problem& problem, const Block& block, Index first,
                               Index slices, const Visit& visit) {
  const Index inner = problem.inner;
  const Index pixels = slices * problem.height.inputs * problem.width.inputs;
  if (block.channels == inner) return visit(first, pixels * inner);
  for (Index i = 0; i < pixels; ++i) visit(first + i * inner + block.channel, block.channels);
}

// Calls act<K>() with K the number of entries where it is a common one and the pick is the first,
// else 0: the rest is not worth the code.
template <Pick pick, class Act>
INLINE void with_entries(Index count, const Act& act) {
  if constexpr (pick == Pick::first) {
    switch (count) {
      case 4: return act.template operator()<4>();
      case 9: return act.template operator()<9>();
#if !defined(__SANITIZE_ADDRESS__)  // the same code, which takes minutes to compile there
      case 2: return act.template operator()<2>();
      case 3: return act.template operator()<3>();
      case 5: return act.template operator()<5>();
      case 6: return act.template operator()<6>();
      case 8: return act.template operator()<8>();
#endif
    }
  }
  act.template operator()<0>();
}

// The entries of all windows lie in every place, or in every second, third, ...: by the divisor
// that stride and dilation have in common. (A function of std:: could be linked from the kernels of
// another instruction set.)
INLINE Index spacing(const kinkcheck::Axis& axis) {
  Index a = axis.stride, b = axis.kernel > 1 ? axis.dilation : 0;
  while (b != 0) {
    const Index rest = a % b;
    a = b;
    b = rest;
  }
  return a;
}

// Looks for NaN, and for −∞ if that is asked, in the places that hold entries. To look at every
// element once costs less than to look at every entry of every window.
template <class T>
class PixelWatch {
 public:
  PixelWatch(const Job& job, const Block& block) : job_(job), block_(block) {
    const Index pixel = job.problem.inner, row = pixel * job.problem.width.inputs;
    if (pixel >= worth_skipping) by_pixel_ = spacing(job.problem.width);
    if (row >= worth_skipping) by_row_ = spacing(job.problem.height);
    if (row * job.problem.height.inputs >= worth_skipping) by_slice_ = spacing(job.problem.depth);
  }

  // Looks at some slices of depth.
  void look(Index first, Index slices) {
    const auto watch = [&](Index from, Index count) {
      watch_run(static_cast<const T*>(job_.input) + from, count, job_.watch_infinity, seen_);
    };
    if (by_slice_ == 1 && by_row_ == 1 && by_pixel_ == 1)
      return for_runs_of_slices(job_.problem, block_, first, slices, watch);
    const auto &depth = job_.problem.depth, &height = job_.problem.height,
               &width = job_.problem.width;
    const Index inner = job_.problem.inner, line = width.inputs * inner;
    const Index slice = height.inputs * line;
    Index before = (first / slice % depth.inputs + depth.padding) % by_slice_;
    for (Index d = first; d < first + slices * slice; d += slice, ++before) {
      if (before == by_slice_) before = 0;
      if (before != 0) continue;
      for (Index h = start(height, by_row_); h < height.inputs; h += by_row_) {
        const Index row = d + h * line;
        if (by_pixel_ == 1 && block_.channels == inner) {
          watch(row, line);
          continue;
        }
        for (Index w = start(width, by_pixel_); w < width.inputs; w += by_pixel_)
          watch(row + w * inner + block_.channel, block_.channels);
      }
    }
  }

  bool alarmed() const { return seen_.met(); }

 private:
  // In elements. To read on through less takes no longer.
  static constexpr Index worth_skipping = 1024 / sizeof(T);

  // The first place that is not padding.
  static Index start(const kinkcheck::Axis& axis, Index by) {
    return (by - axis.padding % by) % by;
  }

  const Job& job_;
  const Block& block_;
  Index by_slice_ = 1, by_row_ = 1, by_pixel_ = 1;  // distances of what is looked at
  Flag<Scalar<T>> seen_;
};

template <class T>
Report forward_pixels(const Job& job, const Block& block, std::byte* scratch) {
  using S = Scalar<T>;
  PixelWatch<T> watch(job, block);
  for_pixels(
      job.problem, block, scratch,
      [&](const Pixel& pixel) {
        const T* const input = static_cast<const T*>(job.input) + pixel.corner;
        T* const output = static_cast<T*>(job.result) + pixel.place;
        const bool with_nan = watch.alarmed();
        with_volume(pixel.count, [&]<int K>() INLINED {
          for_channels<S, 2>(block.channel, block, [&](Index c, auto channels,
                                                       auto vectors) INLINED {
            constexpr int V = decltype(vectors)::value;
            const auto entry = [&](Index i, int v) INLINED {
              return widen_some(input + pixel.entries[i] + c + v * Lanes<S>::count, channels);
            };
            Vec<S> value[V];
            for (auto& each : value) each = all(-infinity<S>);
            if (!with_nan)
              for_entries<K>(pixel.count, [&](Index i) INLINED {
                for (int v = 0; v < V; ++v) {
                  const Vec<S> x = entry(i, v);
                  value[v] = x > value[v] ? x : value[v];
                }
              });
            else
              for_entries<0>(pixel.count, [&](Index i) INLINED {
                for (int v = 0; v < V; ++v) {
                  const Vec<S> x = entry(i, v);
                  value[v] = (x > value[v]) | (x != x) ? x : value[v];
                }
              });
            for (int v = 0; v < V; ++v)
              narrow_some(value[v], output + c + v * Lanes<S>::count, channels);
          });
        });
      },
      [&](Index first, Index slices) { watch.look(first, slices); });
  return {};
}

// Value, number of active entries and pick (an index of the list) of a vector of windows.
template <class S>
struct Decision {
  Vec<S> value;
  Int<S> size, pick;
};

// V vectors at once: they share the walk along the list.
template <int V, int K, bool sizes, bool picks, Pick pick, class T, class Count>
INLINE void decide_pixel(const T* input, const Pixel& pixel, Count channels,
                         Decision<Scalar<T>> (&decisions)[V]) {
  using S = Scalar<T>;
  using Integer = typename Lanes<S>::Integer;
  const auto entry = [&](Index i, int v) INLINED {
    return widen_some(input + pixel.entries[i] + v * Lanes<S>::count, channels);
  };
  const Index count = K ? K : pixel.count;
  for (auto& decision : decisions) decision = {all(-infinity<S>), Int<S>{}, Int<S>{} - 1};
  for_entries<K>(count, [&](Index i) INLINED {
    for (int v = 0; v < V; ++v) {
      const Vec<S> x = entry(i, v);
      decisions[v].value = x > decisions[v].value ? x : decisions[v].value;
    }
  });
  // The pick of `first` is the last to be found from the other end.
  constexpr int step = pick == Pick::first ? -1 : 1;
  Int<S> number = Int<S>{} + static_cast<Integer>(step < 0 ? count - 1 : 0);
  for_entries<K>(count, [&](Index i) INLINED {
    const Index at = step < 0 ? count - 1 - i : i;
    for (int v = 0; v < V; ++v) {
      auto& decision = decisions[v];
      const Int<S> active = entry(at, v) == decision.value;
      if constexpr (sizes || pick == Pick::random) decision.size -= active;
      if constexpr (picks && pick != Pick::random)
        decision.pick = active ? number : decision.pick;
    }
    number += step;
  });
}

template <class T>
Report ties_pixels(const Job& job, const Block& block, std::byte* scratch) {
  using S = Scalar<T>;
  PixelWatch<T> watch(job, block);
  Int<S> lane, tied{}, tied_at_zero{};
  for (int i = 0; i < Lanes<S>::count; ++i) lane[i] = i;
  for_pixels(
      job.problem, block, scratch,
      [&](const Pixel& pixel) {
        const T* const input = static_cast<const T*>(job.input) + pixel.corner;
        for_channels<S, 1>(block.channel, block, [&](Index c, auto channels, auto) INLINED {
          Decision<S> decisions[1];
          decide_pixel<1, 0, true, false, Pick::first>(input + c, pixel, channels, decisions);
          const auto& decision = decisions[0];
          const Vec<S> zero{};
          Int<S> zeros = decision.value == zero;
          if (any<S>(zeros))
            for (Index i = 0; i < pixel.count; ++i)
              zeros &= widen_some(input + pixel.entries[i] + c, channels) == zero;
          const Int<S> tie = (decision.size > 1) &
                             (lane < static_cast<typename Lanes<S>::Integer>(channels));
          tied -= tie;
          tied_at_zero -= tie & zeros;
          T* const output = static_cast<T*>(job.result);
          if (output) narrow_some(decision.value, output + pixel.place + c, channels);
        });
      },
      [&](Index first, Index slices) { watch.look(first, slices); });
  Report report{};
  for (int i = 0; i < Lanes<S>::count; ++i) {
    report.census.tied += tied[i];
    report.census.tied_at_zero += tied_at_zero[i];
  }
  report.unordered = watch.alarmed();
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
// the picked ones one by one, even where their masks are not held in registers.
constexpr Index few_entries = 4;

template <Sharing sharing, Pick pick, class T>
class PixelShares {
 public:
  using S = Scalar<T>;
  using Integer = typename Lanes<S>::Integer;
  static constexpr Index n = Lanes<S>::count;

  // What is noted of a window: the number of the entry that takes all, or −1.
  using Code = std::conditional_t<sizeof(T) == 2, Key, Integer>;

  PixelShares(const Job& job, const Block& block, Code* codes)
      : job_(job), block_(block), codes_(codes),
        key_(pick == Pick::random ? random_key(job.choice.seed) : 0) {}

  // Gives the gradients of the windows at one pixel.
  INLINE void share(const Pixel& pixel) const {
    const Spot spot{pixel,
                    static_cast<const T*>(job_.input) + pixel.corner,
                    static_cast<const T*>(job_.gradient) + pixel.place,
                    static_cast<T*>(job_.result) + pixel.corner,
                    job_.chosen,
                    job_.other};
    with_entries<pick>(pixel.count, [&]<int K>() INLINED {
      if constexpr (K > few_entries && sizeof(T) > 2) {
        for_whole_vectors(spot, [&](Index c) INLINED { share_by_masks<K>(spot, c); });
      } else if (pixel.count <= few_entries || pixel.count > std::numeric_limits<Code>::max()) {
        // Nor is there a code for every entry of a window of very many.
        for_whole_vectors(spot, [&](Index c) INLINED { share_by_entries<K>(spot, c, whole); });
      } else {
        share_by_codes<K>(spot);
      }
    });
  }

 private:
  static constexpr std::integral_constant<Index, n> whole{};

  // A pixel and where it lies in memory, all of it in registers.
  struct Spot {
    Pixel pixel;
    const T *input, *gradient;
    T* result;
    const void *chosen, *other;
  };

  // Calls act(channel) for each whole vector of channels, and shares out the part of one that may
  // be left.
  template <class Act>
  INLINE void for_whole_vectors(const Spot& spot, const Act& act) const {
    const Index end = block_.channel + block_.channels;
    Index c = block_.channel;
    for (; c + n <= end; c += n) act(c);
    if (c < end) share_part(spot, c, end - c);
  }

  // What is rarer, and not worth the code in every place: a part of a vector, and ties.
  __attribute__((noinline)) void share_part(Spot spot, Index c, Index channels) const {
    share_by_entries<0>(spot, c, channels);
  }
  __attribute__((noinline)) void share_ties(Spot spot, Index c) const {
    share_by_entries<0>(spot, c, whole);
  }

  template <int K, class Count, int V>
  INLINE void decide(const Spot& spot, Index c, Count channels,
                     Decision<S> (&decisions)[V]) const {
    const Pixel& pixel = spot.pixel;
    const T* const input = spot.input + c;
    decide_pixel<V, K, sharing != Sharing::one, true, pick>(input, pixel, channels, decisions);
    if constexpr (pick == Pick::random) {
      const auto &depth = job_.problem.depth, &height = job_.problem.height;
      const Index image = depth.outputs * height.outputs * job_.problem.width.outputs;
      const Index inner = job_.problem.inner, at = pixel.place / inner;
      const Index position = (at / image * inner + c) * image + at % image;
      for (int v = 0; v < V; ++v)
        decisions[v].pick = draw(input + v * n, pixel, channels, decisions[v], key_,
                                 position + v * n * image, image);
    }
  }

  // First all decisions, then all additions: a processor that looks ahead sees more of either.
  template <int K>
  INLINE void share_by_codes(const Spot& spot) const {
    Index noted = block_.channel;
    if constexpr (sizeof(T) == 2 && pick != Pick::random) noted = note_by_keys<K>(spot);
    for_channels<S, 2>(noted, block_, [&](Index c, auto channels, auto vectors) INLINED {
      // A part of a vector is decided where it is shared out.
      if constexpr (std::is_same_v<decltype(channels), Index>) return;
      Decision<S> decisions[decltype(vectors)::value];
      decide<0>(spot, c, channels, decisions);
      Code* codes = codes_ + (c - block_.channel);
      for (const auto& [value, size, picked] : decisions) {
        const Int<S> alone = sharing == Sharing::one ? picked >= 0 : size == 1;
        const Int<S> code = alone ? picked : Int<S>{} - 1;
        if constexpr (sizeof(Code) == sizeof(Integer))
          store_integers<S>(codes, code);
        else
          for (Index i = 0; i < n; ++i) codes[i] = static_cast<Code>(code[i]);
        codes += n;
      }
    });
    const Code* const noted_codes = codes_ - block_.channel;
    for_whole_vectors(spot, [&](Index c) INLINED {
      const Code* const codes = noted_codes + c;
      if (any_negative<n>(codes)) return share_ties(spot, c);
      const T* const given = spot.gradient + c;
      T* const result = spot.result + c;
      T* to[n];
      UNROLLED for (Index i = 0; i < n; ++i) to[i] = result + spot.pixel.entries[codes[i]] + i;
      if constexpr (sizeof(T) == 2) {
        // Rounding by vectors saves more than it takes to put one together.
        T some[n];
        Lanes<float>::H bits;
        UNROLLED for (Index i = 0; i < n; ++i) bits[i] = to[i]->bits;
        std::memcpy(some, &bits, sizeof bits);
        narrow_vector(widen_vector(some) + widen_vector(given), some);
        std::memcpy(&bits, some, sizeof bits);
        UNROLLED for (Index i = 0; i < n; ++i) to[i]->bits = bits[i];
      } else {
        UNROLLED for (Index i = 0; i < n; ++i) *to[i] += given[i];
      }
    });
  }

  // Where the number of entries is known, and small, all their masks are held in registers.
  template <int K>
  INLINE void share_by_masks(const Spot& spot, Index c) const {
    const Index* const entries = spot.pixel.entries;
    const T* const input = spot.input + c;
    T* const result = spot.result + c;
    const Vec<S> gradient = widen_vector(spot.gradient + c);
    Vec<S> value = all(-infinity<S>);
    for_entries<K>(K, [&](Index i) INLINED {
      const Vec<S> x = widen_vector(input + entries[i]);
      value = x > value ? x : value;
    });
    load_again();
    Int<S> takes[K], size{};
    for_entries<K>(K, [&](Index i) INLINED {
      takes[i] = widen_vector(input + entries[i]) == value;
      size -= takes[i];
    });
    if (sharing != Sharing::one && any<S>(size > 1)) return share_ties(spot, c);
    Int<S> taken{};
    for_entries<K>(K, [&](Index i) INLINED {
      Int<S> mask = takes[i];
      if constexpr (sharing == Sharing::one) {
        mask &= ~taken;
        taken |= mask;
      }
      T* const to = result + entries[i];
      narrow_vector(widen_vector(to) + keep<S>(mask, gradient), to);
    });
  }

  // Notes the windows of whole vectors of keys; returns the channel after the last.
  template <int K>
  INLINE Index note_by_keys(const Spot& spot) const {
    const Pixel& pixel = spot.pixel;
    const Index count = K ? K : pixel.count, end = block_.channel + block_.channels;
    Index c = block_.channel;
    for (; c + keys_count <= end; c += keys_count) {
      const T* const input = spot.input + c;
      constexpr Key step = pick == Pick::first ? -1 : 1;
      Keys value = all_keys(least_key), size{}, picked = all_keys(-1);
      Keys number = all_keys(static_cast<Key>(step < 0 ? count - 1 : 0));
      for_entries<K>(count, [&](Index i) INLINED {
        const Keys x = load_keys(input + pixel.entries[i]);
        value = x > value ? x : value;
      });
      for_entries<K>(count, [&](Index i) INLINED {
        const Index at = step < 0 ? count - 1 - i : i;
        const Keys active = load_keys(input + pixel.entries[at]) == value;
        size -= active;
        picked = active ? number : picked;
        number += step;
      });
      const Keys alone = sharing == Sharing::one ? all_keys(-1) : size == 1;
      const Keys code = alone ? picked : all_keys(-1);
      std::memcpy(codes_ + (c - block_.channel), &code, sizeof code);
    }
    return c;
  }

  // Visits every entry of a vector of windows.
  template <int K, class Count>
  INLINE void share_by_entries(const Spot& spot, Index c, Count channels) const {
    Decision<S> decisions[1];
    decide<K>(spot, c, channels, decisions);
    const Decision<S>& decision = decisions[0];
    const T* const input = spot.input + c;
    T* const result = spot.result + c;
    const Index count = K ? K : spot.pixel.count;
    const Vec<S> gradient = widen_some(spot.gradient + c, channels);
    Vec<S> chosen = gradient, other{};
    if constexpr (sharing != Sharing::one) {
      chosen = weighted<T>(spot.chosen, decision.size, count, gradient);
      if constexpr (sharing == Sharing::split)
        other = weighted<T>(spot.other, decision.size, count, gradient);
    }
    const Index* const entries = spot.pixel.entries;
    Int<S> taken{};
    for_entries<K>(count, [&](Index i) INLINED {
      const Index at = entries[pick == Pick::last ? count - 1 - i : i];
      const Int<S> active = widen_some(input + at, channels) == decision.value;
      Vec<S> contribution;
      if constexpr (sharing == Sharing::even) {
        contribution = keep<S>(active, chosen);
      } else if constexpr (sharing == Sharing::split) {
        contribution = keep<S>(active, taken ? other : chosen);
      } else if constexpr (pick == Pick::random) {
        contribution = keep<S>(decision.pick == Int<S>{} + static_cast<Integer>(i), chosen);
      } else {
        contribution = keep<S>(active & ~taken, chosen);
      }
      taken |= active;
      T* const to = result + at;
      narrow_some(widen_some(to, channels) + contribution, to, channels);
    });
  }

  const Job& job_;
  const Block& block_;
  Code* codes_;
  std::uint32_t key_;
};

template <Sharing sharing, Pick pick, class T>
Report vjp_pixels_of(const Job& job, const Block& block, std::byte* scratch) {
  const Problem& problem = job.problem;
  const Index volume = problem.depth.kernel * problem.height.kernel * problem.width.kernel;
  using Shares = PixelShares<sharing, pick, T>;
  const Shares shares(
      job, block, reinterpret_cast<typename Shares::Code*>(scratch + 2 * volume * sizeof(Index)));
  PixelWatch<T> watch(job, block);
  for_pixels(
      problem, block, scratch, [&](const Pixel& pixel) { shares.share(pixel); },
      [&](Index first, Index slices) {
        watch.look(first, slices);
        for_runs_of_slices(problem, block, first, slices, [&](Index from, Index count) {
          std::memset(static_cast<void*>(static_cast<T*>(job.result) + from), 0,
                      static_cast<std::size_t>(count) * sizeof(T));
        });
      });
  return {{}, watch.alarmed()};
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

// Max pooling of whole rows at a time, for every geometry.
//
// A block of the tensor is walked slice by slice of depth. Each input row is packed once into
// scratch memory (see Layout), where the entries at one place of all windows of an output row are
// a run of lanes, so that a vector of windows needs one load per place. The backward pass keeps,
// of the last few output rows, the value, the picked place and the two shares of every window, and
// then gathers each input row from the windows that reach it, in ascending order.
//
// Padding is NaN, which is neither greater than nor equal to anything: it is never an entry. The
// NaN of real data is only noticed here; the planes that hold one are left to the plain kernels.
#pragma once

#include <limits>

#include "problem.hpp"
#include "random.hpp"
#include "rows.hpp"
#include "vectors.hpp"

namespace {

using kinkcheck::Census;
using kinkcheck::Choice;
using kinkcheck::Job;
using kinkcheck::Pick;
using kinkcheck::Report;
using kinkcheck::Sharing;

template <class S>
constexpr S infinity = std::numeric_limits<S>::infinity();
template <class S>
constexpr S nan = std::numeric_limits<S>::quiet_NaN();

// Two vectors at a time hide the latency of comparing and blending.
constexpr int unroll = 2;

template <class S>
constexpr Index step = unroll * Lanes<S>::count;

// A window that reaches an input row: its lanes, shifted to those of the row, and at which place.
template <class S>
struct Source {
  const S* windows;
  typename Lanes<S>::Integer place;
};

// The rows of a block that are at hand.
template <class T>
class Rows {
 public:
  using S = Scalar<T>;

  Rows(const Job& job, const Block& block, std::byte* memory)
      : job(job), problem(job.problem), layout(job.layout), block(block),
        geometry(job.problem, job.layout, block), memory_(memory) {
    lanes = block.planes * (layout.lead + block.end - block.begin + layout.reach) *
            block.channels;
    volume = problem.depth.kernel * problem.height.kernel * problem.width.kernel;
    const Index slice = problem.height.inputs * layout.slots;
    inputs_ = take<S>(layout.input_slices * slice * layout.row);
    tangents_ = take<S>(layout.input_slices * slice * layout.row);
    windows_ = take<S>(layout.output_slices * problem.height.outputs * 4 * layout.row);
    padding_ = take<S>(layout.row);
    line = take<S>(layout.slots * layout.row);
    valid = take<S>(layout.row);
    positions = take<Index>(layout.row);
    places = take<const S*>(volume);
    tangent_places = take<const S*>(volume);
    sources = take<Source<S>>(volume);
    if (geometry.dealt) {
      const Index elements = geometry.lanes * geometry.stride;
      S* const in_order = take<S>(elements);
      Index* const from = take<Index>(elements);
      deal = Deal<S>(geometry, in_order, from, take<Index>(elements));
    }
  }

  const Job& job;
  const Problem& problem;
  const Layout& layout;
  const Block& block;
  const Geometry geometry;
  Index lanes, volume;
  S* line;                    // one row in the making, of every slot
  S* valid;                   // a mask: which lanes are windows
  Index* positions;           // of the windows of the first row, for the random pick
  const S** places;           // the run of entries at each place of a row of windows
  const S** tangent_places;   // the same of the tangent
  Source<S>* sources;
  Deal<S> deal;

  // Value, pick, chosen share and other share of the windows of a row: four rows of lanes.
  S* windows(Index depth, Index height) const {
    return windows_ +
           (depth % layout.output_slices * problem.height.outputs + height) * 4 * layout.row;
  }

  const S* input(Index depth, Index height) const { return row_of(inputs_, depth, height); }

  // Packing overwrites the lanes of entries, the same in every row, and leaves the padding.
  void set_padding(S pad) {
    fill_run(padding_, layout.row, pad);
    fill_run(inputs_, layout.input_slices * problem.height.inputs * layout.slots * layout.row,
             pad);
  }

  // Packs the slices of depth that the windows at `depth` need and no earlier ones needed.
  template <bool with_tangent, class Watcher>
  void pack_for(Index depth, Watcher& watch) {
    const auto& axis = problem.depth;
    const Index start = depth * axis.stride - axis.padding;
    const Index stop = least(axis.inputs, start + (axis.kernel - 1) * axis.dilation + 1);
    Unwatched unwatched;
    for (packed_ = most(packed_, start); packed_ < stop; ++packed_) {
      for (Index h = 0; h < problem.height.inputs; ++h) {
        pack_row(geometry, deal, static_cast<const T*>(job.input), packed_, h,
                 row_of(inputs_, packed_, h), watch);
        if constexpr (with_tangent)
          pack_row(geometry, deal, static_cast<const T*>(job.gradient), packed_, h,
                   row_of(tangents_, packed_, h), unwatched);
      }
    }
  }

  // Sets the places of a row of windows.
  template <bool with_tangent>
  void point_at(Index depth, Index height) {
    const auto &along = problem.depth, &across = problem.height;
    const S** place = places;
    for (Index kd = 0; kd < along.kernel; ++kd) {
      const Index d = depth * along.stride - along.padding + kd * along.dilation;
      for (Index kh = 0; kh < across.kernel; ++kh) {
        const Index h = height * across.stride - across.padding + kh * across.dilation;
        const bool inside = 0 <= d && d < along.inputs && 0 <= h && h < across.inputs;
        for (Index kw = 0; kw < problem.width.kernel; ++kw, ++place) {
          const Index offset = layout.slot[kw] * layout.row + layout.shift[kw] * block.channels;
          *place = inside ? row_of(inputs_, d, h) + offset : padding_;
          if constexpr (with_tangent)
            tangent_places[place - places] =
                inside ? row_of(tangents_, d, h) + offset : padding_;
        }
      }
    }
  }

  void mark_valid() {
    fill_run(valid, layout.row, S{});
    for_output_runs(geometry, 0, 0, [&](Index, Index lane, Index count) {
      const typename Lanes<S>::Integer yes = -1;
      for (Index i = lane; i < lane + count; ++i) std::memcpy(valid + i, &yes, sizeof yes);
    });
  }

  // Positions count in the logical order of the output, (outer, inner, depth, height, width).
  void mark_positions() {
    const Index image = problem.depth.outputs * problem.height.outputs * problem.width.outputs;
    for (Index i = 0; i < layout.row; ++i) positions[i] = 0;
    for_output_runs(geometry, 0, 0, [&](Index at, Index lane, Index count) {
      for (Index i = 0; i < count; ++i) {
        const Index channel = (at + i) % problem.inner, pixel = (at + i) / problem.inner;
        const Index outer = pixel / image, place = pixel % image;
        positions[lane + i] = (outer * problem.inner + channel) * image + place;
      }
    });
  }

 private:
  S* row_of(S* rows, Index depth, Index height) const {
    return rows + (depth % layout.input_slices * problem.height.inputs + height) * layout.slots *
                      layout.row;
  }

  template <class Item>
  Item* take(Index count) {
    Item* const taken = reinterpret_cast<Item*>(memory_);
    memory_ += round_up(count * static_cast<Index>(sizeof(Item)), 64);
    return taken;
  }

  std::byte* memory_;
  S *inputs_, *tangents_, *windows_, *padding_;
  Index packed_ = 0;
};

// What is known of a few vectors of windows.
template <class S>
struct Known {
  Vec<S> value[unroll];
  Int<S> size[unroll];
  Int<S> pick[unroll];
};

#define UNROLLED _Pragma("GCC unroll 32")

template <class S>
INLINE Vec<S> entry(const S* const* places, Index place, Index lane, int v) {
  return load(places[place] + lane + v * Lanes<S>::count);
}

// The value, the number of active entries and the pick of the windows from `lane` on.
// K is the number of places if known when compiling, else 0.
template <int K, bool sizes, bool picks, Pick pick, class T>
INLINE Known<Scalar<T>> know(const Rows<T>& rows, Index lane, std::uint32_t key, Index position) {
  using S = Scalar<T>;
  const Index count = K ? K : rows.volume;
  const S* const* const places = rows.places;
  Known<S> known;
  for (int v = 0; v < unroll; ++v) {
    known.value[v] = all(-infinity<S>);
    known.size[v] = Int<S>{};
    known.pick[v] = Int<S>{} - 1;
  }
  UNROLLED for (Index k = 0; k < count; ++k)
    for (int v = 0; v < unroll; ++v) {
      const Vec<S> x = entry(places, k, lane, v);
      known.value[v] = x > known.value[v] ? x : known.value[v];
    }
  UNROLLED for (Index i = 0; i < count; ++i) {
    const Index k = pick == Pick::first ? count - 1 - i : i;
    for (int v = 0; v < unroll; ++v) {
      const Int<S> active = entry(places, k, lane, v) == known.value[v];
      if constexpr (sizes || pick == Pick::random)
        known.size[v] = active ? known.size[v] + 1 : known.size[v];
      if constexpr (picks && pick != Pick::random)
        known.pick[v] = active ? Int<S>{} + static_cast<typename Lanes<S>::Integer>(k)
                               : known.pick[v];
    }
  }
  if constexpr (picks && pick == Pick::random) {
    for (int v = 0; v < unroll; ++v) {
      Int<S> rank;
      for (int i = 0; i < Lanes<S>::count; ++i)
        rank[i] = static_cast<typename Lanes<S>::Integer>(random_rank(
            key, position + rows.positions[lane + v * Lanes<S>::count + i], known.size[v][i]));
      for (Index k = 0; k < count; ++k) {
        const Int<S> active = entry(places, k, lane, v) == known.value[v];
        known.pick[v] = (active & (rank == 0))
                            ? Int<S>{} + static_cast<typename Lanes<S>::Integer>(k)
                            : known.pick[v];
        rank += active;
      }
    }
  }
  return known;
}

// The weight of each window in a table by number of active entries, of which there are at most
// `most`.
template <class S>
INLINE Vec<S> weight(const void* table, Int<S> size, Index most) {
  return lookup(static_cast<const S*>(table), size, most);
}

// Calls act<K>() with K the number of places if it is a common one, else 0.
template <class Act>
INLINE void with_volume(Index volume, const Act& act) {
  switch (volume) {
    case 9: return act.template operator()<9>();
    default: return act.template operator()<0>();
  }
}

// Calls act<sharing, pick>() with the constants of a choice.
template <class Act>
INLINE void with_choice(const Choice& choice, const Act& act) {
  switch (choice.sharing) {
    case Sharing::even: return act.template operator()<Sharing::even, Pick::first>();
    case Sharing::split: return act.template operator()<Sharing::split, Pick::first>();
    case Sharing::one: break;
  }
  switch (choice.pick) {
    case Pick::first: return act.template operator()<Sharing::one, Pick::first>();
    case Pick::last: return act.template operator()<Sharing::one, Pick::last>();
    case Pick::random: return act.template operator()<Sharing::one, Pick::random>();
  }
}

// Forward.

template <int K, bool with_nan, class T>
void forward_row(const Rows<T>& rows) {
  using S = Scalar<T>;
  const Index count = K ? K : rows.volume;
  for (Index lane = 0; lane < rows.lanes; lane += step<S>) {
    Vec<S> value[unroll];
    for (int v = 0; v < unroll; ++v) value[v] = all(-infinity<S>);
    UNROLLED for (Index k = 0; k < count; ++k)
      for (int v = 0; v < unroll; ++v) {
        const Vec<S> x = entry(rows.places, k, lane, v);
        value[v] = x > value[v] ? x : value[v];
        if constexpr (with_nan) value[v] = x != x ? x : value[v];
      }
    for (int v = 0; v < unroll; ++v) store(rows.line + lane + v * Lanes<S>::count, value[v]);
  }
}

template <class T>
void write_line(const Rows<T>& rows, Index depth, Index height) {
  T* const result = static_cast<T*>(rows.job.result);
  for_output_runs(rows.geometry, depth, height,
                  [&](Index at, Index lane, Index count) {
                    narrow_run(rows.line + lane, result + at, count);
                  });
}

// Whether there was a NaN; the values are right if there was none or with_nan.
template <bool with_nan, class T>
bool forward_block(const Job& job, const Block& block, std::byte* scratch) {
  using S = Scalar<T>;
  Rows<T> rows(job, block, scratch);
  rows.set_padding(-infinity<S>);
  Watch<S> watch(nan<S>);
  for (Index d = 0; d < job.problem.depth.outputs; ++d) {
    rows.template pack_for<false>(d, watch);
    for (Index h = 0; h < job.problem.height.outputs; ++h) {
      rows.template point_at<false>(d, h);
      with_volume(rows.volume, [&]<int K>() { forward_row<K, with_nan>(rows); });
      write_line(rows, d, h);
    }
  }
  return watch.alarmed();
}

template <class T>
Report forward(const Job& job, const Block& block, std::byte* scratch) {
  if (forward_block<false, T>(job, block, scratch)) forward_block<true, T>(job, block, scratch);
  return {};
}

// The census, and the values on the way.

template <int K, class T>
void ties_row(const Rows<T>& rows, Census& census) {
  using S = Scalar<T>;
  const Index count = K ? K : rows.volume;
  Int<S> tied{}, tied_at_zero{};
  for (Index lane = 0; lane < rows.lanes; lane += step<S>) {
    const auto known = know<K, true, false, Pick::first>(rows, lane, 0, 0);
    Vec<S> lowest[unroll];
    for (int v = 0; v < unroll; ++v) lowest[v] = known.value[v];
    UNROLLED for (Index k = 0; k < count; ++k)
      for (int v = 0; v < unroll; ++v) {
        const Vec<S> x = entry(rows.places, k, lane, v);
        lowest[v] = x < lowest[v] ? x : lowest[v];
      }
    for (int v = 0; v < unroll; ++v) {
      const Index at = lane + v * Lanes<S>::count;
      const Int<S> tie = load_integers(rows.valid + at) & (known.size[v] > 1);
      const Vec<S> zero{};
      tied -= tie;
      tied_at_zero -= tie & (known.value[v] == zero) & (lowest[v] == zero);
      store(rows.line + at, known.value[v]);
    }
  }
  for (int i = 0; i < Lanes<S>::count; ++i) {
    census.tied += tied[i];
    census.tied_at_zero += tied_at_zero[i];
  }
}

template <class T>
Report ties(const Job& job, const Block& block, std::byte* scratch) {
  using S = Scalar<T>;
  Rows<T> rows(job, block, scratch);
  rows.set_padding(nan<S>);
  rows.mark_valid();
  Watch<S> watch(nan<S>);
  Report report{};
  for (Index d = 0; d < job.problem.depth.outputs; ++d) {
    rows.template pack_for<false>(d, watch);
    for (Index h = 0; h < job.problem.height.outputs; ++h) {
      rows.template point_at<false>(d, h);
      with_volume(rows.volume, [&]<int K>() { ties_row<K>(rows, report.census); });
      if (job.result) write_line(rows, d, h);
    }
  }
  report.unordered = watch.alarmed();
  return report;
}

// Backward.

template <int K, Sharing sharing, Pick pick, class T>
void share_row(const Rows<T>& rows, typename Rows<T>::S* windows, Index position) {
  using S = Scalar<T>;
  constexpr bool sizes = sharing != Sharing::one, picks = sharing != Sharing::even;
  const Index row = rows.layout.row;
  const std::uint32_t key = pick == Pick::random ? random_key(rows.job.choice.seed) : 0;
  for (Index lane = 0; lane < rows.lanes; lane += step<S>) {
    const auto known = know<K, sizes, picks, pick>(rows, lane, key, position);
    for (int v = 0; v < unroll; ++v) {
      const Index at = lane + v * Lanes<S>::count;
      const Int<S> valid = load_integers(rows.valid + at);
      const Vec<S> gradient = load(rows.line + at);
      const auto share = [&](const void* table) {
        const Vec<S> factor = weight<S>(table, known.size[v], K ? K : rows.volume);
        const Vec<S> product = rounded_vector<T>(factor * gradient);
        return keep<S>(valid & (factor != Vec<S>{}), product);
      };
      if constexpr (picks) store_integers(windows + row + at, known.pick[v]);
      if constexpr (sharing != Sharing::one) store(windows + at, known.value[v]);
      if constexpr (sharing == Sharing::one) {
        store(windows + 2 * row + at, keep<S>(valid, gradient));
      } else {
        store(windows + 2 * row + at, share(rows.job.chosen));
      }
      if constexpr (sharing == Sharing::split)
        store(windows + 3 * row + at, share(rows.job.other));
    }
  }
}

template <Sharing sharing, class T>
INLINE Vec<Scalar<T>> contribution(const Rows<T>& rows, const Source<Scalar<T>>& source,
                                   Index lane, Vec<Scalar<T>> x) {
  using S = Scalar<T>;
  const S* const windows = source.windows + lane;
  const Index row = rows.layout.row;
  const Vec<S> chosen = load(windows + 2 * row);
  if constexpr (sharing == Sharing::even) return keep<S>(x == load(windows), chosen);
  const Int<S> picked = load_integers(windows + row) == Int<S>{} + source.place;
  if constexpr (sharing == Sharing::one) return keep<S>(picked, chosen);
  const Vec<S> other = keep<S>(x == load(windows), load(windows + 3 * row));
  return picked ? chosen : other;
}

// One slot of an input row: the sum of what the windows that reach it give.
template <Sharing sharing, class T>
void gather_row(const Rows<T>& rows, Index sources, const Scalar<T>* input, Scalar<T>* to) {
  using S = Scalar<T>;
  for (Index lane = rows.layout.lead * rows.block.channels; lane < rows.lanes; lane += step<S>) {
    Vec<S> x[unroll], sum[unroll];
    for (int v = 0; v < unroll; ++v) {
      const Index at = lane + v * Lanes<S>::count;
      x[v] = load(input + at);
      sum[v] = Vec<S>{} + contribution<sharing>(rows, rows.sources[0], at, x[v]);
    }
    for (Index i = 1; i < sources; ++i)
      for (int v = 0; v < unroll; ++v)
        sum[v] = rounded_vector<T>(
            sum[v] + contribution<sharing>(rows, rows.sources[i],
                                           lane + v * Lanes<S>::count, x[v]));
    for (int v = 0; v < unroll; ++v) store(to + lane + v * Lanes<S>::count, sum[v]);
  }
}

// Calls visit(window, place) for the windows along an axis that hold an input, in ascending order.
template <class Visit>
INLINE void for_windows_of(const kinkcheck::Axis& axis, Index input, const Visit& visit) {
  const Index padded = input + axis.padding;
  const Index first = ceil_divide(padded - (axis.kernel - 1) * axis.dilation, axis.stride);
  const Index last = padded / axis.stride;
  for (Index o = most(first, 0); o <= least(last, axis.outputs - 1); ++o) {
    const Index distance = padded - o * axis.stride;
    if (distance % axis.dilation == 0) visit(o, distance / axis.dilation);
  }
}

template <Sharing sharing, class T>
void gather_slice(const Rows<T>& rows, Index depth) {
  using S = Scalar<T>;
  const Problem& problem = rows.problem;
  const Layout& layout = rows.layout;
  for (Index height = 0; height < problem.height.inputs; ++height) {
    bool reached = false;
    for (Index slot = 0; slot < layout.slots; ++slot) {
      Index sources = 0;
      for_windows_of(problem.depth, depth, [&](Index od, Index kd) {
        for_windows_of(problem.height, height, [&](Index oh, Index kh) {
          for (Index kw = problem.width.kernel - 1; kw >= 0; --kw) {
            if (layout.slot[kw] != slot) continue;
            const Index place = (kd * problem.height.kernel + kh) * problem.width.kernel + kw;
            rows.sources[sources++] = {
                rows.windows(od, oh) - layout.shift[kw] * rows.block.channels,
                static_cast<typename Lanes<S>::Integer>(place)};
          }
        });
      });
      reached |= sources > 0;
      if (sources == 0) continue;
      gather_row<sharing>(rows, sources, rows.input(depth, height) + slot * layout.row,
                          rows.line + slot * layout.row);
    }
    unpack_row(rows.geometry, rows.deal, reached ? rows.line : nullptr, depth, height,
               static_cast<T*>(rows.job.result));
  }
}

template <class T>
Report vjp(const Job& job, const Block& block, std::byte* scratch) {
  using S = Scalar<T>;
  Rows<T> rows(job, block, scratch);
  const Problem& problem = job.problem;
  const auto& depth = problem.depth;
  rows.set_padding(nan<S>);
  rows.mark_valid();
  if (job.choice.pick == Pick::random) rows.mark_positions();
  Watch<S> watch(job.watch_infinity ? -infinity<S> : nan<S>);
  Index gathered = 0;
  for (Index d = 0; d < depth.outputs; ++d) {
    rows.template pack_for<false>(d, watch);
    for (Index h = 0; h < problem.height.outputs; ++h) {
      rows.template point_at<false>(d, h);
      for_output_runs(rows.geometry, d, h, [&](Index at, Index lane, Index count) {
        Unwatched unwatched;
        widen_run(static_cast<const T*>(job.gradient) + at, rows.line + lane, count, unwatched);
      });
      const Index position = (d * problem.height.outputs + h) * problem.width.outputs;
      with_choice(job.choice, [&]<Sharing sharing, Pick pick>() {
        if constexpr (pick == Pick::first)
          with_volume(rows.volume, [&]<int K>() {
            share_row<K, sharing, pick>(rows, rows.windows(d, h), position);
          });
        else
          share_row<0, sharing, pick>(rows, rows.windows(d, h), position);
      });
    }
    const Index done = d + 1 == depth.outputs
                           ? depth.inputs
                           : least(depth.inputs, (d + 1) * depth.stride - depth.padding);
    for (; gathered < done; ++gathered)
      switch (job.choice.sharing) {
        case Sharing::one: gather_slice<Sharing::one>(rows, gathered); break;
        case Sharing::even: gather_slice<Sharing::even>(rows, gathered); break;
        case Sharing::split: gather_slice<Sharing::split>(rows, gathered); break;
      }
  }
  return {{}, watch.alarmed()};
}

// Forward-mode.

template <Sharing sharing, Pick pick, class T>
void tangent_row(const Rows<T>& rows, Index position) {
  using S = Scalar<T>;
  constexpr bool sizes = sharing != Sharing::one, picks = sharing != Sharing::even;
  const std::uint32_t key = pick == Pick::random ? random_key(rows.job.choice.seed) : 0;
  for (Index lane = 0; lane < rows.lanes; lane += step<S>) {
    const auto known = know<0, sizes, picks, pick>(rows, lane, key, position);
    for (int v = 0; v < unroll; ++v) {
      Vec<S> sum{}, chosen{}, other{};
      if constexpr (sharing != Sharing::one) {
        chosen = weight<S>(rows.job.chosen, known.size[v], rows.volume);
        other = sharing == Sharing::even ? chosen : weight<S>(rows.job.other, known.size[v], rows.volume);
      }
      for (Index k = 0; k < rows.volume; ++k) {
        const Vec<S> tangent = entry(rows.tangent_places, k, lane, v);
        const Int<S> picked =
            known.pick[v] == Int<S>{} + static_cast<typename Lanes<S>::Integer>(k);
        if constexpr (sharing == Sharing::one) {
          sum = picked ? tangent : sum;
        } else {
          const Vec<S> factor = keep<S>(entry(rows.places, k, lane, v) == known.value[v],
                                        picked ? chosen : other);
          const Vec<S> product = rounded_vector<T>(factor * tangent);
          sum = rounded_vector<T>(sum + keep<S>(factor != Vec<S>{}, product));
        }
      }
      if (sharing == Sharing::one && !rows.job.choice.native) sum += Vec<S>{};
      store(rows.line + lane + v * Lanes<S>::count, sum);
    }
  }
}

template <class T>
Report jvp(const Job& job, const Block& block, std::byte* scratch) {
  using S = Scalar<T>;
  Rows<T> rows(job, block, scratch);
  const Problem& problem = job.problem;
  rows.set_padding(nan<S>);
  if (job.choice.pick == Pick::random) rows.mark_positions();
  Watch<S> watch(job.watch_infinity ? -infinity<S> : nan<S>);
  for (Index d = 0; d < problem.depth.outputs; ++d) {
    rows.template pack_for<true>(d, watch);
    for (Index h = 0; h < problem.height.outputs; ++h) {
      rows.template point_at<true>(d, h);
      const Index position = (d * problem.height.outputs + h) * problem.width.outputs;
      with_choice(job.choice, [&]<Sharing sharing, Pick pick>() {
        tangent_row<sharing, pick>(rows, position);
      });
      write_line(rows, d, h);
    }
  }
  return {{}, watch.alarmed()};
}

}  // namespace

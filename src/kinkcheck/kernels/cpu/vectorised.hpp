// Max pooling of whole rows at a time, for every geometry.
//
// A block of the tensor is walked slice by slice of depth. Each input row is packed once into
// scratch memory (see Layout), where the entries at one place of all windows of an output row are
// a run of lanes, so that a vector of windows needs one load per place.
//
// Padding is NaN, which is neither greater than nor equal to anything: it is never an entry. The
// NaN of real data is only noticed here; the planes that hold one are left to the plain kernels.
#pragma once

#include <cstring>

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

// Two vectors at a time hide the latency of comparing and blending.
constexpr int unroll = 2;

template <class S>
constexpr Index step = unroll * Lanes<S>::count;

// The rows of a block that are at hand.
template <class T>
class Rows {
 public:
  using S = Scalar<T>;
  using Integer = typename Lanes<S>::Integer;

  Rows(const Job& job, const Block& block, std::byte* memory)
      : job(job), problem(job.problem), layout(job.layout), block(block),
        geometry(job.problem, job.layout, block) {
    lanes = block.planes * (layout.lead + block.end - block.begin + layout.reach) *
            block.channels;
    volume = problem.depth.kernel * problem.height.kernel * problem.width.kernel;
    const Index slice = problem.height.inputs * layout.slots;
    inputs_ = take<S>(memory, layout.input_slices * slice * layout.row);
    tangents_ = take<S>(memory, layout.input_slices * slice * layout.row);
    padding_ = take<S>(memory, layout.row);
    line = take<S>(memory, layout.row);
    valid = take<S>(memory, layout.row);
    values = take<S>(memory, layout.row);
    others = take<S>(memory, layout.row);
    codes = take<Integer>(memory, layout.row);
    sizes = take<Integer>(memory, layout.row);
    positions = take<Index>(memory, layout.row);
    places = take<const S*>(memory, volume);
    tangent_places = take<S*>(memory, volume);
    offsets = take<Index>(memory, volume);
    if (geometry.dealt) {
      Index* const elements = take<Index>(memory, geometry.lanes * layout.slots);
      deal_ = Deal(geometry, elements, take<Index>(memory, geometry.lanes * layout.slots));
    }
  }

  const Job& job;
  const Problem& problem;
  const Layout& layout;
  const Block& block;
  const Geometry geometry;
  Index lanes, volume;
  S* line;                    // one row in the making
  S* valid;                   // a mask: which lanes are windows
  S* values;                  // of a row of windows
  S* others;                  // what a row of windows gives to entries other than the picked ones
  Index* positions;           // of the windows of the first row, for the random pick
  const S** places;           // the run of entries at each place of a row of windows
  S** tangent_places;         // the same of the tangent, or of the sums of contributions
  Integer* codes;             // of a row of windows, see share_row
  Integer* sizes;             // of their active sets
  Index* offsets;             // in the tensor, of each place from the first

  // Packing overwrites the lanes of entries, the same in every row, and leaves the padding.
  void set_padding(S pad) {
    fill_run(padding_, layout.row, pad);
    fill_run(inputs_, layout.input_slices * problem.height.inputs * layout.slots * layout.row,
             pad);
  }

  // Whether there are values in the block that the vectorised kernels cannot order. This is also
  // the pass that brings the block into the cache, in the order of memory.
  bool unordered() const {
    Flag<S> seen;
    const Index inner = problem.inner, line = problem.width.inputs * inner;
    const Index count = problem.depth.inputs * problem.height.inputs;
    const T* from = static_cast<const T*>(job.input) + block.outer * count * line;
    const Index rows = block.planes * count;
    if (geometry.whole_rows && block.channels == inner) {
      watch_run(from, rows * line, job.watch_infinity, seen);
      return seen.met();
    }
    const Index low = most(0, geometry.origin);
    const Index high =
        least(problem.width.inputs, geometry.origin + geometry.lanes * geometry.stride);
    for (Index row = 0; row < rows; ++row, from += line) {
      if (block.channels == inner) {
        watch_run(from + low * inner, (high - low) * inner, job.watch_infinity, seen);
      } else {
        for (Index w = low; w < high; ++w)
          watch_run(from + w * inner + block.channel, block.channels, job.watch_infinity, seen);
      }
    }
    return seen.met();
  }

  // Packs the slices of depth that the windows at `depth` need and no earlier ones needed.
  template <bool with_tangent>
  void pack_for(Index depth) {
    const auto& axis = problem.depth;
    const Index start = depth * axis.stride - axis.padding;
    const Index stop = least(axis.inputs, start + (axis.kernel - 1) * axis.dilation + 1);
    for (packed_ = most(packed_, start); packed_ < stop; ++packed_) {
      for (Index h = 0; h < problem.height.inputs; ++h) {
        pack_row(geometry, deal_, static_cast<const T*>(job.input), packed_, h,
                 row_of(inputs_, packed_, h));
        if constexpr (with_tangent)
          pack_row(geometry, deal_, static_cast<const T*>(job.gradient), packed_, h,
                   row_of(tangents_, packed_, h));
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

  // Sums of contributions, which lie where the tangent lies in forward mode.
  void clear_sums(Index from, Index to) {
    for (Index d = from; d < to; ++d) {
      S* const row = row_of(tangents_, d, 0);
      std::memset(row, 0,
                  static_cast<std::size_t>(problem.height.inputs * layout.slots * layout.row) *
                      sizeof(S));
    }
  }
  // Those of the entries at one place of a row of windows; null where it is in the padding.
  S* sums(Index place) const {
    return places[place] == padding_ ? nullptr : tangent_places[place];
  }
  void unpack_sums(Index from, Index to) const {
    for (Index d = from; d < to; ++d)
      for (Index h = 0; h < problem.height.inputs; ++h)
        unpack_row(geometry, deal_, row_of(tangents_, d, h), d, h, static_cast<T*>(job.result));
  }

  // The end of the slices of depth that were packed.
  Index packed() const { return least(packed_, problem.depth.inputs); }

  void set_offsets() {
    const auto &along = problem.depth, &across = problem.height, &width = problem.width;
    Index* offset = offsets;
    for (Index kd = 0; kd < along.kernel; ++kd)
      for (Index kh = 0; kh < across.kernel; ++kh)
        for (Index kw = 0; kw < width.kernel; ++kw)
          *offset++ = ((kd * along.dilation * across.inputs + kh * across.dilation) * width.inputs +
                       kw * width.dilation) *
                      problem.inner;
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

  S *inputs_, *tangents_, *padding_;
  Deal deal_;
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
        known.size[v] -= active;
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

// What each window gives of its gradient by such a table: nothing, where the weight is zero, even
// of an infinite one.
template <class T>
INLINE Vec<Scalar<T>> weighted(const void* table, Int<Scalar<T>> size, Index most,
                               Vec<Scalar<T>> gradient) {
  using S = Scalar<T>;
  const Vec<S> factor = weight<S>(table, size, most);
  return keep<S>(factor != Vec<S>{}, rounded_vector<T>(factor * gradient));
}

// Calls act<K>() with K the number of places if it is a common one, else 0.
template <class Act>
INLINE void with_volume(Index volume, const Act& act) {
  switch (volume) {
    case 4: return act.template operator()<4>();
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

template <class T>
Report forward(const Job& job, const Block& block, std::byte* scratch) {
  using S = Scalar<T>;
  Rows<T> rows(job, block, scratch);
  rows.set_padding(-infinity<S>);
  const bool with_nan = rows.unordered();
  for (Index d = 0; d < job.problem.depth.outputs; ++d) {
    rows.template pack_for<false>(d);
    for (Index h = 0; h < job.problem.height.outputs; ++h) {
      rows.template point_at<false>(d, h);
      if (with_nan)
        forward_row<0, true>(rows);
      else
        with_volume(rows.volume, [&]<int K>() { forward_row<K, false>(rows); });
      write_line(rows, d, h);
    }
  }
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
      const Int<S> tie = load_integers<S>(rows.valid + at) & (known.size[v] > 1);
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
  if (rows.unordered()) return {{}, true};
  rows.set_padding(nan<S>);
  rows.mark_valid();
  Report report{};
  for (Index d = 0; d < job.problem.depth.outputs; ++d) {
    rows.template pack_for<false>(d);
    for (Index h = 0; h < job.problem.height.outputs; ++h) {
      rows.template point_at<false>(d, h);
      with_volume(rows.volume, [&]<int K>() { ties_row<K>(rows, report.census); });
      if (job.result) write_line(rows, d, h);
    }
  }
  return report;
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
        other = sharing == Sharing::even ? chosen
                                         : weight<S>(rows.job.other, known.size[v], rows.volume);
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
  if (rows.unordered()) return {{}, true};
  rows.set_padding(nan<S>);
  if (job.choice.pick == Pick::random) rows.mark_positions();
  for (Index d = 0; d < problem.depth.outputs; ++d) {
    rows.template pack_for<true>(d);
    for (Index h = 0; h < problem.height.outputs; ++h) {
      rows.template point_at<true>(d, h);
      const Index position = (d * problem.height.outputs + h) * problem.width.outputs;
      with_choice(job.choice, [&]<Sharing sharing, Pick pick>() {
        tangent_row<sharing, pick>(rows, position);
      });
      write_line(rows, d, h);
    }
  }
  return {};
}

}  // namespace

// The general path: max pooling of whole rows at a time, for every geometry.
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
#include "rows.hpp"
#include "shares.hpp"
#include "vectors.hpp"

namespace {

using kinkcheck::Choice;
using kinkcheck::Pick;
using kinkcheck::Report;

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
    picks = take<Integer>(memory, layout.row);
    positions = take<Index>(memory, layout.row);
    places = take<const S*>(memory, volume);
    tangent_places = take<S*>(memory, volume);
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
  Integer* picks;             // of a row of windows: the places of the picked entries

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

// What is known of a few vectors of windows: the pick is a place, −1 where there is no entry.
template <class S>
struct Known {
  Vec<S> value[unroll];
  Int<S> size[unroll];
  Int<S> pick[unroll];
};

template <class S>
INLINE Vec<S> entry(const S* const* places, Index place, Index lane, int v) {
  return load(places[place] + lane + v * Lanes<S>::count);
}

// The windows from `lane` on; the pick is their first active entry.
template <class T>
INLINE Known<Scalar<T>> know(const Rows<T>& rows, Index lane) {
  using S = Scalar<T>;
  Known<S> known;
  for (int v = 0; v < unroll; ++v)
    known.value[v] = all(-infinity<S>), known.size[v] = Int<S>{}, known.pick[v] = Int<S>{} - 1;
  for (Index k = 0; k < rows.volume; ++k)
    for (int v = 0; v < unroll; ++v) {
      const Vec<S> x = entry(rows.places, k, lane, v);
      known.value[v] = x > known.value[v] ? x : known.value[v];
    }
  for (Index k = rows.volume - 1; k >= 0; --k)
    for (int v = 0; v < unroll; ++v) {
      const Int<S> active = entry(rows.places, k, lane, v) == known.value[v];
      known.size[v] -= active;
      known.pick[v] = active ? all_integers<S>(k) : known.pick[v];
    }
  return known;
}

// Picks another active entry, if the choice is not the first.
template <class T>
void pick_again(const Rows<T>& rows, Index lane, Index position, Known<Scalar<T>>& known) {
  using S = Scalar<T>;
  const Choice& choice = rows.job.choice;
  if (choice.pick == Pick::first) return;
  const std::uint32_t key = random_key(choice.seed);
  for (int v = 0; v < unroll; ++v) {
    Int<S> rank = known.size[v] - 1;
    if (choice.pick == Pick::random)
      for (int i = 0; i < Lanes<S>::count; ++i)
        rank[i] = static_cast<typename Lanes<S>::Integer>(random_rank(
            key, position + rows.positions[lane + v * Lanes<S>::count + i], known.size[v][i]));
    for (Index k = 0; k < rows.volume; ++k) {
      const Int<S> active = entry(rows.places, k, lane, v) == known.value[v];
      known.pick[v] = (active & (rank == 0)) ? all_integers<S>(k) : known.pick[v];
      rank += active;
    }
  }
}

// Forward.

template <bool with_nan, class T>
void forward_row(const Rows<T>& rows) {
  using S = Scalar<T>;
  for (Index lane = 0; lane < rows.lanes; lane += step<S>) {
    Vec<S> value[unroll];
    for (int v = 0; v < unroll; ++v) value[v] = all(-infinity<S>);
    for (Index k = 0; k < rows.volume; ++k)
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
  Rows<T> rows(job, block, scratch);
  rows.set_padding(-infinity<Scalar<T>>);
  const bool with_nan = rows.unordered();
  for (Index d = 0; d < job.problem.depth.outputs; ++d) {
    rows.template pack_for<false>(d);
    for (Index h = 0; h < job.problem.height.outputs; ++h) {
      rows.template point_at<false>(d, h);
      if (with_nan)
        forward_row<true>(rows);
      else
        forward_row<false>(rows);
      write_line(rows, d, h);
    }
  }
  return {};
}

// The census, and the values on the way.

template <class T>
void ties_row(const Rows<T>& rows, Int<Scalar<T>>& tied, Int<Scalar<T>>& tied_at_zero) {
  using S = Scalar<T>;
  for (Index lane = 0; lane < rows.lanes; lane += step<S>) {
    const auto known = know(rows, lane);
    Vec<S> lowest[unroll];
    for (int v = 0; v < unroll; ++v) lowest[v] = known.value[v];
    for (Index k = 0; k < rows.volume; ++k)
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
}

template <class T>
Report ties(const Job& job, const Block& block, std::byte* scratch) {
  using S = Scalar<T>;
  Rows<T> rows(job, block, scratch);
  if (rows.unordered()) return {{}, true};
  rows.set_padding(nan<S>);
  rows.mark_valid();
  Int<S> tied{}, tied_at_zero{};
  for (Index d = 0; d < job.problem.depth.outputs; ++d) {
    rows.template pack_for<false>(d);
    for (Index h = 0; h < job.problem.height.outputs; ++h) {
      rows.template point_at<false>(d, h);
      ties_row(rows, tied, tied_at_zero);
      if (job.result) write_line(rows, d, h);
    }
  }
  return {census_of<S>(tied, tied_at_zero), false};
}

// Forward-mode.

template <class T>
void tangent_row(const Rows<T>& rows, Index position) {
  using S = Scalar<T>;
  const Job& job = rows.job;
  for (Index lane = 0; lane < rows.lanes; lane += step<S>) {
    auto known = know(rows, lane);
    pick_again(rows, lane, position, known);
    for (int v = 0; v < unroll; ++v) {
      const auto [chosen, other] = weights_of<S>(job.tables, known.size[v], rows.volume);
      Vec<S> sum{};
      for (Index k = 0; k < rows.volume; ++k) {
        const Vec<S> tangent = entry(rows.tangent_places, k, lane, v);
        const Int<S> picked = known.pick[v] == all_integers<S>(k);
        if (job.choice.native) {
          sum = picked ? tangent : sum;
          continue;
        }
        const Vec<S> factor = keep<S>(entry(rows.places, k, lane, v) == known.value[v],
                                      picked ? chosen : other);
        const Vec<S> product = rounded_vector<T>(factor * tangent);
        sum = rounded_vector<T>(sum + keep<S>(factor != Vec<S>{}, product));
      }
      store(rows.line + lane + v * Lanes<S>::count, sum);
    }
  }
}

template <class T>
Report jvp(const Job& job, const Block& block, std::byte* scratch) {
  Rows<T> rows(job, block, scratch);
  const Problem& problem = job.problem;
  if (rows.unordered()) return {{}, true};
  rows.set_padding(nan<Scalar<T>>);
  if (job.choice.pick == Pick::random) rows.mark_positions();
  for (Index d = 0; d < problem.depth.outputs; ++d) {
    rows.template pack_for<true>(d);
    for (Index h = 0; h < problem.height.outputs; ++h) {
      rows.template point_at<true>(d, h);
      tangent_row(rows, (d * problem.height.outputs + h) * problem.width.outputs);
      write_line(rows, d, h);
    }
  }
  return {};
}

// Backward. What the windows give is summed in rows of scratch memory, place after place from the
// last: that is the ascending order of the windows. A slice of depth goes to memory when it is done.

// Clears what a block has of the slices of depth from one to another.
template <class T>
void clear_slices(const Rows<T>& rows, Index from, Index to) {
  const Problem& problem = rows.problem;
  const Block& block = rows.block;
  const Index inner = problem.inner, rows_of_slice = problem.height.inputs;
  const Index line = problem.width.inputs * inner;
  const auto [low, high] = rows.geometry.columns;
  const auto clear = [](T* start, Index count) {
    std::memset(static_cast<void*>(start), 0, static_cast<std::size_t>(count) * sizeof(T));
  };
  for (Index outer = block.outer; outer < block.outer + block.planes; ++outer) {
    T* const start = static_cast<T*>(rows.job.result) +
                     (outer * problem.depth.inputs + from) * rows_of_slice * line;
    const Index count = (to - from) * rows_of_slice;
    if (rows.geometry.whole_rows && block.channels == inner) {
      clear(start, count * line);
      continue;
    }
    for (Index row = 0; row < count; ++row) {
      if (block.channels == inner) {
        clear(start + row * line + low * inner, (high - low) * inner);
      } else {
        for (Index w = low; w < high; ++w)
          clear(start + row * line + w * inner + block.channel, block.channels);
      }
    }
  }
}

// Notes what the windows of a row give, and to which entries; nothing, where there is no window.
template <class T>
void weigh_row(const Rows<T>& rows, Index position) {
  using S = Scalar<T>;
  for (Index lane = 0; lane < rows.lanes; lane += step<S>) {
    auto known = know(rows, lane);
    pick_again(rows, lane, position, known);
    for (int v = 0; v < unroll; ++v) {
      const Index at = lane + v * Lanes<S>::count;
      const Int<S> valid = load_integers<S>(rows.valid + at);
      const auto [chosen, other] =
          shares_of<T>(rows.job.tables, known.size[v], rows.volume, load(rows.line + at));
      store(rows.line + at, keep<S>(valid, chosen));
      store(rows.others + at, keep<S>(valid, other));
      store(rows.values + at, known.value[v]);
      store_integers<S>(rows.picks + at, known.pick[v]);
    }
  }
}

template <class T>
void give_row(const Rows<T>& rows) {
  using S = Scalar<T>;
  for (Index k = rows.volume - 1; k >= 0; --k) {
    S* const sums = rows.sums(k);
    if (!sums) continue;
    const S* const entries = rows.places[k];
    const Int<S> place = all_integers<S>(k);
    for (Index lane = 0; lane < rows.lanes; lane += Lanes<S>::count) {
      const Int<S> picked = load_integers<S>(rows.picks + lane) == place;
      const Vec<S> given = picked ? load(rows.line + lane) : load(rows.others + lane);
      const Int<S> active = load(entries + lane) == load(rows.values + lane);
      store(sums + lane, rounded_vector<T>(load(sums + lane) + keep<S>(active, given)));
    }
  }
}

template <class T>
Report vjp(const Job& job, const Block& block, std::byte* scratch) {
  Rows<T> rows(job, block, scratch);
  if (rows.unordered()) return {{}, true};
  rows.set_padding(nan<Scalar<T>>);
  rows.mark_valid();
  if (job.choice.pick == Pick::random) rows.mark_positions();
  const Problem& problem = rows.problem;
  const auto& depth = problem.depth;
  const T* const gradient = static_cast<const T*>(job.gradient);
  Index done = 0;
  for (Index d = 0; d < depth.outputs; ++d) {
    const Index start = d * depth.stride - depth.padding, fresh = most(rows.packed(), start);
    rows.template pack_for<false>(d);
    rows.clear_sums(fresh, rows.packed());
    for (Index h = 0; h < problem.height.outputs; ++h) {
      rows.template point_at<true>(d, h);
      for_output_runs(rows.geometry, d, h, [&](Index at, Index lane, Index count) {
        widen_run(gradient + at, rows.line + lane, count);
      });
      weigh_row(rows, (d * problem.height.outputs + h) * problem.width.outputs);
      give_row(rows);
    }
    const bool last = d + 1 == depth.outputs;
    const Index end = last ? depth.inputs : most(done, start + depth.stride);
    clear_slices(rows, done, end);
    rows.unpack_sums(done, least(end, rows.packed()));
    done = end;
  }
  return {};
}

}  // namespace

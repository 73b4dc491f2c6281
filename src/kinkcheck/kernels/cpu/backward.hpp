// The backward pass of whole rows (see vectorised.hpp), in two ways: small windows give by vectors
// to all their entries, large ones one by one to the entries that take something.
#pragma once

#include <cstring>

#include "problem.hpp"
#include "random.hpp"
#include "rows.hpp"
#include "vectorised.hpp"
#include "vectors.hpp"

namespace {

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

// Large windows. Where one entry alone attains the maximum, it takes the whole gradient under every
// selection. So windows are decided by vectors, a row at a time, and then their gradients are added
// one by one where they belong, in ascending order; only tied windows need a second look.

// Notes for every window of a row the number of active entries and a code: the pick if it takes
// all, else a negative number, ~pick, which is −1 also where there is no entry.
template <int K, Sharing sharing, Pick pick, class T>
void share_row(const Rows<T>& rows, Index position) {
  using S = Scalar<T>;
  constexpr bool sizes = sharing != Sharing::one;
  const std::uint32_t key = pick == Pick::random ? random_key(rows.job.choice.seed) : 0;
  for (Index lane = 0; lane < rows.lanes; lane += step<S>) {
    const auto known = know<K, sizes, true, pick>(rows, lane, key, position);
    for (int v = 0; v < unroll; ++v) {
      const Index at = lane + v * Lanes<S>::count;
      if constexpr (sizes) {
        store_integers<S>(rows.sizes + at, known.size[v]);
        const Int<S> single = known.size[v] == 1, empty = known.pick[v] < 0;
        store_integers<S>(rows.codes + at, known.pick[v] ^ (~single & ~empty));
      } else {
        store_integers<S>(rows.codes + at, known.pick[v]);
      }
    }
  }
}

// A run of windows: elements of the gradient, of the result where each window would begin, and
// widths of the latter in the image; the last two so far apart from window to window.
struct Run {
  Index lane, count, gradient, corner, width, apart, width_apart;
};

template <class T>
INLINE void add(Scalar<T> contribution, T& to) {
  narrow(widen(to) + contribution, to);
}

// Gives the gradient of one window to those of its active entries that lie in this block, which
// are all if the window is `inside`.
template <class T>
void share_window(const Rows<T>& rows, Index lane, Scalar<T> gradient, Index corner, Index width,
                  bool inside) {
  using S = Scalar<T>;
  const auto& along = rows.problem.width;
  const auto [low, high] = rows.geometry.columns;
  T* const result = static_cast<T*>(rows.job.result);
  const auto give = [&](Index place, S contribution) {
    const Index w = inside ? low : width + place % along.kernel * along.dilation;
    if (low <= w && w < high) add(contribution, result[corner + rows.offsets[place]]);
  };
  const Index code = rows.codes[lane], pick = code < 0 ? ~code : code;
  if (code >= 0) return give(pick, gradient);
  if (rows.job.choice.sharing == Sharing::one || rows.sizes[lane] == 0) return;
  const auto share = [&](const void* table) {
    const S weight = static_cast<const S*>(table)[rows.sizes[lane]];
    return weight == 0 ? S{} : rounded<T>(weight * gradient);
  };
  const S chosen = share(rows.job.chosen);
  const S other = rows.job.choice.sharing == Sharing::even ? chosen : share(rows.job.other);
  const S value = rows.places[pick][lane];
  for (Index k = pick; k < rows.volume; ++k)
    if (rows.places[k][lane] == value) give(k, k == pick ? chosen : other);
}

template <class T>
void share_run(const Rows<T>& rows, const Run& run) {
  using S = Scalar<T>;
  constexpr Index n = Lanes<S>::count;
  const auto* const codes = rows.codes + run.lane;
  const T* const gradient = static_cast<const T*>(rows.job.gradient) + run.gradient;
  T* const result = static_cast<T*>(rows.job.result) + run.corner;
  // The windows all of whose active entries lie in this block.
  Index first = 0, last = run.count;
  if (!rows.geometry.whole_rows) {
    const auto [low, high] = rows.geometry.columns;
    const auto& along = rows.problem.width;
    const Index end = high - (along.kernel - 1) * along.dilation;
    if (run.width_apart > 0) {
      first = most(first, ceil_divide(low - run.width, run.width_apart));
      last = least(last, ceil_divide(end - run.width, run.width_apart));
    } else if (run.width < low || run.width >= end) {
      last = 0;
    }
  }
  const auto give = [&](Index i) {
    add(widen(gradient[i]), result[i * run.apart + rows.offsets[codes[i]]]);
  };
  for (Index i = 0; i < run.count; i += n) {
    const Index end = least(i + n, run.count);
    if (first <= i && i + n <= last && !any<S>(load_integers<S>(codes + i) < 0)) {
      UNROLLED for (Index j = i; j < i + n; ++j) give(j);
      continue;
    }
    for (Index j = i; j < end; ++j) {
      const bool inside = first <= j && j < last;
      if (inside && codes[j] >= 0)
        give(j);
      else
        share_window(rows, run.lane + j, widen(gradient[j]), run.corner + j * run.apart,
                     run.width + j * run.width_apart, inside);
    }
  }
}

// Gives the gradients of a row of windows.
template <class T>
void scatter_row(const Rows<T>& rows, Index depth, Index height) {
  const Problem& problem = rows.problem;
  const Geometry& geometry = rows.geometry;
  const Block& block = rows.block;
  const auto &along = problem.depth, &across = problem.height, &width = problem.width;
  const Index inner = problem.inner, channels = block.channels;
  const Index windows = geometry.windows.high - geometry.windows.low;
  const Index w0 = geometry.first_window * width.stride - width.padding;
  const Index d0 = depth * along.stride - along.padding;
  const Index h0 = height * across.stride - across.padding;
  for (Index p = 0; p < block.planes; ++p) {
    const Index outer = block.outer + p;
    const Index row = (outer * along.outputs + depth) * across.outputs + height;
    const Index gradient =
        (row * width.outputs + geometry.first_window) * inner + block.channel;
    const Index corner =
        (((outer * along.inputs + d0) * across.inputs + h0) * width.inputs + w0) * inner +
        block.channel;
    const Index lane = p * rows.layout.pitch + geometry.windows.low * channels;
    if (inner == 1) {
      share_run(rows, {lane, windows, gradient, corner, w0, width.stride, width.stride});
    } else {
      for (Index w = 0; w < windows; ++w)
        share_run(rows, {lane + w * channels, channels, gradient + w * inner,
                         corner + w * width.stride * inner, w0 + w * width.stride, 1, 0});
    }
  }
}

template <Sharing sharing, Pick pick, class T>
void share_by_picks(Rows<T>& rows) {
  const Problem& problem = rows.problem;
  const auto& depth = problem.depth;
  rows.set_offsets();
  Index cleared = 0;
  for (Index d = 0; d < depth.outputs; ++d) {
    rows.template pack_for<false>(d);
    const Index reached = d + 1 == depth.outputs ? depth.inputs : most(cleared, rows.packed());
    clear_slices(rows, cleared, reached);
    cleared = reached;
    for (Index h = 0; h < problem.height.outputs; ++h) {
      rows.template point_at<false>(d, h);
      const Index position = (d * problem.height.outputs + h) * problem.width.outputs;
      if (pick == Pick::first && rows.volume == 9)
        share_row<9, sharing, pick>(rows, position);
      else
        share_row<0, sharing, pick>(rows, position);
      scatter_row(rows, d, h);
    }
  }
}

// Small windows. What they give is summed in rows of scratch memory, place after place from the
// last: that is the ascending order of the windows. A slice of depth goes to memory when it is done.

constexpr Index few_places = 4;

// Notes what the windows of a row give, and to which entries; to none, where there is no window.
template <int K, Sharing sharing, Pick pick, class T>
void weigh_row(const Rows<T>& rows, Index position) {
  using S = Scalar<T>;
  constexpr bool sizes = sharing != Sharing::one;
  const Job& job = rows.job;
  const std::uint32_t key = pick == Pick::random ? random_key(job.choice.seed) : 0;
  const Index places = K ? K : rows.volume;
  for (Index lane = 0; lane < rows.lanes; lane += step<S>) {
    const auto known = know<K, sizes, true, pick>(rows, lane, key, position);
    for (int v = 0; v < unroll; ++v) {
      const Index at = lane + v * Lanes<S>::count;
      const Int<S> valid = load_integers<S>(rows.valid + at);
      const Vec<S> gradient = load(rows.line + at);
      Vec<S> chosen = gradient;
      if constexpr (sizes) {
        chosen = weighted<T>(job.chosen, known.size[v], places, gradient);
        if constexpr (sharing == Sharing::split)
          store(rows.others + at,
                keep<S>(valid, weighted<T>(job.other, known.size[v], places, gradient)));
        store(rows.values + at, known.value[v]);
      }
      store(rows.line + at, keep<S>(valid, chosen));
      store_integers<S>(rows.codes + at, known.pick[v]);
    }
  }
}

template <Sharing sharing, class T>
void give_row(const Rows<T>& rows) {
  using S = Scalar<T>;
  for (Index k = rows.volume - 1; k >= 0; --k) {
    S* const sums = rows.sums(k);
    if (!sums) continue;
    const S* const entries = rows.places[k];
    const Int<S> place = Int<S>{} + static_cast<typename Lanes<S>::Integer>(k);
    for (Index lane = 0; lane < rows.lanes; lane += Lanes<S>::count) {
      const Int<S> picked = load_integers<S>(rows.codes + lane) == place;
      Vec<S> given = load(rows.line + lane);
      if constexpr (sharing == Sharing::split)
        given = picked ? given : load(rows.others + lane);
      if constexpr (sharing == Sharing::one)
        given = keep<S>(picked, given);
      else
        given = keep<S>(load(entries + lane) == load(rows.values + lane), given);
      store(sums + lane, rounded_vector<T>(load(sums + lane) + given));
    }
  }
}

template <Sharing sharing, Pick pick, class T>
void share_by_places(Rows<T>& rows) {
  const Problem& problem = rows.problem;
  const auto& depth = problem.depth;
  const T* const gradient = static_cast<const T*>(rows.job.gradient);
  rows.mark_valid();
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
      const Index position = (d * problem.height.outputs + h) * problem.width.outputs;
      with_volume(rows.volume, [&]<int K>() { weigh_row<K, sharing, pick>(rows, position); });
      give_row<sharing>(rows);
    }
    const bool last = d + 1 == depth.outputs;
    const Index end = last ? depth.inputs : most(done, start + depth.stride);
    clear_slices(rows, done, end);
    rows.unpack_sums(done, least(end, rows.packed()));
    done = end;
  }
}

template <class T>
Report vjp(const Job& job, const Block& block, std::byte* scratch) {
  Rows<T> rows(job, block, scratch);
  if (rows.unordered()) return {{}, true};
  rows.set_padding(nan<Scalar<T>>);
  if (job.choice.pick == Pick::random) rows.mark_positions();
  with_choice(job.choice, [&]<Sharing sharing, Pick pick>() {
    if (rows.volume <= few_places)
      share_by_places<sharing, pick>(rows);
    else
      share_by_picks<sharing, pick>(rows);
  });
  return {};
}

}  // namespace

// Max pooling of images by windows of three by three entries at a stride of two, the first pooling
// of many networks. Planes are taken one after another and their rows in the order of memory: each
// is read once, unless it holds a NaN, and each row of the gradient is written once, when the
// windows over it are done. What is at hand meanwhile is a few rows, in the nearest cache.
//
// Of each row of the input, a window sees its left, middle and right column. Side by side in memory
// lie the middle column of a window and its right one, which is the left of the window after it.
#pragma once

#include <cstring>

#include "problem.hpp"
#include "rows.hpp"
#include "shares.hpp"
#include "vectors.hpp"

namespace {

// The three entries of a vector of windows in one row of the input, and the greatest of them.
template <class S>
struct Trio {
  Vec<S> left, middle, right, greatest;
};

// What such a row of the gradient has so far.
template <class S>
struct Sums {
  Vec<S> middle, right;
};

// What a vector of windows gives to a row of the gradient, and the windows after them to the right
// columns, as their left ones: in this order.
template <class T>
struct Taken {
  Vec<Scalar<T>> middle, right, after;

  // The sum with nothing needs no rounding.
  INLINE Sums<Scalar<T>> sums() const { return {middle, rounded_vector<T>(right + after)}; }
  INLINE Sums<Scalar<T>> added_to(const Sums<Scalar<T>>& sums) const {
    return {rounded_vector<T>(sums.middle + middle),
            rounded_vector<T>(rounded_vector<T>(sums.right + right) + after)};
  }
};

// Lanes one further to the right, or to the left; the free one is filled from a neighbour.
template <class S>
INLINE Vec<S> shift_right(Vec<S> before, Vec<S> v) {
  constexpr int n = Lanes<S>::count;
  return [&]<int... lane>(std::integer_sequence<int, lane...>) INLINED {
    return __builtin_shufflevector(before, v, (n - 1 + lane)...);
  }(std::make_integer_sequence<int, n>{});
}

template <class S>
INLINE Vec<S> shift_left(Vec<S> v, Vec<S> after) {
  constexpr int n = Lanes<S>::count;
  return [&]<int... lane>(std::integer_sequence<int, lane...>) INLINED {
    return __builtin_shufflevector(v, after, (lane + 1)...);
  }(std::make_integer_sequence<int, n>{});
}

template <bool with_nan, class S>
INLINE Vec<S> greater(Vec<S> x, Vec<S> value) {
  if constexpr (with_nan) return (x > value) | (x != x) ? x : value;
  return x > value ? x : value;
}

// The greatest of a window is found row by row: that is its scan order, in which the first of
// equal values, or the last NaN, is taken.
template <bool with_nan, class S>
INLINE Vec<S> greatest(Vec<S> left, Vec<S> middle, Vec<S> right) {
  const Vec<S> value = greater<with_nan, S>(left, all(-infinity<S>));
  return greater<with_nan, S>(right, greater<with_nan, S>(middle, value));
}

// The memory of the planes of a block.
template <class T>
class Threes {
 public:
  using S = Scalar<T>;
  static constexpr Index n = Lanes<S>::count;

  Threes(const Job& job, std::byte* scratch)
      : height(job.problem.depth.inputs), width(job.problem.width.inputs),
        padding_above(job.problem.depth.padding), padding(job.problem.width.padding),
        window_rows(job.problem.depth.outputs), windows(job.problem.width.outputs),
        vectors((windows + n - 1) / n), input(static_cast<const T*>(job.input)),
        input_end(input + job.problem.outer * height * width), memory(scratch) {}

  const Index height, width;           // of the input
  const Index padding_above, padding;  // 0 or 1
  const Index window_rows, windows, vectors;
  const T *const input, *const input_end;
  std::byte* memory;  // of the scratch memory what is left

  // Calls visit(vector, left, middle, right) for a row, where `pad` stands for entries that do not
  // exist and for windows beyond the last.
  template <class Visit>
  INLINE void for_trios(const T* row, S pad, Flag<S>& seen, const Visit& visit) const {
    const Index windows = this->windows;
    const S corner = padding ? S{} : widen(*row);
    const T* const from = row + 1 - padding;
    const Index held = least(width - 1 + padding, 2 * windows);
    Flag<S> met = seen;
    met.unordered(all(corner), all(corner));
    Vec<S> before = all(pad);
    if (!padding) before[n - 1] = corner;
    Index i = 0;
    for (; 2 * (i + n) <= held; i += n) {
      const Vec<S> a = widen_vector(from + 2 * i), b = widen_vector(from + 2 * i + n);
      met.unordered(a, b);
      Vec<S> phases[2];
      deinterleave<S>({a, b}, phases);
      const auto& [middle, right] = phases;
      visit(i / n, shift_right<S>(before, right), middle, right);
      before = right;
    }
    if (i < windows) {
      const auto some = [&](Index first) INLINED {
        const Index count = held - first;
        const Vec<S> v = widen_within(from + first, count, input_end);
        const Vec<S> kept = keep<S>(among<S>(count), v);
        met.unordered(kept, kept);
        return among<S>(count) ? kept : all(pad);
      };
      Vec<S> phases[2];
      deinterleave<S>({some(2 * i), some(2 * i + n)}, phases);
      const auto& [middle, right] = phases;
      const Vec<S> left = shift_right<S>(before, right);
      visit(i / n, among<S>(windows - i) ? left : all(pad), middle, right);
    }
    seen = met;
  }

  // Prepares a row for windows to be decided.
  void prepare(const T* row, Trio<S>* trios, Flag<S>& seen) const {
    for_trios(row, nan<S>, seen,
              [=](Index v, Vec<S> left, Vec<S> middle, Vec<S> right) INLINED {
                trios[v] = {left, middle, right, greatest<false, S>(left, middle, right)};
              });
  }
};

// Walks the rows of windows of one plane after another.
template <class T>
class ThreesWalk {
 public:
  using S = Scalar<T>;

  explicit ThreesWalk(Threes<T>& threes) : threes_(threes) {
    for (Trio<S>*& trios : trios_) trios = take<Trio<S>>(threes.memory, threes.vectors);
    const Vec<S> none = all(nan<S>);
    for (Index v = 0; v < threes.vectors; ++v) trios_[3][v] = {none, none, none, all(-infinity<S>)};
  }

  // Calls act(row of windows, its three rows of entries).
  template <class Act>
  INLINE void operator()(const T* plane, Flag<S>& seen, const Act& act) {
    const auto prepared = [&](Index row, Trio<S>* to) INLINED -> const Trio<S>* {
      const Index h = row - threes_.padding_above;
      if (h < 0 || h >= threes_.height) return trios_[3];
      threes_.prepare(plane + h * threes_.width, to, seen);
      return to;
    };
    const Trio<S>* top = prepared(0, trios_[0]);
    for (Index oh = 0; oh < threes_.window_rows; ++oh) {
      const Trio<S>* const middle = prepared(2 * oh + 1, trios_[2]);
      const Trio<S>* const bottom = prepared(2 * oh + 2, trios_[(oh + 1) % 2]);
      act(oh, top, middle, bottom);
      top = bottom;
    }
  }

 private:
  Threes<T>& threes_;
  Trio<S>* trios_[4];  // two that take turns to be top and bottom, a middle one, one of padding
};

// Forward.

// Pools a plane, supposing that it has no NaN unless `with_nan`.
template <bool with_nan, class T>
void forward_plane(const Threes<T>& threes, const T* input, T* output, Vec<Scalar<T>>* above,
                   Flag<Scalar<T>>& seen) {
  using S = Scalar<T>;
  constexpr Index n = Lanes<S>::count;
  const Index windows = threes.windows;
  for (Index v = 0; v < threes.vectors; ++v) above[v] = all(-infinity<S>);
  const auto for_row = [&](Index row, const auto& visit) INLINED {
    threes.for_trios(input + (row - threes.padding_above) * threes.width, -infinity<S>, seen,
                     [&](Index v, Vec<S> left, Vec<S> middle, Vec<S> right) INLINED {
                       visit(v, greatest<with_nan, S>(left, middle, right));
                     });
  };
  const auto add_row = [&](Index row) {
    for_row(row, [=](Index v, Vec<S> x) INLINED { above[v] = greater<with_nan, S>(x, above[v]); });
  };
  const Index end = threes.height + threes.padding_above;
  if (threes.padding_above == 0) add_row(0);
  for (Index oh = 0; oh < threes.window_rows; ++oh, output += windows) {
    if (2 * oh + 1 < end) add_row(2 * oh + 1);
    if (2 * oh + 2 < end) {
      for_row(2 * oh + 2, [=](Index v, Vec<S> x) INLINED {
        narrow_some(greater<with_nan, S>(x, above[v]), output + v * n, windows - v * n);
        above[v] = x;
      });
    } else {
      for (Index v = 0; v < threes.vectors; ++v)
        narrow_some(above[v], output + v * n, windows - v * n);
    }
  }
}

template <class T>
Report forward_threes(const Job& job, const Block& block, std::byte* scratch) {
  using S = Scalar<T>;
  Threes<T> threes(job, scratch);
  Vec<S>* const above = take<Vec<S>>(threes.memory, threes.vectors);
  for (Index outer = block.outer; outer < block.outer + block.planes; ++outer) {
    const T* const input = threes.input + outer * threes.height * threes.width;
    T* const output =
        static_cast<T*>(job.result) + outer * threes.window_rows * threes.windows;
    Flag<S> seen;
    forward_plane<false>(threes, input, output, above, seen);
    if (seen.met()) forward_plane<true>(threes, input, output, above, seen);
  }
  return {};
}

// The value of a vector of windows, and their numbers of active entries.
template <class S>
INLINE Vec<S> value_of(const Trio<S>& top, const Trio<S>& middle, const Trio<S>& bottom) {
  return greater<false, S>(bottom.greatest,
                           greater<false, S>(middle.greatest, top.greatest));
}

template <class S>
INLINE Int<S> size_of(const Trio<S>& top, const Trio<S>& middle, const Trio<S>& bottom,
                      Vec<S> value) {
  const auto of = [&](const Trio<S>& trio) INLINED {
    return (trio.left == value) + (trio.middle == value) + (trio.right == value);
  };
  return -(of(top) + of(middle) + of(bottom));
}

// The census.

template <class T>
Report ties_threes(const Job& job, const Block& block, std::byte* scratch) {
  using S = Scalar<T>;
  constexpr Index n = Lanes<S>::count;
  Threes<T> threes(job, scratch);
  ThreesWalk<T> walk(threes);
  Flag<S> seen;
  Int<S> tied{}, tied_at_zero{};
  const Index windows = threes.windows, vectors = threes.vectors;
  for (Index outer = block.outer; outer < block.outer + block.planes; ++outer)
    walk(threes.input + outer * threes.height * threes.width, seen,
         [&](Index oh, const Trio<S>* top, const Trio<S>* middle, const Trio<S>* bottom) INLINED {
           const Index at = (outer * threes.window_rows + oh) * windows;
           for (Index v = 0; v < vectors; ++v) {
             const Vec<S> value = value_of<S>(top[v], middle[v], bottom[v]), zero{};
             const Int<S> tie = among<S>(windows - v * n) &
                                (size_of<S>(top[v], middle[v], bottom[v], value) > 1);
             Int<S> zeros = value == zero;
             for (const Trio<S>* trio : {top + v, middle + v, bottom + v})
               for (const Vec<S> x : {trio->left, trio->middle, trio->right}) zeros &= ~(x < zero);
             tied -= tie;
             tied_at_zero -= tie & zeros;
             if (job.result)
               narrow_some(value, static_cast<T*>(job.result) + at + v * n, windows - v * n);
           }
         });
  return {census_of<S>(tied, tied_at_zero), seen.met()};
}

// Backward.

// Rows of the gradient are written from the right to the left: the right column of a window is
// complete when the window after it is known.
template <class T>
class ThreesGradient {
 public:
  using S = Scalar<T>;
  static constexpr Index n = Lanes<S>::count;

  ThreesGradient(const Job& job, Threes<T>& threes)
      : threes_(threes), tables_(job.tables),
        gradient_(static_cast<const T*>(job.gradient)),
        gradient_end_(gradient_ + job.problem.outer * threes.window_rows * threes.windows),
        carried_(take<Sums<S>>(threes.memory, threes.vectors)),
        unwanted_(take<T>(threes.memory, threes.width)) {}

  // Before the rows of windows of a plane.
  void begin(T* plane) {
    plane_ = plane;
    corner_ = S{};
    for (Index v = 0; v < threes_.vectors; ++v) carried_[v] = Sums<S>{};
  }

  // For every row of windows, in order: gives its gradients, and writes the rows of the input that
  // no later window reaches.
  void share(Index outer, Index oh, const Trio<S>* top, const Trio<S>* middle,
             const Trio<S>* bottom) {
    const T* const gradient =
        gradient_ + (outer * threes_.window_rows + oh) * threes_.windows;
    const T* const gradient_end = gradient_end_;
    T *const above = row(2 * oh), *const between = row(2 * oh + 1);
    T* const to_above = above + 1 - threes_.padding;
    T* const to_between = between + 1 - threes_.padding;
    Sums<S>* const carried = carried_;
    const Tables tables = tables_;
    Vec<S> left_top{}, left_middle{}, left_bottom{};
    const auto visit = [&](Index v, Index count, Index room) INLINED {
      const Trio<S> *const rows[3] = {top + v, middle + v, bottom + v};
      const Vec<S> value = value_of<S>(*rows[0], *rows[1], *rows[2]);
      const Vec<S> whole = widen_within(gradient + v * n, count, gradient_end);
      const Int<S> size = size_of<S>(*rows[0], *rows[1], *rows[2], value);
      const Shares<S> shares = shares_of<T>(tables, size, 9, whole);
      // The entries are read again below: to keep them in registers would take too many.
      load_again();
      // Adding to zero turns −0 into +0, as every sum of contributions does.
      Vec<S> own = shares.chosen + Vec<S>{};
      const Vec<S> rest = shares.other + Vec<S>{};
      // The first active entry takes its share and leaves the rest to the others.
      const auto take = [&](Vec<S> x) INLINED {
        const Int<S> active = x == value;
        const Vec<S> taken = keep<S>(active, own);
        own = active ? rest : own;
        return taken;
      };
      const auto take_row = [&](const Trio<S>& trio, Vec<S>& left_after) INLINED {
        const Vec<S> left = take(trio.left), middle = take(trio.middle), right = take(trio.right);
        const Vec<S> after = shift_left<S>(left, left_after);
        left_after = left;
        return Taken<T>{middle, right, after};
      };
      const auto top_row = take_row(*rows[0], left_top).added_to(carried[v]);
      write(top_row, to_above + 2 * v * n, room);
      write(take_row(*rows[1], left_middle).sums(), to_between + 2 * v * n, room);
      carried[v] = take_row(*rows[2], left_bottom).sums();
    };
    const Index last = threes_.vectors - 1;
    visit(last, threes_.windows - last * n, held(last));
    for (Index v = last - 1; v >= 0; --v) visit(v, n, 2 * n);
    close(above, corner_ + left_top[0]);
    close(between, left_middle[0]);
    corner_ = left_bottom[0];
  }

  // After them: writes what is left of the plane.
  void end() {
    const Index bottom = 2 * threes_.window_rows;
    T* const to = row(bottom);
    for (Index v = 0; v < threes_.vectors; ++v)
      write(carried_[v], to + 1 - threes_.padding + 2 * v * n, held(v));
    close(to, corner_);
    for (Index h = bottom + 1 - threes_.padding_above; h < threes_.height; ++h)
      std::memset(static_cast<void*>(plane_ + h * threes_.width), 0,
                  static_cast<std::size_t>(threes_.width) * sizeof(T));
  }

 private:
  // A row counted from the padding; where there is none, one to throw away.
  T* row(Index row) const {
    const Index h = row - threes_.padding_above;
    return 0 <= h && h < threes_.height ? plane_ + h * threes_.width : unwanted_;
  }

  // How many elements there are from a vector on.
  Index held(Index v) const { return threes_.width - 1 + threes_.padding - 2 * v * n; }

  static INLINE void write(Sums<S> sums, T* to, Index held) {
    Vec<S> memory[2];
    interleave<S>({sums.middle, sums.right}, memory);
    narrow_some(memory[0], to, held);
    narrow_some(memory[1], to + n, held - n);
  }

  // Writes the columns that are in no vector: the first, unless it is padding, and the last ones.
  INLINE void close(T* row, S corner) const {
    if (threes_.padding == 0) narrow(corner, row[0]);
    for (Index w = threes_.width - held(threes_.vectors); w < threes_.width; ++w) row[w] = T{};
  }

  const Threes<T>& threes_;
  const Tables tables_;
  const T *gradient_, *gradient_end_;
  Sums<S>* carried_;  // the row of the gradient that the windows above and below have in common
  S corner_;          // its first column, if that is no padding
  T* unwanted_;
  T* plane_ = nullptr;
};

template <class T>
Report vjp_threes(const Job& job, const Block& block, std::byte* scratch) {
  using S = Scalar<T>;
  Threes<T> threes(job, scratch);
  ThreesWalk<T> walk(threes);
  ThreesGradient<T> result(job, threes);
  Flag<S> seen;
  const Index plane = threes.height * threes.width;
  for (Index outer = block.outer; outer < block.outer + block.planes; ++outer) {
    result.begin(static_cast<T*>(job.result) + outer * plane);
    walk(threes.input + outer * plane, seen,
         [&](Index oh, const Trio<S>* top, const Trio<S>* middle, const Trio<S>* bottom) INLINED {
           result.share(outer, oh, top, middle, bottom);
         });
    result.end();
  }
  return {{}, seen.met()};
}

}  // namespace

// Max pooling one window at a time, with PyTorch's rule for NaN: the few planes that the
// vectorised kernels report as unordered are done over by these.
#pragma once

#include <limits>

#include "problem.hpp"
#include "shares.hpp"
#include "vectors.hpp"

namespace {

using kinkcheck::Index;
using kinkcheck::Job;
using kinkcheck::Pick;
using kinkcheck::Problem;
using kinkcheck::Report;

template <class T>
class Window {
 public:
  using S = Scalar<T>;

  // The window of channel `inner` at (od, oh, ow) of one outer index.
  Window(const Job& job, Index outer, Index inner, Index od, Index oh, Index ow)
      : job_(job),
        problem_(job.problem),
        corner_{first(problem_.depth, od), first(problem_.height, oh),
                first(problem_.width, ow)},
        base_(outer * problem_.depth.inputs * problem_.height.inputs * problem_.width.inputs *
                  problem_.inner +
              inner) {
    const Index image =
        problem_.depth.outputs * problem_.height.outputs * problem_.width.outputs;
    const Index pixel =
        (od * problem_.height.outputs + oh) * problem_.width.outputs + ow;
    at = (outer * image + pixel) * problem_.inner + inner;
    position = (outer * problem_.inner + inner) * image + pixel;
    const T* const input = static_cast<const T*>(job.input);
    for_entries([&](Index i) {
      const S x = widen(input[i]);
      if (x != x) {
        value = x;
        size = 1;
        chosen = i;
      } else if (x > value || (x == value && size == 0)) {
        value = x;
        size = 1;
        chosen = i;
      } else if (x == value) {
        ++size;
      }
      zero = zero && x == 0;
    });
    if (value == value) pick();
  }

  // Calls visit(element of the input) for every entry, in scan order.
  template <class Visit>
  void for_entries(const Visit& visit) const {
    const auto &depth = problem_.depth, &height = problem_.height, &width = problem_.width;
    for (Index kd = 0; kd < depth.kernel; ++kd) {
      const Index d = corner_[0] + kd * depth.dilation;
      if (d < 0 || d >= depth.inputs) continue;
      for (Index kh = 0; kh < height.kernel; ++kh) {
        const Index h = corner_[1] + kh * height.dilation;
        if (h < 0 || h >= height.inputs) continue;
        for (Index kw = 0; kw < width.kernel; ++kw) {
          const Index w = corner_[2] + kw * width.dilation;
          if (w < 0 || w >= width.inputs) continue;
          visit(base_ + ((d * height.inputs + h) * width.inputs + w) * problem_.inner);
        }
      }
    }
  }

  // The weight of an entry.
  S weight(Index i) const {
    if (!job_.tables.chosen) return i == chosen ? S{1} : S{0};
    if (i == chosen) return static_cast<const S*>(job_.tables.chosen)[size];
    const bool active = widen(static_cast<const T*>(job_.input)[i]) == value;
    return active ? static_cast<const S*>(job_.tables.other)[size] : S{0};
  }

  S value = -std::numeric_limits<S>::infinity();
  Index size = 0;        // number of active entries
  Index chosen = -1;     // element of the input
  bool zero = true;      // all entries are
  Index at, position;    // in memory order, and in the logical order of the output

 private:
  static Index first(const kinkcheck::Axis& axis, Index window) {
    return window * axis.stride - axis.padding;
  }

  void pick() {
    if (job_.choice.pick == Pick::first) return;
    Index rank = job_.choice.pick == Pick::last
                     ? size - 1
                     : random_rank(random_key(job_.choice.seed),
                                   static_cast<std::uint64_t>(position),
                                   static_cast<std::uint64_t>(size));
    for_entries([&](Index i) {
      if (widen(static_cast<const T*>(job_.input)[i]) == value && rank-- == 0) chosen = i;
    });
  }

  const Job& job_;
  const Problem& problem_;
  Index corner_[3];
  Index base_;
};

template <class T, class Visit>
void for_plain_windows(const Job& job, Index outer, const Visit& visit) {
  const Problem& problem = job.problem;
  for (Index od = 0; od < problem.depth.outputs; ++od)
    for (Index oh = 0; oh < problem.height.outputs; ++oh)
      for (Index ow = 0; ow < problem.width.outputs; ++ow)
        for (Index inner = 0; inner < problem.inner; ++inner)
          visit(Window<T>(job, outer, inner, od, oh, ow));
}

// PyTorch's channels_last_3d picks another entry when all are −∞: such a window is reported.
template <class T>
bool reported(const Job& job, const Window<T>& window) {
  return job.watch_infinity && window.size > 0 &&
         window.value == -std::numeric_limits<Scalar<T>>::infinity();
}

template <class T>
Report plain_ties(const Job& job, Index outer) {
  Report report{};
  for_plain_windows<T>(job, outer, [&](const Window<T>& window) {
    report.census.tied += window.size > 1;
    report.census.tied_at_zero += window.size > 1 && window.zero;
    if (job.result) narrow(window.value, static_cast<T*>(job.result)[window.at]);
  });
  return report;
}

template <class T>
Report plain_vjp(const Job& job, Index outer) {
  const Problem& problem = job.problem;
  const T* const gradient = static_cast<const T*>(job.gradient);
  T* const result = static_cast<T*>(job.result);
  const Index image =
      problem.depth.inputs * problem.height.inputs * problem.width.inputs * problem.inner;
  for (Index i = 0; i < image; ++i) result[outer * image + i] = T{};
  Report report{};
  for_plain_windows<T>(job, outer, [&](const Window<T>& window) {
    report.unordered |= reported(job, window);
    window.for_entries([&](Index i) {
      const Scalar<T> weight = window.weight(i);
      if (weight == 0) return;
      const Scalar<T> product = rounded<T>(weight * widen(gradient[window.at]));
      narrow(widen(result[i]) + product, result[i]);
    });
  });
  return report;
}

template <class T>
Report plain_jvp(const Job& job, Index outer) {
  const T* const tangent = static_cast<const T*>(job.gradient);
  T* const result = static_cast<T*>(job.result);
  Report report{};
  for_plain_windows<T>(job, outer, [&](const Window<T>& window) {
    report.unordered |= reported(job, window);
    if (job.choice.native && window.size > 0) {
      result[window.at] = tangent[window.chosen];
      return;
    }
    T sum{};
    window.for_entries([&](Index i) {
      const Scalar<T> weight = window.weight(i);
      if (weight != 0)
        narrow(widen(sum) + rounded<T>(weight * widen(tangent[i])), sum);
    });
    result[window.at] = sum;
  });
  return report;
}

}  // namespace

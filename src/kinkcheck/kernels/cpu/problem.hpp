// What is to be computed: shared by the Python module and by every instruction set's kernels.
// Plain data only. The kernels are compiled once per instruction set, and an inline function in a
// shared header could be linked from the wrong one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace kinkcheck {

using Index = std::int64_t;

struct Axis {
  Index inputs, outputs, kernel, stride, padding, dilation;
};

// A tensor seen as outer × depth × height × width × inner, row-major; width is the last pooled
// dimension and inner the channels of a channels_last tensor (1 for a contiguous one). Missing
// pooled dimensions have size 1. A two-dimensional pooling uses depth and width: the kernels keep
// only a few slices of depth at hand.
struct Problem {
  Index outer, inner;
  Axis depth, height, width;
};

enum class Pick { first, last, random };

struct Choice {
  Pick pick;
  bool shared;        // among all active entries; else the picked one takes all
  bool native;        // select a tangent instead of adding it to zero: −0 stays −0
  std::uint64_t seed; // of random
  // The weight of the picked entry and of the others, by the number of active ones, if shared.
  std::vector<double> picked, others;
};

// A row, as the kernels hold it, is the whole width of `planes` outer indices by `channels` inner
// ones, dealt out by phase: width w goes to lane t = (w + padding) / stride of the row of phase
// (w + padding) % stride. In this order the entries at one place of all windows of a row lie side
// by side, for any stride, layout and dilation. A long row is cut into spans of t.
struct Layout {
  Index planes, channels, span;
  Index lead;          // lanes of t before the span that are computed for its first windows
  Index reach;         // a window reaches from its own t up to t + reach
  Index pitch;         // lanes of one plane: (lead + span + reach) · channels
  Index row;           // distance of two rows in scratch memory, in lanes
  Index slots;         // phases that hold an entry of a window
  const Index* phase;  // of each slot
  const Index* slot;   // of each place along the width
  const Index* shift;  // in t, of each place along the width
  Index extent;        // t of the whole row
  Index input_slices;  // slices of depth held at a time
};

// A part of the problem that one thread works on: of each of some planes, some channels and a
// span of t (of windows along the depth, where windows are cells).
struct Block {
  Index outer, planes, channel, channels, begin, end;
};

// Shares of a gradient by number of active entries: of the picked one and of each other. Null if the
// picked one takes all.
struct Tables {
  const void *chosen, *other;
};

struct Job {
  Problem problem;
  Layout layout;
  Choice choice;
  const void* input;
  const void* gradient;  // of the output (vjp), or the tangent of the input (jvp)
  void* result;          // null: nothing but the census is wanted
  Tables tables;
  bool watch_infinity;   // report −∞ like NaN
};

struct Census {
  Index tied, tied_at_zero;
};

// What a vectorised kernel saw: it supposes an order, and NaN has none.
struct Report {
  Census census;
  bool unordered;
};

// The kernels of one instruction set and element type.
struct Kernels {
  using Vectorised = Report (*)(const Job&, const Block&, std::byte* scratch);
  using Plain = Report (*)(const Job&, Index outer);
  // One way to walk a tensor; null where it is not gone, but the general one always is.
  struct Family {
    Vectorised forward, ties, vjp, jvp;
  };
  Family general, cells, threes, pixels;
  Plain plain_ties, plain_vjp, plain_jvp;
};

}  // namespace kinkcheck

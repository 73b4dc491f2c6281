#include "plan.hpp"

#include <algorithm>

namespace kinkcheck {
namespace {

// What a block may take of the cache that each core has to itself, in bytes.
constexpr Index cache = 256 * 1024;
// Rows of contiguous images are put together, to fill vectors and to save calls, up to this many
// lanes; single lines, and the rows of channels_last tensors, whose runs in memory are long, up to
// that many.
constexpr Index gathered_lanes = 512;
constexpr Index longest_lanes = 4096;
constexpr Index fewest_lanes = 256;
constexpr Index fewest_channels = 128;
// A block of cells.
constexpr Index block_elements = 32 * 1024;
constexpr Index fewest_channels_of_pixels = 8;
// Of narrower images many at a time fill a vector better; wider ones would leave the cache.
constexpr Index fewest_windows_of_threes = 5;
constexpr Index most_windows_of_threes = 4096;
// Room behind a row for vectors that begin in it: two of the widest.
constexpr Index slack_bytes = 128;
constexpr Index line_bytes = 64;

Index up(Index a, Index b) { return (a + b - 1) / b; }

}  // namespace

Plan::Plan(const Problem& problem, bool overlap, Index scalar_bytes, Index threads)
    : problem_(problem) {
  const Axis &depth = problem.depth, &height = problem.height, &width = problem.width;
  for (Index k = 0; k < width.kernel; ++k) phase_.push_back(k * width.dilation % width.stride);
  std::sort(phase_.begin(), phase_.end());
  phase_.erase(std::unique(phase_.begin(), phase_.end()), phase_.end());
  for (Index k = 0; k < width.kernel; ++k) {
    const auto found = std::lower_bound(phase_.begin(), phase_.end(),
                                        k * width.dilation % width.stride);
    slot_.push_back(found - phase_.begin());
    shift_.push_back(k * width.dilation / width.stride);
  }
  Layout& layout = layout_;
  layout.phase = phase_.data();
  layout.slot = slot_.data();
  layout.shift = shift_.data();
  layout.slots = static_cast<Index>(phase_.size());
  layout.reach = shift_.back();
  layout.extent = width.outputs;
  layout.input_slices = (depth.kernel - 1) * depth.dilation + 1;

  const Index input_rows = layout.input_slices * height.inputs * layout.slots;
  const Index whole = layout.extent + layout.reach;
  const bool line = depth.inputs == 1 && height.inputs == 1;
  const Index most = problem.inner == 1 && !line ? gathered_lanes : longest_lanes;
  const Index lanes =
      std::clamp(cache / (input_rows * scalar_bytes), fewest_lanes, most);
  layout.planes = 1;
  layout.channels = problem.inner;
  layout.span = layout.extent;
  if (whole * problem.inner > lanes) {
    layout.channels = std::min(problem.inner, fewest_channels);
    if (overlap) {
      layout.lead = layout.reach;
      layout.extent = (width.inputs - 1 + width.padding) / width.stride + 1;
    }
    const Index halo = layout.lead + layout.reach;
    // Windows in the halo are computed twice: it should be the smaller part.
    layout.span = std::clamp(lanes / layout.channels - halo, std::min(layout.extent, 3 * halo + 1),
                             layout.extent);
  } else if (problem.inner == 1) {
    const Index even = std::max<Index>(1, up(problem.outer, threads));
    // The planes are read twice, to look for NaN and to pack: they should stay in the cache.
    const Index held = cache / (depth.inputs * height.inputs * width.inputs * scalar_bytes);
    layout.planes = std::clamp<Index>(std::min(lanes / whole, held), 1, even);
  }
  const Index halo = layout.lead + layout.reach;
  layout.pitch = (halo + layout.span) * layout.channels;
  const Index bytes = (layout.planes * layout.pitch + layout.reach * layout.channels) *
                          scalar_bytes + slack_bytes;
  // An odd number of cache lines: rows do not compete for the same sets.
  layout.row = (up(bytes, line_bytes) | 1) * line_bytes / scalar_bytes;
  outer_blocks_ = up(problem.outer, layout.planes);
  spans_ = up(layout.extent, layout.span);
  channel_blocks_ = up(problem.inner, layout.channels);

  // The parts of class Rows.
  const Index rows = 2 * input_rows + 6;
  const Index dealt = 64;  // the length of a short row, as in rows.hpp
  const Index volume = depth.kernel * height.kernel * width.kernel;
  scratch_bytes_ = static_cast<std::size_t>(rows * layout.row * scalar_bytes +
                                            layout.row * 8 + volume * 16 + dealt * 16 +
                                            14 * line_bytes);
}

bool Plan::is_cells(const Problem& problem) {
  const auto tiles = [](const Axis& axis) {
    return axis.kernel == 2 && axis.stride == 2 && axis.dilation == 1 && axis.padding == 0 &&
           axis.outputs * 2 <= axis.inputs;
  };
  const auto tiles_or_absent = [&](const Axis& axis) {
    return tiles(axis) || (axis.inputs == 1 && axis.kernel == 1 && axis.padding == 0);
  };
  return problem.inner == 1 && tiles(problem.width) && tiles_or_absent(problem.height) &&
         tiles_or_absent(problem.depth);
}

bool Plan::is_threes(const Problem& problem) {
  const auto is_three = [](const Axis& axis) {
    const Index last = (axis.outputs - 1) * axis.stride - axis.padding;
    return axis.kernel == 3 && axis.stride == 2 && axis.dilation == 1 && axis.padding <= 1 &&
           axis.outputs >= 1 && last < axis.inputs;  // no window without an entry
  };
  const Axis& height = problem.height;
  const bool flat = height.inputs == 1 && height.outputs == 1 && height.kernel == 1 &&
                    height.padding == 0;
  return problem.inner == 1 && flat && is_three(problem.depth) && is_three(problem.width) &&
         problem.width.outputs >= fewest_windows_of_threes &&
         problem.width.outputs <= most_windows_of_threes;
}

bool Plan::is_pixels(const Problem& problem) { return problem.inner >= fewest_channels_of_pixels; }

Plan Plan::of_pixels(const Problem& problem, Index threads) {
  Plan plan(problem);
  Layout& layout = plan.layout_;
  layout.planes = layout.span = layout.extent = plan.spans_ = 1;
  plan.outer_blocks_ = problem.outer;
  // Few images are shared out by channels, in whole cache lines.
  const Index parts = up(2 * threads, problem.outer);
  layout.channels = std::min(problem.inner, up(up(problem.inner, parts), line_bytes) * line_bytes);
  plan.channel_blocks_ = up(problem.inner, layout.channels);
  const Index volume = problem.depth.kernel * problem.height.kernel * problem.width.kernel;
  plan.scratch_bytes_ = static_cast<std::size_t>(2 * volume + layout.channels) * sizeof(Index) + slack_bytes;
  return plan;
}

Plan Plan::of_threes(const Problem& problem, Index threads) {
  Plan plan(problem);
  Layout& layout = plan.layout_;
  layout.channels = layout.span = layout.extent = plan.spans_ = 1;
  const Index plane = problem.depth.inputs * problem.width.inputs;
  layout.planes = std::clamp<Index>(block_elements / plane, 1, up(problem.outer, 4 * threads));
  plan.outer_blocks_ = up(problem.outer, layout.planes);
  // Of the widest type: four rows of entries and one of sums, and a row of the input.
  const Index lanes = up(problem.width.outputs, line_bytes) * line_bytes;
  const Index elements = (4 * 4 + 2) * lanes + problem.width.inputs;
  plan.scratch_bytes_ = static_cast<std::size_t>(elements * 8 + 6 * line_bytes);
  return plan;
}

Plan Plan::of_cells(const Problem& problem, Index threads) {
  Plan plan(problem);
  Layout& layout = plan.layout_;
  const Axis& depth = problem.depth;
  const Index plane = depth.inputs * problem.height.inputs * problem.width.inputs;
  layout.channels = 1;
  layout.extent = depth.outputs;
  // Blocks of a few pages, but enough of them for every thread to have a fair share.
  layout.planes = std::clamp<Index>(block_elements / plane, 1, up(problem.outer, 4 * threads));
  layout.span = std::clamp<Index>(block_elements * depth.outputs / plane, 1, depth.outputs);
  if (layout.planes > 1) layout.span = depth.outputs;
  plan.outer_blocks_ = up(problem.outer, layout.planes);
  plan.spans_ = up(layout.extent, layout.span);
  return plan;
}

Block Plan::block(Index number) const {
  const Index channel = number % channel_blocks_ * layout_.channels;
  const Index begin = number / channel_blocks_ % spans_ * layout_.span;
  const Index outer = number / channel_blocks_ / spans_ * layout_.planes;
  return {outer,
          std::min(layout_.planes, problem_.outer - outer),
          channel,
          std::min(layout_.channels, problem_.inner - channel),
          begin,
          std::min(begin + layout_.span, layout_.extent)};
}

}  // namespace kinkcheck

// How a problem is cut into blocks, and how much scratch memory a block takes.
#pragma once

#include <vector>

#include "problem.hpp"

namespace kinkcheck {

class Plan {
 public:
  // `overlap`: the blocks are cut along the input, and windows of two blocks are computed in both
  // (vjp). Otherwise they are cut along the output.
  Plan(const Problem& problem, bool overlap, Index scalar_bytes, Index threads);

  // For windows that are cells, which need no layout and no scratch memory.
  static Plan of_cells(const Problem& problem, Index threads);

  // For windows of three by three, whose few rows of scratch memory are not in the layout.
  static Plan of_threes(const Problem& problem, Index threads);

  // For channels taken several at a time.
  static Plan of_pixels(const Problem& problem, Index threads);

  // Whether all windows are cells (see cells.hpp).
  static bool is_cells(const Problem& problem);

  // Whether the windows are three by three at a stride of two, on contiguous images that are wide
  // enough (see threes.hpp).
  static bool is_threes(const Problem& problem);

  // Whether there are enough channels to fill vectors with (see pixels.hpp).
  static bool is_pixels(const Problem& problem);

  // The layout points into vectors, which a copy would leave behind.
  Plan(Plan&&) = default;

  const Layout& layout() const { return layout_; }
  Index blocks() const { return outer_blocks_ * spans_ * channel_blocks_; }
  Block block(Index number) const;
  std::size_t scratch_bytes() const { return scratch_bytes_; }

 private:
  explicit Plan(const Problem& problem) : problem_(problem) {}

  Problem problem_;
  Layout layout_{};
  std::vector<Index> phase_, slot_, shift_;
  Index outer_blocks_ = 0, spans_ = 0, channel_blocks_ = 1;
  std::size_t scratch_bytes_ = 0;
};

}  // namespace kinkcheck

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

  Plan(const Plan&) = delete;
  Plan& operator=(const Plan&) = delete;

  const Layout& layout() const { return layout_; }
  Index blocks() const { return outer_blocks_ * spans_ * channel_blocks_; }
  Block block(Index number) const;
  std::size_t scratch_bytes() const { return scratch_bytes_; }

 private:
  Problem problem_;
  Layout layout_{};
  std::vector<Index> phase_, slot_, shift_;
  Index outer_blocks_, spans_, channel_blocks_;
  std::size_t scratch_bytes_;
};

}  // namespace kinkcheck

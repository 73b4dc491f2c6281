// How many entries are equal to some numbers, or to the value that they compete for.
#pragma once

#include <array>
#include <cstdint>

namespace kinkcheck {

constexpr std::int64_t most_numbers = 4;
using Counts = std::array<std::int64_t, most_numbers>;

// Of `count` entries that lie side by side, of 2, 4 or 8 bytes; the numbers have their type.
Counts count_equal(int bytes, const void* entries, std::int64_t count, const void* numbers,
                   std::int64_t how_many, std::int64_t threads);

// Of `outer` × `count` × `inner` entries, each of which competes for one of `outer` × `inner` values.
// Of 2 bytes NaN is equal to the same NaN.
std::int64_t count_attained(int bytes, const void* entries, const void* values, std::int64_t outer,
                            std::int64_t count, std::int64_t inner, std::int64_t threads);

// Rows of entries, and the row of values that each competes for.
struct Rows {
  std::int64_t count;
  const std::int64_t* at;  // where each lies; null if one after the other
  const std::int64_t* of;
  std::int64_t none;  // in `of`: competes for nothing
};

// The same of rows of `inner` entries.
std::int64_t count_gathered(int bytes, const void* entries, const Rows& rows, const void* values,
                            std::int64_t inner, std::int64_t threads);

}  // namespace kinkcheck

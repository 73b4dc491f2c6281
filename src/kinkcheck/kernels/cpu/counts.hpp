// How many entries are equal to some numbers.
#pragma once

#include <array>
#include <cstdint>

namespace kinkcheck {

constexpr std::int64_t most_numbers = 4;
using Counts = std::array<std::int64_t, most_numbers>;

// Of `count` entries that lie side by side, of 2, 4 or 8 bytes; the numbers have their type.
Counts count_equal(int bytes, const void* entries, std::int64_t count, const void* numbers,
                   std::int64_t how_many, std::int64_t threads);

}  // namespace kinkcheck

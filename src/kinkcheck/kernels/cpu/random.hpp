// The random choice of an active entry, from seed and position alone (see reference.py).
#pragma once

#include <cstdint>

#include "vectors.hpp"

namespace {

INLINE std::uint32_t stir(std::uint32_t x) {
  x ^= x >> 16;
  x *= 0x7FEB352Du;
  x ^= x >> 15;
  x *= 0x846CA68Bu;
  return x ^ (x >> 16);
}

INLINE std::uint32_t random_key(std::uint64_t seed) {
  return stir(stir(static_cast<std::uint32_t>(seed)) ^ static_cast<std::uint32_t>(seed >> 32));
}

// A number from 0 to size − 1.
INLINE std::int64_t random_rank(std::uint32_t key, std::uint64_t position, std::uint64_t size) {
  const std::uint32_t drawn = stir(stir(static_cast<std::uint32_t>(position) ^ key) ^
                                   static_cast<std::uint32_t>(position >> 32));
  return static_cast<std::int64_t>((drawn * size) >> 32);
}

}  // namespace

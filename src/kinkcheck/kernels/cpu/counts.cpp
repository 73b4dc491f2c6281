#include "counts.hpp"

#include <algorithm>

#if defined(KINKCHECK_X86_64) && defined(__GNUC__) && !defined(__clang__)
#define FOR_EACH_PROCESSOR \
  __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define FOR_EACH_PROCESSOR
#endif

namespace kinkcheck {
namespace {

// Few enough that 32 bits hold their number, and that all numbers are looked for while they are in
// the cache.
constexpr std::int64_t block = 8192;

FOR_EACH_PROCESSOR std::int64_t equal_in(const float* x, std::int64_t count, float number) {
  std::int32_t found = 0;
  for (std::int64_t i = 0; i < count; ++i) found += x[i] == number;
  return found;
}

FOR_EACH_PROCESSOR std::int64_t equal_in(const double* x, std::int64_t count, double number) {
  std::int64_t found = 0;
  for (std::int64_t i = 0; i < count; ++i) found += x[i] == number;
  return found;
}

// The bits of a 16-bit number, which is never NaN; of zero without its sign.
FOR_EACH_PROCESSOR std::int64_t equal_bits(const std::uint16_t* x, std::int64_t count,
                                           std::uint16_t number, std::uint16_t mask) {
  std::uint16_t found = 0;  // at most `block`
  for (std::int64_t i = 0; i < count; ++i)
    found = static_cast<std::uint16_t>(found + ((x[i] & mask) == number));
  return found;
}

std::int64_t equal_in(const std::uint16_t* x, std::int64_t count, std::uint16_t number) {
  const bool zero = (number & 0x7FFF) == 0;
  return equal_bits(x, count, zero ? 0 : number, zero ? 0x7FFF : 0xFFFF);
}

template <class T>
Counts counted(const T* x, std::int64_t count, const T* numbers, std::int64_t how_many,
               std::int64_t threads) {
  std::int64_t found[most_numbers] = {};
  const std::int64_t blocks = (count + block - 1) / block;
#pragma omp parallel for num_threads(threads) reduction(+ : found[:most_numbers]) \
    if (blocks > 8 && threads > 1)
  for (std::int64_t b = 0; b < blocks; ++b) {
    const std::int64_t size = std::min(block, count - b * block);
    for (std::int64_t k = 0; k < how_many; ++k) found[k] += equal_in(x + b * block, size, numbers[k]);
  }
  Counts all{};
  std::copy(found, found + how_many, all.begin());
  return all;
}

template <class T>
Counts counted(const void* x, std::int64_t count, const void* numbers, std::int64_t how_many,
               std::int64_t threads) {
  return counted(static_cast<const T*>(x), count, static_cast<const T*>(numbers), how_many, threads);
}

}  // namespace

Counts count_equal(int bytes, const void* entries, std::int64_t count, const void* numbers,
                   std::int64_t how_many, std::int64_t threads) {
  if (bytes == 2) return counted<std::uint16_t>(entries, count, numbers, how_many, threads);
  if (bytes == 4) return counted<float>(entries, count, numbers, how_many, threads);
  return counted<double>(entries, count, numbers, how_many, threads);
}

}  // namespace kinkcheck

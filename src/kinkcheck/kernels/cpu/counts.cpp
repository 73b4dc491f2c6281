#include "counts.hpp"

#include <algorithm>
#include <array>

#if defined(KINKCHECK_X86_64) && defined(__GNUC__) && !defined(__clang__)
#define FOR_EACH_PROCESSOR \
  __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define FOR_EACH_PROCESSOR
#endif

namespace kinkcheck {
namespace {

// Few enough that 16 bits hold their number, and that all numbers are looked for while they are in
// the cache.
constexpr std::int64_t block = 8192;

// Two numbers are looked for at a time: memory is what takes long.
template <class T>
struct Two {
  T first, second;
};

using Pair = std::array<std::int64_t, 2>;

FOR_EACH_PROCESSOR Pair equal_in(const float* x, std::int64_t count, Two<float> numbers) {
  std::int32_t first = 0, second = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    first += x[i] == numbers.first;
    second += x[i] == numbers.second;
  }
  return {first, second};
}

FOR_EACH_PROCESSOR Pair equal_in(const double* x, std::int64_t count, Two<double> numbers) {
  std::int64_t first = 0, second = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    first += x[i] == numbers.first;
    second += x[i] == numbers.second;
  }
  return {first, second};
}

// The bits of a 16-bit number, which is never NaN; of zero without its sign.
std::uint16_t mask_of(std::uint16_t number) { return (number & 0x7FFF) == 0 ? 0x7FFF : 0xFFFF; }

FOR_EACH_PROCESSOR Pair equal_bits(const std::uint16_t* x, std::int64_t count,
                                   Two<std::uint16_t> numbers, Two<std::uint16_t> masks) {
  std::uint16_t first = 0, second = 0;  // at most `block`
  for (std::int64_t i = 0; i < count; ++i) {
    first = static_cast<std::uint16_t>(first + ((x[i] & masks.first) == numbers.first));
    second = static_cast<std::uint16_t>(second + ((x[i] & masks.second) == numbers.second));
  }
  return {first, second};
}

Pair equal_in(const std::uint16_t* x, std::int64_t count, Two<std::uint16_t> numbers) {
  const Two<std::uint16_t> masks{mask_of(numbers.first), mask_of(numbers.second)};
  numbers.first &= masks.first;
  numbers.second &= masks.second;
  return equal_bits(x, count, numbers, masks);
}

template <class T>
Counts counted(const void* entries, std::int64_t count, const void* sought, std::int64_t how_many,
               std::int64_t threads) {
  const T* x = static_cast<const T*>(entries);
  const T* numbers = static_cast<const T*>(sought);
  std::int64_t found[most_numbers] = {};
  const std::int64_t blocks = (count + block - 1) / block;
#pragma omp parallel for num_threads(threads) reduction(+ : found[:most_numbers]) \
    if (blocks > 8 && threads > 1)
  for (std::int64_t b = 0; b < blocks; ++b) {
    const std::int64_t size = std::min(block, count - b * block);
    for (std::int64_t k = 0; k < how_many; k += 2) {
      const bool two = k + 1 < how_many;
      const Pair pair = equal_in(x + b * block, size, Two<T>{numbers[k], numbers[two ? k + 1 : k]});
      found[k] += pair[0];
      if (two) found[k + 1] += pair[1];
    }
  }
  Counts all{};
  std::copy(found, found + how_many, all.begin());
  return all;
}

FOR_EACH_PROCESSOR std::int64_t equal_pairs(const float* x, const float* y, std::int64_t count) {
  std::int32_t found = 0;
  for (std::int64_t i = 0; i < count; ++i) found += x[i] == y[i];
  return found;
}

FOR_EACH_PROCESSOR std::int64_t equal_pairs(const double* x, const double* y, std::int64_t count) {
  std::int64_t found = 0;
  for (std::int64_t i = 0; i < count; ++i) found += x[i] == y[i];
  return found;
}

FOR_EACH_PROCESSOR std::int64_t equal_pairs(const std::uint16_t* x, const std::uint16_t* y,
                                            std::int64_t count) {
  std::uint16_t found = 0;  // at most `block`
  for (std::int64_t i = 0; i < count; ++i) {
    const bool zeros = ((x[i] | y[i]) & 0x7FFF) == 0;
    found = static_cast<std::uint16_t>(found + ((x[i] == y[i]) | zeros));
  }
  return found;
}

template <class T>
std::int64_t row_equal(const T* x, const T* values, std::int64_t inner) {
  std::int64_t found = 0;
  for (std::int64_t i = 0; i < inner; i += block)
    found += equal_pairs(x + i, values + i, std::min(block, inner - i));
  return found;
}

bool same(float a, float b) { return a == b; }
bool same(double a, double b) { return a == b; }
bool same(std::uint16_t a, std::uint16_t b) { return (a == b) | (((a | b) & 0x7FFF) == 0); }

template <class T>
std::int64_t attained(const void* entries, const void* of, std::int64_t outer, std::int64_t count,
                      std::int64_t inner, std::int64_t threads) {
  const T* x = static_cast<const T*>(entries);
  const T* values = static_cast<const T*>(of);
  // A part has some rows, or a piece of a long one.
  const std::int64_t rows = std::max<std::int64_t>(1, block / std::max<std::int64_t>(1, inner));
  const std::int64_t down = (count + rows - 1) / rows, across = (inner + block - 1) / block;
  std::int64_t found = 0;
#pragma omp parallel for num_threads(threads) reduction(+ : found) \
    if (outer * count * inner > 8 * block && threads > 1)
  for (std::int64_t part = 0; part < outer * down * across; ++part) {
    const std::int64_t o = part / (down * across), first = part / across % down * rows;
    const std::int64_t i = part % across * block, last = std::min(first + rows, count);
    const T* entry = x + (o * count + first) * inner + i;
    const T* value = values + o * inner + i;
    if (inner == 1) {
      found += equal_in(entry, last - first, Two<T>{*value, *value})[0];
      continue;
    }
    const std::int64_t size = std::min(block, inner - i);
    for (std::int64_t row = first; row < last; ++row, entry += inner)
      found += equal_pairs(entry, value, size);
  }
  return found;
}

template <class T>
std::int64_t gathered(const void* entries, const Rows& rows, const void* of, std::int64_t inner,
                      std::int64_t threads) {
  const T* x = static_cast<const T*>(entries);
  const T* values = static_cast<const T*>(of);
  std::int64_t found = 0;
#pragma omp parallel for num_threads(threads) reduction(+ : found) \
    if (rows.count * inner > 8 * block && threads > 1)
  for (std::int64_t row = 0; row < rows.count; ++row) {
    if (rows.of[row] == rows.none) continue;
    const T* entry = x + (rows.at ? rows.at[row] : row) * inner;
    const T* value = values + rows.of[row] * inner;
    found += inner == 1 ? same(*entry, *value) : row_equal(entry, value, inner);
  }
  return found;
}

}  // namespace

Counts count_equal(int bytes, const void* entries, std::int64_t count, const void* numbers,
                   std::int64_t how_many, std::int64_t threads) {
  if (bytes == 2) return counted<std::uint16_t>(entries, count, numbers, how_many, threads);
  if (bytes == 4) return counted<float>(entries, count, numbers, how_many, threads);
  return counted<double>(entries, count, numbers, how_many, threads);
}

std::int64_t count_attained(int bytes, const void* entries, const void* values, std::int64_t outer,
                            std::int64_t count, std::int64_t inner, std::int64_t threads) {
  if (bytes == 2) return attained<std::uint16_t>(entries, values, outer, count, inner, threads);
  if (bytes == 4) return attained<float>(entries, values, outer, count, inner, threads);
  return attained<double>(entries, values, outer, count, inner, threads);
}

std::int64_t count_gathered(int bytes, const void* entries, const Rows& rows, const void* values,
                            std::int64_t inner, std::int64_t threads) {
  if (bytes == 2) return gathered<std::uint16_t>(entries, rows, values, inner, threads);
  if (bytes == 4) return gathered<float>(entries, rows, values, inner, threads);
  return gathered<double>(entries, rows, values, inner, threads);
}

}  // namespace kinkcheck

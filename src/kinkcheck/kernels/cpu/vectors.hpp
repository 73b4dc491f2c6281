// Vectors of the instruction set at hand, as compilers extend C++ by them: operators and ?: work
// lane by lane. What has no such notation (16-bit floats, table lookup) is spelled out below.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace {

#if defined(__AVX512F__)
constexpr int vector_bytes = 64;
#elif defined(__AVX2__)
constexpr int vector_bytes = 32;
#else
constexpr int vector_bytes = 16;
#endif

// What takes or returns vectors is worth its speed only within its caller. INLINED is for lambdas;
// a build with sanitizers, which slow down compilers too, does without.
#define INLINE inline __attribute__((always_inline))
#if defined(__SANITIZE_ADDRESS__)
#define INLINED
#else
#define INLINED __attribute__((always_inline))
#endif

#define UNROLLED _Pragma("GCC unroll 32")

template <class S>
struct Lanes;

template <>
struct Lanes<float> {
  using Integer = std::int32_t;
  using Bits = std::uint32_t;
  typedef float V __attribute__((vector_size(vector_bytes), may_alias));
  typedef std::int32_t I __attribute__((vector_size(vector_bytes), may_alias));
  typedef std::uint32_t U __attribute__((vector_size(vector_bytes), may_alias));
  typedef std::uint16_t H __attribute__((vector_size(vector_bytes / 2), may_alias));
  typedef float LooseV __attribute__((vector_size(vector_bytes), aligned(1), may_alias));
  typedef std::int32_t LooseI __attribute__((vector_size(vector_bytes), aligned(1), may_alias));
  static constexpr int count = vector_bytes / 4;
};

template <>
struct Lanes<double> {
  using Integer = std::int64_t;
  typedef double V __attribute__((vector_size(vector_bytes), may_alias));
  typedef std::int64_t I __attribute__((vector_size(vector_bytes), may_alias));
  typedef double LooseV __attribute__((vector_size(vector_bytes), aligned(1), may_alias));
  typedef std::int64_t LooseI __attribute__((vector_size(vector_bytes), aligned(1), may_alias));
  static constexpr int count = vector_bytes / 8;
};

template <class S>
using Vec = typename Lanes<S>::V;
template <class S>
using Int = typename Lanes<S>::I;

template <class S>
INLINE Vec<S> load(const S* from) {
  return *reinterpret_cast<const typename Lanes<S>::LooseV*>(from);
}

template <class S>
INLINE void store(S* to, Vec<S> v) {
  *reinterpret_cast<typename Lanes<S>::LooseV*>(to) = v;
}

// From and to integers of the size of S, or such values of S as stand for a mask.
template <class S>
INLINE Int<S> load_integers(const void* from) {
  return *static_cast<const typename Lanes<S>::LooseI*>(from);
}

template <class S>
INLINE void store_integers(void* to, Int<S> v) {
  *static_cast<typename Lanes<S>::LooseI*>(to) = v;
}

template <class S>
INLINE Vec<S> all(S value) {
  return Vec<S>{} + value;
}

template <class S>
INLINE Int<S> all_integers(std::int64_t value) {
  return Int<S>{} + static_cast<typename Lanes<S>::Integer>(value);
}

// What was loaded is to be loaded again, not kept: with the sixteen registers of x86 before AVX-512
// a compiler would write it to the stack instead, and it is in the cache anyway.
INLINE void load_again() {
#if defined(__x86_64__) && !defined(__AVX512F__)
  asm volatile("" ::: "memory");
#endif
}

// A mask has −1 in the lanes where it holds, 0 in the others.
template <class S>
INLINE Vec<S> keep(Int<S> mask, Vec<S> v) {
  return mask ? v : Vec<S>{};
}

template <class S>
INLINE bool any(Int<S> mask) {
#if defined(__AVX512F__)
  return _mm512_test_epi32_mask((__m512i)mask, (__m512i)mask) != 0;
#elif defined(__AVX2__)
  return _mm256_movemask_epi8((__m256i)mask) != 0;
#else
  bool found = false;
  for (int lane = 0; lane < Lanes<S>::count; ++lane) found |= mask[lane] != 0;
  return found;
#endif
}

// Whether any of `count` integers is negative.
template <int count, class Integer>
INLINE bool any_negative(const Integer* integers) {
  constexpr int bytes = count * sizeof(Integer);
  std::uint64_t words[bytes / 8], found = 0;
  std::memcpy(words, integers, bytes);
  for (const std::uint64_t word : words) found |= word;
  constexpr std::uint64_t signs = sizeof(Integer) == 2   ? 0x8000'8000'8000'8000
                                  : sizeof(Integer) == 4 ? 0x8000'0000'8000'0000
                                                         : 0x8000'0000'0000'0000;
  return found & signs;
}

// Remembers whether any lane ever met a condition.
template <class S>
class Flag {
 public:
#if defined(__AVX512F__)
  // One of the two is NaN.
  INLINE void unordered(Vec<S> a, Vec<S> b) {
    if constexpr (sizeof(S) == 4)
      met_ |= _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_UNORD_Q);
    else
      met_ |= _mm512_cmp_pd_mask((__m512d)a, (__m512d)b, _CMP_UNORD_Q);
  }
  INLINE void equal(Vec<S> a, Vec<S> b) {
    if constexpr (sizeof(S) == 4)
      met_ |= _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_EQ_OQ);
    else
      met_ |= _mm512_cmp_pd_mask((__m512d)a, (__m512d)b, _CMP_EQ_OQ);
  }
  INLINE bool met() const { return met_ != 0; }

 private:
  unsigned met_ = 0;
#else
  INLINE void unordered(Vec<S> a, Vec<S> b) { met_ |= (a != a) | (b != b); }
  INLINE void equal(Vec<S> a, Vec<S> b) { met_ |= a == b; }
  INLINE bool met() const { return any<S>(met_); }

 private:
  Int<S> met_{};
#endif
};

// Every table that is looked up has at least this many entries, so that it can be loaded whole.
constexpr int least_table = 32;

// table[index], for indices from 1 to `top`; what is found at 0 is of no account. A gather takes
// forty instructions inside, a permutation of a register one: where all indices are low, what is
// high in the table need not be looked at.
template <class S>
INLINE Vec<S> lookup(const S* table, Int<S> index, [[maybe_unused]] std::int64_t top) {
#if defined(__AVX512F__)
  constexpr int n = Lanes<S>::count;
  if constexpr (sizeof(S) == 4) {
    const auto at = (__m512i)index;
    if (top >= 2 * n && any<S>(index >= 2 * n)) return (Vec<S>)_mm512_i32gather_ps(at, table, 4);
    return (Vec<S>)_mm512_permutex2var_ps((__m512)load(table), at, (__m512)load(table + n));
  } else {
    const auto at = (__m512i)index;
    if (top >= 2 * n && any<S>(index >= 2 * n)) return (Vec<S>)_mm512_i64gather_pd(at, table, 8);
    return (Vec<S>)_mm512_permutex2var_pd((__m512d)load(table), at, (__m512d)load(table + n));
  }
#elif defined(__AVX2__)
  if constexpr (sizeof(S) == 4) {
    if (top >= 16 && any<S>(index >= 16))
      return (Vec<S>)_mm256_i32gather_ps(table, (__m256i)index, 4);
    const __m256 low = _mm256_permutevar8x32_ps((__m256)load(table), (__m256i)index);
    if (top < 8) return (Vec<S>)low;
    const __m256 high = _mm256_permutevar8x32_ps((__m256)load(table + 8), (__m256i)index);
    return (Vec<S>)_mm256_blendv_ps(low, high, (__m256)(index << 28));
  } else {
    if (top > 8 && any<S>(index > 8))
      return (Vec<S>)_mm256_i64gather_pd(table, (__m256i)index, 8);
    // From the second entry on, and by halves: double 2 of these is made of the floats 4 and 5.
    const auto halves = (__m256i)(((index << 1) | (index << 33)) - ((1LL << 32) + 2));
    const auto permuted = [&](const S* from) {
      return (__m256d)_mm256_permutevar8x32_ps((__m256)load(from), halves);
    };
    const __m256d low = permuted(table + 1);
    if (top <= 4) return (Vec<S>)low;
    return (Vec<S>)_mm256_blendv_pd(low, permuted(table + 5), (__m256d)((index - 1) << 61));
  }
#else
  Vec<S> found;
  for (int lane = 0; lane < Lanes<S>::count; ++lane) found[lane] = table[index[lane]];
  return found;
#endif
}

// Element types as they lie in memory. `widen` is exact; `narrow` rounds to nearest even.

struct Half {
  std::uint16_t bits;
};

struct Brain {
  std::uint16_t bits;
};

template <class T>
struct Computing {
  using Type = float;
};
template <>
struct Computing<double> {
  using Type = double;
};
template <class T>
using Scalar = typename Computing<T>::Type;

INLINE float widen(float x) { return x; }
INLINE double widen(double x) { return x; }
INLINE float widen(Half x) {
  _Float16 value;
  std::memcpy(&value, &x, sizeof value);
  return static_cast<float>(value);
}
INLINE float widen(Brain x) {
  const std::uint32_t bits = std::uint32_t{x.bits} << 16;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

INLINE void narrow(float value, float& to) { to = value; }
INLINE void narrow(double value, double& to) { to = value; }
INLINE void narrow(float value, Half& to) {
  const auto half = static_cast<_Float16>(value);
  std::memcpy(&to, &half, sizeof half);
}
INLINE void narrow(float value, Brain& to) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  // As for vectors (brain_bits), and as true for NaN.
  to.bits = static_cast<std::uint16_t>((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}

template <class T>
INLINE T narrow(Scalar<T> value) {
  T to;
  narrow(value, to);
  return to;
}

template <class T>
INLINE Scalar<T> rounded(Scalar<T> value) {
  return widen(narrow<T>(value));
}

// The same for vectors.

INLINE Vec<float> widen_vector(const float* from) { return load(from); }
INLINE Vec<double> widen_vector(const double* from) { return load(from); }
INLINE Vec<float> widen_vector(const Half* from) {
#if defined(__AVX512F__)
  return (Vec<float>)_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
#elif defined(__F16C__) && defined(__AVX2__)
  return (Vec<float>)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
#else
  Vec<float> v;
  for (int lane = 0; lane < Lanes<float>::count; ++lane) v[lane] = widen(from[lane]);
  return v;
#endif
}
INLINE Vec<float> widen_vector(const Brain* from) {
  Lanes<float>::H bits;
  std::memcpy(&bits, from, sizeof bits);
  return (Vec<float>)(__builtin_convertvector(bits, Lanes<float>::U) << 16);
}

// Rounded to nearest even, in the upper half of each lane. Every NaN here is one that was widened
// or the processor's own, whose lower halves are zero: rounding does not carry into its upper half.
INLINE Lanes<float>::U brain_bits(Vec<float> v) {
  const auto bits = (Lanes<float>::U)v;
  return bits + 0x7FFF + ((bits >> 16) & 1);
}

INLINE void narrow_vector(Vec<float> v, float* to) { store(to, v); }
INLINE void narrow_vector(Vec<double> v, double* to) { store(to, v); }
INLINE void narrow_vector(Vec<float> v, Half* to) {
#if defined(__AVX512F__)
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtps_ph((__m512)v, 0));
#elif defined(__F16C__) && defined(__AVX2__)
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_cvtps_ph((__m256)v, 0));
#else
  for (int lane = 0; lane < Lanes<float>::count; ++lane) narrow(v[lane], to[lane]);
#endif
}
INLINE void narrow_vector(Vec<float> v, Brain* to) {
  const auto bits = __builtin_convertvector(brain_bits(v) >> 16, Lanes<float>::H);
  std::memcpy(to, &bits, sizeof bits);
}

// Keys: 16-bit floats as integers of the same order, twice as many to a vector as when widened.
// Zeros of either sign have the same key; that of NaN means nothing.
using Key = std::int16_t;
typedef Key Keys __attribute__((vector_size(vector_bytes), may_alias));
constexpr int keys_count = vector_bytes / 2;
constexpr Key least_key = -0x8000;  // less than that of any value

template <class T>
INLINE Keys load_keys(const T* from) {
  static_assert(sizeof(T) == sizeof(Key));
  Keys bits;
  std::memcpy(&bits, from, sizeof bits);
  const Keys magnitude = bits & Key{0x7FFF};
#if defined(__AVX2__) && !defined(__AVX512F__)
  return (Keys)_mm256_sign_epi16((__m256i)magnitude, (__m256i)bits);
#else
  const Keys sign = bits >> 15;
  return (magnitude ^ sign) - sign;
#endif
}

// The first `count` lanes only; none if it is negative, all if it is large. A call of memcpy for a
// few elements would take longer than most vectors.

// Copies from 1 to 31 bytes by two moves that may overlap.
INLINE void copy_bytes(void* to, const void* from, std::int64_t bytes) {
  const auto move = [&]<int size>(std::integral_constant<int, size>) INLINED {
    struct Part {
      char part[size];
    } first, last;
    std::memcpy(&first, from, size);
    std::memcpy(&last, static_cast<const char*>(from) + bytes - size, size);
    std::memcpy(to, &first, size);
    std::memcpy(static_cast<char*>(to) + bytes - size, &last, size);
  };
  if (bytes >= 16) return move(std::integral_constant<int, 16>{});
  if (bytes >= 8) return move(std::integral_constant<int, 8>{});
  if (bytes >= 4) return move(std::integral_constant<int, 4>{});
  if (bytes >= 2) return move(std::integral_constant<int, 2>{});
  return move(std::integral_constant<int, 1>{});
}

template <class T>
INLINE Vec<Scalar<T>> widen_some(const T* from, std::int64_t count) {
  using S [[maybe_unused]] = Scalar<T>;
  constexpr int n = Lanes<Scalar<T>>::count;
  if (count >= n) return widen_vector(from);
  if (count <= 0) return Vec<Scalar<T>>{};
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__)
  const unsigned mask = (1u << count) - 1;
  if constexpr (sizeof(T) == 8) {
    return (Vec<double>)_mm512_maskz_loadu_pd(static_cast<__mmask8>(mask), from);
  } else if constexpr (sizeof(T) == 4) {
    return (Vec<float>)_mm512_maskz_loadu_ps(static_cast<__mmask16>(mask), from);
  } else {
    const __m256i bits = _mm256_maskz_loadu_epi16(static_cast<__mmask16>(mask), from);
    T some[n];
    std::memcpy(some, &bits, sizeof bits);
    return widen_vector(some);
  }
#else
#if defined(__AVX2__)
  if constexpr (sizeof(T) == 4) {
    const Int<float> lane{0, 1, 2, 3, 4, 5, 6, 7};
    return (Vec<S>)_mm256_maskload_ps(from, (__m256i)(lane < static_cast<int>(count)));
  } else if constexpr (sizeof(T) == 8) {
    const Int<double> lane{0, 1, 2, 3};
    return (Vec<S>)_mm256_maskload_pd(from, (__m256i)(lane < count));
  }
#endif
  T some[n] = {};
  copy_bytes(some, from, count * static_cast<std::int64_t>(sizeof(T)));
  return widen_vector(some);
#endif
}

template <class T>
INLINE void narrow_some(Vec<Scalar<T>> v, T* to, std::int64_t count) {
  constexpr int n = Lanes<Scalar<T>>::count;
  if (count >= n) return narrow_vector(v, to);
  if (count <= 0) return;
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__)
  const unsigned mask = (1u << count) - 1;
  if constexpr (sizeof(T) == 8) {
    _mm512_mask_storeu_pd(to, static_cast<__mmask8>(mask), (__m512d)v);
  } else if constexpr (sizeof(T) == 4) {
    _mm512_mask_storeu_ps(to, static_cast<__mmask16>(mask), (__m512)v);
  } else {
    T some[n];
    narrow_vector(v, some);
    __m256i bits;
    std::memcpy(&bits, some, sizeof bits);
    _mm256_mask_storeu_epi16(to, static_cast<__mmask16>(mask), bits);
  }
#else
  T some[n];
  narrow_vector(v, some);
  copy_bytes(to, some, count * static_cast<std::int64_t>(sizeof(T)));
#endif
}

template <class S>
INLINE void store_some(S* to, Vec<S> v, std::int64_t count) {
  narrow_some(v, to, count);
}

// Rounded to T and widened again.
template <class T>
INLINE Vec<Scalar<T>> rounded_vector(Vec<Scalar<T>> v) {
#if defined(__AVX512F__)
  if constexpr (std::is_same_v<T, Half>)
    return (Vec<float>)_mm512_cvtph_ps(_mm512_cvtps_ph((__m512)v, 0));
#elif defined(__F16C__) && defined(__AVX2__)
  if constexpr (std::is_same_v<T, Half>)
    return (Vec<float>)_mm256_cvtph_ps(_mm256_cvtps_ph((__m256)v, 0));
#endif
  if constexpr (std::is_same_v<T, Brain>) {
    return (Vec<float>)(brain_bits(v) & 0xFFFF0000u);
  } else if constexpr (sizeof(T) == 2) {
    T narrowed[Lanes<float>::count];
    narrow_vector(v, narrowed);
    return widen_vector(narrowed);
  } else {
    return v;
  }
}

}  // namespace

// How the active entries of a window share its gradient.
#pragma once

#include <cstdint>

#include "problem.hpp"
#include "vectors.hpp"

namespace {

using kinkcheck::Tables;

template <class S>
struct Shares {
  Vec<S> chosen, other;
};

// Of vectors of windows with these numbers of active entries, at most `most`.
template <class S>
INLINE Shares<S> weights_of(Tables tables, Int<S> size, std::int64_t most) {
  if (!tables.chosen) return {all(S{1}), Vec<S>{}};
  return {lookup(static_cast<const S*>(tables.chosen), size, most),
          lookup(static_cast<const S*>(tables.other), size, most)};
}

// What they give of a gradient: nothing, where the weight is zero, even of an infinite one. One
// active entry alone takes all; of more than four the greatest mostly is alone.
template <class T>
INLINE Shares<Scalar<T>> shares_of(Tables tables, Int<Scalar<T>> size, std::int64_t most,
                                   Vec<Scalar<T>> gradient) {
  using S = Scalar<T>;
  if (!tables.chosen || (most > 4 && !any<S>(size > 1))) return {gradient, Vec<S>{}};
  const auto weighted = [&](Vec<S> weight) INLINED {
    return keep<S>(weight != Vec<S>{}, rounded_vector<T>(weight * gradient));
  };
  const auto [chosen, other] = weights_of<S>(tables, size, most);
  return {weighted(chosen), weighted(other)};
}

// The random pick, from seed and position alone (see reference.py).

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

// digamma of a vector at once, where torch takes one number after the other.
// Nothing here is seen from outside: several versions may be loaded into one process.

#pragma once

#include <ATen/cpu/vec/vec.h>

namespace {

template <typename T>
inline bool all_positive(const at::vec::Vectorized<T>& x) {
  return (x > at::vec::Vectorized<T>(0)).zero_mask() == 0;  // not of NaN
}

template <typename Lanes>
inline Lanes digamma_of_lanes(const Lanes& x) {
  return x.digamma();
}

// The asymptotic series at z = x + 6 for x < 16, else at x itself, less the sum of 1 / (x + i): three pairs with equal numerators.
template <>
inline at::vec::Vectorized<float> digamma_of_lanes(const at::vec::Vectorized<float>& x) {
  using Floats = at::vec::Vectorized<float>;
  if (!all_positive(x)) return x.digamma();
  const Floats near = x < Floats(16), low = at::vec::minimum(x, Floats(16));
  const Floats first = low * (low + Floats(5)), second = first + Floats(4), third = first + Floats(6);
  const Floats sum = (low + low + Floats(5)) * (first * (second + third) + second * third) / (first * second * third);
  const Floats z = Floats::blendv(x, x + Floats(6), near), inverse = z.reciprocal(), square = inverse * inverse;
  const Floats series = square * (Floats(1.f / 12) - square * (Floats(1.f / 120) - square * Floats(1.f / 252)));
  return z.log() - inverse * Floats(0.5f) - series - Floats::blendv(Floats(0), sum, near);
}

// The same with more terms, at x + 10.
template <>
inline at::vec::Vectorized<double> digamma_of_lanes(const at::vec::Vectorized<double>& x) {
  using Doubles = at::vec::Vectorized<double>;
  if (!all_positive(x)) return x.digamma();
  Doubles sum(0), z = x;
  for (int i = 0; i < 10; ++i) {
    sum = sum + z.reciprocal();
    z = z + Doubles(1);
  }
  const Doubles inverse = z.reciprocal(), square = inverse * inverse;
  Doubles series(691.0 / 32760);
  for (const double term : {1.0 / 132, 1.0 / 240, 1.0 / 252, 1.0 / 120, 1.0 / 12}) series = Doubles(term) - square * series;
  return z.log() - inverse * Doubles(0.5) - square * series - sum;
}

}  // namespace

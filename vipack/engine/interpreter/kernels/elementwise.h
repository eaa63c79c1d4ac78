// Element by element: functions of one, two and three numbers, each written once for numbers and for vectors of them.

#pragma once

#include "vipack/engine/inductor/gamma_functions.h"
#include "vipack/engine/interpreter/kernels/operation.h"

namespace {

// Functions that numbers and vectors have under one name.
namespace lanes {

#define BOTH(NAME)             \
  template <typename T>        \
  inline T NAME(T x) {         \
    return std::NAME(x);       \
  }                            \
  template <typename T>        \
  inline Vec<T> NAME(Vec<T> x) { \
    return x.NAME();           \
  }

BOTH(exp)
BOTH(log)
BOTH(log1p)
BOTH(expm1)
BOTH(sqrt)
BOTH(tanh)
BOTH(sin)
BOTH(cos)
BOTH(erf)
BOTH(erfc)
BOTH(lgamma)
BOTH(abs)

template <typename T>
inline T pow(T x, T y) {
  return std::pow(x, y);
}

template <typename T>
inline Vec<T> pow(Vec<T> x, Vec<T> y) {
  return x.pow(y);
}

template <typename T>
inline T where(bool condition, T x, T y) {
  return condition ? x : y;
}

template <typename T>
inline Vec<T> where(Vec<T> condition, Vec<T> x, Vec<T> y) {
  return Vec<T>::blendv(y, x, condition);
}

template <typename T>
inline T digamma(T given) {
  double x = static_cast<double>(given), result = 0;
  if (x == 0) return std::copysign(std::numeric_limits<T>::infinity(), -given);
  if (x < 0) {
    if (x == std::floor(x)) return std::numeric_limits<T>::quiet_NaN();
    const double pi = 3.14159265358979323846;
    result = -pi / std::tan(pi * x);
    x = 1 - x;
  }
  for (; x < 10; x += 1) result -= 1 / x;
  const double r = 1 / (x * x);
  return static_cast<T>(
      result + std::log(x) - 0.5 / x -
      r * (1.0 / 12 - r * (1.0 / 120 - r * (1.0 / 252 - r * (1.0 / 240 - r * (1.0 / 132 - r * 691.0 / 32760))))));
}

template <typename T>
inline Vec<T> digamma(Vec<T> x) {
  return digamma_of_lanes(x);
}

}  // namespace lanes

template <typename R, typename T, typename F>
int unary(const Op& op) {
  const int64_t last = op.ndim - 1, n = op.size[last], so = op.so[last], sa = op.si[0][last];
  const F f(op);
  rows(op, [&](int64_t o, int64_t a, int64_t, int64_t) {
    R* out = as<R>(op.out) + o;
    const T* x = as<T>(op.in[0]) + a;
    if (sa == 0) {
      const R r = f(x[0]);
      for (int64_t i = 0; i < n; ++i) out[i * so] = r;
    } else if (so == 1 && sa == 1) {
      if constexpr (F::vectorized) {
        int64_t i = 0;
        for (; i + Vec<T>::size() <= n; i += Vec<T>::size()) f(Vec<T>::loadu(x + i)).store(out + i);
        if (n - i > 2) f(Vec<T>::loadu(x + i, n - i)).store(out + i, n - i), i = n;
        for (; i < n; ++i) out[i] = f(x[i]);
      } else {
        VIPACK_SIMD
        for (int64_t i = 0; i < n; ++i) out[i] = f(x[i]);
      }
    } else {
      for (int64_t i = 0; i < n; ++i) out[i * so] = f(x[i * sa]);
    }
  });
  return 0;
}

template <typename R, typename T, typename F>
int binary(const Op& op) {
  const int64_t last = op.ndim - 1, n = op.size[last], so = op.so[last], sa = op.si[0][last], sb = op.si[1][last];
  const F f(op);
  rows(op, [&](int64_t o, int64_t a, int64_t b, int64_t) {
    R* out = as<R>(op.out) + o;
    const T* x = as<T>(op.in[0]) + a;
    const T* y = as<T>(op.in[1]) + b;
    if (n == 1) {
      out[0] = f(x[0], y[0]);
      return;
    }
    if constexpr (F::vectorized) {
      if (so == 1 && (sa == 0 || sa == 1) && (sb == 0 || sb == 1)) {
        const Vec<T> first(x[0]), second(y[0]);  // where there is one number for all
        int64_t i = 0;
        for (; i + Vec<T>::size() <= n; i += Vec<T>::size())
          f(sa ? Vec<T>::loadu(x + i) : first, sb ? Vec<T>::loadu(y + i) : second).store(out + i);
        for (; i < n; ++i) out[i] = f(x[i * sa], y[i * sb]);
        return;
      }
    } else if (so == 1 && sa == 1 && sb == 1) {
      VIPACK_SIMD
      for (int64_t i = 0; i < n; ++i) out[i] = f(x[i], y[i]);
      return;
    } else if (so == 1 && sa == 1 && sb == 0) {
      const T s = y[0];
      VIPACK_SIMD
      for (int64_t i = 0; i < n; ++i) out[i] = f(x[i], s);
      return;
    } else if (so == 1 && sa == 0 && sb == 1) {
      const T s = x[0];
      VIPACK_SIMD
      for (int64_t i = 0; i < n; ++i) out[i] = f(s, y[i]);
      return;
    }
    for (int64_t i = 0; i < n; ++i) out[i * so] = f(x[i * sa], y[i * sb]);
  });
  return 0;
}

template <typename T, typename F>
int ternary(const Op& op) {
  const int64_t last = op.ndim - 1, n = op.size[last];
  const int64_t so = op.so[last], sa = op.si[0][last], sb = op.si[1][last], sc = op.si[2][last];
  const F f(op);
  rows(op, [&](int64_t o, int64_t a, int64_t b, int64_t c) {
    T* out = as<T>(op.out) + o;
    const auto* x = as<typename F::First>(op.in[0]) + a;
    const T* y = as<T>(op.in[1]) + b;
    const T* z = as<T>(op.in[2]) + c;
    if (so == 1 && sa == 1 && sb == 1 && sc == 1) {
      VIPACK_SIMD
      for (int64_t i = 0; i < n; ++i) out[i] = f(x[i], y[i], z[i]);
    } else if (so == 1 && sa == 1 && sb == 0 && sc == 1) {
      const T s = y[0];
      VIPACK_SIMD
      for (int64_t i = 0; i < n; ++i) out[i] = f(x[i], s, z[i]);
    } else if (so == 1 && sa == 1 && sb == 1 && sc == 0) {
      const T s = z[0];
      VIPACK_SIMD
      for (int64_t i = 0; i < n; ++i) out[i] = f(x[i], y[i], s);
    } else {
      for (int64_t i = 0; i < n; ++i) out[i * so] = f(x[i * sa], y[i * sb], z[i * sc]);
    }
  });
  return 0;
}

// s0 and s1 are the numbers among an operator's arguments; X is a number or a vector of them.
#define NUMBERS(NAME)  \
  const T s0, s1;      \
  explicit NAME(const Op& op) : s0(static_cast<T>(op.scalar[0])), s1(static_cast<T>(op.scalar[1])) {}

// The compiler's vectors.
#define ONE(NAME, RESULT, EXPRESSION)                               \
  template <typename T>                                             \
  struct NAME {                                                     \
    static constexpr bool vectorized = false;                       \
    NUMBERS(NAME)                                                   \
    inline RESULT operator()(T x) const { return EXPRESSION; }      \
  };

#define TWO(NAME, RESULT, EXPRESSION)                               \
  template <typename T>                                             \
  struct NAME {                                                     \
    static constexpr bool vectorized = false;                       \
    NUMBERS(NAME)                                                   \
    inline RESULT operator()(T x, T y) const { return EXPRESSION; } \
  };

// Vectors by name, of functions that the compiler has none for.
#define ONE_OF_LANES(NAME, EXPRESSION)         \
  template <typename T>                        \
  struct NAME {                                \
    static constexpr bool vectorized = true;   \
    NUMBERS(NAME)                              \
    template <typename X>                      \
    inline X operator()(X x) const {           \
      return EXPRESSION;                       \
    }                                          \
  };

#define TWO_OF_LANES(NAME, EXPRESSION)         \
  template <typename T>                        \
  struct NAME {                                \
    static constexpr bool vectorized = true;   \
    NUMBERS(NAME)                              \
    template <typename X>                      \
    inline X operator()(X x, X y) const {      \
      return EXPRESSION;                       \
    }                                          \
  };

#define THREE(NAME, FIRST, EXPRESSION)                                  \
  template <typename T>                                                 \
  struct NAME {                                                         \
    using First = FIRST;                                                \
    NUMBERS(NAME)                                                       \
    inline T operator()(FIRST x, T y, T z) const { return EXPRESSION; } \
  };

ONE_OF_LANES(Exp, lanes::exp(x))
ONE_OF_LANES(Log, lanes::log(x))
ONE_OF_LANES(Log1p, lanes::log1p(x))
ONE_OF_LANES(Expm1, lanes::expm1(x))
ONE_OF_LANES(Sqrt, lanes::sqrt(x))
ONE_OF_LANES(Rsqrt, X(1) / lanes::sqrt(x))
ONE_OF_LANES(Tanh, lanes::tanh(x))
ONE_OF_LANES(Sigmoid, X(1) / (X(1) + lanes::exp(X(0) - x)))
ONE_OF_LANES(Sin, lanes::sin(x))
ONE_OF_LANES(Cos, lanes::cos(x))
ONE_OF_LANES(Erf, lanes::erf(x))
ONE_OF_LANES(Erfc, lanes::erfc(x))
ONE_OF_LANES(Lgamma, lanes::lgamma(x))
ONE_OF_LANES(Digamma, lanes::digamma(x))
ONE_OF_LANES(Silu, x / (X(1) + lanes::exp(X(0) - x)))
ONE_OF_LANES(Softplus, lanes::where(x * X(s0) > X(s1), x, lanes::log1p(lanes::exp(x* X(s0))) / X(s0)))
ONE_OF_LANES(LogSigmoid, lanes::where(x < X(0), x, X(0)) - lanes::log1p(lanes::exp(X(0) - lanes::abs(x))))
ONE(Neg, T, -x)
ONE(Reciprocal, T, T(1) / x)
ONE_OF_LANES(Abs, lanes::abs(x))
ONE(Sign, T, T((x > 0) - (x < 0)))
ONE(Tan, T, std::tan(x))
ONE(Atan, T, std::atan(x))
ONE(Asin, T, std::asin(x))
ONE(Acos, T, std::acos(x))
ONE(Sinh, T, std::sinh(x))
ONE(Cosh, T, std::cosh(x))
ONE(Log2, T, std::log2(x))
ONE(Log10, T, std::log10(x))
ONE(Exp2, T, std::exp2(x))
ONE(Floor, T, std::floor(x))
ONE(Ceil, T, std::ceil(x))
ONE(Trunc, T, std::trunc(x))
ONE(Round, T, std::nearbyint(x))
ONE(Relu, T, (x < 0 ? T(0) : x))
ONE(ClampMin, T, (x < s0 ? s0 : x))
ONE(ClampMax, T, (x > s1 ? s1 : x))
ONE(Clamp, T, (x < s0 ? s0 : (x > s1 ? s1 : x)))
ONE(LeakyRelu, T, (x > 0 ? x : x * s0))
ONE(LogicalNot, bool, x == T(0))
ONE(IsNan, bool, x != x)
ONE(IsInf, bool, x == std::numeric_limits<T>::infinity() || x == -std::numeric_limits<T>::infinity())

TWO_OF_LANES(Pow, lanes::pow(x, y))
TWO_OF_LANES(Xlogy, lanes::where((x == X(0)) & (y == y), X(0), x* lanes::log(y)))
TWO_OF_LANES(SoftplusBackward, lanes::where(y * X(s0) > X(s1), x, x / (X(1) + lanes::exp(X(0) - y * X(s0)))))
TWO_OF_LANES(LogSigmoidBackward, x / (X(1) + lanes::exp(y)))
// - log p(y) of a Bernoulli with logits x
TWO_OF_LANES(CrossEntropy,
             lanes::where(x < X(0), X(0), x) - x * y + lanes::log1p(lanes::exp(X(0) - lanes::abs(x))))
TWO(Add, T, x + s0 * y)
TWO(Plus, T, x + y)
TWO(Sub, T, x - s0 * y)
TWO(Rsub, T, y - s0 * x)
TWO(Mul, T, x* y)
TWO(Div, T, x / y)
TWO(Maximum, T, (x != x || x > y ? x : y))
TWO(Minimum, T, (x != x || x < y ? x : y))
TWO(Atan2, T, std::atan2(x, y))
TWO(Eq, bool, x == y)
TWO(Ne, bool, x != y)
TWO(Lt, bool, x < y)
TWO(Le, bool, x <= y)
TWO(Gt, bool, x > y)
TWO(Ge, bool, x >= y)
TWO(And, bool, (x != T(0)) && (y != T(0)))
TWO(Or, bool, (x != T(0)) || (y != T(0)))
TWO(Xor, bool, (x != T(0)) != (y != T(0)))
TWO(ThresholdBackward, T, (y <= s0 ? T(0) : x))
TWO(TanhBackward, T, x*(T(1) - y * y))
TWO(SigmoidBackward, T, x * y * (T(1) - y))
TWO(LeakyReluBackward, T, (y > 0 ? x : x * s0))

THREE(Where, bool, x ? y : z)
THREE(Addcmul, T, x + s0 * y * z)
THREE(Addcdiv, T, x + s0 * y / z)
THREE(Lerp, T, x + z * (y - x))

template <typename R, typename T>
struct Cast {
  static constexpr bool vectorized = false;
  explicit Cast(const Op&) {}
  inline R operator()(T x) const {
    if constexpr (std::is_same_v<R, bool>)
      return x != T(0);
    else
      return static_cast<R>(x);
  }
};

}  // namespace

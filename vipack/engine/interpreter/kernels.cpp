// An interpreter of small tensor operations: a program is an array of Op, each with its memory and strides resolved,
// run from top to bottom, thousands of times in one call. An operation on a few numbers costs about ten nanoseconds.

#include <torch/csrc/inductor/cpp_prefix.h>

#include <string>
#include <utility>
#include <vector>

#include "vipack/engine/inductor/gamma_functions.h"
#include "vipack/engine/native/normals.h"

namespace {

struct Op {
  int64_t code;
  int64_t ndim;
  int64_t size[4];
  char* out;
  char* in[3];
  int64_t so[4];
  int64_t si[3][4];
  double scalar[2];
  int64_t extra[4];
  int64_t skip;  // to the next operation of this level
  int (*function)(const Op&);
};

struct Runtime {
  int (*library)(void*, int64_t);
  void* table;
  int64_t turn;  // of the innermost loop
};

thread_local Runtime runtime;

template <typename T>
using Vec = at::vec::Vectorized<T>;

template <typename T>
inline T* as(char* p) {
  return reinterpret_cast<T*>(p);
}

// --- elementwise

// Calls body(o, a, b, c) with the offsets of each innermost row.
template <typename Body>
inline void rows(const Op& op, Body body) {
  const int64_t last = op.ndim - 1;
  if (last == 0) {
    body(0, 0, 0, 0);
    return;
  }
  int64_t index[4] = {0, 0, 0, 0};
  int64_t o = 0, a = 0, b = 0, c = 0;
  while (true) {
    body(o, a, b, c);
    int64_t d = last - 1;
    for (; d >= 0; --d) {
      o += op.so[d], a += op.si[0][d], b += op.si[1][d], c += op.si[2][d];
      if (++index[d] < op.size[d]) break;
      o -= op.so[d] * op.size[d], a -= op.si[0][d] * op.size[d], b -= op.si[1][d] * op.size[d],
          c -= op.si[2][d] * op.size[d];
      index[d] = 0;
    }
    if (d < 0) return;
  }
}

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
      int64_t i = 0;
      if constexpr (F::vectorized) {
        for (; i + Vec<T>::size() <= n; i += Vec<T>::size()) f(Vec<T>::loadu(x + i)).store(out + i);
        if (n - i > 2) f(Vec<T>::loadu(x + i, n - i)).store(out + i, n - i), i = n;
      }
      for (; i < n; ++i) out[i] = f(x[i]);
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
    } else if (so == 1 && sa == 1 && sb == 1) {
      for (int64_t i = 0; i < n; ++i) out[i] = f(x[i], y[i]);
    } else if (so == 1 && sa == 1 && sb == 0) {
      const T s = y[0];
      for (int64_t i = 0; i < n; ++i) out[i] = f(x[i], s);
    } else if (so == 1 && sa == 0 && sb == 1) {
      const T s = x[0];
      for (int64_t i = 0; i < n; ++i) out[i] = f(s, y[i]);
    } else {
      for (int64_t i = 0; i < n; ++i) out[i * so] = f(x[i * sa], y[i * sb]);
    }
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
    for (int64_t i = 0; i < n; ++i) out[i * so] = f(x[i * sa], y[i * sb], z[i * sc]);
  });
  return 0;
}

#define SCALAR(NAME, EXPRESSION)                                                                        \
  template <typename T>                                                                                 \
  struct NAME {                                                                                         \
    static constexpr bool vectorized = false;                                                           \
    const T s0, s1;                                                                                     \
    explicit NAME(const Op& op) : s0(static_cast<T>(op.scalar[0])), s1(static_cast<T>(op.scalar[1])) {} \
    inline T operator()(T x) const { return EXPRESSION; }                                               \
  };

#define VECTOR(NAME, EXPRESSION, VECTOR_EXPRESSION)                        \
  template <typename T>                                                    \
  struct NAME {                                                            \
    static constexpr bool vectorized = true;                               \
    explicit NAME(const Op&) {}                                            \
    inline T operator()(T x) const { return EXPRESSION; }                  \
    inline Vec<T> operator()(Vec<T> x) const { return VECTOR_EXPRESSION; } \
  };

#define PREDICATE(NAME, EXPRESSION)                          \
  template <typename T>                                      \
  struct NAME {                                              \
    static constexpr bool vectorized = false;                \
    explicit NAME(const Op&) {}                              \
    inline bool operator()(T x) const { return EXPRESSION; } \
  };

#define PAIR(NAME, RESULT, EXPRESSION)                                                                  \
  template <typename T>                                                                                 \
  struct NAME {                                                                                         \
    const T s0, s1;                                                                                     \
    explicit NAME(const Op& op) : s0(static_cast<T>(op.scalar[0])), s1(static_cast<T>(op.scalar[1])) {} \
    inline RESULT operator()(T x, T y) const { return EXPRESSION; }                                     \
  };

#define TRIPLE(NAME, FIRST, EXPRESSION)                                 \
  template <typename T>                                                 \
  struct NAME {                                                         \
    using First = FIRST;                                                \
    const T s0;                                                         \
    explicit NAME(const Op& op) : s0(static_cast<T>(op.scalar[0])) {}   \
    inline T operator()(FIRST x, T y, T z) const { return EXPRESSION; } \
  };

template <typename T>
inline T digamma_of(T given) {
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

VECTOR(Neg, -x, x.neg())
VECTOR(Exp, std::exp(x), x.exp())
VECTOR(Log, std::log(x), x.log())
VECTOR(Log1p, std::log1p(x), x.log1p())
VECTOR(Expm1, std::expm1(x), x.expm1())
VECTOR(Sqrt, std::sqrt(x), x.sqrt())
VECTOR(Reciprocal, 1 / x, x.reciprocal())
VECTOR(Tanh, std::tanh(x), x.tanh())
VECTOR(Sigmoid, 1 / (1 + std::exp(-x)), (Vec<T>(1) + x.neg().exp()).reciprocal())
VECTOR(Sin, std::sin(x), x.sin())
VECTOR(Cos, std::cos(x), x.cos())
VECTOR(Erf, std::erf(x), x.erf())
VECTOR(Lgamma, std::lgamma(x), x.lgamma())
SCALAR(Rsqrt, 1 / std::sqrt(x))
SCALAR(Abs, std::abs(x))
SCALAR(Sign, T((x > 0) - (x < 0)))
SCALAR(Tan, std::tan(x))
SCALAR(Atan, std::atan(x))
SCALAR(Asin, std::asin(x))
SCALAR(Acos, std::acos(x))
SCALAR(Sinh, std::sinh(x))
SCALAR(Cosh, std::cosh(x))
SCALAR(Erfc, std::erfc(x))
SCALAR(Log2, std::log2(x))
SCALAR(Log10, std::log10(x))
SCALAR(Exp2, std::exp2(x))
VECTOR(Digamma, digamma_of(x), digamma_of_lanes(x))
SCALAR(Floor, std::floor(x))
SCALAR(Ceil, std::ceil(x))
SCALAR(Trunc, std::trunc(x))
SCALAR(Round, std::nearbyint(x))
SCALAR(Relu, (x < 0 ? T(0) : x))
SCALAR(Silu, x / (1 + std::exp(-x)))
SCALAR(Softplus, (x * s0 > s1 ? x : std::log1p(std::exp(x * s0)) / s0))
SCALAR(ClampMin, (x < s0 ? s0 : x))
SCALAR(ClampMax, (x > s1 ? s1 : x))
SCALAR(Clamp, (x < s0 ? s0 : (x > s1 ? s1 : x)))
SCALAR(LeakyRelu, (x > 0 ? x : x * s0))
SCALAR(LogSigmoid, (std::min(x, T(0)) - std::log1p(std::exp(-std::abs(x)))))
PREDICATE(LogicalNot, x == T(0))
PREDICATE(IsNan, x != x)
PREDICATE(IsInf, x == std::numeric_limits<T>::infinity() || x == -std::numeric_limits<T>::infinity())

PAIR(Add, T, x + s0 * y)
PAIR(Plus, T, x + y)
PAIR(Sub, T, x - s0 * y)
PAIR(Rsub, T, y - s0 * x)
PAIR(Mul, T, x* y)
PAIR(Div, T, x / y)
PAIR(Pow, T, std::pow(x, y))
PAIR(Maximum, T, (x != x || x > y ? x : y))
PAIR(Minimum, T, (x != x || x < y ? x : y))
PAIR(Atan2, T, std::atan2(x, y))
PAIR(Xlogy, T, (x == 0 && y == y ? T(0) : x * std::log(y)))
PAIR(Eq, bool, x == y)
PAIR(Ne, bool, x != y)
PAIR(Lt, bool, x < y)
PAIR(Le, bool, x <= y)
PAIR(Gt, bool, x > y)
PAIR(Ge, bool, x >= y)
PAIR(And, bool, (x != T(0)) && (y != T(0)))
PAIR(Or, bool, (x != T(0)) || (y != T(0)))
PAIR(Xor, bool, (x != T(0)) != (y != T(0)))
PAIR(ThresholdBackward, T, (y <= s0 ? T(0) : x))
PAIR(TanhBackward, T, x*(T(1) - y * y))
PAIR(SigmoidBackward, T, x * y * (T(1) - y))
PAIR(SoftplusBackward, T, (y * s0 > s1 ? x : x / (T(1) + std::exp(-y * s0))))
PAIR(LeakyReluBackward, T, (y > 0 ? x : x * s0))
PAIR(LogSigmoidBackward, T, x / (T(1) + std::exp(y)))

TRIPLE(Where, bool, x ? y : z)
TRIPLE(Addcmul, T, x + s0 * y * z)
TRIPLE(Addcdiv, T, x + s0 * y / z)
TRIPLE(Lerp, T, x + z * (y - x))

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

// --- reductions: kept dimensions are size[0..1], reduced ones size[2..3]

template <typename T>
inline T sum_of(const T* x, const Op& op) {
  const int64_t n = op.size[3], s = op.si[0][3];
  T total = 0;
  for (int64_t r = 0; r < op.size[2]; ++r, x += op.si[0][2]) {
    T part = 0;
    if (s == 1) {
      int64_t i = 0;
      if (n >= Vec<T>::size()) {
        Vec<T> lanes(0);
        for (; i + Vec<T>::size() <= n; i += Vec<T>::size()) lanes = lanes + Vec<T>::loadu(x + i);
        T each[Vec<T>::size()];
        lanes.store(each);
        for (int j = 0; j < Vec<T>::size(); ++j) part += each[j];
      }
      for (; i < n; ++i) part += x[i];
    } else {
      for (int64_t i = 0; i < n; ++i) part += x[i * s];
    }
    total += part;
  }
  return total;
}

template <typename T, typename F>
inline void kept(const Op& op, F f) {
  for (int64_t i = 0; i < op.size[0]; ++i)
    for (int64_t j = 0; j < op.size[1]; ++j)
      f(as<T>(op.in[0]) + i * op.si[0][0] + j * op.si[0][1], i * op.so[0] + j * op.so[1]);
}

// Each of the numbers that are reduced to one, with its offset in an output of the same shape.
template <typename T, typename F>
inline void reduced(const T* x, const Op& op, F f) {
  for (int64_t r = 0; r < op.size[2]; ++r)
    for (int64_t i = 0; i < op.size[3]; ++i) f(x[r * op.si[0][2] + i * op.si[0][3]], r * op.so[2] + i * op.so[3]);
}

template <typename T>
int sum(const Op& op) {
  const T scale = static_cast<T>(op.scalar[0]);
  constexpr int64_t block = 64;
  if (op.si[0][1] == 1 && op.size[1] >= 4 && op.so[1] == 1) {  // add up rows
    for (int64_t i = 0; i < op.size[0]; ++i)
      for (int64_t first = 0; first < op.size[1]; first += block) {
        const int64_t n = std::min(block, op.size[1] - first);
        const T* x = as<T>(op.in[0]) + i * op.si[0][0] + first;
        T* out = as<T>(op.out) + i * op.so[0] + first;
        T total[block] = {};
        for (int64_t r = 0; r < op.size[2]; ++r)
          for (int64_t q = 0; q < op.size[3]; ++q) {
            const T* row = x + r * op.si[0][2] + q * op.si[0][3];
            for (int64_t j = 0; j < n; ++j) total[j] += row[j];
          }
        for (int64_t j = 0; j < n; ++j) out[j] = total[j] * scale;
      }
    return 0;
  }
  kept<T>(op, [&](const T* x, int64_t o) { as<T>(op.out)[o] = sum_of(x, op) * scale; });
  return 0;
}

template <typename T>
int sum_of_integers(const Op& op) {
  kept<T>(op, [&](const T* x, int64_t o) {
    int64_t total = 0;
    reduced(x, op, [&](T v, int64_t) { total += v; });
    as<int64_t>(op.out)[o] = total;
  });
  return 0;
}

template <typename T>
int prod(const Op& op) {
  kept<T>(op, [&](const T* x, int64_t o) {
    T total = 1;
    reduced(x, op, [&](T v, int64_t) { total *= v; });
    as<T>(op.out)[o] = total;
  });
  return 0;
}

template <typename T>
inline T max_of(const T* x, const Op& op) {
  T most = x[0];
  reduced(x, op, [&](T v, int64_t) { most = most != most || most > v ? most : v; });
  return most;
}

template <typename T>
int amax(const Op& op) {
  kept<T>(op, [&](const T* x, int64_t o) { as<T>(op.out)[o] = max_of(x, op); });
  return 0;
}

template <typename T>
int argmax(const Op& op) {
  kept<T>(op, [&](const T* x, int64_t o) {
    T most = x[0];
    int64_t place = 0, found = 0;
    reduced(x, op, [&](T v, int64_t) {
      if (v > most || (v != v && most == most)) most = v, found = place;
      ++place;
    });
    as<int64_t>(op.out)[o] = found;
  });
  return 0;
}

template <typename T>
int amin(const Op& op) {
  kept<T>(op, [&](const T* x, int64_t o) {
    T least = x[0];
    reduced(x, op, [&](T v, int64_t) { least = least != least || least < v ? least : v; });
    as<T>(op.out)[o] = least;
  });
  return 0;
}

int all_of(const Op& op) {
  kept<bool>(op, [&](const bool* x, int64_t o) {
    bool found = true;
    reduced(x, op, [&](bool v, int64_t) { found = found && v; });
    as<bool>(op.out)[o] = found;
  });
  return 0;
}

int any_of(const Op& op) {
  kept<bool>(op, [&](const bool* x, int64_t o) {
    bool found = false;
    reduced(x, op, [&](bool v, int64_t) { found = found || v; });
    as<bool>(op.out)[o] = found;
  });
  return 0;
}

template <typename T>
inline T logsumexp_of(const T* x, const Op& op) {
  const T most = max_of(x, op);
  if (!std::isfinite(most)) return most;
  T total = 0;
  if (op.si[0][3] == 1) {
    for (int64_t r = 0; r < op.size[2]; ++r) {
      const T* row = x + r * op.si[0][2];
      int64_t i = 0;
      if (op.size[3] >= Vec<T>::size()) {
        Vec<T> lanes(0);
        for (; i + Vec<T>::size() <= op.size[3]; i += Vec<T>::size())
          lanes = lanes + (Vec<T>::loadu(row + i) - Vec<T>(most)).exp();
        T each[Vec<T>::size()];
        lanes.store(each);
        for (int j = 0; j < Vec<T>::size(); ++j) total += each[j];
      }
      for (; i < op.size[3]; ++i) total += std::exp(row[i] - most);
    }
  } else {
    reduced(x, op, [&](T v, int64_t) { total += std::exp(v - most); });
  }
  return most + std::log(total);
}

template <typename T>
int logsumexp(const Op& op) {
  kept<T>(op, [&](const T* x, int64_t o) { as<T>(op.out)[o] = logsumexp_of(x, op); });
  return 0;
}

template <typename T>
int log_softmax(const Op& op) {
  kept<T>(op, [&](const T* x, int64_t o) {
    const T total = logsumexp_of(x, op);
    reduced(x, op, [&](T v, int64_t place) { as<T>(op.out)[o + place] = v - total; });
  });
  return 0;
}

template <typename T>
int softmax(const Op& op) {
  kept<T>(op, [&](const T* x, int64_t o) {
    const T total = logsumexp_of(x, op);
    reduced(x, op, [&](T v, int64_t place) { as<T>(op.out)[o + place] = std::exp(v - total); });
  });
  return 0;
}

// in[0] is the gradient, in[1] the output of the forward pass.
template <typename T, bool Log>
int softmax_backward(const Op& op) {
  for (int64_t i = 0; i < op.size[0]; ++i)
    for (int64_t j = 0; j < op.size[1]; ++j) {
      const T* g = as<T>(op.in[0]) + i * op.si[0][0] + j * op.si[0][1];
      const T* y = as<T>(op.in[1]) + i * op.si[1][0] + j * op.si[1][1];
      T* out = as<T>(op.out) + i * op.so[0] + j * op.so[1];
      T total = 0;
      const auto each = [&](auto f) {
        for (int64_t r = 0; r < op.size[2]; ++r)
          for (int64_t q = 0; q < op.size[3]; ++q)
            f(g[r * op.si[0][2] + q * op.si[0][3]], y[r * op.si[1][2] + q * op.si[1][3]], r * op.so[2] + q * op.so[3]);
      };
      each([&](T a, T b, int64_t) { total += Log ? a : a * b; });
      each([&](T a, T b, int64_t o) { out[o] = Log ? a - std::exp(b) * total : b * (a - total); });
    }
  return 0;
}

template <typename T>
int cumprod(const Op& op) {
  kept<T>(op, [&](const T* x, int64_t o) {
    T total = 1;
    reduced(x, op, [&](T v, int64_t place) { as<T>(op.out)[o + place] = total *= v; });
  });
  return 0;
}

template <typename T>
int cumsum(const Op& op) {
  kept<T>(op, [&](const T* x, int64_t o) {
    T total = 0;
    reduced(x, op, [&](T v, int64_t place) { as<T>(op.out)[o + place] = total += v; });
  });
  return 0;
}

// --- matrices: size is batch, rows, columns, inner; strides are by batch, row, column

template <typename T>
int matmul(const Op& op) {
  const T beta = static_cast<T>(op.scalar[0]), alpha = static_cast<T>(op.scalar[1]);
  const int64_t m = op.size[1], n = op.size[2], k = op.size[3];
  const int64_t *sa = op.si[0], *sb = op.si[1], *sc = op.so, *sp = op.si[2];
  const bool added = op.in[2] != nullptr;
  for (int64_t g = 0; g < op.size[0]; ++g) {
    const T* a = as<T>(op.in[0]) + g * sa[0];
    const T* b = as<T>(op.in[1]) + g * sb[0];
    const T* p = added ? as<T>(op.in[2]) + g * sp[0] : nullptr;
    T* c = as<T>(op.out) + g * sc[0];
    const auto place = [&](int64_t i, int64_t j, T value) {
      c[i * sc[1] + j * sc[2]] = alpha * value + (added ? beta * p[i * sp[1] + j * sp[2]] : T(0));
    };
    if (sb[2] == 1 && n > 1) {  // rows of b
      for (int64_t i = 0; i < m; ++i)
        for (int64_t first = 0; first < n; first += 64) {
          const int64_t width = std::min<int64_t>(64, n - first);
          T total[64] = {};
          for (int64_t l = 0; l < k; ++l) {
            const T x = a[i * sa[1] + l * sa[2]];
            const T* row = b + l * sb[1] + first;
            for (int64_t j = 0; j < width; ++j) total[j] += x * row[j];
          }
          for (int64_t j = 0; j < width; ++j) place(i, first + j, total[j]);
        }
    } else if (sa[1] == 1 && m > 1) {  // columns of a
      for (int64_t j = 0; j < n; ++j)
        for (int64_t first = 0; first < m; first += 64) {
          const int64_t width = std::min<int64_t>(64, m - first);
          T total[64] = {};
          for (int64_t l = 0; l < k; ++l) {
            const T y = b[l * sb[1] + j * sb[2]];
            const T* column = a + l * sa[2] + first;
            for (int64_t i = 0; i < width; ++i) total[i] += y * column[i];
          }
          for (int64_t i = 0; i < width; ++i) place(first + i, j, total[i]);
        }
    } else {
      for (int64_t i = 0; i < m; ++i)
        for (int64_t j = 0; j < n; ++j) {
          T total = 0;
          const T* x = a + i * sa[1];
          const T* y = b + j * sb[2];
          if (sa[2] == 1 && sb[1] == 1) {
            int64_t l = 0;
            if (k >= Vec<T>::size()) {
              Vec<T> lanes(0);
              for (; l + Vec<T>::size() <= k; l += Vec<T>::size())
                lanes = at::vec::fmadd(Vec<T>::loadu(x + l), Vec<T>::loadu(y + l), lanes);
              T each[Vec<T>::size()];
              lanes.store(each);
              for (int q = 0; q < Vec<T>::size(); ++q) total += each[q];
            }
            for (; l < k; ++l) total += x[l] * y[l];
          } else {
            for (int64_t l = 0; l < k; ++l) total += x[l * sa[2]] * y[l * sb[1]];
          }
          place(i, j, total);
        }
    }
  }
  return 0;
}

// a x = b for triangular a: size is batch, n, width; extra[0] says upper, extra[1] unit diagonal.
template <typename T>
int solve_triangular(const Op& op) {
  const int64_t n = op.size[1], width = op.size[2];
  const int64_t *sa = op.si[0], *sb = op.si[1], *sx = op.so;
  for (int64_t g = 0; g < op.size[0]; ++g) {
    const T* a = as<T>(op.in[0]) + g * sa[0];
    const T* b = as<T>(op.in[1]) + g * sb[0];
    T* x = as<T>(op.out) + g * sx[0];
    for (int64_t w = 0; w < width; ++w)
      for (int64_t step = 0; step < n; ++step) {
        const int64_t i = op.extra[0] ? n - 1 - step : step;
        T rest = b[i * sb[1] + w * sb[2]];
        const int64_t from = op.extra[0] ? i + 1 : 0, to = op.extra[0] ? n : i;
        for (int64_t j = from; j < to; ++j) rest -= a[i * sa[1] + j * sa[2]] * x[j * sx[1] + w * sx[2]];
        x[i * sx[1] + w * sx[2]] = op.extra[1] ? rest : rest / a[i * sa[1] + i * sa[2]];
      }
  }
  return 0;
}

// The lower Cholesky factor: size is batch, n; NaN where a is not positive definite.
template <typename T>
int cholesky(const Op& op) {
  const int64_t n = op.size[1];
  const int64_t *sa = op.si[0], *sl = op.so;
  for (int64_t g = 0; g < op.size[0]; ++g) {
    const T* a = as<T>(op.in[0]) + g * sa[0];
    T* l = as<T>(op.out) + g * sl[0];
    for (int64_t i = 0; i < n; ++i)
      for (int64_t j = 0; j < n; ++j) {
        if (j > i) {
          l[i * sl[1] + j * sl[2]] = 0;
          continue;
        }
        T rest = a[i * sa[1] + j * sa[2]];
        for (int64_t q = 0; q < j; ++q) rest -= l[i * sl[1] + q * sl[2]] * l[j * sl[1] + q * sl[2]];
        l[i * sl[1] + j * sl[2]] = i == j ? std::sqrt(rest) : rest / l[j * sl[1] + j * sl[2]];
      }
  }
  return 0;
}

// Keeps one triangle: size is batch, rows, columns; extra[0] the diagonal, extra[1] says upper.
template <typename T>
int triangle(const Op& op) {
  for (int64_t g = 0; g < op.size[0]; ++g)
    for (int64_t i = 0; i < op.size[1]; ++i)
      for (int64_t j = 0; j < op.size[2]; ++j) {
        const bool keep = op.extra[1] ? j - i >= op.extra[0] : j - i <= op.extra[0];
        as<T>(op.out)[g * op.so[0] + i * op.so[1] + j * op.so[2]] =
            keep ? as<T>(op.in[0])[g * op.si[0][0] + i * op.si[0][1] + j * op.si[0][2]] : T(0);
      }
  return 0;
}

// --- rows by number: in[1] and in[2] are indices with strides extra[0], extra[1] along in[0] (gather) or out
// (scatter); extra[2], extra[3] are the sizes that negative indices count from

inline int64_t wrapped(int64_t index, int64_t size) { return index < 0 ? index + size : index; }

template <typename Body>
inline void indexed(const Op& op, Body body) {
  const int64_t last = op.ndim - 1, n = op.size[last];
  rows(op, [&](int64_t o, int64_t a, int64_t b, int64_t c) {
    const int64_t* first = as<int64_t>(op.in[1]) + b;
    const int64_t* second = op.in[2] ? as<int64_t>(op.in[2]) + c : nullptr;
    for (int64_t i = 0; i < n; ++i) {
      int64_t shift = wrapped(first[i * op.si[1][last]], op.extra[2]) * op.extra[0];
      if (second) shift += wrapped(second[i * op.si[2][last]], op.extra[3]) * op.extra[1];
      body(o + i * op.so[last], a + i * op.si[0][last], shift);
    }
  });
}

template <typename T>
int gather(const Op& op) {
  indexed(op, [&](int64_t o, int64_t a, int64_t shift) { as<T>(op.out)[o] = as<T>(op.in[0])[a + shift]; });
  return 0;
}

template <typename T>
int scatter(const Op& op) {
  indexed(op, [&](int64_t o, int64_t a, int64_t shift) { as<T>(op.out)[o + shift] = as<T>(op.in[0])[a]; });
  return 0;
}

template <typename T>
int scatter_add(const Op& op) {
  indexed(op, [&](int64_t o, int64_t a, int64_t shift) { as<T>(op.out)[o + shift] += as<T>(op.in[0])[a]; });
  return 0;
}

int library(const Op& op) { return runtime.library(runtime.table, op.extra[0]); }

// --- loops over time: extra is how many operations, how many turns, and whether the last comes first

inline int run(const Op* first, const Op* end) {
  for (const Op* op = first; op < end; op += op->skip)
    if (op->function(*op)) return 1;
  return 0;
}

int repeat(const Op& op) {
  const int64_t outer = runtime.turn;
  for (int64_t t = 0; t < op.extra[1]; ++t) {
    runtime.turn = op.extra[2] ? op.extra[1] - 1 - t : t;
    if (run(&op + 1, &op + 1 + op.extra[0])) return 1;
  }
  runtime.turn = outer;
  return 0;
}

// extra is how many bytes, and how far apart they are from turn to turn
int load(const Op& op) {
  std::memcpy(op.out, op.in[0] + runtime.turn * op.extra[1], op.extra[0]);
  return 0;
}

int store(const Op& op) {
  std::memcpy(op.out + runtime.turn * op.extra[1], op.in[0], op.extra[0]);
  return 0;
}

// --- names

using Function = int (*)(const Op&);
using Entry = std::pair<std::string, Function>;

template <typename T>
void floating(std::vector<Entry>& all, const std::string& t) {
#define UNARY(NAME, F) all.emplace_back(NAME "_" + t, unary<T, T, F<T>>);
  UNARY("neg", Neg)
  UNARY("exp", Exp) UNARY("log", Log) UNARY("log1p", Log1p) UNARY("expm1", Expm1) UNARY("sqrt", Sqrt) UNARY(
      "rsqrt", Rsqrt) UNARY("reciprocal", Reciprocal) UNARY("tanh", Tanh) UNARY("sigmoid", Sigmoid) UNARY("sin", Sin)
      UNARY("cos", Cos) UNARY("erf", Erf) UNARY("lgamma", Lgamma) UNARY("abs", Abs) UNARY("sign", Sign) UNARY(
          "tan", Tan) UNARY("atan", Atan) UNARY("asin", Asin) UNARY("acos", Acos) UNARY("sinh", Sinh)
          UNARY("cosh", Cosh) UNARY("erfc", Erfc) UNARY("log2", Log2) UNARY("log10", Log10) UNARY("exp2", Exp2) UNARY(
              "digamma", Digamma) UNARY("floor", Floor) UNARY("ceil", Ceil) UNARY("trunc", Trunc) UNARY("round", Round)
              UNARY("silu", Silu) UNARY("softplus", Softplus) UNARY("clamp_min", ClampMin) UNARY("clamp_max", ClampMax)
                  UNARY("clamp", Clamp) UNARY("leaky_relu", LeakyRelu) UNARY("log_sigmoid", LogSigmoid)
#define PREDICATED(NAME, F) all.emplace_back(NAME "_" + t, unary<bool, T, F<T>>);
                      PREDICATED("isnan", IsNan) PREDICATED("isinf", IsInf)
#define BINARY(NAME, F) all.emplace_back(NAME "_" + t, binary<T, T, F<T>>);
                          BINARY("div", Div) BINARY("pow", Pow) BINARY("atan2", Atan2) BINARY("xlogy", Xlogy) BINARY(
                              "threshold_backward", ThresholdBackward) BINARY("tanh_backward", TanhBackward)
                              BINARY("sigmoid_backward", SigmoidBackward) BINARY("softplus_backward", SoftplusBackward)
                                  BINARY("leaky_relu_backward", LeakyReluBackward) BINARY(
                                      "log_sigmoid_backward", LogSigmoidBackward)
#define TERNARY(NAME, F) all.emplace_back(NAME "_" + t, ternary<T, F<T>>);
                                      TERNARY("addcmul",
                                              Addcmul) TERNARY("addcdiv", Addcdiv)
                                          TERNARY("lerp", Lerp)
#define OTHER(NAME, F) all.emplace_back(NAME "_" + t, F);
                                              OTHER("sum", sum<T>) OTHER("prod", prod<T>)
                                                  OTHER("logsumexp", logsumexp<T>) OTHER("log_softmax", log_softmax<T>)
                                                      OTHER("softmax", softmax<T>)
                                                          OTHER("softmax_backward", (softmax_backward<T, false>))
                                                              OTHER("log_softmax_backward", (softmax_backward<T, true>))
                                                                  OTHER("matmul", matmul<T>)
                                                                      OTHER("solve_triangular", solve_triangular<T>)
                                                                          OTHER("cholesky", cholesky<T>)
                                                                              OTHER("triangle", triangle<T>)
}

template <typename T>
void arithmetic(std::vector<Entry>& all, const std::string& t) {
  BINARY("add", Add)
  BINARY("plus", Plus) BINARY("sub", Sub) BINARY("rsub", Rsub) BINARY("mul", Mul) BINARY("maximum", Maximum)
      BINARY("minimum", Minimum) OTHER("scatter_add", scatter_add<T>) OTHER("cumsum", cumsum<T>)
          OTHER("cumprod", cumprod<T>) OTHER("amax", amax<T>) OTHER("amin", amin<T>) OTHER("argmax", argmax<T>)
              UNARY("relu", Relu)
}

template <typename T>
void any_type(std::vector<Entry>& all, const std::string& t) {
#define COMPARISON(NAME, F) all.emplace_back(NAME "_" + t, binary<bool, T, F<T>>);
  COMPARISON("eq", Eq)
  COMPARISON("ne", Ne) COMPARISON("lt", Lt) COMPARISON("le", Le) COMPARISON("gt", Gt) COMPARISON("ge", Ge)
      COMPARISON("and", And) COMPARISON("or", Or) COMPARISON("xor", Xor) PREDICATED("logical_not", LogicalNot)
          TERNARY("where", Where) OTHER("gather", gather<T>) OTHER("scatter", scatter<T>)
#define CAST(NAME, R) all.emplace_back("copy_" + t + "_" NAME, unary<R, T, Cast<R, T>>);
              CAST("f32", float) CAST("f64", double) CAST("i64", int64_t) CAST("i32", int32_t) CAST("bool", bool)
}

const std::vector<Entry>& kernels() {
  static const std::vector<Entry> found = [] {
    std::vector<Entry> all;
    floating<float>(all, "f32");
    floating<double>(all, "f64");
    arithmetic<float>(all, "f32");
    arithmetic<double>(all, "f64");
    arithmetic<int64_t>(all, "i64");
    any_type<float>(all, "f32");
    any_type<double>(all, "f64");
    any_type<int64_t>(all, "i64");
    any_type<int32_t>(all, "i32");
    any_type<bool>(all, "bool");
    all.emplace_back("sum_bool", sum_of_integers<bool>);
    all.emplace_back("sum_i64", sum_of_integers<int64_t>);
    all.emplace_back("all_bool", all_of);
    all.emplace_back("any_bool", any_of);
    all.emplace_back("library", library);
    all.emplace_back("repeat", repeat);
    all.emplace_back("load", load);
    all.emplace_back("store", store);
    return all;
  }();
  return found;
}

struct Setting {
  int64_t num_ops, num_normals, num_feeds, num_losses, loss_double, stop_at_nan;
  Op* ops;
  char** normals;                // where they go,
  const int64_t* normal_sizes;   // how many,
  const int64_t* normal_double;  // and of which type
  char** fed;
  const int64_t* fed_bytes;
  const char* loss;
  Runtime runtime;
};

}  // namespace

extern "C" {

// Names of the kernels, a line each; a kernel's code is its place.
const char* vipack_kernels() {
  static const std::string names = [] {
    std::string joined;
    for (const auto& entry : kernels()) joined += entry.first + "\n";
    return joined;
  }();
  return names.c_str();
}

int64_t vipack_op_bytes() { return sizeof(Op); }

void vipack_resolve(Setting* s) {
  for (int64_t i = 0; i < s->num_ops; ++i) s->ops[i].function = kernels()[s->ops[i].code].second;
}

// Takes up to `n` steps. Returns the steps taken, of which the last has a loss that is not finite if they are fewer
// than n; or minus the number of the step in which a library call failed.
int64_t vipack_interpret(const Setting* s, int64_t n, const char* const* feeds, double* losses) {
  runtime = s->runtime;
  auto* const generator = at::check_generator<at::CPUGeneratorImpl>(at::detail::getDefaultCPUGenerator());
  for (int64_t k = 0; k < n; ++k) {
    for (int64_t i = 0; i < s->num_feeds; ++i) std::memcpy(s->fed[i], feeds[i] + k * s->fed_bytes[i], s->fed_bytes[i]);
    if (s->num_normals) {
      std::lock_guard<std::mutex> lock(generator->mutex_);
      Called source{generator};
      for (int64_t i = 0; i < s->num_normals; ++i) {
        if (s->normal_double[i])
          normals(as<double>(s->normals[i]), s->normal_sizes[i], source);
        else
          normals(as<float>(s->normals[i]), s->normal_sizes[i], source);
      }
    }
    if (run(s->ops, s->ops + s->num_ops)) return -(k + 1);
    bool finite = true;
    for (int64_t r = 0; r < s->num_losses; ++r) {
      const double loss =
          s->loss_double ? reinterpret_cast<const double*>(s->loss)[r] : reinterpret_cast<const float*>(s->loss)[r];
      losses[k * s->num_losses + r] = loss;
      finite = finite && std::isfinite(loss);
    }
    if (!finite && s->stop_at_nan) return k + 1;
  }
  return n;
}

}  // extern "C"

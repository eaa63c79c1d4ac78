// Along dimensions: kept ones are size[0..1], reduced ones size[2..3].

#pragma once

#include "vipack/engine/interpreter/kernels/elementwise.h"

namespace {

// The sum of what one function gives for vectors and another for the numbers that are left over.
template <typename T, typename Many, typename One>
inline T added(int64_t n, Many many, One one) {
  T total = 0;
  int64_t i = 0;
  if (n >= Vec<T>::size()) {
    Vec<T> sums(0);
    for (; i + Vec<T>::size() <= n; i += Vec<T>::size()) sums = sums + many(i);
    T each[Vec<T>::size()];
    sums.store(each);
    for (int j = 0; j < Vec<T>::size(); ++j) total += each[j];
  }
  for (; i < n; ++i) total += one(i);
  return total;
}

template <typename T>
inline T sum_of(const T* x, const Op& op) {
  const int64_t n = op.size[3], s = op.si[0][3];
  T total = 0;
  for (int64_t r = 0; r < op.size[2]; ++r, x += op.si[0][2]) {
    T part = 0;
    if (s == 1) {
      part = added<T>(n, [&](int64_t i) { return Vec<T>::loadu(x + i); }, [&](int64_t i) { return x[i]; });
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
            VIPACK_SIMD
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
  const auto compare = [&](T v) { most = most != most || most > v ? most : v; };
  if constexpr (std::is_floating_point_v<T>) {
    if (op.si[0][3] == 1 && op.size[3] >= Vec<T>::size()) {
      Vec<T> largest(most);
      for (int64_t r = 0; r < op.size[2]; ++r) {
        const T* row = x + r * op.si[0][2];
        int64_t i = 0;
        for (; i + Vec<T>::size() <= op.size[3]; i += Vec<T>::size())
          largest = at::vec::maximum(largest, Vec<T>::loadu(row + i));
        for (; i < op.size[3]; ++i) compare(row[i]);
      }
      T each[Vec<T>::size()];
      largest.store(each);
      for (T v : each) compare(v);
      return most;
    }
  }
  reduced(x, op, [&](T v, int64_t) { compare(v); });
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
    int64_t position = 0, largest = 0;
    reduced(x, op, [&](T v, int64_t) {
      if (v > most || (v != v && most == most)) most = v, largest = position;
      ++position;
    });
    as<int64_t>(op.out)[o] = largest;
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
    bool all = true;
    reduced(x, op, [&](bool v, int64_t) { all = all && v; });
    as<bool>(op.out)[o] = all;
  });
  return 0;
}

int any_of(const Op& op) {
  kept<bool>(op, [&](const bool* x, int64_t o) {
    bool any = false;
    reduced(x, op, [&](bool v, int64_t) { any = any || v; });
    as<bool>(op.out)[o] = any;
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
      total += added<T>(
          op.size[3], [&](int64_t i) { return (Vec<T>::loadu(row + i) - Vec<T>(most)).exp(); },
          [&](int64_t i) { return std::exp(row[i] - most); });
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

// f of each number along the reduced dimensions.
template <typename T, typename F>
inline void along(const T* x, T* out, const Op& op, F f) {
  for (int64_t r = 0; r < op.size[2]; ++r, x += op.si[0][2], out += op.so[2]) {
    const int64_t n = op.size[3], s = op.si[0][3], so = op.so[3];
    int64_t i = 0;
    if (s == 1 && so == 1)
      for (; i + Vec<T>::size() <= n; i += Vec<T>::size()) f(Vec<T>::loadu(x + i)).store(out + i);
    for (; i < n; ++i) out[i * so] = f(x[i * s]);
  }
}

template <typename T>
int log_softmax(const Op& op) {
  kept<T>(op, [&](const T* x, int64_t o) {
    const T total = logsumexp_of(x, op);
    along(x, as<T>(op.out) + o, op, [&](auto v) { return v - decltype(v)(total); });
  });
  return 0;
}

template <typename T>
int softmax(const Op& op) {
  kept<T>(op, [&](const T* x, int64_t o) {
    const T total = logsumexp_of(x, op);
    along(x, as<T>(op.out) + o, op, [&](auto v) { return lanes::exp(v - decltype(v)(total)); });
  });
  return 0;
}

// in[0] is the gradient, in[1] the output of the forward pass.
template <typename T, bool Log>
int softmax_backward(const Op& op) {
  const int64_t n = op.size[3], sg = op.si[0][3], sy = op.si[1][3], so = op.so[3];
  const bool dense = sg == 1 && sy == 1 && so == 1;
  for (int64_t i = 0; i < op.size[0]; ++i)
    for (int64_t j = 0; j < op.size[1]; ++j) {
      const T* const first_g = as<T>(op.in[0]) + i * op.si[0][0] + j * op.si[0][1];
      const T* const first_y = as<T>(op.in[1]) + i * op.si[1][0] + j * op.si[1][1];
      T* const first_out = as<T>(op.out) + i * op.so[0] + j * op.so[1];
      T total = 0;
      for (int64_t r = 0; r < op.size[2]; ++r) {
        const T *g = first_g + r * op.si[0][2], *y = first_y + r * op.si[1][2];
        const auto term = [](auto a, auto b) { return Log ? a : a * b; };
        if (dense)
          total += added<T>(
              n, [&](int64_t q) { return term(Vec<T>::loadu(g + q), Vec<T>::loadu(y + q)); },
              [&](int64_t q) { return term(g[q], y[q]); });
        else
          for (int64_t q = 0; q < n; ++q) total += term(g[q * sg], y[q * sy]);
      }
      for (int64_t r = 0; r < op.size[2]; ++r) {
        const T *g = first_g + r * op.si[0][2], *y = first_y + r * op.si[1][2];
        T* out = first_out + r * op.so[2];
        const auto result = [&](auto a, auto b) {
          using X = decltype(a);
          if constexpr (Log)
            return a - lanes::exp(b) * X(total);
          else
            return b * (a - X(total));
        };
        int64_t q = 0;
        if (dense)
          for (; q + Vec<T>::size() <= n; q += Vec<T>::size())
            result(Vec<T>::loadu(g + q), Vec<T>::loadu(y + q)).store(out + q);
        for (; q < n; ++q) out[q * so] = result(g[q * sg], y[q * sy]);
      }
    }
  return 0;
}

template <typename T>
int cumprod(const Op& op) {
  kept<T>(op, [&](const T* x, int64_t o) {
    T total = 1;
    reduced(x, op, [&](T v, int64_t shift) { as<T>(op.out)[o + shift] = total *= v; });
  });
  return 0;
}

template <typename T>
int cumsum(const Op& op) {
  kept<T>(op, [&](const T* x, int64_t o) {
    T total = 0;
    reduced(x, op, [&](T v, int64_t shift) { as<T>(op.out)[o + shift] = total += v; });
  });
  return 0;
}

}  // namespace

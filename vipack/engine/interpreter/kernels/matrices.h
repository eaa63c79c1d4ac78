// Matrices: size is batch, rows, columns, inner; strides are by batch, row, column.

#pragma once

#include "vipack/engine/interpreter/kernels/operation.h"

namespace {

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
    const auto write = [&](int64_t i, int64_t j, T value) {
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
            VIPACK_SIMD
            for (int64_t j = 0; j < width; ++j) total[j] += x * row[j];
          }
          for (int64_t j = 0; j < width; ++j) write(i, first + j, total[j]);
        }
    } else if (sa[1] == 1 && m > 1) {  // columns of a
      for (int64_t j = 0; j < n; ++j)
        for (int64_t first = 0; first < m; first += 64) {
          const int64_t width = std::min<int64_t>(64, m - first);
          T total[64] = {};
          for (int64_t l = 0; l < k; ++l) {
            const T y = b[l * sb[1] + j * sb[2]];
            const T* column = a + l * sa[2] + first;
            VIPACK_SIMD
            for (int64_t i = 0; i < width; ++i) total[i] += y * column[i];
          }
          for (int64_t i = 0; i < width; ++i) write(first + i, j, total[i]);
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
          write(i, j, total);
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

}  // namespace

// Matrix operations on few numbers, whose sizes and strides are known when they are compiled.
// Nothing here is seen from outside: several versions may be loaded into one process.

#pragma once

#include <algorithm>
#include <cmath>

#include <ATen/cpu/vec/vec.h>

namespace {

// c = alpha a b + beta p, for B pairs; sizes and strides are known, so that loops are unrolled and vectorized.
template <typename T, int B, int M, int N, int K, int A0, int A1, int A2, int B0, int B1, int B2, int C0, int C1,
          int C2, int P0, int P1, int P2>
inline void product(const T* a, const T* b, T* c, const T* p, double beta, double alpha) {
  for (int g = 0; g < B; ++g, a += A0, b += B0, c += C0, p += P0) {
    if constexpr (N == 1 && A1 == 1 && M > 1) {  // a stands in columns: add them up
      T sum[M] = {};
      for (int l = 0; l < K; ++l)
        for (int i = 0; i < M; ++i) sum[i] += a[i + l * A2] * b[l * B1];
      for (int i = 0; i < M; ++i) c[i * C1] = T(alpha) * sum[i] + (beta != 0 ? T(beta) * p[i * P1] : T(0));
    } else if constexpr (N > 1 && B2 == 1) {  // rows of b
      for (int i = 0; i < M; ++i) {
        T sum[N] = {};
        for (int l = 0; l < K; ++l)
          for (int j = 0; j < N; ++j) sum[j] += a[i * A1 + l * A2] * b[l * B1 + j];
        for (int j = 0; j < N; ++j)
          c[i * C1 + j * C2] = T(alpha) * sum[j] + (beta != 0 ? T(beta) * p[i * P1 + j * P2] : T(0));
      }
    } else {
      for (int i = 0; i < M; ++i)
        for (int j = 0; j < N; ++j) {
          T sum = 0;
#pragma omp simd reduction(+ : sum)
          for (int l = 0; l < K; ++l) sum += a[i * A1 + l * A2] * b[l * B1 + j * B2];
          c[i * C1 + j * C2] = T(alpha) * sum + (beta != 0 ? T(beta) * p[i * P1 + j * P2] : T(0));
        }
    }
  }
}

// a x = b for triangular a, for B pairs.
template <typename T, int B, int N, int W, bool Upper, int A0, int A1, int A2, int B0, int B1, int B2, int X0, int X1,
          int X2>
inline void solve(const T* a, const T* b, T* x) {
  for (int g = 0; g < B; ++g, a += A0, b += B0, x += X0)
    for (int w = 0; w < W; ++w)
      for (int step = 0; step < N; ++step) {
        const int i = Upper ? N - 1 - step : step;
        T rest = b[i * B1 + w * B2];
#pragma omp simd reduction(- : rest)
        for (int j = Upper ? i + 1 : 0; j < (Upper ? N : i); ++j) rest -= a[i * A1 + j * A2] * x[j * X1 + w * X2];
        x[i * X1 + w * X2] = rest / a[i * A1 + i * A2];
      }
}

// The same, for some columns of b at a time, a row of which fills V vectors.
template <typename T, int B, int N, int W, bool Upper, int A0, int A1, int A2, int B0, int B1, int B2, int X0, int X1,
          int X2>
inline void solve_wide(const T* a, const T* b, T* x) {
  using Vec = at::vec::Vectorized<T>;
  constexpr int one = Vec::size(), V = W < 4 * one ? (W + one - 1) / one : 4, C = V * one;
  alignas(64) T part[N][C];
  for (int g = 0; g < B; ++g, a += A0, b += B0, x += X0)
    for (int first = 0; first < W; first += C) {
      const int here = std::min(C, W - first);
      for (int i = 0; i < N; ++i)
        for (int w = 0; w < C; ++w) part[i][w] = w < here ? b[i * B1 + (first + w) * B2] : T(0);
      for (int step = 0; step < N; ++step) {
        const int i = Upper ? N - 1 - step : step;
        Vec rest[V];
        for (int v = 0; v < V; ++v) rest[v] = Vec::loadu(part[i] + v * one);
        for (int j = Upper ? i + 1 : 0; j < (Upper ? N : i); ++j) {
          const Vec factor(-a[i * A1 + j * A2]);
          for (int v = 0; v < V; ++v) rest[v] = at::vec::fmadd(factor, Vec::loadu(part[j] + v * one), rest[v]);
        }
        const Vec pivot(a[i * A1 + i * A2]);
        for (int v = 0; v < V; ++v) (rest[v] / pivot).store(part[i] + v * one);
      }
      for (int i = 0; i < N; ++i)
        for (int w = 0; w < here; ++w) x[i * X1 + (first + w) * X2] = part[i][w];
    }
}

// The lower factor l of a = l l', for B matrices; NaN where a is not positive definite.
template <typename T, int B, int N, int A0, int A1, int A2, int L0, int L1, int L2>
inline void cholesky(const T* a, T* l) {
  for (int g = 0; g < B; ++g, a += A0, l += L0) {
    if constexpr (L1 == 1 && N > 8) {  // l stands in columns
      using Vec = at::vec::Vectorized<T>;
      constexpr int one = Vec::size(), V = (N + one - 1) / one;
      alignas(64) T column[N][V * one] = {};
      for (int j = 0; j < N; ++j) {
        T* const rest = column[j];
        const int from = j / one;
        for (int i = j; i < N; ++i) rest[i] = a[i * A1 + j * A2];
        for (int v = from; v < V; ++v) {
          Vec sums[4] = {Vec::loadu(rest + v * one), Vec(0), Vec(0), Vec(0)};  // a chain would wait for itself
          int q = 0;
          for (; q + 4 <= j; q += 4)
            for (int p = 0; p < 4; ++p)
              sums[p] = at::vec::fmadd(Vec(-column[q + p][j]), Vec::loadu(column[q + p] + v * one), sums[p]);
          for (; q < j; ++q) sums[0] = at::vec::fmadd(Vec(-column[q][j]), Vec::loadu(column[q] + v * one), sums[0]);
          (sums[0] + sums[1] + (sums[2] + sums[3])).store(rest + v * one);
        }
        const T pivot = std::sqrt(rest[j]);
        for (int i = from * one; i < N; ++i) rest[i] = i < j ? T(0) : i == j ? pivot : rest[i] / pivot;
        for (int i = 0; i < N; ++i) l[i + j * L2] = rest[i];
      }
      continue;
    }
    for (int i = 0; i < N; ++i)
      for (int j = 0; j < N; ++j) {
        if (j > i) {
          l[i * L1 + j * L2] = 0;
          continue;
        }
        T rest = a[i * A1 + j * A2];
        for (int q = 0; q < j; ++q) rest -= l[i * L1 + q * L2] * l[j * L1 + q * L2];
        l[i * L1 + j * L2] = i == j ? std::sqrt(rest) : rest / l[j * L1 + j * L2];
      }
  }
}

// Sums or products of the first i of N numbers.
template <bool Product, typename T, typename R, int N, int A, int C>
inline void cumulative(const T* a, R* c) {
  R held = Product ? 1 : 0;
  for (int i = 0; i < N; ++i) {
    held = Product ? held * R(a[i * A]) : held + R(a[i * A]);
    c[i * C] = held;
  }
}

}  // namespace

// Matrix products in which few rows meet many weights, as those of a network on a minibatch: sums in registers, no
// packing. General libraries copy both factors into blocks first (K. Goto and R. van de Geijn, Anatomy of
// High-Performance Matrix Multiplication, ACM TOMS 34:12, 2008), which pays when each is used many times. Here a factor is
// used some sixteen times a step, and copying it costs as much as multiplying by it; the microkernel alone is theirs.
//
// Nothing here is seen from outside: several versions may be loaded into one process.

#pragma once

#include <ATen/Parallel.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define VIPACK_AVX512 __attribute__((target("avx512f")))
#define VIPACK_UNROLL _Pragma("GCC unroll 16")  // so that sums stay in registers
#include <immintrin.h>
#endif

namespace {

struct Matrix {
  float* at;
  int64_t rows, columns, row_stride, column_stride;
};

#ifdef VIPACK_AVX512

constexpr int64_t LANES = 16, ROWS = 8, MOST = 128;  // numbers in a vector, rows of a tile, rows that are few
constexpr int64_t SHARE = 1 << 16;                   // multiplications that are worth a thread

// A tile's r-th row of vectors: the sum over k of scalar[r, k] times vector[k].
struct Panels {
  const float *scalar, *vector;
  int64_t scalar_row, scalar_k, vector_k, vector_next, k;
};

template <int R, int U>
VIPACK_AVX512 __attribute__((always_inline)) inline void microkernel(const Panels s, const __mmask16* mask,
                                                                     __m512* sum) {
  VIPACK_UNROLL
  for (int i = 0; i < R * U; ++i) sum[i] = _mm512_setzero_ps();
  const float *scalar = s.scalar, *vector = s.vector;
  for (int64_t k = s.k; k > 0; --k, scalar += s.scalar_k, vector += s.vector_k) {
    __m512 lanes[U];
    VIPACK_UNROLL
    for (int u = 0; u < U; ++u) lanes[u] = _mm512_maskz_loadu_ps(mask[u], vector + u * s.vector_next);
    VIPACK_UNROLL
    for (int r = 0; r < R; ++r) {
      const __m512 all = _mm512_set1_ps(scalar[r * s.scalar_row]);
      VIPACK_UNROLL
      for (int u = 0; u < U; ++u) sum[r * U + u] = _mm512_fmadd_ps(all, lanes[u], sum[r * U + u]);
    }
  }
}

// A tile whose lanes lie side by side; `plus`, where it has an address, is added to it.
template <int R, int U>
VIPACK_AVX512 void plain_tile(const Panels& s, const Matrix& c, const Matrix& plus, int64_t lanes) {
  __mmask16 mask[U];
  VIPACK_UNROLL
  for (int u = 0; u < U; ++u) mask[u] = static_cast<__mmask16>((1u << std::min(LANES, lanes - u * LANES)) - 1);
  __m512 sum[R * U];
  microkernel<R, U>(s, mask, sum);
  VIPACK_UNROLL
  for (int r = 0; r < R; ++r) VIPACK_UNROLL
  for (int u = 0; u < U; ++u) {
    const int64_t at = r * plus.row_stride + u * LANES;
    if (plus.at) sum[r * U + u] = _mm512_add_ps(sum[r * U + u], _mm512_maskz_loadu_ps(mask[u], plus.at + at));
    _mm512_mask_storeu_ps(c.at + r * c.row_stride + u * LANES, mask[u], sum[r * U + u]);
  }
}

// Entry l of four vectors goes to the four places from `to + l * step` on.
VIPACK_AVX512 __attribute__((always_inline)) inline void transpose(const __m512* four, float* to, int64_t step) {
  const __m512d low = _mm512_castps_pd(_mm512_unpacklo_ps(four[0], four[1]));
  const __m512d high = _mm512_castps_pd(_mm512_unpackhi_ps(four[0], four[1]));
  const __m512d next_low = _mm512_castps_pd(_mm512_unpacklo_ps(four[2], four[3]));
  const __m512d next_high = _mm512_castps_pd(_mm512_unpackhi_ps(four[2], four[3]));
  const __m512 turned[4] = {
      _mm512_castpd_ps(_mm512_unpacklo_pd(low, next_low)), _mm512_castpd_ps(_mm512_unpackhi_pd(low, next_low)),
      _mm512_castpd_ps(_mm512_unpacklo_pd(high, next_high)), _mm512_castpd_ps(_mm512_unpackhi_pd(high, next_high))};
  VIPACK_UNROLL
  for (int q = 0; q < 4; ++q, to += step) {
    _mm_storeu_ps(to, _mm512_castps512_ps128(turned[q]));
    _mm_storeu_ps(to + 4 * step, _mm512_extractf32x4_ps(turned[q], 1));
    _mm_storeu_ps(to + 8 * step, _mm512_extractf32x4_ps(turned[q], 2));
    _mm_storeu_ps(to + 12 * step, _mm512_extractf32x4_ps(turned[q], 3));
  }
}

// A tile whose lanes lie below each other.
template <int R, int U>
VIPACK_AVX512 void transposed_tile(const Panels& s, const Matrix& c, const Matrix& plus, int64_t lanes) {
  constexpr int FOURS = (R + 3) / 4 * 4;
  const __mmask16 mask[2] = {0xffff, 0xffff};
  __m512 sum[FOURS * U];
  VIPACK_UNROLL
  for (int i = R * U; i < FOURS * U; ++i) sum[i] = _mm512_setzero_ps();
  microkernel<R, U>(s, mask, sum);
  alignas(64) float turned[U * LANES * FOURS];
  VIPACK_UNROLL
  for (int u = 0; u < U; ++u) VIPACK_UNROLL
  for (int r = 0; r < FOURS; r += 4) {
    const __m512 four[4] = {sum[r * U + u], sum[(r + 1) * U + u], sum[(r + 2) * U + u], sum[(r + 3) * U + u]};
    transpose(four, turned + u * LANES * FOURS + r, FOURS);
  }
  for (int64_t lane = 0; lane < lanes; ++lane) VIPACK_UNROLL
  for (int r = 0; r < R; ++r) {
    const float more = plus.at ? plus.at[lane * plus.row_stride + r * plus.column_stride] : 0.f;
    c.at[lane * c.row_stride + r] = turned[lane * FOURS + r] + more;
  }
}

// Sixteen rows of a as lanes: one vector for each column, rows that a does not have being zero.
VIPACK_AVX512 void pack(const Matrix& a, float* lanes) {
  const int64_t whole = a.column_stride == 1 && a.rows >= LANES ? a.columns / LANES * LANES : 0;
  for (int64_t k = 0; k < whole; k += LANES)
    for (int64_t r = 0; r < LANES; r += 4) {
      const float* const row = a.at + r * a.row_stride + k;
      __m512 four[4];
      VIPACK_UNROLL
      for (int i = 0; i < 4; ++i) four[i] = _mm512_loadu_ps(row + i * a.row_stride);
      transpose(four, lanes + k * LANES + r, LANES);
    }
  for (int64_t r = 0; r < LANES; ++r)
    for (int64_t k = whole; k < a.columns; ++k)
      lanes[k * LANES + r] = r < a.rows ? a.at[r * a.row_stride + k * a.column_stride] : 0.f;
}

template <bool Transposed, int U, int R = ROWS>
void tile(int64_t rows, const Panels& s, const Matrix& c, const Matrix& plus, int64_t lanes) {
  if constexpr (R > 1) {
    if (rows < R) return tile<Transposed, U, R - 1>(rows, s, c, plus, lanes);
  }
  if constexpr (Transposed)
    transposed_tile<R, U>(s, c, plus, lanes);
  else
    plain_tile<R, U>(s, c, plus, lanes);
}

Matrix from(const Matrix& m, int64_t row, int64_t column) {
  Matrix part = m;
  if (m.at) part.at += row * m.row_stride + column * m.column_stride;
  return part;
}

template <bool Transposed>
void tiles(const Panels& s, int64_t rows, int64_t lanes, const Matrix& c, const Matrix& plus) {
  if (lanes > LANES)
    tile<Transposed, 2>(rows, s, c, plus, lanes);
  else
    tile<Transposed, 1>(rows, s, c, plus, lanes);
}

// Rows of b lie in one piece: they are the vectors.
void multiply_rows(const Matrix& a, const Matrix& b, const Matrix& c, const Matrix& plus) {
  const int64_t vectors = (c.columns + LANES - 1) / LANES, blocks = (c.rows + ROWS - 1) / ROWS;
  const auto part = [&](int64_t block, int64_t vector, int64_t last) {
    const int64_t i = block * ROWS, j = vector * LANES, end = std::min(c.columns, last * LANES);
    const Panels s{a.at + i * a.row_stride, b.at + j, a.row_stride, a.column_stride, b.row_stride, LANES, a.columns};
    tiles<false>(s, std::min(ROWS, c.rows - i), std::min(2 * LANES, end - j), from(c, i, j), from(plus, i, j));
  };
  if (c.rows <= c.columns) {
    at::parallel_for(0, vectors, 1 + SHARE / (c.rows * a.columns * LANES), [&](int64_t begin, int64_t end) {
      for (int64_t vector = begin; vector < end; vector += 2)
        for (int64_t block = 0; block < blocks; ++block) part(block, vector, end);
    });
  } else {
    at::parallel_for(0, blocks, 1 + SHARE / (c.columns * a.columns * ROWS), [&](int64_t begin, int64_t end) {
      for (int64_t block = begin; block < end; ++block)
        for (int64_t vector = 0; vector < vectors; vector += 2) part(block, vector, vectors);
    });
  }
}

// Columns of b lie in one piece. The few rows of a become the lanes, and the product stands on its side.
void multiply_columns(const Matrix& a, const Matrix& b, const Matrix& c, const Matrix& plus) {
  const int64_t k = a.columns, groups = (a.rows + LANES - 1) / LANES, blocks = (c.columns + ROWS - 1) / ROWS;
  at::parallel_for(0, blocks, 1 + SHARE / (a.rows * k * ROWS), [&](int64_t begin, int64_t end) {
    static thread_local std::vector<float> memory;  // of each thread: what another has just written is slow to read
    memory.resize(groups * LANES * k + LANES);
    float* const lanes = reinterpret_cast<float*>((reinterpret_cast<uintptr_t>(memory.data()) + 63) & ~uintptr_t(63));
    for (int64_t group = 0; group < groups; ++group) {
      Matrix rows = from(a, group * LANES, 0);
      rows.rows -= group * LANES;
      pack(rows, lanes + group * LANES * k);
    }
    for (int64_t block = begin; block < end; ++block)
      for (int64_t group = 0; group < groups; group += 2) {
        const int64_t i = group * LANES, j = block * ROWS;
        const Panels s{b.at + j * b.column_stride, lanes + i * k, b.column_stride, 1, LANES, LANES * k, k};
        tiles<true>(s, std::min(ROWS, c.columns - j), std::min(2 * LANES, c.rows - i), from(c, i, j), from(plus, i, j));
      }
  });
}

#endif

// c = a b + plus, where there are few rows or few terms in a sum; false, with nothing done, elsewhere. A `plus` without
// an address is none.
bool skinny(const Matrix& a, const Matrix& b, const Matrix& c, const Matrix& plus) {
#ifdef VIPACK_AVX512
  if (c.column_stride != 1 || c.columns < LANES) return false;
  const bool few = std::min(c.rows, a.columns) <= MOST;
  if (few && b.column_stride == 1 && c.rows >= ROWS / 2 && (!plus.at || plus.column_stride == 1)) {
    multiply_rows(a, b, c, plus);
    return true;
  }
  if (b.row_stride == 1 && c.rows <= MOST && c.rows >= ROWS) {
    multiply_columns(a, b, c, plus);
    return true;
  }
#endif
  return false;
}

}  // namespace

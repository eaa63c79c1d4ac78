// One operation of a program, with its memory and strides resolved, and the loops that kernels share.

#pragma once

#include <torch/csrc/inductor/cpp_prefix.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <utility>
#include <vector>

// For loops whose turns do not depend on each other, which the compiler turns into loops over vectors.
#define VIPACK_SIMD _Pragma("omp simd")

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
  // In a loop over blocks of rows (see loops.h):
  int64_t dim;      // which of the sizes counts rows,
  int64_t width;    // how many entries of it a row has,
  int64_t next[4];  // and how many bytes lie from one row to the next, of the output and of each operand.
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

}  // namespace

// Rows by number: in[1] and in[2] are indices with strides extra[0], extra[1] along in[0] (gather) or out (scatter);
// extra[2], extra[3] are the sizes that negative indices count from.

#pragma once

#include "vipack/engine/interpreter/kernels/operation.h"

namespace {

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
  const int64_t last = op.ndim - 1;
  const bool whole_rows = op.si[1][last] == 0 && (!op.in[2] || op.si[2][last] == 0);
  if (whole_rows && op.so[last] == 1 && op.si[0][last] == 1) {
    rows(op, [&](int64_t o, int64_t a, int64_t b, int64_t c) {
      int64_t shift = wrapped(as<int64_t>(op.in[1])[b], op.extra[2]) * op.extra[0];
      if (op.in[2]) shift += wrapped(as<int64_t>(op.in[2])[c], op.extra[3]) * op.extra[1];
      std::memcpy(as<T>(op.out) + o, as<T>(op.in[0]) + a + shift, op.size[last] * sizeof(T));
    });
    return 0;
  }
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

}  // namespace

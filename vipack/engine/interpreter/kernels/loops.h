// Programs within programs: calls of torch's library, loops over time, and loops over blocks of rows.

#pragma once

#include "vipack/engine/interpreter/kernels/operation.h"

namespace {

int library(const Op& op) { return runtime.library(runtime.table, op.extra[0]); }

inline int run(const Op* first, const Op* end) {
  for (const Op* op = first; op < end; op += op->skip)
    if (op->function(*op)) return 1;
  return 0;
}

// Over time: extra is how many operations, how many turns, and whether the last comes first.
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

// Operations over the same rows, run for one block of rows after the other, so that what they hand on stays in the
// cache: extra is how many operations, how many rows, and how many rows a block has.
int blocks(const Op& op) {
  const int64_t count = op.extra[0], num_rows = op.extra[1], most = op.extra[2];
  for (int64_t first = 0; first < num_rows; first += most) {
    const int64_t number = std::min(most, num_rows - first);
    for (int64_t i = 1; i <= count; ++i) {
      Op block = (&op)[i];
      block.size[block.dim] = number * block.width;
      block.out += first * block.next[0];
      for (int j = 0; j < 3; ++j) block.in[j] += first * block.next[1 + j];
      if (block.function(block)) return 1;
    }
  }
  return 0;
}

}  // namespace

"""C++ that draws the numbers that torch draws, from torch's own generator."""

from __future__ import annotations

__all__ = ["FEW", "NORMALS"]

FEW = 16  # from so many on torch draws them in blocks

NORMALS = r"""
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <mutex>
#include <optional>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/DistributionsHelper.h>

namespace {

// Uniform numbers as normals, in the pairing of at::native's normal_fill: in each 16, the first 8 with the last 8.
template <typename T>
void box_muller(T* data, int64_t blocks) {
  using Vec = at::vec::Vectorized<T>;
  constexpr int64_t together = Vec::size() > 8 ? Vec::size() / 8 : 1;
  T u1[8 * together], u2[8 * together];
  for (int64_t first = 0; first < blocks; first += together) {
    const int64_t here = std::min(together, blocks - first);
    for (int64_t i = 0; i < 8 * together; ++i) u1[i] = T(0.5), u2[i] = T(0);
    for (int64_t i = 0; i < 8 * here; ++i) {
      u1[i] = T(1) - data[(first + i / 8) * 16 + i % 8];
      u2[i] = data[(first + i / 8) * 16 + 8 + i % 8];
    }
    for (int64_t i = 0; i < 8 * together; i += Vec::size()) {
      const Vec radius = (Vec(T(-2)) * Vec::loadu(u1 + i).log()).sqrt();
      const Vec theta = Vec(T(2 * 3.14159265358979323846)) * Vec::loadu(u2 + i);
      (radius * theta.cos()).store(u1 + i);
      (radius * theta.sin()).store(u2 + i);
    }
    for (int64_t i = 0; i < 8 * here; ++i) {
      data[(first + i / 8) * 16 + i % 8] = u1[i];
      data[(first + i / 8) * 16 + 8 + i % 8] = u2[i];
    }
  }
}

// The next N numbers that at::normal_distribution<double> gives one by one, of which each pair is a sine and a cosine; the
// second of a pair that is not asked for waits in the generator.
template <int N>
void few(double* drawn, at::CPUGeneratorImpl* generator) {
  using Vec = at::vec::Vectorized<double>;
  constexpr int room = ((N + 1) / 2 + Vec::size() - 1) / Vec::size() * Vec::size();
  int done = 0;
  if (const auto waiting = generator->next_double_normal_sample()) {
    drawn[done++] = *waiting;
    generator->set_next_double_normal_sample(std::nullopt);
  }
  const int pairs = (N - done + 1) / 2;
  double u1[room] = {}, u2[room] = {};
  at::uniform_real_distribution<double> uniform(0, 1);
  for (int i = 0; i < pairs; ++i) {
    u1[i] = uniform(generator);
    u2[i] = uniform(generator);
  }
  for (int i = 0; i < pairs; i += Vec::size()) {
    const Vec radius = (Vec(-2) * (Vec(0) - Vec::loadu(u2 + i)).log1p()).sqrt();
    const Vec theta = Vec(2 * 3.14159265358979323846) * Vec::loadu(u1 + i);
    (radius * theta.cos()).store(u1 + i);
    (radius * theta.sin()).store(u2 + i);
  }
  for (int i = 0; i < pairs; ++i) {
    drawn[done++] = u1[i];
    if (done < N) {
      drawn[done++] = u2[i];
    } else {
      generator->set_next_double_normal_sample(u2[i]);
    }
  }
}

template <typename T>
void put(const double* drawn, T* data, int64_t size) {
  for (int64_t i = 0; i < size; ++i) data[i] = static_cast<T>(drawn[i]);
}

// What torch.empty(size).normal_() gives, from the same generator.
template <typename T>
void normals(T* data, int64_t size, at::CPUGeneratorImpl* generator) {
  if (size < 16) {
    at::normal_distribution<double> normal(0.0, 1.0);
    for (int64_t i = 0; i < size; ++i) data[i] = static_cast<T>(normal(generator));
    return;
  }
  at::uniform_real_distribution<T> uniform(0, 1);
  for (int64_t i = 0; i < size; ++i) data[i] = uniform(generator);
  box_muller(data, size / 16);
  if (size % 16 != 0) {
    data += size - 16;
    for (int64_t i = 0; i < 16; ++i) data[i] = uniform(generator);
    box_muller(data, 1);
  }
}

}  // namespace
"""

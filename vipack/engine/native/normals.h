// The numbers that torch draws, from torch's own generator.
// Nothing here is seen from outside: several versions may be loaded into one process.

#pragma once

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/DistributionsHelper.h>
#include <ATen/cpu/vec/vec.h>
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <mutex>
#include <optional>

namespace {

// Words of torch's generator, one call each.
struct Called {
  at::CPUGeneratorImpl* const generator;
  void fill(uint32_t* words, int64_t count) {
    for (int64_t i = 0; i < count; ++i) words[i] = generator->random();
  }
};

// Sixteen numbers at once: loops are compiled without the compiler's own vectorizing, as Inductor has it.
constexpr int64_t LANES = 16;
typedef uint32_t Words __attribute__((vector_size(4 * LANES)));
typedef int32_t Signed __attribute__((vector_size(4 * LANES)));
typedef float Floats __attribute__((vector_size(4 * LANES)));

template <typename Lanes>
Lanes lanes_at(const void* from) {
  Lanes lanes;
  std::memcpy(&lanes, from, sizeof(Lanes));
  return lanes;
}

// The same words from a copy of its state, many at a time; the generator stands after them once this goes. Nobody else
// may draw meanwhile.
class Copied {
 public:
  explicit Copied(at::CPUGeneratorImpl* from) : generator(from), lock(from->mutex_), state(from->engine().data()) {}
  ~Copied() {
    at::mt19937 engine = generator->engine();  // a new one would be seeded first
    engine.set_data(state);
    generator->set_engine(engine);
  }
  void fill(uint32_t* words, int64_t count) {
    while (count > 0) {
      if (state.left_ == 1) refresh();
      const int64_t here = std::min<int64_t>(count, state.left_ - 1);
      const uint32_t* const next = state.state_.data() + state.next_;
      int64_t i = 0;
      for (; i + LANES <= here; i += LANES) {
        const Words mixed = tempered(lanes_at<Words>(next + i));
        std::memcpy(words + i, &mixed, sizeof(mixed));
      }
      for (; i < here; ++i) words[i] = tempered(next[i]);
      state.next_ += here, state.left_ -= here, words += here, count -= here;
    }
  }
  at::CPUGeneratorImpl* const generator;

 private:
  template <typename W>
  static W tempered(W y) {
    y ^= y >> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    return y ^ (y >> 18);
  }
  template <typename W>
  static W twisted(W here, W next, W far) {
    return far ^ (((here & 0x80000000) | (next & 0x7fffffff)) >> 1) ^ (-(next & 1) & 0x9908b0df);
  }
  void twist(int first, int last, int distance) {
    uint32_t* const s = state.state_.data();
    int i = first;
    for (; i + LANES <= last; i += LANES) {
      const Words made = twisted(lanes_at<Words>(s + i), lanes_at<Words>(s + i + 1), lanes_at<Words>(s + i + distance));
      std::memcpy(s + i, &made, sizeof(made));
    }
    for (; i < last; ++i) s[i] = twisted(s[i], s[i + 1], s[i + distance]);
  }
  void refresh() {
    uint32_t* const s = state.state_.data();
    constexpr int N = at::MERSENNE_STATE_N, M = at::MERSENNE_STATE_M;
    twist(0, N - M, M);
    twist(N - M, N - 1, M - N);
    s[N - 1] = twisted(s[N - 1], s[0], s[M - 1]);
    state.next_ = 0, state.left_ = N + 1;
  }
  std::lock_guard<std::mutex> lock;
  at::mt19937_data_pod state;
};

// As at::uniform_real_distribution between 0 and 1: of 24 bits of a word, or 53 of two.
void as_uniform(const uint32_t* words, int64_t count, float* data) {
  int64_t i = 0;
  for (; i + LANES <= count; i += LANES) {
    const Signed bits = lanes_at<Signed>(words + i) & ((1 << 24) - 1);
    const Floats made = __builtin_convertvector(bits, Floats) * (1.0f / (1 << 24));
    std::memcpy(data + i, &made, sizeof(made));
  }
  for (; i < count; ++i) data[i] = static_cast<float>(words[i] & ((1 << 24) - 1)) * (1.0f / (1 << 24));
}
void as_uniform(const uint32_t* words, int64_t count, double* data) {
  for (int64_t i = 0; i < count; ++i) {
    const uint64_t both = (static_cast<uint64_t>(words[2 * i]) << 32) | words[2 * i + 1];
    data[i] = static_cast<double>(both & ((1ull << 53) - 1)) * (1.0 / (1ull << 53));
  }
}

template <typename T, typename Source>
void uniforms(T* data, int64_t size, Source& source) {
  constexpr int64_t each = sizeof(T) / sizeof(uint32_t), most = 256;
  uint32_t words[most * each];
  for (int64_t first = 0; first < size; first += most) {
    const int64_t here = std::min(most, size - first);
    source.fill(words, here * each);
    as_uniform(words, here, data + first);
  }
}

// Uniform numbers as normals, in the pairing of at::native's normal_fill: in each 16, the first 8 with the last 8.
template <typename T>
void box_muller(T* data, int64_t blocks) {
  using Vec = at::vec::Vectorized<T>;
  constexpr int64_t together = Vec::size() > 8 ? Vec::size() / 8 : 1;
  T u1[8 * together], u2[8 * together];
  for (int64_t i = 0; i < 8 * together; ++i) u1[i] = T(0.5), u2[i] = T(0);
  for (int64_t first = 0; first < blocks; first += together) {
    const int64_t here = std::min(together, blocks - first);
    for (int64_t b = 0; b < here; ++b) {
      std::memcpy(u1 + 8 * b, data + (first + b) * 16, sizeof(T) * 8);
      std::memcpy(u2 + 8 * b, data + (first + b) * 16 + 8, sizeof(T) * 8);
    }
    for (int64_t i = 0; i < 8 * together; i += Vec::size()) {
      const Vec radius = (Vec(T(-2)) * (Vec(T(1)) - Vec::loadu(u1 + i)).log()).sqrt();
      const Vec theta = Vec(T(2 * 3.14159265358979323846)) * Vec::loadu(u2 + i);
      (radius * theta.cos()).store(u1 + i);
      (radius * theta.sin()).store(u2 + i);
    }
    for (int64_t b = 0; b < here; ++b) {
      std::memcpy(data + (first + b) * 16, u1 + 8 * b, sizeof(T) * 8);
      std::memcpy(data + (first + b) * 16 + 8, u2 + 8 * b, sizeof(T) * 8);
    }
  }
}

// The next `count` numbers, at most N, that at::normal_distribution<double> gives one by one, of which each pair is a
// sine and a cosine; the second of a pair that is not asked for waits in the generator.
template <int N, typename Source>
void few(double* drawn, Source& source, int count = N) {
  at::CPUGeneratorImpl* const generator = source.generator;
  using Vec = at::vec::Vectorized<double>;
  constexpr int room = ((N + 1) / 2 + Vec::size() - 1) / Vec::size() * Vec::size();
  int done = 0;
  if (const auto waiting = generator->next_double_normal_sample()) {
    drawn[done++] = *waiting;
    generator->set_next_double_normal_sample(std::nullopt);
  }
  const int pairs = (count - done + 1) / 2;
  double u1[room] = {}, u2[room] = {};
  uint32_t words[4 * room];
  source.fill(words, 4 * pairs);
  double both[2 * room];
  as_uniform(words, 2 * pairs, both);
  for (int i = 0; i < pairs; ++i) u1[i] = both[2 * i], u2[i] = both[2 * i + 1];
  for (int i = 0; i < pairs; i += Vec::size()) {
    const Vec radius = (Vec(-2) * (Vec(0) - Vec::loadu(u2 + i)).log1p()).sqrt();
    const Vec theta = Vec(2 * 3.14159265358979323846) * Vec::loadu(u1 + i);
    (radius * theta.cos()).store(u1 + i);
    (radius * theta.sin()).store(u2 + i);
  }
  for (int i = 0; i < pairs; ++i) {
    drawn[done++] = u1[i];
    if (done < count) {
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
template <typename T, typename Source>
void normals(T* data, int64_t size, Source& source) {
  if (size == 0) return;  // the number that waits in the generator stays there
  if (size < 16) {
    double drawn[15];
    few<15>(drawn, source, static_cast<int>(size));
    put(drawn, data, size);
    return;
  }
  uniforms(data, size, source);
  box_muller(data, size / 16);
  if (size % 16 != 0) {
    data += size - 16;
    uniforms(data, 16, source);
    box_muller(data, 1);
  }
}

}  // namespace

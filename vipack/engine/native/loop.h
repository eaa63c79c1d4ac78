// The loop of a compiled step: normals drawn, the step taken, its losses kept.
// Nothing here is seen from outside: several versions may be loaded into one process.

#pragma once

#include <cmath>
#include <cstdint>
#include <mutex>
#include <optional>

#include "vipack/engine/native/normals.h"

namespace {

// What a step works on; the caller fills it.
struct Context {
  char* arena;
  void** in;
  void** results;
  int (*library)(void*, int64_t);
  void* table;
};

// Steps, and normals in one of them, from which on to copy the generator's state pays.
constexpr int64_t LONG = 8, MANY = 256;

// Calls draw(source) for a step that takes so many normals. `Alone`: nothing else draws in a step, so that the copy may
// live for all of them.
template <int64_t Normals, bool Alone, typename Draw>
class Draws {
 public:
  Draws(int64_t num_steps, const Draw& draw)
      : draw(draw), generator(at::check_generator<at::CPUGeneratorImpl>(at::detail::getDefaultCPUGenerator())) {
    if (Alone && num_steps >= LONG) copied.emplace(generator);
  }
  void operator()() {
    if (copied) {
      draw(*copied);
    } else if constexpr (Normals >= MANY) {
      draw(Copied(generator));
    } else {
      const std::lock_guard<std::mutex> lock(generator->mutex_);
      draw(Called{generator});
    }
  }

 private:
  const Draw& draw;
  at::CPUGeneratorImpl* const generator;
  std::optional<Copied> copied;
};

template <int64_t Normals, bool Alone, typename Draw>
Draws<Normals, Alone, Draw> drawn_by(int64_t num_steps, const Draw& draw) {
  return {num_steps, draw};
}

// Takes up to `n` steps of `Fits` fits side by side, whose losses are kept step by step. step(k) says whether it went
// well, and loss() where the losses lie then. Returns the steps taken, of which the last has a loss that is not finite
// if they are fewer than n; or minus the number of the step that failed. One fit of several that has diverged does not
// stop the others.
template <int64_t Fits, bool Several, typename Draw, typename Step, typename Loss>
int64_t take_steps(int64_t n, double* losses, Draw&& draw, const Step& step, const Loss& loss) {
  for (int64_t k = 0; k < n; ++k) {
    draw();
    if (!step(k)) return -(k + 1);
    const auto* const found = loss();
    for (int64_t r = 0; r < Fits; ++r) losses[k * Fits + r] = static_cast<double>(found[r]);
    if (!Several && !std::isfinite(losses[k])) return k + 1;
  }
  return n;
}

}  // namespace

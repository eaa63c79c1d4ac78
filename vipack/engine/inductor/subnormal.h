// Subnormal numbers taken as zero.
// Nothing here is seen from outside: several versions may be loaded into one process.

#pragma once

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace {

// While one lives, the thread takes subnormal numbers as zero.
class Flush {
#if defined(__x86_64__)
  const unsigned before = _mm_getcsr();

 public:
  Flush() { _mm_setcsr(before | 0x8040); }
  ~Flush() { _mm_setcsr(before); }
#else
 public:
  ~Flush() {}
#endif
};

}  // namespace

// Matrix products where MKL does not use the processor: our own where few rows meet many, else oneDNN's.
// MKL keeps its AVX-512 kernels for Intel's processors: on others a product in float32 takes twice as long as oneDNN's.
// The choice depends on the processor and on the sizes alone, never on a clock, so that runs repeat bit for bit.
//
// Nothing here is seen from outside: several versions may be loaded into one process.

#pragma once

#include "vipack/engine/native/small_gemm.h"

#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/mm.h>

#include <string>
#include <vector>

#if defined(__GNUC__) || defined(__clang__)
namespace at::native {  // null where this torch does not export it
__attribute__((weak)) void mkldnn_matmul(const Tensor& a, const Tensor& b, const Tensor& out, float beta, float alpha);
}
#endif

namespace {

// Multiplications from which on they pay: a call of oneDNN costs ten microseconds, one of torch's operator one.
constexpr int64_t MANY = 1 << 20, SOME = 1 << 13;

bool held_back() {  // MKL on this processor
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
  return !__builtin_cpu_is("intel") && __builtin_cpu_supports("avx512f") && &at::native::mkldnn_matmul != nullptr;
#else
  return false;
#endif
}

Matrix plain(const at::Tensor& t) {
  return {static_cast<float*>(t.data_ptr()), t.size(-2), t.size(-1), t.stride(-2), t.stride(-1)};
}

void multiply(const at::Tensor& a, const at::Tensor& b, const at::Tensor& out, float beta) {
#if defined(__GNUC__) || defined(__clang__)
  at::native::mkldnn_matmul(a, b, out, beta, 1.f);
#endif
}

bool matrices(const at::Tensor& t) {
  if (!t.defined() || t.scalar_type() != at::kFloat || !t.is_cpu() || (t.dim() != 2 && t.dim() != 3)) return false;
  const int64_t down = t.stride(-2), across = t.stride(-1);
  return (across == 1 && down >= t.size(-1)) || (down == 1 && across >= t.size(-2));  // no element stands twice
}

bool is_one(const c10::IValue& v) { return v.isNone() || (v.isScalar() && v.toScalar().toDouble() == 1.0); }

// Computes a product into `out`; false, with nothing done, where torch's own operator shall.
// `arguments`: of aten::mm, bmm or addmm, without the output.
bool product_into(const std::string& name, const std::vector<c10::IValue>& arguments, const at::Tensor& out) {
  const bool added = name == "aten::addmm";
  if (!added && name != "aten::mm" && name != "aten::bmm") return false;
  static const bool wanted = held_back();
  if (!wanted || !arguments[added].isTensor() || !arguments[added + 1].isTensor()) return false;
  const at::Tensor &a = arguments[added].toTensor(), &b = arguments[added + 1].toTensor();
  if (!matrices(a) || !matrices(b) || !matrices(out) || !out.is_contiguous()) return false;
  const int64_t multiplications = a.numel() * b.size(-1);
  if (multiplications < SOME || (added && (!is_one(arguments[3]) || !is_one(arguments[4])))) return false;
  if (a.dim() == 2) {
    const at::Tensor plus = added ? arguments[0].toTensor().expand_as(out) : at::Tensor();
    if (skinny(plain(a), plain(b), plain(out), added ? plain(plus) : Matrix{})) return true;
  }
  if (multiplications < MANY) return false;
  if (added) {
    const_cast<at::Tensor&>(out).copy_(arguments[0].toTensor().expand_as(out));
  }
  multiply(a, b, out, added ? 1.f : 0.f);
  return true;
}

}  // namespace

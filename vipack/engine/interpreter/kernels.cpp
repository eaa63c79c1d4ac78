// An interpreter of small tensor operations: a program is an array of Op, each with its memory and strides resolved,
// run from top to bottom, thousands of times in one call. An operation on a few numbers costs about ten nanoseconds.

#include "vipack/engine/interpreter/kernels/elementwise.h"
#include "vipack/engine/interpreter/kernels/indices.h"
#include "vipack/engine/interpreter/kernels/loops.h"
#include "vipack/engine/interpreter/kernels/matrices.h"
#include "vipack/engine/interpreter/kernels/operation.h"
#include "vipack/engine/interpreter/kernels/reductions.h"
#include "vipack/engine/native/normals.h"

namespace {

using Function = int (*)(const Op&);
using Entry = std::pair<std::string, Function>;

#define UNARY(NAME, F) {NAME "_" + t, unary<T, T, F<T>>},
#define PREDICATE(NAME, F) {NAME "_" + t, unary<bool, T, F<T>>},
#define BINARY(NAME, F) {NAME "_" + t, binary<T, T, F<T>>},
#define COMPARISON(NAME, F) {NAME "_" + t, binary<bool, T, F<T>>},
#define TERNARY(NAME, F) {NAME "_" + t, ternary<T, F<T>>},
#define OTHER(NAME, ...) {NAME "_" + t, __VA_ARGS__},
#define CAST(NAME, R) {"copy_" + t + "_" NAME, unary<R, T, Cast<R, T>>},

void append(std::vector<Entry>& all, std::initializer_list<Entry> more) { all.insert(all.end(), more); }

template <typename T>
void floating(std::vector<Entry>& all, const std::string& t) {
  // clang-format off
  append(all, {
    UNARY("neg", Neg) UNARY("exp", Exp) UNARY("log", Log) UNARY("log1p", Log1p)
    UNARY("expm1", Expm1) UNARY("sqrt", Sqrt) UNARY("rsqrt", Rsqrt) UNARY("reciprocal", Reciprocal)
    UNARY("tanh", Tanh) UNARY("sigmoid", Sigmoid) UNARY("sin", Sin) UNARY("cos", Cos)
    UNARY("erf", Erf) UNARY("erfc", Erfc) UNARY("lgamma", Lgamma) UNARY("digamma", Digamma)
    UNARY("abs", Abs) UNARY("sign", Sign) UNARY("tan", Tan) UNARY("atan", Atan)
    UNARY("asin", Asin) UNARY("acos", Acos) UNARY("sinh", Sinh) UNARY("cosh", Cosh)
    UNARY("log2", Log2) UNARY("log10", Log10) UNARY("exp2", Exp2) UNARY("floor", Floor)
    UNARY("ceil", Ceil) UNARY("trunc", Trunc) UNARY("round", Round) UNARY("silu", Silu)
    UNARY("softplus", Softplus) UNARY("clamp_min", ClampMin) UNARY("clamp_max", ClampMax) UNARY("clamp", Clamp)
    UNARY("leaky_relu", LeakyRelu) UNARY("log_sigmoid", LogSigmoid)
    PREDICATE("isnan", IsNan) PREDICATE("isinf", IsInf)
    BINARY("div", Div) BINARY("pow", Pow) BINARY("atan2", Atan2)
    BINARY("xlogy", Xlogy) BINARY("threshold_backward", ThresholdBackward) BINARY("tanh_backward", TanhBackward)
    BINARY("sigmoid_backward", SigmoidBackward) BINARY("softplus_backward", SoftplusBackward)
    BINARY("leaky_relu_backward", LeakyReluBackward)
    BINARY("log_sigmoid_backward", LogSigmoidBackward) BINARY("cross_entropy", CrossEntropy)
    TERNARY("addcmul", Addcmul) TERNARY("addcdiv", Addcdiv) TERNARY("lerp", Lerp)
    OTHER("sum", sum<T>) OTHER("prod", prod<T>) OTHER("logsumexp", logsumexp<T>)
    OTHER("log_softmax", log_softmax<T>) OTHER("softmax", softmax<T>) OTHER("matmul", matmul<T>)
    OTHER("solve_triangular", solve_triangular<T>) OTHER("cholesky", cholesky<T>) OTHER("triangle", triangle<T>)
    OTHER("softmax_backward", softmax_backward<T, false>) OTHER("log_softmax_backward", softmax_backward<T, true>)
  });
  // clang-format on
}

template <typename T>
void arithmetic(std::vector<Entry>& all, const std::string& t) {
  // clang-format off
  append(all, {
    BINARY("add", Add) BINARY("plus", Plus) BINARY("sub", Sub) BINARY("rsub", Rsub)
    BINARY("mul", Mul) BINARY("maximum", Maximum) BINARY("minimum", Minimum)
    OTHER("scatter_add", scatter_add<T>) OTHER("cumsum", cumsum<T>) OTHER("cumprod", cumprod<T>)
    OTHER("amax", amax<T>) OTHER("amin", amin<T>) OTHER("argmax", argmax<T>)
    UNARY("relu", Relu)
  });
  // clang-format on
}

template <typename T>
void any_type(std::vector<Entry>& all, const std::string& t) {
  // clang-format off
  append(all, {
    COMPARISON("eq", Eq) COMPARISON("ne", Ne) COMPARISON("lt", Lt) COMPARISON("le", Le) COMPARISON("gt", Gt)
    COMPARISON("ge", Ge) COMPARISON("and", And) COMPARISON("or", Or) COMPARISON("xor", Xor)
    PREDICATE("logical_not", LogicalNot)
    TERNARY("where", Where)
    OTHER("gather", gather<T>) OTHER("scatter", scatter<T>)
    CAST("f32", float) CAST("f64", double) CAST("i64", int64_t) CAST("i32", int32_t) CAST("bool", bool)
  });
  // clang-format on
}

const std::vector<Entry>& kernels() {
  static const std::vector<Entry> table = [] {
    std::vector<Entry> all;
    floating<float>(all, "f32");
    floating<double>(all, "f64");
    arithmetic<float>(all, "f32");
    arithmetic<double>(all, "f64");
    arithmetic<int64_t>(all, "i64");
    any_type<float>(all, "f32");
    any_type<double>(all, "f64");
    any_type<int64_t>(all, "i64");
    any_type<int32_t>(all, "i32");
    any_type<bool>(all, "bool");
    all.emplace_back("sum_bool", sum_of_integers<bool>);
    all.emplace_back("sum_i64", sum_of_integers<int64_t>);
    all.emplace_back("all_bool", all_of);
    all.emplace_back("any_bool", any_of);
    all.emplace_back("library", library);
    all.emplace_back("repeat", repeat);
    all.emplace_back("blocks", blocks);
    all.emplace_back("load", load);
    all.emplace_back("store", store);
    return all;
  }();
  return table;
}

struct Setting {
  int64_t num_ops, num_normals, num_feeds, num_losses, loss_double, stop_at_nan;
  Op* ops;
  char** normals;                // where they go,
  const int64_t* normal_sizes;   // how many,
  const int64_t* normal_double;  // and of which type
  char** fed;
  const int64_t* fed_bytes;
  const char* loss;
  Runtime runtime;
};

}  // namespace

extern "C" {

// Names of the kernels, a line each; a kernel's code is its number.
const char* vipack_kernels() {
  static const std::string names = [] {
    std::string joined;
    for (const auto& entry : kernels()) joined += entry.first + "\n";
    return joined;
  }();
  return names.c_str();
}

int64_t vipack_op_bytes() { return sizeof(Op); }

void vipack_resolve(Setting* s) {
  for (int64_t i = 0; i < s->num_ops; ++i) s->ops[i].function = kernels()[s->ops[i].code].second;
}

// Takes up to `n` steps. Returns the steps taken, of which the last has a loss that is not finite if they are fewer
// than n; or minus the number of the step in which a library call failed.
int64_t vipack_interpret(const Setting* s, int64_t n, const char* const* feeds, double* losses) {
  runtime = s->runtime;
  auto* const generator = at::check_generator<at::CPUGeneratorImpl>(at::detail::getDefaultCPUGenerator());
  for (int64_t k = 0; k < n; ++k) {
    for (int64_t i = 0; i < s->num_feeds; ++i) std::memcpy(s->fed[i], feeds[i] + k * s->fed_bytes[i], s->fed_bytes[i]);
    if (s->num_normals) {
      std::lock_guard<std::mutex> lock(generator->mutex_);
      Called source{generator};
      for (int64_t i = 0; i < s->num_normals; ++i) {
        if (s->normal_double[i])
          normals(as<double>(s->normals[i]), s->normal_sizes[i], source);
        else
          normals(as<float>(s->normals[i]), s->normal_sizes[i], source);
      }
    }
    if (run(s->ops, s->ops + s->num_ops)) return -(k + 1);
    bool finite = true;
    for (int64_t r = 0; r < s->num_losses; ++r) {
      const double loss =
          s->loss_double ? reinterpret_cast<const double*>(s->loss)[r] : reinterpret_cast<const float*>(s->loss)[r];
      losses[k * s->num_losses + r] = loss;
      finite = finite && std::isfinite(loss);
    }
    if (!finite && s->stop_at_nan) return k + 1;
  }
  return n;
}

}  // extern "C"

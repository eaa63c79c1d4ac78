// The bridge from a C++ loop to torch's operators: one small library, the same for every model.
// A loop calls matrix products, Cholesky factors and the like through torch's dispatcher, by name. The bridge prepares each
// call once (operator looked up, constant arguments boxed, tensors over fixed memory made) and then runs it by number.

#include "vipack/engine/native/products.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>
#include <ATen/ops/as_strided.h>
#include <ATen/ops/empty_strided.h>
#include <ATen/ops/from_blob.h>
#include <c10/core/InferenceMode.h>

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace {

struct Layout {
  int64_t call, item;
  std::vector<int64_t> size, stride;
};

struct Operand {  // a tensor over what another call returned: made anew at every step
  int64_t call, item, offset;
  bool whole;
  std::vector<int64_t> size, stride;
  size_t position;
  int64_t element;  // of a list, or -1
};

struct Call {
  c10::OperatorHandle op;
  std::vector<c10::IValue> arguments;
  std::vector<Operand> operands;
  std::vector<at::Tensor> results;
  std::vector<std::pair<size_t, at::Tensor>> targets;

  const std::string& name() const { return op.schema().name(); }
};

struct Table {
  std::vector<std::unique_ptr<Call>> calls;
  std::map<int64_t, size_t> by_number;
  std::vector<Layout> layouts;
  std::vector<std::pair<std::pair<int64_t, int64_t>, void**>> wanted;
  std::string error;
  // the argument being described
  std::vector<c10::IValue> list;
  bool in_list = false;
  size_t position = 0;
};

at::Tensor over(void* address, int dtype, int64_t dim, const int64_t* size, const int64_t* stride) {
  return at::from_blob(address, {size, static_cast<size_t>(dim)}, {stride, static_cast<size_t>(dim)},
                       at::TensorOptions().dtype(static_cast<c10::ScalarType>(dtype)));
}

// A value as the operator's signature wants it: an integer may stand for a float or a Scalar, a list for a typed list.
c10::IValue fitted(const c10::TypePtr& wanted, c10::IValue value) {
  if (value.isNone()) return value;
  auto type = wanted;
  if (auto optional = type->cast<c10::OptionalType>()) type = optional->getElementType();
  if (type->kind() == c10::TypeKind::FloatType && value.isInt()) return static_cast<double>(value.toInt());
  if (type->kind() == c10::TypeKind::BoolType && value.isInt()) return value.toInt() != 0;
  if (auto list = type->cast<c10::ListType>(); list && value.isList()) {
    auto element = list->getElementType();
    c10::impl::GenericList typed(element);
    for (const c10::IValue& item : value.toListRef()) typed.push_back(fitted(element, item));
    return typed;
  }
  return value;
}

void put(Table* t, c10::IValue value) {
  if (t->in_list)
    t->list.push_back(std::move(value));
  else
    t->calls.back()->arguments[t->position] =
        fitted(t->calls.back()->op.schema().arguments()[t->position].type(), std::move(value));
}

template <typename F>
int guarded(Table* t, F&& action) {
  try {
    action();
    return 0;
  } catch (const std::exception& e) {
    t->error = e.what();
    return 1;
  }
}

}  // namespace

extern "C" {

Table* vipack_table() { return new Table; }
void vipack_table_free(Table* t) { delete t; }
const char* vipack_table_error(Table* t) { return t->error.c_str(); }

int vipack_call(Table* t, int64_t number, const char* name, const char* overload) {
  return guarded(t, [&] {
    auto op = c10::Dispatcher::singleton().findSchemaOrThrow(name, overload);
    auto call = std::make_unique<Call>(Call{op, {}, {}, {}, {}});
    for (const auto& argument : op.schema().arguments())
      call->arguments.push_back(argument.default_value() ? *argument.default_value() : c10::IValue());
    t->by_number[number] = t->calls.size();
    t->calls.push_back(std::move(call));
  });
}

// Which argument the next value is for: by position (name empty) or by name.
int vipack_argument(Table* t, int64_t position, const char* name) {
  return guarded(t, [&] {
    t->position = static_cast<size_t>(position);
    if (*name) {
      auto index = t->calls.back()->op.schema().argumentIndexWithName(name);
      TORCH_CHECK(index, "no argument ", name);
      t->position = static_cast<size_t>(*index);
    }
    TORCH_CHECK(t->position < t->calls.back()->arguments.size(), "too many arguments");
  });
}

int vipack_list_begin(Table* t) {
  t->in_list = true;
  t->list.clear();
  return 0;
}
int vipack_list_end(Table* t) {
  return guarded(t, [&] {
    t->in_list = false;
    c10::impl::GenericList any(c10::AnyType::get());
    for (auto& item : t->list) any.push_back(item);
    put(t, any);
  });
}

int vipack_int(Table* t, int64_t v) {
  return guarded(t, [&] { put(t, v); });
}
int vipack_double(Table* t, double v) {
  return guarded(t, [&] { put(t, v); });
}
int vipack_bool(Table* t, int v) {
  return guarded(t, [&] { put(t, v != 0); });
}
int vipack_none(Table* t) {
  return guarded(t, [&] { put(t, c10::IValue()); });
}
int vipack_string(Table* t, const char* v) {
  return guarded(t, [&] { put(t, std::string(v)); });
}
int vipack_cpu(Table* t) {
  return guarded(t, [&] { put(t, c10::Device(c10::DeviceType::CPU)); });
}

int vipack_fixed(Table* t, void* address, int dtype, int64_t dim, const int64_t* size, const int64_t* stride) {
  return guarded(t, [&] { put(t, over(address, dtype, dim, size, stride)); });
}

int vipack_returned(Table* t, int64_t call, int64_t item, int whole, int64_t offset, int64_t dim, const int64_t* size,
                    const int64_t* stride) {
  return guarded(t, [&] {
    Operand operand{call,
                    item,
                    offset,
                    whole != 0,
                    {size, size + dim},
                    {stride, stride + dim},
                    t->position,
                    t->in_list ? static_cast<int64_t>(t->list.size()) : -1};
    TORCH_CHECK(operand.element < 0, "a list of results");
    put(t, c10::IValue());
    t->calls.back()->operands.push_back(std::move(operand));
  });
}

void vipack_layout(Table* t, int64_t call, int64_t item, int64_t dim, const int64_t* size, const int64_t* stride) {
  t->layouts.push_back({call, item, {size, size + dim}, {stride, stride + dim}});
}

// Memory that one of the results of a call is copied to, for callers of vipack_run_into.
int vipack_into(Table* t, int64_t item, void* address, int dtype, int64_t dim, const int64_t* size,
                const int64_t* stride) {
  return guarded(t, [&] { t->calls.back()->targets.emplace_back(item, over(address, dtype, dim, size, stride)); });
}

void vipack_wanted(Table* t, int64_t call, int64_t item, void** slot) { t->wanted.push_back({{call, item}, slot}); }

int vipack_run_call(void* table, int64_t index) {
  auto* t = static_cast<Table*>(table);
  return guarded(t, [&] {
    c10::InferenceMode no_autograd;
    auto& call = *t->calls[index];
    torch::jit::Stack stack(call.arguments);
    for (const auto& o : call.operands) {
      const at::Tensor& from = t->calls[t->by_number.at(o.call)]->results.at(o.item);
      stack[o.position] = o.whole ? from : at::as_strided(from, o.size, o.stride, from.storage_offset() + o.offset);
    }
    call.results.clear();
    if (call.op.schema().overload_name() == "out" && product_into(call.name(), stack, stack.back().toTensor())) return;
    call.op.callBoxed(stack);
    for (auto& value : stack) {
      if (value.isTensor())
        call.results.push_back(value.toTensor());
      else if (value.isNone())
        call.results.emplace_back();
      else if (value.isTensorList())
        for (const at::Tensor& item : value.toTensorVector()) call.results.push_back(item);
    }
    int64_t number = -1;
    for (const auto& entry : t->by_number)
      if (entry.second == static_cast<size_t>(index)) number = entry.first;
    for (const auto& layout : t->layouts) {
      if (layout.call != number) continue;
      auto& result = call.results.at(layout.item);
      if (result.sizes() == at::IntArrayRef(layout.size) && result.strides() == at::IntArrayRef(layout.stride))
        continue;
      auto moved = at::empty_strided(layout.size, layout.stride, result.options());
      moved.copy_(result);
      result = moved;
    }
    for (const auto& want : t->wanted)
      if (want.first.first == number) *want.second = call.results.at(want.first.second).data_ptr();
  });
}

// Runs a call all of whose tensors lie in fixed memory.
int vipack_run_into(void* table, int64_t index) {
  auto* t = static_cast<Table*>(table);
  return guarded(t, [&] {
    c10::InferenceMode no_autograd;
    auto& call = *t->calls[index];
    torch::jit::Stack stack(call.arguments);
    if (call.targets.size() == 1 && product_into(call.name(), stack, call.targets[0].second)) return;
    call.op.callBoxed(stack);
    std::vector<at::Tensor> results;
    for (auto& value : stack) {
      if (value.isTensor())
        results.push_back(value.toTensor());
      else if (value.isNone())
        results.emplace_back();
      else if (value.isTensorList())
        for (const at::Tensor& item : value.toTensorVector()) results.push_back(item);
    }
    for (auto& target : call.targets) {
      auto& result = results.at(target.first);
      if (result.defined())
        target.second.copy_(result);  // else a gradient that was not asked for, and that nothing reads
    }
  });
}

}  // extern "C"

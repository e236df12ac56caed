// The bias of keys: what is added to their scores, so that a key may count as several or as a part of one.
//
// It comes on top of the scaled score, but is added before the scale, divided by it: the online softmax then knows one kind
// of score.
#pragma once

#include "arguments.cuh"

// The biases of the keys of a step for one head of queries; null: there are none. Those of keys without a bit must not be
// read.
__device__ __forceinline__ const float* step_bias(const AttentionArguments& arguments, const KeyStep& step,
                                                  uint32_t batch, uint32_t head) {
    const KeyBiasView& view = step.source != 0 ? arguments.cache.bias : arguments.input.bias;
    if (view.data == nullptr) return nullptr;
    return view.data + batch * view.batch_stride + head * view.head_stride + int64_t(step.value_row);
}

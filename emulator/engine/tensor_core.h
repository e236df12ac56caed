// How tensor cores add.
#pragma once

namespace emulator {

// c + Σ a[i] b[i] over `depth` products, `block` of them at a time.
//
// A block and the sum so far are added at once: products are exact, all terms are aligned to the largest and cut off
// below the 24 bits of its f32, and so is their sum. Nothing is rounded to nearest, so that errors of long sums do not
// cancel. This is what measurements of GPUs found, none of them documented by NVIDIA: Fasi, Higham, Mikaitis, Pranesh,
// "Numerical behavior of NVIDIA tensor cores" (2021); Ootomo, Yokota, "Recovering single precision accuracy from Tensor
// Cores while surpassing the FP32 theoretical peak performance" (2022). Later GPUs keep a bit or two more while they
// align; here none is kept.
float tensor_core_add(float c, const float* a, const float* b, unsigned depth, unsigned block);

}  // namespace emulator

/* The kernel in float32_kernel.c for processors that round to bfloat16 in one instruction: it goes with that LoRA kernel. */

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#pragma GCC target("arch=x86-64-v4,avx512bf16")
#define VARIANT(name) name##_bf16
#include "float32_kernel.c"
#endif
